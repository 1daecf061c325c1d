package main

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"seqembed/internal/store"
	"seqembed/pool"
)

// TestDryRun checks the report of a dry run before the run, between two files, and after the run, and that it writes
// nothing.
func TestDryRun(t *testing.T) {
	workspace(t)
	long := strings.Repeat("MKVLLYIAAS", 103) // longer than the limit of 1,022
	write(t, "a.faa", ">a text\nMKV\n>b\n"+long+"\n>c\n\n")
	write(t, "b.faa", ">d\nMKVL\n")
	write(t, "c.fna", ">e\nACGTACGTNACGTACGTACGTACGT\n")
	write(t, "bad.faa", ">f\nMK-V\n>g\nM-K\n")
	args := func(more ...string) []string {
		return append([]string{"--esm-model", tiny, "--dnabert-model", dna2, "--on-bad-record", "skip", "-o", "out"}, more...)
	}
	r := embed(t, args("--dry-run", "a.faa", "b.faa", "c.fna")...).wantCode(exitDone)
	wantLines(r,
		"DNA, synthetic:dnabert-s-2l",
		"  a.faa: 2 records, 1,029 tokens, 1 truncated, 1 skipped -> out/a.esm2-tiny.parquet, about 1 kB",
		"  b.faa: 1 records, 6 tokens, 0 truncated -> out/b.esm2-tiny.parquet, about 1 kB",
		"  to do: 2 inputs, 3 records, 1,035 tokens, about 1 kB; complete already: 0 inputs, 0 records",
		"no run in out has used this model on such a device")
	if _, err := os.Stat("out"); err == nil {
		t.Fatal("a dry run has made a folder")
	}
	embed(t, args("b.faa")...).wantCode(exitDone)
	before := files(t, "out")
	r = embed(t, args("--dry-run", "a.faa", "b.faa", "c.fna")...).wantCode(exitDone)
	wantLines(r,
		"  b.faa: 1 records, 6 tokens, 0 truncated -> out/b.esm2-tiny.parquet, about 1 kB, complete already",
		"  to do: 1 inputs, 2 records, 1,029 tokens, about 1 kB; complete already: 1 inputs, 1 records",
		"tokens/s of earlier runs in out")
	if got := files(t, "out"); strings.Join(got, " ") != strings.Join(before, " ") {
		t.Errorf("a dry run changes %q to %q", before, got)
	}
	wantLines(embed(t, args("--dry-run", "--force", "b.faa")...).wantCode(exitDone), "to do: 1 inputs")
	embed(t, args("--dry-run", "--pool", "cls", "b.faa")...).wantCode(exitNothing).wantProblem("out/b.esm2-tiny.parquet", "pool")

	r = embed(t, "--esm-model", tiny, "-o", "out2", "--dry-run", "bad.faa", "b.faa").wantCode(exitSome)
	r.wantProblem("bad.faa", "2 bad records", "--gaps remove")
	embed(t, args("--dry-run", "--preset", "virnucpro", "c.fna")...).wantCode(exitUsage).wantProblem("--preset")
	embed(t, "--esm-model", "esm2-35m", "--dry-run", "b.faa").wantCode(exitNothing).wantProblem("--dry-run")
	withStdin(t, ">s\nMKV\n")
	wantLines(embed(t, args("--dry-run", "--protein", "-")...).wantCode(exitDone), "only once -> out/stdin.esm2-tiny.parquet")
}

// wantLines fails the test unless standard output contains all texts.
func wantLines(r result, texts ...string) {
	r.Helper()
	for _, text := range texts {
		if !strings.Contains(r.stdout, text) {
			r.Errorf("standard output does not contain %q:\n%s", text, r.stdout)
		}
	}
}

// TestDryRunSize compares estimated sizes with those of the outputs.
func TestDryRunSize(t *testing.T) {
	workspace(t)
	var proteins, contigs strings.Builder
	for i := range 60 {
		fmt.Fprintf(&proteins, ">p%d\nMKVLLYIAASEF\n", i)
		fmt.Fprintf(&contigs, ">c%d\nACGTTGCATGCAACGT\n", i)
	}
	write(t, "p.faa", proteins.String())
	write(t, "c.fna", contigs.String())
	for format, inputs := range map[string][]string{"--format parquet": {"p.faa"}, "--format npy": {"p.faa"}, "--format virnucpro": {"p.faa", "c.fna"},
		"--format parquet --pool none": {"p.faa"}, "--format safetensors --layers 0,1": {"p.faa"}, "--format npy --dtype-out fp16": {"p.faa"}} {
		dir := strings.ReplaceAll(format, " ", "")
		args := slices.Concat(strings.Fields(format), []string{"--esm-model", tiny, "--dnabert-model", dna2, "-o", dir}, inputs)
		estimates := map[string]float64{}
		for line := range strings.Lines(embed(t, append(args, "--dry-run")...).wantCode(exitDone).stdout) {
			input, rest, _ := strings.Cut(strings.TrimSpace(line), ": ")
			_, size, found := strings.Cut(rest, ", about ")
			number, unit, _ := strings.Cut(size, " ")
			value, err := strconv.ParseFloat(number, 64)
			if found && err == nil {
				estimates[input] = value * map[string]float64{"kB": 1e3, "MB": 1e6}[unit]
			}
		}
		embed(t, args...).wantCode(exitDone)
		manifest, err := store.ReadManifest(dir)
		if err != nil {
			t.Fatal(err)
		}
		sizes := map[string]float64{}
		for path := range manifest.Outputs() {
			entry, file, _ := manifest.Find(path)
			sizes[entry.Input.Path] += float64(file.Size)
		}
		for input, size := range sizes {
			if ratio := estimates[input] / size; ratio < 0.75 || ratio > 1.25 {
				t.Errorf("%s, %s: estimated %v, written %v", format, input, estimates[input], size)
			}
		}
		if len(sizes) != len(inputs) {
			t.Errorf("%s: outputs of %v", format, sizes)
		}
	}
}

// TestKnownSpeed checks the speed that follows from a manifest: overlapping times count once, and outputs of other
// devices do not count.
func TestKnownSpeed(t *testing.T) {
	workspace(t)
	manifest, err := store.ReadManifest(".")
	if err != nil {
		t.Fatal(err)
	}
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for i, e := range []struct {
		from, to, tokens int
		backend, device  string
	}{
		{0, 10, 1000, "gpu", "a, b"}, {5, 20, 1000, "gpu", "b"}, {100, 110, 1000, "gpu", "a"}, {0, 1000, 7, "cpu", "c"},
	} {
		entry := store.Entry{Model: "m", Backend: e.backend, Device: e.device, Tokens: int64(e.tokens), Input: store.Source{Path: "x"},
			Outputs: []store.File{{Path: fmt.Sprint(i)}}, Started: start.Add(time.Duration(e.from) * time.Second), Finished: start.Add(time.Duration(e.to) * time.Second)}
		if err := manifest.Append(t.Context(), entry, func(store.Entry) error { return nil }); err != nil {
			t.Fatal(err)
		}
	}
	m := &model{job: &pool.Job{Output: pool.Output{Dir: ".", Template: store.Entry{Backend: "gpu"}}}}
	if speed := m.knownSpeed(); speed != 3000/30.0/2 {
		t.Errorf("the speed is %v", speed)
	}
	m.job.Output.Template.DType = "bf16"
	if speed := m.knownSpeed(); speed != 0 {
		t.Errorf("the speed in another precision is %v", speed)
	}
}
