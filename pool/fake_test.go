package pool

import (
	"archive/zip"
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"seqembed/internal/seqio"
	"seqembed/internal/store"
	"seqembed/kernels"
	"seqembed/transformer"
)

// fakeDim is the number of values in an embedding of a fake device.
const fakeDim = 5

// tokenState returns the hidden state that a fake device has for a token. It depends on the id, the position and the
// layer, so that another sequence, or the same tokens in another order, have other states.
func tokenState(id int32, position, layer int) [fakeDim]float64 {
	v := float64(id)
	return [fakeDim]float64{v, v * v, 1, float64(position+1) * v, math.Mod(v*12345.678+float64(layer), 977)}
}

// fake is a device for tests: an Embedder whose embeddings are easy to compute. Its poolings Mean, Max and Residues
// cover all tokens of a sequence except the first and the last.
type fake struct {
	columns []store.Column
	memory  int                              // number of tokens in the largest batch that fits; 0 means unlimited
	fault   func(kernels.Batch) error        // returns the error for a batch; nil if none fails
	spoil   func(row []float32, ids []int32) // changes the result of a sequence; nil if none is changed
	budget  int                              // maximum number of tokens in a batch; 0 means 64

	inFlight atomic.Int64 // number of batches started but not finished
	most     atomic.Int64 // maximum of inFlight
	calls    atomic.Int64
	closed   atomic.Int64

	// opened is set when Open has returned the device, and broke when a batch has failed. Only some tests set these
	// fields.
	opened, broke bool
}

func (f *fake) Budget() int { return cmp.Or(f.budget, 64) }

// Start leaves the computation to finish. So the results are wrong if the caller changes the batch before it calls
// finish.
func (f *fake) Start(b kernels.Batch) (finish func() ([][]float32, error)) {
	f.calls.Add(1)
	n := f.inFlight.Add(1)
	if n > f.most.Load() {
		f.most.Store(n)
	}
	return func() ([][]float32, error) {
		f.inFlight.Add(-1)
		if n > 1 && len(b.IDs) > f.Budget() {
			return nil, fmt.Errorf("fake: a batch of %d tokens, over the budget, starts with %d others in flight", len(b.IDs), n-1)
		}
		return f.encode(b)
	}
}

func (f *fake) encode(b kernels.Batch) ([][]float32, error) {
	if f.memory > 0 && len(b.IDs) > f.memory {
		return nil, fmt.Errorf("fake: %d tokens: %w", len(b.IDs), kernels.ErrOutOfMemory)
	}
	if f.fault != nil {
		if err := f.fault(b); err != nil {
			return nil, err
		}
	}
	results := make([][]float32, len(f.columns))
	for c := range results {
		for s := range b.Sequences() {
			ids := b.IDs[b.CuSeqlens[s]:b.CuSeqlens[s+1]]
			row := f.embed(ids, c)
			if f.spoil != nil {
				f.spoil(row, ids)
			}
			results[c] = append(results[c], row...)
		}
	}
	return results, nil
}

// oneMean has the only column of a test job from newBench: the mean of layer 7.
var oneMean = []store.Column{{Pooling: store.Mean, Layer: 7}}

// fakeCovered is the Job.Covered that agrees with fake: it returns the range of the tokens that the pooling p covers in
// a sequence of n tokens.
func fakeCovered(p store.Pooling, n int) (from, to int) {
	switch p {
	case store.CLS:
		return 0, 1
	case store.Tokens:
		return 0, n
	}
	return 1, n - 1
}

func (f *fake) Close() error {
	f.closed.Add(1)
	return nil
}

// embed returns the fake device's result for one sequence and column: one row if the pooling of the column has one row
// per record, and otherwise one row for each token.
func (f *fake) embed(ids []int32, column int) []float32 {
	var row []float32
	pooling := f.columns[column].Pooling
	if !pooling.PerRecord() {
		for i, id := range ids {
			for _, v := range tokenState(id, i, column) {
				row = append(row, float32(v))
			}
		}
		return row
	}
	var sums [fakeDim]float64
	from, to := fakeCovered(pooling, len(ids))
	for i := from; i < to; i++ {
		for c, v := range tokenState(ids[i], i, column) {
			if sums[c] += v; pooling == store.Max {
				sums[c] = max(sums[c]-v, v)
			}
		}
	}
	if pooling == store.Max {
		to = from + 1
	}
	for _, v := range sums {
		row = append(row, float32(v/float64(to-from)))
	}
	return row
}

// device returns a Device with the given name whose Open returns f.
func (f *fake) device(name string) Device {
	return Device{Name: name, Open: func() (Embedder, error) { return f, nil }}
}

