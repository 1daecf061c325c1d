package pool

import (
	"context"
	"errors"
	"io"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"seqembed/internal/seqio"
	"seqembed/internal/store"
	"seqembed/kernels"
)

// computed returns the number of sequences in all batches that were computed.
func (r *recorder) computed() (n int) {
	for _, b := range r.batches {
		n += b.Sequences
	}
	return n
}

// interruptAt runs the job, and interrupts it while the fake device computes the batch with the given number, counted
// from 1. It returns the number of sequences that were computed. The fake device must not have been used before.
func (b *bench) interruptAt(batch int64) int {
	b.Helper()
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	b.fake.fault = func(kernels.Batch) error {
		if b.fake.calls.Load() == batch {
			cancel()
		}
		return nil
	}
	if _, err := b.job.Run(ctx); !errors.Is(err, ErrInterrupted) {
		b.Fatalf("Run: %v", err)
	}
	return b.seen.computed()
}

// logs returns the names of the part logs in the output folder, from which a rerun continues (see parts).
func (b *bench) logs() []string {
	return slices.DeleteFunc(b.names(), func(name string) bool { return !strings.HasSuffix(name, ".parts") })
}

// partsInput returns records of 1 to 70 letters. Some records have the same sequence as an earlier record, close by or
// far away, and some are long enough for several windows.
func partsInput() []entryOf {
	records := randomRecords(5, upTo(70)...)
	for i := range records {
		if i%4 == 3 {
			records[i].seq = records[i/2].seq
		}
	}
	return records
}

// largestSpan returns the largest number of sequences in a span (list of consecutive records) of a file with the given
// records. A rerun may compute up to this number of sequences again: those of a span of which the interrupted run had
// computed only some batches.
func (b *bench) largestSpan(records []entryOf) (most int) {
	b.Helper()
	f := &fileJob{run: &run{Job: b.job}}
	var sequences, tokens []int
	for i, r := range records {
		rec, err := f.newRecord("a", seqio.Record{ID: r.id, Seq: []byte(r.seq)})
		if err != nil {
			b.Fatal(err)
		}
		sequences, tokens = append(sequences, len(rec.windows)), append(tokens, rec.row.Tokens)
		for n, all := 0, 0; i >= 0 && all+tokens[i] <= lookAhead*b.fake.Budget(); i-- {
			n, all = n+sequences[i], all+tokens[i]
			most = max(most, n)
		}
	}
	return most
}

// TestContinuedInsideAFile interrupts a job at random batches several times, and then lets it complete. The output must
// be that of a run without an interruption. A rerun may compute again only the sequences of one span of records. The
// test covers every format, several kinds of columns, windows and repeated sequences.
func TestContinuedInsideAFile(t *testing.T) {
	const seed = 3
	rng := rand.New(rand.NewPCG(seed, 1))
	all := []store.Column{{Pooling: store.Mean, Layer: 7}, {Pooling: store.Residues, Layer: 7}, {Pooling: store.Tokens, Layer: 2}}
	for _, c := range []struct {
		name    string
		columns []store.Column
		setUp   func(j *Job)
		formats []store.Format
	}{
		{"mean", oneMean, func(*Job) {}, store.Formats()},
		{"all columns", all, func(j *Job) { j.KeptBytes = 3000 }, store.Formats()},
		{"joined windows", all, func(j *Job) { j.Long, j.MaxLength, j.Overlap = LongWindow, 20, 3 }, store.Formats()},
		{"rows of windows", oneMean, func(j *Job) { j.Long, j.MaxLength, j.Windows, j.Output.Windows = LongWindow, 20, true, true }, []store.Format{store.Parquet, store.Npy, store.H5}},
		{"nothing kept, float16", oneMean, func(j *Job) { j.KeptBytes, j.Output.DType = 0, store.FP16 }, []store.Format{store.Npy}},
	} {
		for _, format := range c.formats {
			if spec := (store.Spec{Format: format, Columns: c.columns}); spec.Supported() != nil {
				continue
			}
			t.Run(c.name+"/"+string(format), func(t *testing.T) {
				whole := newBench(t)
				whole.job.Output.Format = format
				whole.setColumns(c.columns...)
				c.setUp(whole.job)
				whole.add("a.faa", fasta(partsInput()))
				want := whole.run()
				total := whole.seen.computed()

				b := newBench(t)
				b.in = whole.in
				b.job.Output.Format, b.job.PartRecords = format, 1+rng.IntN(20)
				b.setColumns(c.columns...)
				c.setUp(b.job)
				b.plan(filepath.Join(b.in, "a.faa"))
				span, computed, runs, restored := b.largestSpan(partsInput()), 0, 0, int64(0)
				for ; computed < total*2/3; runs++ {
					computed += b.interruptAt(6 + rng.Int64N(12))
					if b.seen.restored < restored {
						t.Errorf("a run has continued after %d records, one before it after %d", b.seen.restored, restored)
					}
					restored, b = b.seen.restored, b.again()
				}
				s := b.run()
				if computed += b.seen.computed(); computed < total || computed > total+runs*span || b.seen.restored == 0 || len(b.seen.dropped) > 0 {
					t.Errorf("%d sequences were computed in %d runs, want %d, and at most %d again in each; the last one has continued after %d records; dropped %q",
						computed, runs+1, total, span, b.seen.restored, b.seen.dropped)
				}
				if len(s.Failed)+len(want.Failed) > 0 {
					t.Fatal(s.Failed, want.Failed)
				}
				f, w := s.Files[0], want.Files[0]
				if f.Records != w.Records || f.Tokens != w.Tokens || f.Letters != w.Letters || f.Repeated != w.Repeated || f.Truncated != w.Truncated {
					t.Errorf("%+v, want %+v", f, w)
				}
				got, expected := b.outputs(), whole.outputs()
				delete(got, store.ManifestName)
				delete(expected, store.ManifestName)
				if !maps.Equal(got, expected) {
					t.Errorf("the output, %q, is not that of one run", slices.Sorted(maps.Keys(got)))
				}
			})
		}
	}
}

