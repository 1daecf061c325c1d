package pool

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"seqembed/internal/store"
	"seqembed/kernels"
)

// threeFiles adds three inputs, the largest first, each of which the reader divides into several spans of records. It
// returns the records by the names of the inputs.
func (b *bench) threeFiles() map[string][]entryOf {
	b.Helper()
	inputs := map[string][]entryOf{"a": randomRecords(1, upTo(90)...), "b": randomRecords(2, upTo(60)...), "c": randomRecords(3, upTo(30)...)}
	for _, name := range []string{"a", "b", "c"} {
		b.add(name+".faa", fasta(inputs[name]))
	}
	return inputs
}

// TestInterrupt interrupts a run in one of several batches. The run must finish the batch, keep complete outputs, and
// leave no partial files. After a second run, the outputs must be those of a run without an interruption.
func TestInterrupt(t *testing.T) {
	whole := newBench(t)
	whole.threeFiles()
	whole.run()
	want := whole.outputs()
	total := whole.fake.calls.Load()

	for _, at := range []int64{1, 5, total * 2 / 3, total - 1} {
		t.Run(fmt.Sprintf("batch %d of %d", at, total), func(t *testing.T) {
			b := newBench(t)
			inputs := b.threeFiles()
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			b.fake.fault = func(kernels.Batch) error {
				if b.fake.calls.Load() == at {
					cancel()
				}
				return nil
			}
			s, err := b.job.Run(ctx)
			if !errors.Is(err, ErrInterrupted) {
				t.Fatalf("Run: %v", err)
			}
			if b.fake.calls.Load() != at || int64(len(b.seen.batches)) != at || b.fake.closed.Load() != 1 {
				t.Errorf("%d batches started, %d done, interrupted in batch %d", b.fake.calls.Load(), len(b.seen.batches), at)
			}
			if len(s.Files) == 3 || len(s.Failed) != 0 {
				t.Errorf("%d files finished, failed %v", len(s.Files), s.Failed)
			}
			var finished []string
			for _, f := range s.Files {
				finished = append(finished, strings.TrimSuffix(filepath.Base(f.Path), ".faa"))
			}
			if len(finished) > 0 {
				b.wantNames(outputsOf(finished...)...)
			} else {
				b.wantNames()
			}

			second := b.again()
			s = second.run()
			if len(s.Resumed) != len(finished) || len(s.Files) != 3-len(finished) {
				t.Errorf("second run: %d resumed, %d computed", len(s.Resumed), len(s.Files))
			}
			for name, records := range inputs {
				second.check(name, records)
			}
			got := second.outputs()
			for name, content := range want {
				if name != store.ManifestName && got[name] != content {
					t.Errorf("%s differs from that of a run without an interruption", name)
				}
			}
			if len(got) != len(want) {
				t.Errorf("the folder holds %q", slices.Sorted(maps.Keys(got)))
			}
		})
	}
}

func TestInterruptedBeforeItBegan(t *testing.T) {
	b := newBench(t)
	b.threeFiles()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := b.job.Run(ctx); !errors.Is(err, ErrInterrupted) || b.fake.calls.Load() != 0 {
		t.Errorf("%d batches: %v", b.fake.calls.Load(), err)
	}
	b.wantNames()
}

// TestSecondRunDoesNothing checks that a second run, for which all outputs are complete, does not even open the device.
func TestSecondRunDoesNothing(t *testing.T) {
	b := newBench(t)
	b.threeFiles()
	b.run()
	before := b.outputs()
	second := b.again()
	s := second.run()
	if len(s.Resumed) != 3 || len(s.Files) != 0 || len(second.seen.resumed) != 3 || len(second.seen.ready) != 0 || second.fake.calls.Load() != 0 {
		t.Errorf("second run: %d resumed, %d computed, %d batches", len(s.Resumed), len(s.Files), second.fake.calls.Load())
	}
	if !maps.Equal(before, second.outputs()) {
		t.Error("the second run changed something")
	}
}

