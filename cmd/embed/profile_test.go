package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// TestProfile checks that embed profile stores the recommended batch size in tokens for a model, a kind of device and a
// --dtype. Later runs must take this number, unless a flag gives another number or the memory is too small. A damaged
// file of results must not keep a run from working.
func TestProfile(t *testing.T) {
	t.Setenv("XDG_STATE_HOME", t.TempDir())
	before := profiling
	t.Cleanup(func() { profiling = before })
	profiling.least, profiling.most, profiling.time = 64, 256, time.Millisecond
	workspace(t)
	write(t, "a.faa", proteinFile)
	const args = " --esm-model " + tiny + " a.faa"
	f := &fakeMachine{names: []string{"GPU"}, budget: 5000, sensors: true}
	r := f.embed(t, "profile "+tiny).wantCode(0)
	found := regexp.MustCompile(`recommended: (64|128|256) tokens; runs without --esm-batch-size`).FindStringSubmatch(r.stdout)
	if found == nil || !strings.Contains(r.stdout, "1.0 GiB") || !strings.Contains(r.stdout, "50%") || strings.Count(r.stdout, "\n") < 6 {
		t.Fatalf("%s", r.stdout)
	}
	budget := func(flags, want string) {
		t.Helper()
		r := f.embed(t, "--force -o out "+flags+args).wantCode(0)
		report := string(mustReadFile(t, "out/report.json"))
		_, esm, _ := strings.Cut(report, `"model": "`+tiny)
		if !strings.Contains(esm, `"batch_tokens": `+want+",") {
			t.Errorf("%s: not %s tokens\n%s%s", flags, want, r.stderr, esm)
		}
	}
	budget("", found[1])
	budget("--esm-batch-size 77", "77")
	budget("--dtype fp32", "5000") // the budget of the fake GPU, because embed profile has stored no result for fp32
	f.budget = 50
	budget("", "50") // the default of a GPU with little free memory
	if r := f.embed(t, "devices").wantCode(0); !strings.Contains(r.stdout, "embed profile: esm2-tiny on GPU bf16, bf16: "+found[1]+" tokens") {
		t.Errorf("embed devices:\n%s", r.stdout)
	}
	f.memory = 300 // in tokens: enough for one batch of 256, not for two
	if r := f.embed(t, "profile "+tiny).wantCode(0); !strings.Contains(r.stdout, " 128 ") || strings.Contains(r.stdout, " 256 ") {
		t.Errorf("little memory:\n%s", r.stdout)
	}
	f.memory = 100
	f.embed(t, "profile "+tiny).wantCode(exitNothing).wantProblem("out of memory")
	f.memory = 0
	f.embed(t, "profile "+tiny).wantCode(0)
	if err := os.WriteFile(filepath.Join(os.Getenv("XDG_STATE_HOME"), "seqembed", "profile.json"), []byte("["), 0o666); err != nil {
		t.Fatal(err)
	}
	budget("", "50")
	f.embed(t, "profile a b").wantCode(exitUsage)
	f.embed(t, "profile nothing").wantCode(exitNothing).wantProblem(`embed: model "nothing" is no existing file`)
	t.Setenv("HF_HUB_CACHE", t.TempDir())
	t.Setenv("TORCH_HOME", t.TempDir())
	f.embed(t, "profile --offline esm2-8m").wantCode(exitNothing).wantProblem("--offline")
	r = f.embed(t, "profile "+tiny).wantCode(exitNothing)
	if r.wantProblem("profile.json", "if it is deleted"); strings.Contains(r.stdout, "64") {
		t.Errorf("it has measured although it cannot store the result:\n%s", r.stdout)
	}
	t.Setenv("XDG_STATE_HOME", "")
	t.Setenv("HOME", "")
	r = f.embed(t, "profile "+tiny).wantCode(exitNothing)
	if r.wantProblem("XDG_STATE_HOME", "--esm-batch-size"); !strings.Contains(r.stdout, "128") {
		t.Errorf("it does not say what it has measured:\n%s", r.stdout)
	}
	budget("", "50")
}
