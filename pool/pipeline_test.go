package pool

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"seqembed/internal/seqio"
	"seqembed/internal/store"
	"seqembed/tokenizer"
	"seqembed/transformer"
)

// TestRecordsInAreRowsOut checks that every record has a row and that the rows are in the order of the input. Each
// embedding must be the one that the record has alone. The test varies the lengths of the records, the numbers of files
// and devices, and the budget.
func TestRecordsInAreRowsOut(t *testing.T) {
	inputs := map[string][]entryOf{
		"many":  randomRecords(1, upTo(150)...), // with the smallest budget, each record is a span of its own
		"equal": randomRecords(2, slices.Repeat([]int{9}, 77)...),
		"one":   randomRecords(3, 40),
		"long":  randomRecords(4, 1, 1000, 1, 2, 500),
	}
	var reference map[string]string
	for _, devices := range []int{1, 3} {
		for _, budget := range []int{1, 30, 64, 8192} {
			t.Run(fmt.Sprintf("%d devices, budget %d", devices, budget), func(t *testing.T) {
				b := newBench(t)
				b.job.Devices = nil
				var fakes []*fake
				ahead := budget % 4 // 0 to 2
				for i := range devices {
					f := &fake{columns: oneMean, budget: budget}
					fakes = append(fakes, f)
					d := f.device(fmt.Sprintf("fake%d", i))
					d.Ahead = ahead
					b.job.Devices = append(b.job.Devices, d)
				}
				records, letters, tokens := 0, 0, 0
				for name, list := range inputs {
					b.add(name+".faa", fasta(list))
					records += len(list)
					for _, r := range list {
						letters += len(r.seq)
						tokens += len(r.seq) + 2
					}
				}
				s := b.run()
				for name, list := range inputs {
					b.check(name, list)
					b.checkWritten(name+".faa", list)
				}
				if s.Records != int64(records) || s.Tokens != int64(tokens) || s.Letters != int64(letters) || len(s.Files) != len(inputs) || len(s.Failed) != 0 {
					t.Errorf("summary %+v, want %d records, %d tokens, %d letters", s, records, tokens, letters)
				}
				for _, batch := range b.seen.batches {
					if batch.Tokens > budget && batch.Sequences > 1 {
						t.Errorf("a batch of %d tokens and %d sequences", batch.Tokens, batch.Sequences)
					}
				}
				for i, f := range fakes {
					if f.closed.Load() != 1 {
						t.Errorf("device %d was closed %d times", i, f.closed.Load())
					}
					if most := int(f.most.Load()); most > ahead+1 || most <= ahead && devices == 1 && budget == 30 {
						t.Errorf("device %d had %d batches in flight, want %d", i, most, ahead+1)
					}
				}
				got := b.outputs()
				delete(got, store.ManifestName) // the manifest contains times
				if reference == nil {
					reference = got
				}
				for name, content := range reference {
					if got[name] != content {
						t.Errorf("%s depends on the budget or the number of devices", name)
					}
				}
			})
		}
	}
}

// TestBytesAddUp checks that the sum of Batch.Bytes over the batches of a file is its size on disk, apart from
// roundings. Progress bars rely on this sum.
func TestBytesAddUp(t *testing.T) {
	b := newBench(t)
	content := fasta(randomRecords(1, upTo(90)...))
	b.add("a.faa", content)
	b.run()
	var sum int64
	for _, batch := range b.seen.batches {
		sum += batch.Bytes
	}
	if slack := int64(len(b.seen.batches)); sum > int64(len(content)) || sum < int64(len(content))-slack {
		t.Errorf("the batches add up to %d bytes, want %d", sum, len(content))
	}
}

// TestLargestFileFirst checks that the reader of a single device starts files in descending order of size.
func TestLargestFileFirst(t *testing.T) {
	b := newBench(t)
	small := b.add("a.faa", fasta(randomRecords(1, 10)))
	large := b.add("b.faa", fasta(randomRecords(2, 300)))
	middle := b.add("c.faa", fasta(randomRecords(3, 100)))
	b.run()
	if want := []string{large, middle, small}; !slices.Equal(b.seen.started, want) {
		t.Errorf("started %q, want %q", b.seen.started, want)
	}
}

