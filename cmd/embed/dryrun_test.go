package main

import (
	"errors"
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

// TestDryRun checks the lines that --dry-run prints before the first run, and after a run over one of the inputs. A dry
// run must write no file.
func TestDryRun(t *testing.T) {
	workspace(t)
	long := strings.Repeat("MKVLLYIAAS", 103) // 1,030 letters, more than the limit of 1,022
	write(t, "a.faa", ">a text\nMKV\n>b\n"+long+"\n>c\n\n")
	write(t, "b.faa", ">d\nMKVL\n")
	write(t, "c.fna", ">e\nACGTACGTNACGTACGTACGTACGT\n")
	write(t, "bad.faa", ">f\nMK-V\n>g\nM-K\n")
	args := func(more ...string) []string {
		return append([]string{"--esm-model", tiny, "--dnabert-model", tinyDNA, "--on-bad-record", "skip", "-o", "out"}, more...)
	}
	r := embed(t, args("--dry-run", "a.faa", "b.faa", "c.fna")...).wantCode(exitDone)
	wantLines(r,
		"DNA, synthetic:dnabert-tiny",
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

// TestDryRunSize checks that the sizes that --dry-run estimates differ by at most a quarter from the sizes of the
// outputs.
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
		"--format parquet --pool none": {"p.faa"}, "--format safetensors --layers 0,1": {"p.faa"}, "--format npy --dtype-out fp16": {"p.faa"},
		"--format tsv": {"p.faa"}, "--format h5 --pool mean,max": {"p.faa"}, "--format pt": {"p.faa"}, "--format tsv --dtype-out fp16 --pool tokens": {"p.faa"}} {
		dir := strings.ReplaceAll(format, " ", "")
		args := slices.Concat(strings.Fields(format), []string{"--esm-model", tiny, "--dnabert-model", tinyDNA, "-o", dir}, inputs)
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

// TestDryRunUnwritten checks that a dry run fails if it cannot write to standard output. If all outputs are complete, a
// dry run must print no estimate of a time.
func TestDryRunUnwritten(t *testing.T) {
	workspace(t)
	write(t, "a.faa", ">a\nMKVL\n")
	var stderr strings.Builder
	if code := runOn(t.Context(), noGPU, []string{"--esm-model", tiny, "--dry-run", "a.faa"}, nil, full{}, &stderr); code == exitDone || !strings.Contains(stderr.String(), "no space") {
		t.Errorf("exit code %d, %s", code, stderr.String())
	}
	embed(t, "--esm-model", tiny, "-o", "out", "a.faa").wantCode(exitDone)
	if r := embed(t, "--esm-model", tiny, "-o", "out", "--dry-run", "a.faa").wantCode(exitDone); strings.Contains(r.stdout, "tokens/s") {
		t.Errorf("a time for no tokens:\n%s", r.stdout)
	}
}

// full is a writer that fails as on a full disk.
type full struct{}

func (full) Write([]byte) (int, error) { return 0, errors.New("no space") }

// TestRounded checks that times are rounded to milliseconds below one second, to tenths of a second below ten seconds,
// and to seconds above.
func TestRounded(t *testing.T) {
	for nanoseconds, want := range map[time.Duration]string{1_234_567: "1ms", 4_257_694_530: "4.3s", 83_499_999_999: "1m23s", 0: "0s"} {
		if got := rounded(nanoseconds).String(); got != want {
			t.Errorf("%d: %s, want %s", nanoseconds, got, want)
		}
	}
}

// TestKnownSpeed checks the speed of one device, in tokens per second, that knownSpeed computes from the times in a
// manifest. Time in which two outputs were made counts once. Outputs of another kind of device or in another precision
// do not count.
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