// TestPartsOfSeveralDevices checks that a rerun continues inside a file that several devices were computing when the
// run was interrupted, although their results were not finished in the order of the file.
func TestPartsOfSeveralDevices(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, fakes, records := bigFile(t, 3)
		b.job.PartRecords = 3
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		for i, f := range fakes {
			f.fault = func(kernels.Batch) error { time.Sleep(time.Duration(1+5*i) * time.Second); return nil }
		}
		time.AfterFunc(31*time.Second, cancel)
		if _, err := b.job.Run(ctx); !errors.Is(err, ErrInterrupted) {
			t.Fatal(err)
		}
		computed := b.seen.computed()
		b = b.again()
		b.fake.budget = 8
		b.run()
		b.check("big", records)
		// A span of records from a fast device is computed again if an earlier span, on a slow device, was not
		// finished.
		if computed += b.seen.computed(); computed < len(records) || computed > len(records)+4*3+1 || b.seen.restored < 10 {
			t.Errorf("%d sequences of %d were computed; the second run has continued after %d records", computed, len(records), b.seen.restored)
		}
		b.wantNames(outputsOf("big")...)
	})
}

// partsOf interrupts a job inside its only file, and returns a bench for a rerun of the job, and the records of the
// file.
func partsOf(t *testing.T) (b *bench, records []entryOf) {
	t.Helper()
	b, records = newBench(t), randomRecords(6, upTo(60)...)
	b.job.PartRecords = 4
	b.add("a.faa", fasta(records))
	b.interruptAt(15)
	if want := []string{".a.fake.npy.parts"}; !slices.Equal(b.names(), want) {
		t.Fatalf("an interrupted run leaves %q, want %q", b.names(), want)
	}
	return b.again(), records
}

