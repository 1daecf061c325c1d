package pool

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
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

var (
	randomRuns = flag.Int("pool.runs", 0, "number of runs of TestRandomRuns (default 100, or 1 with -pool.seed)")
	randomSeed = flag.Uint64("pool.seed", 0, "seed of the first run (default from the clock)")
)

// TestRandomRuns runs random jobs on fake devices of given speeds, with faults, invalid inputs, silent pipes and
// interruptions. All times are simulated by synctest. Every run must end, leave no goroutine and account for every
// file. Its outputs must be complete and equal to those of a plain loop over the records.
//
// A seed determines the inputs, the devices, the batches at which the devices fail, and all times; -pool.seed repeats
// the run of a seed. A seed does not determine the order of goroutines that are ready at the same time, nor always
// which device computes which records.
func TestRandomRuns(t *testing.T) {
	first, runs := *randomSeed, *randomRuns
	switch {
	case runs > 0:
	case first > 0:
		runs = 1
	case testing.Short():
		runs = 20
	default:
		runs = 100
	}
	if first == 0 {
		first = uint64(time.Now().UnixMilli())
	}
	t.Logf("seeds %d to %d", first, first+uint64(runs)-1)
	outcomes := map[string]int{}
	for i := range runs {
		seed := first + uint64(i)
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { outcomes[randomRun(t, newScenario(seed))]++ })
		})
	}
	t.Logf("outcomes: %v", outcomes)
	for _, outcome := range []string{"all done", "some failed", "interrupted", "systemic", "no device"} {
		if outcomes[outcome] == 0 && !t.Failed() && runs >= 500 {
			t.Errorf("outcome %q did not occur and is not tested", outcome)
		}
	}
}

// TestRerunOfAFileThatFailed repeats a random run in which the writer reached a record that does not fit the memory
// before it learned that the file had failed. The rerun must fail the file again, and must not leave the record out.
func TestRerunOfAFileThatFailed(t *testing.T) {
	for range 10 { // the seed does not determine the order of goroutines
		synctest.Test(t, func(t *testing.T) { randomRun(t, newScenario(1795749078717)) })
	}
}

// scenario describes one random run: its inputs, devices, settings and faults.
type scenario struct {
	seed      uint64
	devices   []randomDevice
	files     []randomFile
	memory    int  // number of tokens that fit the memory of a device; 0 means unlimited
	skip      bool // whether records that are bad or do not fit the memory are skipped
	perToken  bool
	maxLength int // Job.MaxLength in letters; 0 means no limit
	long      LongPolicy
	kept      int           // Job.KeptBytes
	parts     int           // Job.PartRecords
	interrupt time.Duration // time of the interruption; 0 means none
}

type randomDevice struct {
	budget, ahead int
	closed        bool          // the device cannot be opened
	opens         time.Duration // time that opening takes
	perToken      time.Duration // time per token
	breaksAt      int           // number of the batch that fails, from 1; 0 means none
}

type randomFile struct {
	name    string
	records []entryOf
	fault   string        // one of the constants below, or ""
	silence time.Duration // delay between two chunks of a pipe
}

const (
	pipeInput     = "is a pipe"
	badRecord     = "its last record is invalid"
	notFinite     = "an embedding is not finite"
	unwritable    = "its output cannot be created"
	deadly        = "a record on which every device fails"
	deadlyLetters = "WWWWWWWWWWW" // letters of a record on which every device fails
	nanLetters    = "CCCCCCCCCCC" // letters of a record whose embedding is not finite
)