// TestWindows checks that the mean of a record with several windows is the mean over the residues of all its windows.
func TestWindows(t *testing.T) {
	const size = 10
	records := randomRecords(1, 3, 10, 11, 47, 200)
	b := newBench(t)
	b.job.Long, b.job.MaxLength = LongWindow, size
	b.add("a.faa", fasta(records))
	s := b.run()
	ids, rows := b.rows("a")
	for i, r := range records {
		// A hidden state of the fake device depends only on the token and its position in the window. So the expected
		// value is the mean over all residues of all windows.
		var sums [fakeDim]float64
		tokens := 0
		for from := 0; from < len(r.seq); from += size {
			list, _ := b.job.Tokenizer.Append(nil, []byte(r.seq[from:min(from+size, len(r.seq))]))
			tokens += len(list)
			for at := 1; at < len(list)-1; at++ {
				for c, v := range tokenState(list[at], at, 0) {
					sums[c] += v
				}
			}
		}
		for c := range sums {
			want := sums[c] / float64(len(r.seq))
			// Two roundings to float32 are allowed: one of the mean of each window, and one of the mean of all windows.
			if got := float64(rows[i][c]); ids[i] != r.id || math.Abs(got-want) > 2e-7*math.Abs(want) {
				t.Errorf("record %s of %d letters, value %d: %v, want %v", r.id, len(r.seq), c, got, want)
			}
		}
	}
	if s.Truncated != 0 || s.Letters != 3+10+11+47+200 {
		t.Errorf("%d letters used, %d records truncated", s.Letters, s.Truncated)
	}
}

// TestTokensOfWindows checks that the tokens of a record are those of its windows, one window after the other.
func TestTokensOfWindows(t *testing.T) {
	records := randomRecords(1, 3, 20, 21)
	b := newBench(t)
	b.job.Long, b.job.MaxLength = LongWindow, 10
	b.setColumns(store.Column{Pooling: store.Tokens})
	b.add("a.faa", fasta(records))
	b.run()
	_, rows := b.rows("a")
	for i, r := range records {
		var want []float32
		for from := 0; from < len(r.seq); from += 10 {
			want = append(want, b.wanted(r.seq[from:min(from+10, len(r.seq))], 0)...)
		}
		if !slices.Equal(rows[i], want) {
			t.Errorf("record of %d letters: %d values, want %d others", len(r.seq), len(rows[i]), len(want))
		}
	}
}

// TestWindowsMax checks that the maximum of a record is the maximum over its windows, value by value.
func TestWindowsMax(t *testing.T) {
	records := randomRecords(1, 3, 20, 21)
	b := newBench(t)
	b.job.Long, b.job.MaxLength, b.job.Overlap = LongWindow, 10, 4
	b.setColumns(store.Column{Pooling: store.Max})
	b.add("a.faa", fasta(records))
	b.run()
	_, rows := b.rows("a")
	for i, r := range records {
		want := b.wanted(r.seq[:min(10, len(r.seq))], 0)
		for from := 6; from+4 < len(r.seq); from += 6 {
			for c, v := range b.wanted(r.seq[from:min(from+10, len(r.seq))], 0) {
				want[c] = max(want[c], v)
			}
		}
		if !slices.Equal(rows[i], want) {
			t.Errorf("record of %d letters: %v, want %v", len(r.seq), rows[i], want)
		}
	}
}

// TestResiduesOfWindows checks that the residues of a record are those of its windows, one window after the other,
// without special tokens.
func TestResiduesOfWindows(t *testing.T) {
	records := randomRecords(1, 3, 20, 21)
	b := newBench(t)
	b.job.Long, b.job.MaxLength = LongWindow, 10
	b.setColumns(store.Column{Pooling: store.Residues})
	b.add("a.faa", fasta(records))
	b.run()
	_, rows := b.rows("a")
	for i, r := range records {
		var want []float32
		for from := 0; from < len(r.seq); from += 10 {
			want = append(want, b.wanted(r.seq[from:min(from+10, len(r.seq))], 0)...)
		}
		if !slices.Equal(rows[i], want) || len(want) != len(r.seq)*fakeDim {
			t.Errorf("record of %d letters: %d values, want %d others", len(r.seq), len(rows[i]), len(want))
		}
	}
}