// recorder is an Observer that records most calls, for tests to compare.
type recorder struct {
	mu       sync.Mutex
	ready    []string
	lost     map[string]error
	started  []string
	batches  []Batch
	long     []LongRecord
	halved   []int
	skipped  []string
	resumed  []string
	written  []string
	restored int64    // sum of the numbers of records that FileContinued has reported
	dropped  []string // arguments of PartsDropped, as "file: reason"
	finished []FileReport
	failed   []Failure

	reading, writing struct{ busy, waited time.Duration } // sums of the arguments of SpanRead and SpanWritten

	onSkip   func()
	onFinish func()
	onFail   func()
	onLost   func()
}

func (r *recorder) lock() func() {
	r.mu.Lock()
	return r.mu.Unlock
}

func (r *recorder) DeviceOpening(string) {}

func (r *recorder) DeviceReady(device string, _ time.Duration) {
	defer r.lock()()
	r.ready = append(r.ready, device)
}

func (r *recorder) DeviceLost(device string, err error) {
	defer r.lock()()
	if r.lost == nil {
		r.lost = make(map[string]error)
	}
	r.lost[device] = err
	if r.onLost != nil {
		r.onLost()
	}
}

func (r *recorder) FileStarted(path, _ string) {
	defer r.lock()()
	r.started = append(r.started, path)
}

func (r *recorder) BatchDone(b Batch) {
	defer r.lock()()
	r.batches = append(r.batches, b)
}

func (r *recorder) LongRecord(l LongRecord) {
	defer r.lock()()
	r.long = append(r.long, l)
}

func (r *recorder) RecordWritten(path string, line int64, rows []store.Row) {
	defer r.lock()()
	for _, row := range rows {
		r.written = append(r.written, fmt.Sprintf("%s:%d %s", filepath.Base(path), line, row.ID))
	}
}

func (r *recorder) BudgetHalved(_ string, tokens int, _ error) {
	defer r.lock()()
	r.halved = append(r.halved, tokens)
}

func (r *recorder) SpanRead(busy, waited time.Duration) {
	defer r.lock()()
	r.reading.busy, r.reading.waited = r.reading.busy+busy, r.reading.waited+waited
}

func (r *recorder) SpanWritten(busy, waited time.Duration) {
	defer r.lock()()
	r.writing.busy, r.writing.waited = r.writing.busy+busy, r.writing.waited+waited
}

func (r *recorder) RecordSkipped(path, id string, line int64, err error) {
	if r.onSkip != nil {
		r.onSkip()
	}
	defer r.lock()()
	r.skipped = append(r.skipped, fmt.Sprintf("%s:%d %s: %v", filepath.Base(path), line, id, err))
}

func (r *recorder) FileContinued(_ string, records int64) {
	defer r.lock()()
	r.restored += records
}

func (r *recorder) PartsDropped(path string, reason error) {
	defer r.lock()()
	r.dropped = append(r.dropped, fmt.Sprintf("%s: %v", filepath.Base(path), reason))
}

func (r *recorder) SpanKnown(string, int64) {}

func (r *recorder) FileSkipped(path string) {
	defer r.lock()()
	r.resumed = append(r.resumed, path)
}

func (r *recorder) FileFinished(f FileReport) {
	if r.onFinish != nil {
		r.onFinish()
	}
	defer r.lock()()
	r.finished = append(r.finished, f)
}

func (r *recorder) FileFailed(f Failure) {
	if r.onFail != nil {
		r.onFail()
	}
	defer r.lock()()
	r.failed = append(r.failed, f)
}

// entryOf is a record of a test input.
type entryOf struct{ id, seq string }

const residues = "ACDEFGHIKLMNPQRSTVWY"

// randomRecords returns records of random letters with the given lengths, shuffled.
func randomRecords(seed uint64, lengths ...int) []entryOf {
	rng := rand.New(rand.NewPCG(seed, 1))
	records := make([]entryOf, len(lengths))
	rng.Shuffle(len(lengths), func(i, j int) { lengths[i], lengths[j] = lengths[j], lengths[i] })
	for i, n := range lengths {
		seq := make([]byte, n)
		for j := range seq {
			seq[j] = residues[rng.IntN(len(residues))]
		}
		records[i] = entryOf{fmt.Sprintf("r%d_%d", seed, i), string(seq)}
	}
	return records
}

// upTo returns the numbers 1 to n.
func upTo(n int) []int {
	var list []int
	for i := range n {
		list = append(list, i+1)
	}
	return list
}

func fasta(records []entryOf) string {
	var b strings.Builder
	for _, r := range records {
		fmt.Fprintf(&b, ">%s\n%s\n", r.id, r.seq)
	}
	return b.String()
}

func writeFile(t testing.TB, path, content string) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// bench is a test with a Job over protein files, its fake device and its observer.
type bench struct {
	*testing.T
	in, out string // paths of folders
	job     *Job
	fake    *fake
	seen    *recorder
}