func newScenario(seed uint64) *scenario {
	rng := rand.New(rand.NewPCG(seed, 1))
	oneIn := func(n int) bool { return rng.IntN(n) == 0 }
	s := &scenario{seed: seed, perToken: oneIn(5), long: LongTruncate, kept: []int{0, 4000, 1 << 20}[rng.IntN(3)]}
	if oneIn(3) {
		s.memory, s.skip = 48, oneIn(2)
	}
	if oneIn(3) {
		s.maxLength, s.long = len(nanLetters)+rng.IntN(30), []LongPolicy{LongTruncate, LongWindow}[rng.IntN(2)]
	}
	s.parts = []int{0, 1, 7}[rng.IntN(3)]
	breaks, soon := oneIn(2), []int{20, 3}[rng.IntN(2)]
	for range 1 + rng.IntN(5) {
		d := randomDevice{budget: 20 + rng.IntN(100), ahead: rng.IntN(3), closed: oneIn(10),
			opens: time.Duration(rng.IntN(2000)) * time.Millisecond, perToken: time.Duration(1+rng.IntN(20)) * time.Millisecond}
		if breaks && !oneIn(4) {
			d.breaksAt = 1 + rng.IntN(soon)
		}
		s.devices = append(s.devices, d)
	}
	for i := range 1 + rng.IntN(8) {
		f := randomFile{name: fmt.Sprint("f", i)}
		lengths := make([]int, 1+rng.IntN(60))
		for l := range lengths {
			lengths[l] = 1 + rng.IntN(60)
		}
		f.records = randomRecords(seed*100+uint64(i), lengths...)
		for r := range f.records {
			if oneIn(3) { // copies the sequence of any record, near or far
				f.records[r].seq = f.records[rng.IntN(len(f.records))].seq
			}
		}
		if oneIn(5) {
			f.fault = []string{pipeInput, badRecord, notFinite, unwritable, deadly}[rng.IntN(5)]
		}
		at := rng.IntN(len(f.records))
		switch f.fault {
		case pipeInput:
			f.silence = time.Duration(rng.IntN(3000)) * time.Millisecond
		case notFinite:
			f.records[at].seq = nanLetters
		case deadly:
			f.records[at].seq = deadlyLetters
		}
		s.files = append(s.files, f)
	}
	if oneIn(3) {
		s.interrupt = 1 + time.Duration(rng.IntN(8000))*time.Millisecond
	}
	return s
}

// setUp creates the scenario's job. Its devices have the faults of the scenario, unless sound is set.
func (s *scenario) setUp(t *testing.T, b *bench, ctx context.Context, sound bool) (fakes []*fake) {
	if s.perToken {
		b.setColumns(store.Column{Pooling: store.Tokens})
	}
	b.job.MaxLength, b.job.Long, b.job.KeptBytes, b.job.PartRecords, b.job.Devices = s.maxLength, s.long, s.kept, s.parts, nil
	if s.skip {
		b.job.Reading.OnBad = seqio.BadSkip
	}
	for i, d := range s.devices {
		f := &fake{columns: b.fake.columns, budget: d.budget, memory: s.memory}
		batches := 0
		f.fault = func(batch kernels.Batch) error {
			time.Sleep(time.Duration(len(batch.IDs)) * d.perToken)
			if batches++; !sound && (batches == d.breaksAt || holds(batch, b.tokens(deadlyLetters))) {
				f.broke = true
				return errBroken
			}
			return nil
		}
		f.spoil = func(row []float32, ids []int32) {
			if slices.Equal(ids, b.tokens(nanLetters)) {
				row[2] = float32(math.NaN())
			}
		}
		device := f.device(fmt.Sprint("fake", i))
		device.Ahead = d.ahead
		device.Open = func() (Embedder, error) {
			time.Sleep(d.opens)
			if d.closed && !sound {
				return nil, errBroken
			}
			f.opened = true
			return f, nil
		}
		b.job.Devices = append(b.job.Devices, device)
		fakes = append(fakes, f)
	}
	for _, f := range s.files {
		b.job.Files = append(b.job.Files, s.input(t, b, ctx, f))
	}
	return fakes
}

// input writes the input f and returns it as Plan would.
func (s *scenario) input(t *testing.T, b *bench, ctx context.Context, f randomFile) File {
	content := fasta(f.records)
	file := File{Input: seqio.Input{Path: filepath.Join(b.in, f.name+".faa"), Name: f.name, Alphabet: seqio.Protein}}
	if f.fault == pipeInput {
		// System calls must not block in a synctest bubble. So an io.Pipe takes the place of a named pipe.
		read, write := io.Pipe()
		go func() {
			for piece := range slices.Chunk([]byte(content), 400) {
				if _, err := write.Write(piece); err != nil {
					return
				}
				time.Sleep(f.silence)
			}
			write.Close()
		}()
		if err := file.connect(ctx, b.job.Reading, func() (io.ReadCloser, error) { return read, nil }); err != nil {
			t.Fatal(err)
		}
		return file
	}
	switch f.fault {
	case badRecord:
		content += ">bad\nM!\n"
	case unwritable:
		file.Dir = "obstacle"
		if err := os.MkdirAll(b.out, 0o777); err != nil {
			t.Fatal(err)
		}
		writeFile(t, filepath.Join(b.out, file.Dir), "a file where a folder should be")
	}
	writeFile(t, file.Path, content)
	file.Size = int64(len(content))
	return file
}

// tokens returns the token ids of a sequence.
func (b *bench) tokens(letters string) []int32 {
	ids, _ := b.job.Tokenizer.Append(nil, []byte(letters))
	return ids
}

// holds reports whether a sequence of the batch has these tokens.
func holds(batch kernels.Batch, ids []int32) bool {
	for s := range batch.Sequences() {
		if slices.Equal(batch.IDs[batch.CuSeqlens[s]:batch.CuSeqlens[s+1]], ids) {
			return true
		}
	}
	return false
}