// TestIncompleteOutputIsMadeAgain checks that an output that is damaged or incomplete is computed again, and that no
// other output is.
func TestIncompleteOutputIsMadeAgain(t *testing.T) {
	for name, damage := range map[string]func(b *bench) error{
		"output deleted":    func(b *bench) error { return os.Remove(filepath.Join(b.out, "b.fake.npy")) },
		"one of two gone":   func(b *bench) error { return os.Remove(filepath.Join(b.out, "b.fake.ids.txt")) },
		"output cut":        func(b *bench) error { return os.Truncate(filepath.Join(b.out, "b.fake.npy"), 200) },
		"one byte of it":    func(b *bench) error { return flipByte(filepath.Join(b.out, "b.fake.npy")) },
		"killed in between": func(b *bench) error { return unfinish(b.out, "b.fake.npy") },
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			b.threeFiles()
			b.run()
			want := b.outputs()
			if err := damage(b); err != nil {
				t.Fatal(err)
			}
			second := b.again()
			s := second.run()
			if len(s.Resumed) != 2 || len(s.Files) != 1 || filepath.Base(s.Files[0].Path) != "b.faa" {
				t.Errorf("resumed %q, computed %d", s.Resumed, len(s.Files))
			}
			got := second.outputs()
			for _, name := range []string{"b.fake.npy", "b.fake.ids.txt"} {
				if got[name] != want[name] {
					t.Errorf("%s was not made again as it was", name)
				}
			}
			if third := b.again().run(); len(third.Resumed) != 3 {
				t.Errorf("third run: resumed %q", third.Resumed)
			}
		})
	}
}

func flipByte(path string) error {
	content, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	content[len(content)-1] ^= 1
	return os.WriteFile(path, content, 0o644)
}

// unfinish makes the manifest say that an output was begun but not finished. It appends the entry that a run writes
// before it renames the output to its final path.
func unfinish(dir, output string) error {
	m, err := store.ReadManifest(dir)
	if err != nil {
		return err
	}
	entry, _, _ := m.Find(filepath.Join(dir, output))
	entry.Finished, entry.Outputs = time.Time{}, slices.Clone(entry.Outputs)
	for i := range entry.Outputs {
		entry.Outputs[i] = store.File{Path: entry.Outputs[i].Path}
	}
	return m.Append(context.Background(), entry, nil)
}

// TestManifestKnowsOutputBeforeItIsThere checks that a run adds the entry for an output to the manifest before it
// renames the output to its final path. Otherwise the next run would refuse the output of a run that was killed after
// the rename.
func TestManifestKnowsOutputBeforeItIsThere(t *testing.T) {
	b := newBench(t)
	b.addFiles(1)
	// A folder at the path of the output makes the rename fail, after the entry was written.
	if err := os.MkdirAll(filepath.Join(b.out, "f0.fake.npy", "x"), 0o777); err != nil {
		t.Fatal(err)
	}
	b.job.Force = true
	if s := b.run(); len(s.Failed) != 1 || s.Failed[0].Type != OutputFailure {
		t.Fatalf("failed: %v", s.Failed)
	}
	m, err := store.ReadManifest(b.out)
	if err != nil {
		t.Fatal(err)
	}
	if e, o, ok := m.Find(filepath.Join(b.out, "f0.fake.npy")); !ok || o.SHA256 != "" || !e.Finished.IsZero() {
		t.Errorf("the manifest holds %+v", e)
	}
	if err := os.RemoveAll(filepath.Join(b.out, "f0.fake.npy")); err != nil {
		t.Fatal(err)
	}
	// The failed run has left the file of ids without the file of embeddings. Such an output must be computed again,
	// not refused.
	second := b.again()
	second.job.Force = false
	if s := second.run(); len(s.Files) != 1 {
		t.Errorf("second run: %+v", s)
	}
	second.wantNames(outputsOf("f0")...)
}