// TestResiduesHaveTheirLetters checks the range of letters that belongs to each row of the pooling Residues, for DNA.
// In every window the ranges must follow each other from the first letter to the last. Each range must spell the
// vocabulary entry of its token, unless it is the letter N, which has no entry.
func TestResiduesHaveTheirLetters(t *testing.T) {
	tokens := transformer.DNABERT.NewTokenizer()
	covered := func(p store.Pooling, n int) (from, to int) {
		return transformer.DNABERT.Covered(transformer.Pooling(p), n)
	}
	rng := rand.New(rand.NewPCG(1, 1))
	for _, windows := range []bool{false, true} {
		job := &Job{Tokenizer: tokens, Long: LongWindow, MaxLength: 40, Overlap: 15, Windows: windows, Covered: covered,
			Output: Output{Columns: []store.Column{{Pooling: store.Residues}}}}
		for length := range 150 {
			seq := make([]byte, length+1)
			for i := range seq {
				seq[i] = "ACGTN"[rng.IntN(5)]
			}
			rec, err := job.newRecord("f", seqio.Record{ID: "x", Seq: seq})
			if err != nil {
				t.Fatal(err)
			}
			for _, w := range rec.windows {
				w.seq.result = [][]float32{nil}
			}
			var got []store.Letters
			for _, row := range job.makeRows(rec) {
				got = append(got, row.Residues...)
			}
			for _, w := range rec.windows {
				end := w.from
				for _, id := range w.seq.ids[1 : len(w.seq.ids)-1] {
					l := got[0]
					got = got[1:]
					if int(l.First) != end+1 || int(l.Last) < end+1 || int(l.Last) > w.to {
						t.Fatalf("%q: a residue of letters %v after letter %d", seq, l, end)
					}
					end = int(l.Last)
					text := string(seq[l.First-1 : l.Last])
					if entry, ok := tokens.ID(text); ok && entry != int(id) || !ok && text != "N" {
						t.Fatalf("%q: letters %v are %q, the token is %d", seq, l, text, id)
					}
				}
				if end != w.to {
					t.Fatalf("%q: the residues end at letter %d of %d", seq, end, w.to)
				}
			}
			if len(got) > 0 {
				t.Fatalf("%d more residues", len(got))
			}
		}
	}
}

// TestWindowsCLS checks that the CLS embedding of a record with several windows is the mean of the states of their
// first tokens. The first tokens of all windows have the same state in the fake device.
func TestWindowsCLS(t *testing.T) {
	records := randomRecords(1, 3, 20, 21)
	b := newBench(t)
	b.job.Long, b.job.MaxLength = LongWindow, 10
	b.setColumns(store.Column{Pooling: store.CLS})
	b.add("a.faa", fasta(records))
	b.run()
	b.check("a", records)
}

func TestTruncateIsCounted(t *testing.T) {
	records := randomRecords(1, 5, 20, 21, 300)
	b := newBench(t)
	b.job.Long, b.job.MaxLength = LongTruncate, 20
	b.add("a.faa", fasta(records))
	s := b.run()
	if s.Truncated != 2 || s.Letters != 5+20+20+20 || s.Files[0].Truncated != 2 {
		t.Errorf("%d truncated, %d letters; want 2 and 65", s.Truncated, s.Letters)
	}
	for i, r := range records {
		records[i].seq = r.seq[:min(20, len(r.seq))]
	}
	b.check("a", records)
}

func TestLongErrorNamesTheRecord(t *testing.T) {
	b := newBench(t)
	b.job.Long, b.job.MaxLength = LongError, 20
	path := b.add("a.faa", ">short\nMKV\n>tall\n"+strings.Repeat("M", 21)+"\n")
	s := b.run()
	if len(s.Failed) != 1 || s.Failed[0].Type != "record" || !errors.Is(s.Failed[0].Err, ErrTooLong) {
		t.Fatalf("failed: %v", s.Failed)
	}
	for _, part := range []string{path + ":3", `"tall"`, "21 letters", "20"} {
		if !strings.Contains(s.Failed[0].Err.Error(), part) {
			t.Errorf("%q does not mention %q", s.Failed[0].Err, part)
		}
	}
	if _, err := os.Lstat(filepath.Join(b.out, store.ManifestName)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the manifest has an entry: %v", err)
	}
}