// TestPartsAreDropped checks that results which an interrupted run has kept are not used with other settings or for an
// input that has changed, and that the Observer is told why.
func TestPartsAreDropped(t *testing.T) {
	for name, c := range map[string]struct {
		change   func(b *bench, records []entryOf)
		restored bool   // whether some of the kept results are used
		reason   string // text in the reported reason; "" if PartsDropped is not called
	}{
		"nothing has changed": {func(*bench, []entryOf) {}, true, ""},
		"another checkpoint":  {func(b *bench, _ []entryOf) { b.job.Output.Template.CheckpointSHA256 = strings.Repeat("a", 64) }, false, "other settings"},
		"another backend":     {func(b *bench, _ []entryOf) { b.job.Output.Template.Backend = "another" }, false, "other settings"},
		"another column": {func(b *bench, _ []entryOf) { b.setColumns(store.Column{Pooling: store.Max, Layer: 7}) },
			false, "other settings"},
		"skipping bad records": {func(b *bench, _ []entryOf) { b.job.Reading.OnBad = seqio.BadSkip }, false, "other settings"},
		"truncating":           {func(b *bench, _ []entryOf) { b.job.MaxLength = 10 }, false, `from record "`},
		"another first record": {func(_ *bench, records []entryOf) { records[0].seq = "WWWW" }, false, `from record "r6_0" (line 1) on: the input has changed`},
		"another record":       {func(_ *bench, records []entryOf) { records[5].seq = "WWWW" }, true, `from record "r6_5" (line 11) on: the input has changed`},
		"another id":           {func(_ *bench, records []entryOf) { records[5].id = "x" }, true, ""},
		"fewer records":        {func(b *bench, _ []entryOf) { writeFile(b, filepath.Join(b.in, "a.faa"), ">a\nMKV\n") }, false, `from record "a"`},
		"a copy of the input, somewhere else": {func(b *bench, records []entryOf) {
			b.in = b.TempDir()
			b.job.Files = nil
			b.add("a.faa", fasta(records))
		}, true, ""},
		"force": {func(b *bench, _ []entryOf) { b.job.Force = true }, false, ""},
		"a cut log": {func(b *bench, _ []entryOf) {
			if err := os.Truncate(filepath.Join(b.out, ".a.fake.npy.parts"), 400); err != nil {
				b.Fatal(err)
			}
		}, true, ""},
		"an empty log": {func(b *bench, _ []entryOf) { writeFile(b, filepath.Join(b.out, ".a.fake.npy.parts"), "") }, false, ""},
		"no parts":     {func(b *bench, _ []entryOf) { b.job.PartRecords = 0 }, false, ""},
		"a folder in place of the log": {func(b *bench, _ []entryOf) {
			path := filepath.Join(b.out, ".a.fake.npy.parts")
			if err := errors.Join(os.Remove(path), os.Mkdir(path, 0o777)); err != nil {
				b.Fatal(err)
			}
		}, false, ".parts: is a directory"},
	} {
		t.Run(name, func(t *testing.T) {
			b, records := partsOf(t)
			c.change(b, records)
			if name == "fewer records" {
				records = []entryOf{{"a", "MKV"}}
			} else {
				writeFile(t, filepath.Join(b.in, "a.faa"), fasta(records))
			}
			s := b.run()
			if got := strings.Join(b.seen.dropped, "; "); (b.seen.restored > 0) != c.restored || !strings.Contains(got, c.reason) || (got == "") != (c.reason == "") {
				t.Errorf("%d records are those of the earlier run; dropped: %q, want %q", b.seen.restored, got, c.reason)
			}
			if s.Files[0].Records != int64(len(records)) || int(b.seen.restored)+b.seen.computed() != len(records) {
				t.Errorf("%d records, %d of the earlier run, %d computed", s.Files[0].Records, b.seen.restored, b.seen.computed())
			}
			if name == "truncating" || name == "another column" {
				return
			}
			b.check("a", records)
			b.wantNames(outputsOf("a")...)
		})
	}
}

// TestPartsOfAForcedRun checks that a run with Job.Force continues an interrupted run with Job.Force inside a file.
func TestPartsOfAForcedRun(t *testing.T) {
	b, records := partsOf(t)
	b.job.Force = true
	first := b.interruptAt(15)
	b = b.again()
	b.run()
	b.check("a", records)
	if n := first + b.seen.computed(); n < len(records) || n > len(records)+b.largestSpan(records) || b.seen.restored == 0 {
		t.Errorf("%d sequences of %d were computed, %d restored", n, len(records), b.seen.restored)
	}
	b.wantNames(outputsOf("a")...)
}

// TestPartsOfACompleteFile checks that a rerun removes the part log of a file whose output is complete. Such a log is
// left if a run is killed between the commit of the output and the removal of the log.
func TestPartsOfACompleteFile(t *testing.T) {
	b, _ := partsOf(t)
	path := filepath.Join(b.out, ".a.fake.npy.parts")
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b.run()
	writeFile(t, path, string(content))
	b = b.again()
	if s := b.run(); len(s.Resumed) != 1 || len(b.logs()) > 0 {
		t.Errorf("%d files are complete; %q are left", len(s.Resumed), b.logs())
	}
}

// TestPartsAreOfOneRun checks that a run makes an output without a part log while another run holds the log, and that
// it leaves the log alone.
func TestPartsAreOfOneRun(t *testing.T) {
	b, records := partsOf(t)
	settings, err := os.ReadFile(filepath.Join(b.out, ".a.fake.npy.parts"))
	if err != nil {
		t.Fatal(err)
	}
	line, _, _ := strings.Cut(string(settings), "\n")
	other, err := store.OpenParts(filepath.Join(b.out, "a.fake.npy"), []byte(line))
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	b.run()
	b.check("a", records)
	if b.seen.restored > 0 || len(b.seen.dropped) > 0 || len(b.logs()) != 1 {
		t.Errorf("%d records are those of the other run; dropped %q; %q are left", b.seen.restored, b.seen.dropped, b.logs())
	}
}