// TestMixtureIsRefused checks that a run ends before it computes or changes anything if an existing output was made
// with other settings or from other inputs, or is not in the manifest. With Job.Force, the run must replace the output.
func TestMixtureIsRefused(t *testing.T) {
	for name, c := range map[string]struct {
		change func(t *testing.T, b *bench)
		says   []string
	}{
		"parameter": {func(_ *testing.T, b *bench) {
			b.job.Output.Template.Parameters = map[string]string{"pool": "cls"}
		}, []string{"pool", `"mean"`, `"cls"`}},
		"checkpoint": {func(_ *testing.T, b *bench) {
			b.job.Output.Template.CheckpointSHA256 = strings.Repeat("ab", 32)
		}, []string{"checkpoint"}},
		"tokenizer": {func(_ *testing.T, b *bench) {
			b.job.Output.Template.TokenizerSHA256 = strings.Repeat("ab", 32)
		}, []string{"tokenizer"}},
		"revision": {func(_ *testing.T, b *bench) { b.job.Output.Template.Revision = "v2" }, []string{"revision"}},
		"dtype":    {func(_ *testing.T, b *bench) { b.job.Output.Template.DType = "bf16" }, []string{"dtype", "bf16"}},
		"backend":  {func(_ *testing.T, b *bench) { b.job.Output.Template.Backend = "another" }, []string{"backend", "another"}},
		"numerics": {func(_ *testing.T, b *bench) { b.job.Output.Template.NumericsVersion = 2 }, []string{"numerics version", `"0"`, `"2"`}},
		"model":    {func(_ *testing.T, b *bench) { b.job.Output.Template.Model = "other-model" }, []string{"model", "fake-model", "other-model"}},
		"input changed": {func(t *testing.T, b *bench) {
			writeFile(t, b.job.Files[1].Path, ">new\nMKVLLWA\n")
		}, []string{"b.faa", "another content"}},
		"input changed, same size": {func(t *testing.T, b *bench) {
			if err := flipByte(b.job.Files[1].Path); err != nil {
				t.Fatal(err)
			}
		}, []string{"b.faa", "another content"}},
		"no manifest": {func(t *testing.T, b *bench) {
			if err := os.Remove(filepath.Join(b.out, store.ManifestName)); err != nil {
				t.Fatal(err)
			}
		}, []string{"no entry"}},
		"undescribed second file": {func(t *testing.T, b *bench) {
			if err := os.Remove(filepath.Join(b.out, store.ManifestName)); err != nil {
				t.Fatal(err)
			}
			for _, name := range []string{"a.fake.npy", "b.fake.npy", "c.fake.npy", "b.fake.ids.txt", "c.fake.ids.txt"} {
				if err := os.Remove(filepath.Join(b.out, name)); err != nil {
					t.Fatal(err)
				}
			}
		}, []string{"a.fake.ids.txt", "no entry"}},
	} {
		t.Run(name, func(t *testing.T) {
			first := newBench(t)
			first.threeFiles()
			first.run()
			b := first.again()
			c.change(t, b)
			before := b.outputs()
			s, err := b.job.Run(t.Context())
			if !errors.Is(err, ErrMixture) {
				t.Fatalf("Run: %v", err)
			}
			for _, part := range append(c.says, b.out) {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("%q does not mention %q", err, part)
				}
			}
			if len(s.Files)+len(s.Resumed)+len(s.Failed) != 0 || b.fake.calls.Load() != 0 || !maps.Equal(before, b.outputs()) {
				t.Error("a refused run computed or changed something")
			}
			if check := b.job.Check(t.Context()); (check == nil) != strings.HasPrefix(name, "input changed") {
				t.Errorf("Check: %v", check) // Check does not compare the content of the input
			}

			b.job.Force = true
			if s := b.run(); len(s.Files) != 3 || len(s.Resumed) != 0 {
				t.Errorf("with Force: %d computed, %d resumed", len(s.Files), len(s.Resumed))
			}
			b.job.Force = false
			if err := b.job.Check(t.Context()); err != nil {
				t.Errorf("after Force: %v", err)
			}
		})
	}
}

// TestDeletedOutputOfOtherSettings checks that an output of other settings does not cause a refusal after it has been
// deleted.
func TestDeletedOutputOfOtherSettings(t *testing.T) {
	b := newBench(t)
	b.addFiles(1)
	b.run()
	for _, name := range []string{"f0.fake.npy", "f0.fake.ids.txt"} {
		if err := os.Remove(filepath.Join(b.out, name)); err != nil {
			t.Fatal(err)
		}
	}
	second := b.again()
	second.job.Output.Template.Parameters = map[string]string{"pool": "cls"}
	if s := second.run(); len(s.Files) != 1 {
		t.Errorf("second run: %+v", s)
	}
}

// TestStandardInputIsNeverTheSame checks that a second run with standard input is refused, even with the same content,
// and that Job.Force replaces the output.
func TestStandardInputIsNeverTheSame(t *testing.T) {
	b := newBench(t)
	b.planStdin(">a\nMKV\n")
	b.run()
	second := b.again()
	second.job.Files = nil
	second.planStdin(">a\nMKV\n")
	if _, err := second.job.Run(t.Context()); !errors.Is(err, ErrMixture) || !strings.Contains(err.Error(), "stdin") {
		t.Errorf("second run: %v", err)
	}
	second.job.Force = true
	second.run()
	second.check("stdin", []entryOf{{"a", "MKV"}})
}