func TestLayersKeepTheirOrder(t *testing.T) {
	records := randomRecords(1, upTo(30)...)
	b := newBench(t)
	b.setColumns(store.Column{Pooling: store.Mean, Layer: 3}, store.Column{Pooling: store.Mean, Layer: 0})
	b.job.Output.Format = store.Safetensors
	b.add("a.faa", fasta(records))
	b.run()
	content := b.outputs()["a.fake.safetensors"]
	if !strings.Contains(content, `"embeddings_3"`) || strings.Index(content, `"embeddings_3"`) > strings.Index(content, `"embeddings_0"`) {
		t.Errorf("the layers are not in the given order")
	}
}

// TestUnknownLettersAreCounted checks the number of unknown letters. The letter J is not in the vocabulary of ESM-2.
// In windows that overlap, letters count twice among the unknown ones and among all.
func TestUnknownLettersAreCounted(t *testing.T) {
	b := newBench(t)
	b.add("a.faa", ">a\nMJJV\n>b\nMKVJ\n")
	if s := b.run(); s.Unknown != 3 || s.Letters != 8 {
		t.Errorf("%d unknown of %d letters", s.Unknown, s.Letters)
	}
	b = newBench(t)
	b.job.Long, b.job.MaxLength, b.job.Overlap = LongWindow, 10, 5
	b.add("a.faa", ">a\nMKVLAJJJJJMKVLA\n") // windows 1-10 and 6-15
	if s := b.run(); s.Unknown != 10 || s.Letters != 20 {
		t.Errorf("with windows %d unknown of %d letters", s.Unknown, s.Letters)
	}
}

func TestLongRecordIsAnnounced(t *testing.T) {
	huge := ">huge\n" + strings.Repeat("M", LongTokens) + "\n"
	for _, c := range []struct {
		file  string
		trial int // expected number of tokens in the trial; 0 if the device has computed a batch before
	}{{">small\nMKV\n" + huge, 0}, {huge, 64}} {
		b := newBench(t)
		b.job.Devices = b.job.Devices[:1]
		b.add("a.faa", c.file)
		if s := b.run(); s.Records != int64(strings.Count(c.file, ">")) {
			t.Errorf("%d records", s.Records)
		}
		if list := b.seen.long; len(list) != 1 || list[0].ID != "huge" || list[0].Tokens != LongTokens+2 || list[0].TrialTokens != c.trial {
			t.Errorf("announced: %+v, want a trial of %d tokens", list, c.trial)
		}
		if len(b.seen.batches) != len(b.seen.long)+strings.Count(c.file, "small") {
			t.Errorf("batches %+v", b.seen.batches)
		}
	}
}

// TestOutOfMemoryHalves checks that a device that cannot hold a batch gets smaller batches afterwards, and that no
// record is lost.
func TestOutOfMemoryHalves(t *testing.T) {
	records := randomRecords(1, upTo(60)...)
	for _, ahead := range []int{0, 1} {
		b := newBench(t)
		b.job.Devices[0].Ahead = ahead
		b.fake.budget = 400
		b.fake.memory = 100
		b.add("a.faa", fasta(records))
		if s := b.run(); s.Records != 60 || s.Skipped != 0 {
			t.Fatalf("%d rows, %d skipped", s.Records, s.Skipped)
		}
		b.check("a", records)
		if n := len(b.seen.halved); n == 0 || b.seen.halved[n-1] < 50 || !slices.IsSortedFunc(b.seen.halved, func(a, b int) int { return b - a }) {
			t.Errorf("budgets %v, want fewer and fewer down to some that fit", b.seen.halved)
		}
		// After each halving, only the batches that were already in flight may still fail.
		if failed := int(b.fake.calls.Load()) - len(b.seen.batches); failed < len(b.seen.halved) || failed > len(b.seen.halved)*(1+ahead) {
			t.Errorf("%d batches failed, %d halvings", failed, len(b.seen.halved))
		}
	}
}