// TestFilesWithoutParts checks which files get a part log. A part ends after half of Job.PartRecords records, so a file
// with fewer records than that gets no log. Standard input never gets a log, and no file gets one if Job.PartRecords is
// 0.
func TestFilesWithoutParts(t *testing.T) {
	for _, c := range []struct {
		input string
		part  int
		want  bool
	}{{"file", 301, false}, {"file", 100, true}, {"stdin", 100, false}, {"file", 0, false}} {
		synctest.Test(t, func(t *testing.T) {
			b := newBench(t)
			b.job.PartRecords = c.part
			records := randomRecords(8, upTo(150)...)
			if b.add("file.faa", fasta(records)); c.input == "stdin" {
				// System calls must not block in a synctest bubble. So an io.Pipe takes the place of standard input.
				f := &b.job.Files[0]
				if err := f.connect(t.Context(), b.job.Reading, func() (io.ReadCloser, error) {
					return io.NopCloser(strings.NewReader(fasta(records))), nil
				}); err != nil {
					t.Fatal(err)
				}
			}
			seen := false
			b.fake.fault = func(kernels.Batch) error {
				synctest.Wait() // returns when the writer, too, waits for this batch
				seen = seen || len(b.logs()) > 0
				return nil
			}
			if b.run(); seen != c.want {
				t.Errorf("%+v: a log exists: %v", c, seen)
			}
			b.wantNames(outputsOf("file")...)
		})
	}
}

// TestPartsOfASlowFile checks that results are written to the part log after some seconds, even if only few records
// have been computed.
func TestPartsOfASlowFile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.job.PartRecords = DefaultPartRecords
		b.add("a.faa", fasta(randomRecords(6, slices.Repeat([]int{50}, 30)...)))
		appeared := time.Duration(0)
		began := time.Now()
		b.fake.fault = func(kernels.Batch) error {
			time.Sleep(time.Second)
			if appeared == 0 && len(b.logs()) > 0 {
				appeared = time.Since(began)
			}
			return nil
		}
		b.run()
		if appeared < partTime || appeared > partTime+10*time.Second {
			t.Errorf("the first part was written after %v", appeared)
		}
		b.wantNames(outputsOf("a")...)
	})
}

// TestPartsBeforeASlowRecord checks that the results of finished records are in the part log while the next record is
// computed, if that record takes long.
func TestPartsBeforeASlowRecord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.job.PartRecords = DefaultPartRecords
		long := entryOf{"long", strings.Repeat("MKV", 100)} // too long for a span with other records
		b.add("a.faa", fasta(append(randomRecords(6, upTo(12)...), long)))
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var kept int64
		b.fake.fault = func(batch kernels.Batch) error {
			if !holds(batch, b.tokens(long.seq)) {
				return nil
			}
			time.Sleep(partTime + time.Second)
			if info, err := os.Stat(filepath.Join(b.out, ".a.fake.npy.parts")); err == nil {
				kept = info.Size()
			}
			cancel()
			return errors.New("killed")
		}
		if _, err := b.job.Run(ctx); err == nil {
			t.Fatal("the run was not interrupted")
		}
		if least := int64(12 * 4 * fakeDim); kept < least {
			t.Errorf("%d bytes were kept while the last record was computed, want at least the %d of the values before it", kept, least)
		}
	})
}

// TestPartsAndMemory checks that a record which an interrupted run has left out for lack of memory stays left out in
// the rerun, and that the results of the records after it are used.
func TestPartsAndMemory(t *testing.T) {
	b := newBench(t)
	b.job.PartRecords, b.job.Reading.OnBad = 2, seqio.BadSkip
	records := slices.Insert(randomRecords(6, upTo(60)...), 3, entryOf{"long", strings.Repeat("MKV", 50)})
	b.add("a.faa", fasta(records))
	b.fake.memory = 100
	b.interruptAt(20)
	b = b.again() // the new fake device has enough memory
	s := b.run()
	if f := s.Files[0]; f.Skipped[reasonMemory] != 1 || f.Records != 60 || len(b.seen.skipped) != 1 || b.seen.restored < 20 {
		t.Errorf("%+v; skipped %q; continued after %d records", f, b.seen.skipped, b.seen.restored)
	}
	b.check("a", slices.Delete(records, 3, 4))
}