// TestDamagedManifest checks that a run refuses a manifest with a damaged line and names the line's number. A run with
// Job.Force must make the folder usable again. An incomplete last line must be accepted.
func TestDamagedManifest(t *testing.T) {
	b := newBench(t)
	b.addFiles(2)
	b.run()
	path := filepath.Join(b.out, store.ManifestName)
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, path, string(content[:100])+"\n"+string(content))
	second := b.again()
	if _, err := second.job.Run(t.Context()); !errors.Is(err, store.ErrManifest) || !strings.Contains(err.Error(), path+":1:") || second.fake.calls.Load() != 0 {
		t.Errorf("Run: %v", err)
	}
	second.job.Force = true
	second.job.Files = second.job.Files[:1]
	if s := second.run(); len(s.Files) != 1 {
		t.Errorf("with Force: %+v", s)
	}
	if s := b.again().run(); len(s.Resumed) != 2 {
		t.Errorf("after Force: %+v", s)
	}

	writeFile(t, path, string(content)+string(content[:100]))
	if s := b.again().run(); len(s.Resumed) != 2 {
		t.Errorf("after a line that broke off: %+v", s)
	}
}

// TestMovedInput checks that a run accepts the output of an input at another path if the content is the same, and
// refuses it otherwise.
func TestMovedInput(t *testing.T) {
	b := newBench(t)
	b.add("a.faa", ">a\nMKV\n")
	b.run()
	if err := os.Mkdir(filepath.Join(b.in, "moved"), 0o777); err != nil {
		t.Fatal(err)
	}
	moved := b.again()
	moved.job.Files = nil
	moved.add("moved/a.faa", ">a\nMKV\n")
	if s := moved.run(); len(s.Resumed) != 1 {
		t.Errorf("moved: %+v", s)
	}
	other := b.again()
	other.job.Files = nil
	other.add("moved/a.faa", ">a\nMKL\n") // other content of the same size
	if _, err := other.job.Run(t.Context()); !errors.Is(err, ErrMixture) {
		t.Errorf("another input of the same name: %v", err)
	}
}

// TestUnchangedInputIsNotRead checks that an input with the same path, size and modification time is not read again. If
// the input was modified just before it was first read, it must be read again (see coarseClock).
func TestUnchangedInputIsNotRead(t *testing.T) {
	b := newBench(t)
	path := b.add("a.faa", ">a\nMKV\n")
	at := func(when time.Time) {
		t.Helper()
		if err := os.Chtimes(path, when, when); err != nil {
			t.Fatal(err)
		}
	}
	old := time.Now().Add(-time.Hour)
	at(old)
	b.run()
	writeFile(t, path, ">a\nMKL\n") // the file has the same size and time as before, so only its content shows the change
	at(old)
	if s := b.again().run(); len(s.Resumed) != 1 {
		t.Errorf("of the same path, size and time: %+v", s)
	}
	at(old.Add(time.Nanosecond))
	if _, err := b.again().job.Run(t.Context()); !errors.Is(err, ErrMixture) {
		t.Errorf("of another time: %v", err)
	}

	b.job.Force = true
	recent := time.Now()
	at(recent)
	b.run()
	b.job.Force = false
	writeFile(t, path, ">a\nMKV\n")
	at(recent)
	if _, err := b.again().job.Run(t.Context()); !errors.Is(err, ErrMixture) {
		t.Errorf("modified again within the resolution of the time: %v", err)
	}
}

// TestFormatsSideBySide checks that outputs of several formats in one folder have separate entries, and that an output
// is refused if one of its files belongs to another output.
func TestFormatsSideBySide(t *testing.T) {
	b := newBench(t)
	b.addFiles(1)
	formats := []store.Format{store.Npy, store.Safetensors, store.Parquet}
	for round := range 2 {
		for _, format := range formats {
			next := b.again()
			next.job.Output.Format = format
			next.job.Output.Template.Parameters = map[string]string{"pool": "mean", "format": string(format)}
			if s := next.run(); len(s.Files) != 1-round || len(s.Resumed) != round {
				t.Errorf("round %d, %s: %d computed, %d resumed", round, format, len(s.Files), len(s.Resumed))
			}
		}
	}
	tokens := b.again()
	// The .npz output and the .npy output have the same .ids.txt file.
	tokens.setColumns(store.Column{Pooling: store.Tokens})
	tokens.job.Output.Template.Parameters = map[string]string{"pool": "none", "format": "npy"}
	if _, err := tokens.job.Run(t.Context()); !errors.Is(err, ErrMixture) || !strings.Contains(err.Error(), "f0.fake.ids.txt") {
		t.Errorf("an output that shares a file: %v", err)
	}
}