func randomRun(t *testing.T, s *scenario) (outcome string) {
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("replay with -pool.seed %d", s.seed)
		}
	})
	b := newBench(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	fakes := s.setUp(t, b, ctx, false)
	var interrupted time.Time
	if s.interrupt > 0 {
		defer time.AfterFunc(s.interrupt, func() { interrupted = time.Now(); cancel() }).Stop()
	}
	summary, err := b.job.Run(ctx)
	synctest.Wait()
	outcome = s.checkEnd(t, summary, err, fakes)
	if outcome == "interrupted" && time.Since(interrupted) > s.longest() {
		t.Errorf("the run ended %v after its interruption, but no batch takes more than %v", time.Since(interrupted), s.longest())
	}
	finished := s.checkOutputs(t, b, summary)

	// The same job, on devices without faults, must compute the remaining files.
	cancel()
	again := b.again()
	again.job.Files = nil
	s.setUp(t, again, t.Context(), true)
	again.job.Files = slices.DeleteFunc(again.job.Files, func(f File) bool { return f.once() && finished[f.Name] })
	summary, err = again.job.Run(t.Context())
	if err != nil {
		t.Fatalf("second run: %v", err)
	}
	for _, f := range s.files {
		if s.fails(f) {
			continue
		}
		if f.fault == pipeInput && finished[f.name] {
			continue // a pipe cannot be read a second time
		}
		path := filepath.Join(b.in, f.name+".faa")
		resumed := slices.Contains(summary.Resumed, path)
		computed := slices.ContainsFunc(summary.Files, func(r FileReport) bool { return r.Path == path })
		if resumed != finished[f.name] || computed == resumed {
			t.Errorf("second run: %s was finished %v, is resumed %v, computed %v", f.name, finished[f.name], resumed, computed)
		}
	}
	s.checkOutputs(t, again, summary)
	return outcome
}

// longest returns an upper bound for the time that a device needs, after an interruption, until it is open or has
// finished the batches in flight.
func (s *scenario) longest() time.Duration {
	var longest time.Duration
	for _, d := range s.devices {
		longest = max(longest, d.opens, time.Duration(d.ahead+1)*time.Duration(max(d.budget, 62))*d.perToken)
	}
	return longest
}

// checkEnd checks that the end of the run is one that the scenario allows, and returns a name for it.
func (s *scenario) checkEnd(t *testing.T, summary Summary, err error, fakes []*fake) (outcome string) {
	unopened, broke := 0, 0
	for i, f := range fakes {
		switch {
		case s.devices[i].closed:
			unopened++
		case f.broke:
			broke++
		}
		if f.opened != (f.closed.Load() == 1) || f.inFlight.Load() != 0 || f.most.Load() > int64(s.devices[i].ahead+1) {
			t.Errorf("device %d: opened %v, closed %d times, %d batches in flight at most, %d left in flight",
				i, f.opened, f.closed.Load(), f.most.Load(), f.inFlight.Load())
		}
	}
	ended, left := len(summary.Files)+len(summary.Failed), 0
	switch {
	case errors.Is(err, ErrInterrupted) && s.interrupt > 0:
		outcome = "interrupted"
	case errors.Is(err, ErrSystemic) && broke >= maxFailures:
		outcome = "systemic"
	case err != nil && broke+unopened == len(fakes):
		outcome = "no device"
		if n, _ := fmt.Sscanf(err.Error(), "no device is left for %d files:", &left); n != 1 || left != len(s.files)-ended {
			t.Errorf("%d files are left: %v", len(s.files)-ended, err)
		}
	case err != nil:
		t.Errorf("with %d of %d devices lost and %d not opened, interrupted after %v, Run: %v", broke, len(fakes), unopened, s.interrupt, err)
	case len(summary.Failed) > 0:
		outcome = "some failed"
	default:
		outcome = "all done"
	}
	if err == nil && ended != len(s.files) || err != nil && ended >= len(s.files) {
		t.Errorf("%d files finished and %d failed of %d: %v", len(summary.Files), len(summary.Failed), len(s.files), err)
	}
	want := map[string]string{badRecord: "record", notFinite: "record", unwritable: OutputFailure}
	for _, failure := range summary.Failed {
		f := s.file(failure.Path)
		if failure.Type == "device" && errors.Is(failure.Err, errBroken) {
			if broke -= 2; broke < 0 {
				t.Errorf("%s failed, but no two devices failed on it: %v", f.name, failure.Err)
			}
		} else if failure.Type != want[f.fault] && (failure.Type != "memory" || !s.tooLarge(f)) {
			t.Errorf("%s (fault %q) failed with type %s: %v", f.name, f.fault, failure.Type, failure.Err)
		}
	}
	return outcome
}