// TestRecordThatNeverFits checks that a record that does not fit the memory fails its file, and that the other files
// are written. A second run with more memory must embed the failed file.
func TestRecordThatNeverFits(t *testing.T) {
	records := randomRecords(1, 5, 10, 300, 20)
	b := newBench(t)
	b.fake.memory = 101
	large := b.add("a.faa", fasta(records))
	b.add("b.faa", fasta(records[:1]))
	s := b.run()
	if len(s.Files) != 1 || len(s.Failed) != 1 || s.Skipped != 0 {
		t.Fatalf("%d finished, failed %v, %d skipped", len(s.Files), s.Failed, s.Skipped)
	}
	says := fmt.Sprintf("%s:3: record %q: ", large, records[1].id)
	if f := s.Failed[0]; f.Path != large || f.Type != "memory" || !errors.Is(f.Err, ErrMemory) || !strings.HasPrefix(f.Err.Error(), says) {
		t.Errorf("failed: %+v", f)
	}
	b.wantNames(outputsOf("b")...)
	if s := b.again().run(); len(s.Files) != 1 || len(s.Resumed) != 1 || s.Records != 4 {
		t.Errorf("with more memory: %+v", s)
	}
	b.check("a", records)
}

// TestRecordThatNeverFitsIsSkipped checks a record that does not fit the memory when the user has asked to skip bad
// records. The record must be left out with the reason, and the other records must be written.
func TestRecordThatNeverFitsIsSkipped(t *testing.T) {
	records := randomRecords(1, 5, 10, 99, 300, 20, 400)
	b := newBench(t)
	b.job.Reading.OnBad = seqio.BadSkip
	b.fake.memory = 101
	b.add("a.faa", fasta(records))
	s := b.run()
	var kept []entryOf
	skipped := 0
	for i, r := range records {
		if len(r.seq) < 100 {
			kept = append(kept, r)
			continue
		}
		want := fmt.Sprintf("a.faa:%d %s: ", 2*i+1, r.id)
		if skipped >= len(b.seen.skipped) || !strings.HasPrefix(b.seen.skipped[skipped], want) {
			t.Errorf("skipped %q, want %q", b.seen.skipped, want)
		}
		skipped++
	}
	b.check("a", kept)
	if s.Records != 4 || s.Skipped != 2 || s.Files[0].Skipped["out of memory"] != 2 {
		t.Errorf("%d rows, %d skipped, by reason %v", s.Records, s.Skipped, s.Files[0].Skipped)
	}
	manifest, err := store.ReadManifest(b.out)
	if err != nil {
		t.Fatal(err)
	}
	if e, _, ok := manifest.Find(filepath.Join(b.out, "a.fake.npy")); !ok || e.Skipped["out of memory"] != 2 || e.Records != 4 {
		t.Errorf("the manifest says %+v", e)
	}
}

// TestNotANumber checks that a NaN or an infinity in an embedding fails the file with an error that names the record.
func TestNotANumber(t *testing.T) {
	for _, bad := range []float32{float32(math.NaN()), float32(math.Inf(-1))} {
		b := newBench(t)
		poisoned, _ := b.job.Tokenizer.Append(nil, []byte("WWWW"))
		b.fake.spoil = func(row []float32, ids []int32) {
			if slices.Equal(ids, poisoned) {
				row[2] = bad
			}
		}
		bad := b.add("bad.faa", ">fine\nMKV\n>sick\nWWWW\n")
		b.add("good.faa", ">fine\nMKV\n")
		s := b.run()
		if len(s.Failed) != 1 || !errors.Is(s.Failed[0].Err, store.ErrNotFinite) || s.Failed[0].Type != "record" ||
			!strings.Contains(s.Failed[0].Err.Error(), bad+`:3: record "sick"`) {
			t.Errorf("failed: %v", s.Failed)
		}
		b.wantNames(outputsOf("good")...)
	}
}