// newBench returns a bench whose Job has no files yet and one fake device, with at most 64 tokens in a batch. At the
// end of the test it checks that no goroutine is left.
func newBench(t *testing.T) *bench {
	noLeak(t)
	b := &bench{T: t, in: t.TempDir(), out: filepath.Join(t.TempDir(), "out"), fake: &fake{}, seen: &recorder{}}
	b.job = &Job{
		Tokenizer: transformer.ESM2.NewTokenizer(), Long: LongTruncate, Covered: fakeCovered, KeptBytes: 1 << 20,
		Devices: []Device{b.fake.device("fake0")}, Observer: b.seen,
		Output: Output{Dir: b.out, Label: "fake", Format: store.Npy, Kind: store.Protein, Dim: fakeDim,
			Template: store.Entry{Model: "fake-model", Parameters: map[string]string{"pool": "mean"}, DType: "fp32", Backend: "fake backend"}},
	}
	b.setColumns(oneMean...)
	return b
}

// setColumns sets the columns of the output and of the fake device.
func (b *bench) setColumns(columns ...store.Column) {
	b.job.Output.Columns, b.fake.columns = columns, columns
}

// checkWritten checks that the observer has seen every record of a file, in order and with its line number. The file
// must have the content that the function fasta returns for the records.
func (b *bench) checkWritten(file string, records []entryOf) {
	b.Helper()
	var want, got []string
	for i, r := range records {
		want = append(want, fmt.Sprintf("%s:%d %s", file, 2*i+1, r.id))
	}
	for _, line := range b.seen.written {
		if strings.HasPrefix(line, file+":") {
			got = append(got, line)
		}
	}
	if !slices.Equal(got, want) {
		b.Errorf("%s: the observer has seen %d rows, want %d: %.200q", file, len(got), len(want), got)
	}
}

// again returns a copy of b with the same Job but a new fake device and a new observer, for a second run.
func (b *bench) again() *bench {
	next := *b
	job := *b.job
	job.manifest = nil
	next.job, next.seen = &job, &recorder{}
	next.fake = &fake{columns: b.fake.columns, budget: b.fake.budget}
	job.Observer, job.Devices = next.seen, []Device{next.fake.device("fake0")}
	return &next
}

// add writes an input file, adds it to the job, and returns its path.
func (b *bench) add(name, content string) string {
	b.Helper()
	path := writeFile(b, filepath.Join(b.in, name), content)
	b.plan(path)
	return path
}

func (b *bench) plan(paths ...string) {
	b.Helper()
	for _, path := range paths {
		name := strings.TrimSuffix(filepath.Base(path), filepath.Ext(path))
		if path == "-" {
			name = "stdin"
		}
		inputs := []seqio.Input{{Path: path, Name: name, Alphabet: seqio.Protein}}
		dna, protein, failed, err := Plan(b.Context(), inputs, b.job.Reading)
		if len(dna) > 0 || len(failed) > 0 || err != nil {
			b.Fatalf("planning %s: %d DNA, failed %v, %v", path, len(dna), failed, err)
		}
		b.job.Files = append(b.job.Files, protein...)
	}
}

// run runs the job, which must not return an error.
func (b *bench) run() Summary {
	b.Helper()
	s, err := b.job.Run(b.Context())
	if err != nil {
		b.Fatalf("Run: %v", err)
	}
	return s
}

// runWithin runs the job and fails the test if it takes longer than limit.
func (b *bench) runWithin(ctx context.Context, limit time.Duration) (Summary, error) {
	b.Helper()
	type result struct {
		s   Summary
		err error
	}
	done := make(chan result, 1)
	go func() {
		s, err := b.job.Run(ctx)
		done <- result{s, err}
	}()
	select {
	case r := <-done:
		return r.s, r.err
	case <-time.After(limit):
		b.Fatalf("Run has not returned after %v", limit)
	}
	panic("unreachable")
}

// wanted returns the embedding of a column that a record must have: the one that the fake device computes for the
// record alone.
func (b *bench) wanted(seq string, column int) []float32 {
	ids, _ := b.job.Tokenizer.Append(nil, []byte(seq))
	result := b.fake.embed(ids, column)
	if p := b.fake.columns[column].Pooling; !p.PerRecord() {
		from, to := fakeCovered(p, len(ids))
		result = result[from*fakeDim : to*fakeDim]
	}
	return result
}

// rows reads the NumPy output for the input called name. It returns the ids and the embeddings of the records.
func (b *bench) rows(name string) (ids []string, rows [][]float32) {
	b.Helper()
	return b.rowsOf(name, !b.job.Output.Columns[0].Pooling.PerRecord())
}