// TestTwoRunsAtOnce runs two jobs in one folder at the same time. A second run of the same model with other settings is
// refused before it begins. If both runs write the same output from different inputs, the output of the run that
// finishes second is refused. If both write the output from the same input, both succeed.
func TestTwoRunsAtOnce(t *testing.T) {
	for name, change := range map[string]func(b *bench){
		"the same": func(*bench) {},
		"another setting": func(b *bench) {
			b.job.Output.Template.Parameters = map[string]string{"pool": "cls"}
		},
		"another setting of another model": func(b *bench) {
			b.job.Output.Template.Parameters = map[string]string{"pool": "cls"}
			b.job.Output.Label = "other"
		},
		"another input": func(b *bench) {
			b.job.Files = nil
			if err := os.Mkdir(filepath.Join(b.in, "other"), 0o777); err != nil {
				b.Fatal(err)
			}
			b.add("other/f0.faa", ">z\nMKVLLL\n")
		},
	} {
		t.Run(name, func(t *testing.T) {
			first := newBench(t)
			first.addFiles(1)
			second := first.again()
			change(second)
			var s Summary
			var err error
			first.fake.fault = func(kernels.Batch) error { // the second run starts and ends inside the first run
				if first.fake.calls.Load() == 1 {
					s, err = second.job.Run(t.Context())
				}
				return nil
			}
			f := first.run()
			switch name {
			case "another setting":
				if !errors.Is(err, store.ErrInUse) || !strings.Contains(err.Error(), `pool "mean", now "cls"`) || second.fake.calls.Load() != 0 {
					t.Errorf("the second run: %+v, %v", s, err)
				}
				if second.again().job.Check(t.Context()) == nil || len(f.Files) != 1 {
					t.Errorf("the first run: %+v", f)
				}
			case "another input":
				if len(f.Failed) != 1 || !errors.Is(f.Failed[0].Err, ErrMixture) || !strings.Contains(f.Failed[0].Err.Error(), "another run") {
					t.Fatalf("the first run: %+v", f)
				}
				if third := second.again().run(); len(third.Resumed) != 1 {
					t.Errorf("the output of the second run is missing: %+v", third)
				}
			default:
				if err != nil || len(s.Files) != 1 || len(f.Files) != 1 {
					t.Errorf("%+v, %+v, %v", f, s, err)
				}
			}
			for name := range first.outputs() {
				if strings.HasPrefix(name, ".") {
					t.Errorf("%s is left", name)
				}
			}
		})
	}
}

// interruptForce runs a job of three files (see threeFiles) with Job.Force, and interrupts it after one file has been
// finished, in a batch of the next file.
func (b *bench) interruptForce() {
	b.Helper()
	b.job.Force = true
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	finished := make(chan struct{})
	b.seen.onFinish = func() { close(finished) }
	b.fake.fault = func(batch kernels.Batch) error {
		if b.fake.calls.Load() == 90 { // in the second file: the first has about 73 batches, the second 41
			<-finished
			cancel()
		}
		return nil
	}
	if s, err := b.job.Run(ctx); !errors.Is(err, ErrInterrupted) || len(s.Files) != 1 {
		b.Fatalf("%d files made in %d batches: %v", len(s.Files), b.fake.calls.Load(), err)
	}
}