// TestPartsWithoutARecordThatNeverFits checks that a record that does not fit the memory fails its file even if the run
// is interrupted at the same moment, and that the next run, which has more memory, computes it.
func TestPartsWithoutARecordThatNeverFits(t *testing.T) {
	b := newBench(t)
	b.job.PartRecords = 2
	long := entryOf{"long", strings.Repeat("MKV", 100)} // too long for a span with other records
	records := slices.Insert(randomRecords(6, upTo(60)...), 30, long)
	b.add("a.faa", fasta(records))
	ctx, cancel := context.WithCancel(t.Context())
	b.fake.fault = func(batch kernels.Batch) error {
		if !holds(batch, b.tokens(long.seq)) {
			return nil
		}
		cancel()
		return kernels.ErrOutOfMemory
	}
	if s, _ := b.job.Run(ctx); len(s.Failed) != 1 || !errors.Is(s.Failed[0].Err, ErrMemory) || len(b.seen.skipped) > 0 {
		t.Errorf("failed: %v; skipped %q", s.Failed, b.seen.skipped)
	}
	b = b.again()
	if s := b.run(); len(s.Files) != 1 || s.Skipped > 0 || b.seen.restored < 20 {
		t.Errorf("%d finished, %d records skipped; continued after %d records", len(s.Files), s.Skipped, b.seen.restored)
	}
	b.check("a", records)
}

// TestPartsHaveNoBadResults checks that a result that the output refuses, an infinity, is not kept in the part log. A
// rerun must compute this result again and take the results of the records before it from the log.
func TestPartsHaveNoBadResults(t *testing.T) {
	b := newBench(t)
	b.job.PartRecords = 2
	records := randomRecords(6, upTo(60)...)
	b.add("a.faa", fasta(records))
	b.fake.spoil = func(row []float32, ids []int32) {
		if slices.Equal(ids, b.tokens(records[30].seq)) {
			row[1] = float32(math.Inf(1))
		}
	}
	if s := b.run(); len(s.Failed) != 1 || !errors.Is(s.Failed[0].Err, store.ErrNotFinite) {
		t.Fatalf("failed: %v", s.Failed)
	}
	b = b.again() // the new fake device returns no infinity
	b.run()
	b.check("a", records)
	if b.seen.restored != 30 {
		t.Errorf("continued after %d records, want 30", b.seen.restored)
	}
	b.wantNames(outputsOf("a")...)
}

// TestPartsOfShards checks that the rerun of an interrupted shard continues inside the part of a file that the shard
// has.
func TestPartsOfShards(t *testing.T) {
	b := newBench(t)
	b.job.PartRecords = 3
	records := randomRecords(6, upTo(80)...)
	b.add("a.faa", fasta(records))
	if err := b.job.Divide(Shard{2, 3}); err != nil {
		t.Fatal(err)
	}
	first := b.interruptAt(8)
	if len(b.logs()) != 1 || !strings.HasPrefix(b.logs()[0], ".a.fake.npy"+store.ShardSuffix+"2-of-3") {
		t.Fatalf("%q", b.logs())
	}
	b = b.again()
	s := b.run()
	n, want := first+b.seen.computed(), int(s.Files[0].Records)
	if n < want || n > want+b.largestSpan(records) || b.seen.restored == 0 || len(b.logs()) > 0 {
		t.Errorf("%d sequences were computed for %d records, %d restored", n, want, b.seen.restored)
	}
}

// TestPartsInAFolderThatIsGone checks that no part log is created, neither in the renamed output folder nor in the new
// folder at its path, if the output folder was renamed during the run.
func TestPartsInAFolderThatIsGone(t *testing.T) {
	b := newBench(t)
	b.job.PartRecords = 5
	b.add("a.faa", fasta(randomRecords(6, upTo(60)...)))
	b.fake.fault = func(kernels.Batch) error {
		if b.fake.calls.Load() == 1 {
			return errors.Join(os.Rename(b.out, b.out+".old"), os.Mkdir(b.out, 0o777))
		}
		return nil
	}
	if _, err := b.job.Run(t.Context()); !errors.Is(err, ErrFolderGone) {
		t.Errorf("Run: %v", err)
	}
	b.wantNames()
	if list, _ := filepath.Glob(filepath.Join(b.out+".old", ".*.parts")); len(list) > 0 {
		t.Errorf("%q are left", list)
	}
}