// rowsOf reads the .npz file of an output if npz is set, otherwise the .npy file. It returns the ids and the embeddings
// of the records.
func (b *bench) rowsOf(name string, npz bool) (ids []string, rows [][]float32) {
	b.Helper()
	stem := filepath.Join(b.out, name+".fake")
	list, err := os.ReadFile(stem + ".ids.txt")
	if err != nil {
		b.Fatal(err)
	}
	ids = strings.Fields(string(list))
	if npz {
		archive, err := zip.OpenReader(stem + ".npz")
		if err != nil {
			b.Fatal(err)
		}
		defer archive.Close()
		for _, id := range ids {
			f, err := archive.Open(id + ".npy")
			if err != nil {
				b.Fatal(err)
			}
			content, err := io.ReadAll(f)
			if err != nil {
				b.Fatal(err)
			}
			_, values := parseNpy(b, content)
			rows = append(rows, values)
		}
		return ids, rows
	}
	content, err := os.ReadFile(stem + ".npy")
	if err != nil {
		b.Fatal(err)
	}
	n, values := parseNpy(b, content)
	if n != len(ids) {
		b.Fatalf("%s: %d rows and %d ids", name, n, len(ids))
	}
	for chunk := range slices.Chunk(values, fakeDim) {
		rows = append(rows, chunk)
	}
	return ids, rows
}

// parseNpy reads a float32 array with rows of fakeDim values.
func parseNpy(t testing.TB, content []byte) (rows int, values []float32) {
	t.Helper()
	header := 10 + int(binary.LittleEndian.Uint16(content[8:]))
	_, shape, _ := strings.Cut(string(content[:header]), "'shape': (")
	var dim int
	if _, err := fmt.Sscanf(shape, "%d, %d)", &rows, &dim); err != nil || dim != fakeDim {
		t.Fatalf("npy header %q: %v", content[:header], err)
	}
	values = make([]float32, rows*dim)
	if err := binary.Read(bytes.NewReader(content[header:]), binary.LittleEndian, values); err != nil {
		t.Fatal(err)
	}
	return rows, values
}

// check checks that the output for the input called name has a row for each of the records, in order, with the
// embedding that the fake device computes for the record alone.
func (b *bench) check(name string, records []entryOf) {
	b.Helper()
	ids, rows := b.rows(name)
	if len(ids) != len(records) {
		b.Fatalf("%s: %d rows for %d records", name, len(ids), len(records))
	}
	for i, r := range records {
		if want := b.wanted(r.seq, 0); ids[i] != r.id || !slices.Equal(rows[i], want) {
			b.Fatalf("%s: row %d is %s %v, want %s %v", name, i, ids[i], rows[i], r.id, want)
		}
	}
}

// outputs returns the contents of the output folder, by path relative to the folder.
func (b *bench) outputs() map[string]string {
	b.Helper()
	found := make(map[string]string)
	err := filepath.WalkDir(b.out, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		content, err := os.ReadFile(path)
		found[strings.TrimPrefix(path, b.out+"/")] = string(content)
		return err
	})
	if err != nil && !os.IsNotExist(err) {
		b.Fatal(err)
	}
	return found
}

// names returns the paths of all files in the output folder, relative to the folder and sorted.
func (b *bench) names() []string { return slices.Sorted(maps.Keys(b.outputs())) }

func (b *bench) wantNames(names ...string) {
	b.Helper()
	if got := b.names(); !slices.Equal(got, names) {
		b.Fatalf("the output folder contains %q, want %q", got, names)
	}
}

// outputsOf returns the paths of complete outputs with the given names, and of the manifest.
func outputsOf(names ...string) []string {
	list := []string{store.ManifestName}
	for _, name := range names {
		list = append(list, name+".fake.npy", name+".fake.ids.txt")
	}
	slices.Sort(list)
	return list
}

// noLeak checks at the end of the test that no goroutine is left that runs code of this module. Goroutines of Go's
// runtime, such as the one that closes forgotten files, do not count, because they come and go at any time.
func noLeak(t *testing.T) {
	before, _ := goroutines()
	t.Cleanup(func() {
		var now int
		var stacks string
		for range 100 {
			if now, stacks = goroutines(); now <= before {
				return
			}
			time.Sleep(20 * time.Millisecond)
		}
		t.Errorf("%d goroutines are running, but %d at the start:\n%s", now, before, stacks)
	})
}

// goroutines returns the number of goroutines that run code of this module, and the stacks of all goroutines.
func goroutines() (n int, stacks string) {
	buffer := make([]byte, 1<<20)
	stacks = string(buffer[:runtime.Stack(buffer, true)])
	for stack := range strings.SplitSeq(stacks, "\n\n") {
		if strings.Contains(stack, "seqembed/") {
			n++
		}
	}
	return n, stacks
}