// TestInterruptedForce checks that the same command continues an interrupted run with Job.Force. A command with fewer
// files must not continue it. After the interrupted run has been completed, the same command must compute all files
// again.
func TestInterruptedForce(t *testing.T) {
	b := newBench(t)
	b.threeFiles()
	b.run()
	want := b.outputs()
	forced := b.again()
	forced.interruptForce()
	other := forced.again() // another command, with fewer files
	other.job.Files = other.job.Files[:1]
	if s := other.run(); len(s.Files) != 1 || len(s.Resumed) != 0 {
		t.Errorf("a run with fewer files: %d made, %d resumed", len(s.Files), len(s.Resumed))
	}
	if s := forced.again().run(); len(s.Resumed) != 1 || len(s.Files) != 2 {
		t.Errorf("the same run: %d made, %d resumed", len(s.Files), len(s.Resumed))
	}
	got := b.outputs()
	for name, content := range want {
		if name != store.ManifestName && got[name] != content {
			t.Errorf("%s differs", name)
		}
	}
	if len(got) != len(want) {
		t.Errorf("the folder holds %q", b.names())
	}
	if s := forced.again().run(); len(s.Files) != 3 {
		t.Errorf("the next run: %d made", len(s.Files))
	}
}

// TestForceForgetsAnInterruptedRun checks a run with Job.Force after an interrupted run with Job.Force. The interrupted
// run has finished one output. The next run must compute this output again in two cases only: if the output, its input,
// the manifest or the settings have changed since, or if a run without Job.Force has completed all outputs.
func TestForceForgetsAnInterruptedRun(t *testing.T) {
	for name, c := range map[string]struct {
		change func(b *bench)
		made   int
	}{
		"nothing":        {func(*bench) {}, 2},
		"an output":      {func(b *bench) { must(b, flipByte(filepath.Join(b.out, "a.fake.npy"))) }, 3},
		"an input":       {func(b *bench) { must(b, flipByte(b.job.Files[0].Path)) }, 3},
		"another run":    {func(b *bench) { b.again().run() }, 3},
		"the manifest":   {func(b *bench) { must(b, os.Remove(filepath.Join(b.out, store.ManifestName))) }, 3},
		"another number": {func(b *bench) { b.job.Output.Template.NumericsVersion++ }, 3},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			b.threeFiles()
			b.again().interruptForce()
			c.change(b)
			again := b.again()
			again.job.Force = true
			if s := again.run(); len(s.Files) != c.made || len(s.Resumed) != 3-c.made {
				t.Errorf("%d made, %d resumed", len(s.Files), len(s.Resumed))
			}
		})
	}
}

// TestForgottenForce checks when other runs remove the file that describes an interrupted run with Job.Force (see
// ForcePrefix): as soon as no output of the interrupted run is left to make, or if the manifest has been replaced, and
// not before.
func TestForgottenForce(t *testing.T) {
	marks := func(b *bench) int {
		names, err := filepath.Glob(filepath.Join(b.out, ForcePrefix+"*"))
		must(b, err)
		return len(names)
	}
	for name, c := range map[string]struct {
		runs  func(b *bench)
		marks int
	}{
		"a run with fewer files":  {func(b *bench) { forced(b, b.job.Files[:1]) }, 1},
		"runs that make them all": {func(b *bench) { forced(b, b.job.Files[:1]); forced(b, b.job.Files[1:]) }, 0},
		"a run with more files":   {func(b *bench) { more := b.again(); more.addFiles(4); more.run() }, 0},
		"a run after the manifest": {func(b *bench) {
			must(b, os.Remove(filepath.Join(b.out, store.ManifestName)))
			forced(b, b.job.Files[:1])
		}, 0},
		"a run of the same command": {func(b *bench) { forced(b, b.job.Files) }, 0},
	} {
		b := newBench(t)
		b.threeFiles()
		b.again().run()
		b.again().interruptForce()
		if n := marks(b); n != 1 {
			t.Fatalf("%d files of interrupted runs", n)
		}
		c.runs(b)
		if n := marks(b); n != c.marks {
			t.Errorf("%s: %d files of interrupted runs are left, want %d", name, n, c.marks)
		}
	}
}

// forced runs the job of b with Job.Force over the given files only.
func forced(b *bench, files []File) {
	again := b.again()
	again.job.Force, again.job.Files = true, files
	again.run()
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestMadeWhileTheManifestWasRead checks that refuseMixture does not refuse an output that another run has written, and
// listed in the manifest, after this run has read the manifest.
func TestMadeWhileTheManifestWasRead(t *testing.T) {
	b := newBench(t)
	b.addFiles(2)
	m, err := store.ReadManifest(b.out)
	if err != nil {
		t.Fatal(err)
	}
	b.job.manifest = m
	b.again().run()
	if err := b.job.refuseMixture(m); err != nil {
		t.Error(err)
	}
}