func (s *scenario) file(path string) randomFile {
	name := strings.TrimSuffix(filepath.Base(path), ".faa")
	return s.files[slices.IndexFunc(s.files, func(f randomFile) bool { return f.name == name })]
}

// fails reports whether a file fails even on devices without faults.
func (s *scenario) fails(f randomFile) bool {
	return f.fault == badRecord && !s.skip || f.fault == notFinite || f.fault == unwritable || s.tooLarge(f)
}

// tooLarge reports whether a file fails because one of its windows does not fit the memory of the devices.
func (s *scenario) tooLarge(f randomFile) bool {
	return s.memory > 0 && !s.skip && slices.ContainsFunc(f.records, func(r entryOf) bool {
		return min(len(r.seq), cmp.Or(s.maxLength, len(r.seq)))+2 > s.memory
	})
}

// checkOutputs checks the outputs of all files that this run or an earlier one has finished: they must be correct and
// described by the manifest, and no other outputs may exist. It returns the names of the finished files.
func (s *scenario) checkOutputs(t *testing.T, b *bench, summary Summary) (finished map[string]bool) {
	finished = map[string]bool{}
	for _, path := range summary.Resumed {
		finished[s.file(path).name] = true
	}
	for _, report := range summary.Files {
		finished[s.file(report.Path).name] = true
	}
	if len(b.seen.finished) != len(summary.Files) || len(b.seen.failed) != len(summary.Failed) {
		t.Errorf("the observer has seen %d files finish and %d fail of %d and %d",
			len(b.seen.finished), len(b.seen.failed), len(summary.Files), len(summary.Failed))
	}
	manifest, err := store.ReadManifest(b.out)
	if err != nil {
		t.Fatal(err)
	}
	there := b.outputs()
	delete(there, store.ManifestName)
	delete(there, "obstacle")
	for _, f := range s.files {
		if s.fails(f) {
			if finished[f.name] {
				t.Errorf("%s (fault %q) finished", f.name, f.fault)
			}
			continue
		}
		file := File{Input: seqio.Input{Name: f.name}}
		for i, path := range b.job.Output.spec(file).Paths() {
			entry, described, _ := manifest.Find(path)
			name := filepath.Base(path)
			content, ok := there[name]
			delete(there, name)
			whole := !entry.Finished.IsZero() && described.SHA256 == sha256Of(content)
			if f.fault == pipeInput && !ok && !whole { // the second run leaves out a pipe that was finished
				continue
			}
			if ok != whole || !finished[f.name] && f.fault != pipeInput && ok {
				t.Errorf("%s exists: %v; matches the manifest: %v; its file was finished: %v", name, ok, whole, finished[f.name])
			}
			if i == 0 && ok {
				s.checkRows(t, b, f, entry)
			}
		}
	}
	for name := range there {
		input, _, _ := strings.Cut(strings.TrimPrefix(name, "."), ".")
		// The part log of a file that was interrupted or has failed may exist.
		if strings.HasSuffix(name, ".parts") && s.parts > 0 && !finished[input] {
			continue
		}
		t.Errorf("%s is left in the output folder", name)
	}
	return finished
}

// checkRows compares an output with the result of a plain loop over the records.
func (s *scenario) checkRows(t *testing.T, b *bench, f randomFile, entry store.Entry) {
	var ids []string
	var want [][]float32
	for _, r := range f.records {
		rec, err := b.job.newRecord(f.name, seqio.Record{ID: r.id, Seq: []byte(r.seq)})
		if err != nil {
			t.Fatal(err)
		}
		if s.memory > 0 && slices.ContainsFunc(rec.windows, func(w *window) bool { return w.seq.tokens() > s.memory }) {
			continue
		}
		for _, w := range rec.windows {
			w.seq.result = [][]float32{b.fake.embed(w.seq.ids, 0)}
		}
		ids, want = append(ids, r.id), append(want, b.job.makeRows(rec)[0].Embeddings[0])
	}
	gotIDs, got := b.rows(f.name)
	if !slices.Equal(gotIDs, ids) || !slices.EqualFunc(got, want, slices.Equal[[]float32]) {
		t.Errorf("%s has other rows than a loop computes: %q, want %q", f.name, gotIDs, ids)
	}
	if entry.Records != int64(len(ids)) || cmp.Or(entry.Device, "none") == "none" || entry.Backend != "fake backend" ||
		entry.Skipped[reasonMemory] != int64(len(f.records)-len(ids)) {
		t.Errorf("%s has %d rows of %d; the manifest says %+v", f.name, len(ids), len(f.records), entry)
	}
}