// TestFiveSpansInFlight checks that the memory of a run is bounded: with one device, at most five spans of records have
// been read but not written, however slow the writer is.
func TestFiveSpansInFlight(t *testing.T) {
	const budget, length = 100, 48 // two records of 50 tokens per batch
	b := newBench(t)
	b.fake.budget = budget
	counting := &countingTokenizer{Tokenizer: b.job.Tokenizer}
	b.job.Tokenizer = counting
	b.job.Reading.OnBad = seqio.BadSkip
	b.fake.memory = 1 // too small for any record, so that the writer skips and reports each
	// The observer blocks the writer at the first record until the other goroutines can do no more work.
	var skipped, most atomic.Int64
	b.seen.onSkip = func() {
		if skipped.Load() == 0 {
			for before := int64(-1); before != counting.calls.Load(); time.Sleep(100 * time.Millisecond) {
				before = counting.calls.Load()
			}
		}
		if waiting := counting.calls.Load() - skipped.Load(); waiting > most.Load() {
			most.Store(waiting)
		}
		skipped.Add(1)
	}
	b.add("a.faa", fasta(randomRecords(1, slices.Repeat([]int{length}, 300)...)))
	if s := b.run(); s.Skipped != 300 {
		t.Fatalf("%d records were skipped", s.Skipped)
	}
	const capacity = lookAhead * budget
	perSpan := int64((capacity - capacity/packingLoss) / (length + 2))
	// The reader may have tokenized one more record, which does not fit in the current span.
	if got := most.Load(); got > 5*perSpan+1 || got < 4*perSpan {
		t.Errorf("%d records were in flight, want five spans of %d", got, perSpan)
	}
}

type countingTokenizer struct {
	tokenizer.Tokenizer
	calls atomic.Int64
}

func (c *countingTokenizer) Append(dst []int32, seq []byte) ([]int32, int) {
	c.calls.Add(1)
	return c.Tokenizer.Append(dst, seq)
}

// TestSkippedRecordsAreAccountedFor checks that records that the reader skips appear in the report and in the manifest.
func TestSkippedRecordsAreAccountedFor(t *testing.T) {
	b := newBench(t)
	b.job.Reading = seqio.Options{MinLength: 3, OnBad: seqio.BadSkip}
	b.add("a.faa", ">a\nMKV\n>b\nM\n>c\n\n>d\nMK!V\n>e\nMKVL\n")
	s := b.run()
	b.check("a", []entryOf{{"a", "MKV"}, {"e", "MKVL"}})
	want := map[string]int64{seqio.ReasonTooShort: 1, seqio.ReasonEmpty: 1, seqio.ReasonIllegalLetter: 1}
	manifest, err := store.ReadManifest(b.out)
	if err != nil {
		t.Fatal(err)
	}
	e, _, _ := manifest.Find(filepath.Join(b.out, "a.fake.npy"))
	for reason, n := range want {
		if s.Files[0].Skipped[reason] != n || e.Skipped[reason] != n {
			t.Errorf("skipped %v, in the manifest %v, want %v", s.Files[0].Skipped, e.Skipped, want)
			break
		}
	}
	if len(s.Files[0].Examples) != 3 || s.Skipped != 3 {
		t.Errorf("examples %v, %d skipped", s.Files[0].Examples, s.Skipped)
	}
}

// TestLostRecordsAreNoticed checks that an output with fewer rows than records is never committed.
func TestLostRecordsAreNoticed(t *testing.T) {
	b := newBench(t)
	b.add("a.faa", ">a\nMKV\n>b\nMKVL\n")
	f := b.job.Files[0]
	reader, err := f.open(b.job.Reading)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	for err == nil {
		_, err = reader.Read()
	}
	if err := os.MkdirAll(b.out, 0o777); err != nil {
		t.Fatal(err)
	}
	out, err := store.Create(b.job.Output.spec(f))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Abort()
	r := &run{Job: b.job}
	job := &fileJob{run: r, File: f, reader: reader, out: out,
		report: FileReport{Path: f.Path, Records: 1, Skipped: map[string]int64{}}}
	err = job.commit()
	if !errors.Is(err, errLost) || !strings.Contains(err.Error(), f.Path) {
		t.Errorf("commit: %v", err)
	}
	if _, err := os.Lstat(filepath.Join(b.out, store.ManifestName)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the manifest has an entry: %v", err)
	}
}
