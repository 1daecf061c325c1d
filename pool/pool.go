// Package pool runs one model over many files: it plans which input goes
// where, packs records into batches of a token budget, drives one worker for
// each device, and writes every record in the order of its input.
//
// Each device has a reader, which takes whole files from a queue, largest
// first, and cuts them into spans of records; the devices whose results agree
// to the bit share the spans of all their readers; and each file has a writer.
// So a device need not wait for the end of one file or the beginning of the
// next, and many share one large file. The number of spans is bounded,
// and with it the memory, however long the files are.
//
// The package must not know how a model computes or what a format looks like,
// and it prints nothing: what happens is reported to an Observer.
package pool

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"seqembed/internal/seqio"
	"seqembed/internal/store"
	"seqembed/kernels"
	"seqembed/tokenizer"
)

// Embedder turns batches into embeddings on one device, as
// transformer.Encoder does. It is used by one goroutine at a time.
type Embedder interface {
	// Budget is the tokens of a batch, special tokens included, that suit the
	// device. It does not change.
	Budget() int
	// Start begins a batch, as kernels.Runner.Start does; finish returns for
	// each layer [S, Dim] values, or [T, Dim] per token. A batch over the
	// budget is begun when every one before has been finished.
	Start(kernels.Batch) (finish func() ([][]float32, error))
	// Averaged is the number of tokens behind the embedding of a sequence of
	// n tokens: how much it weighs when windows of one record are joined.
	Averaged(n int) int
	// Close frees the device's memory.
	Close() error
}

// Device opens an Embedder, loading the weights: once for each worker.
type Device struct {
	Name    string
	Backend string // what decides the bits of its results, for the manifest
	// Ahead is how many batches are started beyond the one that is waited
	// for, so that the device need not wait for the host: 0 where
	// Start itself computes.
	Ahead int
	Open  func() (Embedder, error)
}

// Job is one model to be run over files of its alphabet.
type Job struct {
	Files     []File
	Reading   seqio.Options
	Tokenizer tokenizer.Tokenizer
	Long      LongPolicy
	MaxLength int // letters; 0 for no limit
	PerToken  bool
	Devices   []Device
	Output    Output
	Force     bool     // compute again what is complete, replace what differs
	Observer  Observer // never nil

	manifest *store.Manifest // what Check has read
}

// ErrInterrupted is in the chain of the error of a run whose context ended.
var ErrInterrupted = errors.New("interrupted")

// ErrSystemic is in the chain of the error of a run that was stopped because
// one device failure followed another.
var ErrSystemic = errors.New("three device failures in a row")

// DeviceError is a failure of a device, as opposed to one of an input.
type DeviceError struct {
	Device string
	Err    error
}

// Error names the device.
func (e *DeviceError) Error() string { return fmt.Sprintf("device %s: %v", e.Device, e.Err) }

// Unwrap gives the cause.
func (e *DeviceError) Unwrap() error { return e.Err }

const systemicFailures = 3

// run is the state that the goroutines of one Job share.
type run struct {
	*Job
	queue  chan File         // every file that is left; its capacity is the number of files
	done   chan struct{}     // closed when no file is left
	spans  chan struct{}     // a place for each span that exists
	groups map[string]*group // by the name of their backend
	files  sync.WaitGroup    // the goroutines that read and write

	mu       sync.Mutex // guards what follows
	manifest *store.Manifest
	summary  Summary
	alive    int // devices that are not lost
	failures int // of devices, in a row: no span was computed in between
	left     int // files neither finished nor failed
}

// group is the devices of one backend: each may compute any span of a file
// that one of them began.
type group struct {
	backend string
	tasks   chan *task // spans for whichever is free; one may wait for each device
	alive   int        // devices that are not lost, guarded by the run
	ctx     context.Context
	cancel  context.CancelCauseFunc // with an errStranded when none is left
}

// errStranded is what befalls the files of a group without devices.
type errStranded struct{ error }

func (e *errStranded) Unwrap() error { return e.error }

// Run works off the files. A failed file is in the summary and stops nothing.
// The error is about the run as a whole: no device is left, the run was
// interrupted (ErrInterrupted) or given up (ErrSystemic), or the output folder
// cannot be written to (ErrOutput) or holds what this job would not have
// written (ErrMixture). The summary counts what was done in any case.
//
// Every goroutine that Run started has ended when it returns, but for one that
// waits for a pipe after an error or an interruption.
func (j *Job) Run(ctx context.Context) (Summary, error) {
	r := &run{
		Job: j, queue: make(chan File, len(j.Files)), done: make(chan struct{}), groups: map[string]*group{}, alive: len(j.Devices),
		// For each device one that is computed, one that waits, one that is
		// read and one that is written, and one more to even out.
		spans: make(chan struct{}, 4*len(j.Devices)+1),
	}
	r.summary.Started = time.Now()
	var err error
	if r.manifest, err = j.check(); err != nil {
		return r.finish(), err
	}
	todo, err := r.skipFinished(ctx)
	if err != nil {
		return r.finish(), err
	}
	r.left = len(todo)
	if r.left == 0 {
		return r.finish(), nil
	}
	if err := j.Output.prepare(); err != nil {
		return r.finish(), err
	}
	j.Output.tidy(todo)
	for _, f := range largestFirst(todo) {
		r.queue <- f
	}

	// stop ends the work when the run is given up; it also ends by itself
	// when no file is left.
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	for _, d := range j.Devices {
		g := r.groups[d.Backend]
		if g == nil {
			g = &group{backend: d.Backend, tasks: make(chan *task, len(j.Devices))}
			g.ctx, g.cancel = context.WithCancelCause(ctx)
			r.groups[d.Backend] = g
		}
		g.alive++
	}
	errs := make(chan error, len(j.Devices)) // one a device
	for _, d := range j.Devices {
		go func() { errs <- r.work(stop, r.groups[d.Backend], d) }()
	}
	var last error // of the device after which none was left
	for range j.Devices {
		last = errors.Join(last, <-errs)
	}
	interrupted, cause := ctx.Err() != nil, context.Cause(ctx)
	stop(nil)
	r.files.Wait()
	summary := r.finish()
	switch {
	case errors.Is(cause, ErrSystemic):
		return summary, fmt.Errorf("%w: %w", ErrSystemic, last)
	case r.left == 0:
		return summary, nil
	case interrupted:
		return summary, ErrInterrupted
	}
	return summary, fmt.Errorf("no device is left for %d files: %w", r.left, last)
}

// work is the life of one device: it is opened, gets a reader, and computes
// until no file is left, the run ends or the device is lost.
func (r *run) work(stop context.CancelCauseFunc, g *group, d Device) error {
	began := time.Now()
	r.Observer.DeviceOpening(d.Name)
	e, err := d.Open()
	if err != nil {
		r.mu.Lock()
		defer r.mu.Unlock()
		return r.lose(g, &DeviceError{d.Name, err})
	}
	defer e.Close()
	r.Observer.DeviceReady(d.Name, time.Since(began))
	w := &worker{Device: d, run: r, group: g, stop: stop, embedder: e, budget: e.Budget()}
	r.files.Add(1)
	go func() {
		defer r.files.Done()
		r.feed(g, d.Name, e.Budget())
	}()
	return w.serve()
}

// broke records that a device failed on a task, and decides who is to blame.
// It reports whether the device goes on. Who calls it has the task computed
// again, unless its file has been given up.
func (r *run) broke(stop context.CancelCauseFunc, g *group, t *task, err *DeviceError) (goOn bool, lost error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failures++
	t.lost++
	switch {
	case r.failures >= systemicFailures:
		t.cancel(err)
		stop(ErrSystemic)
		return false, err
	case r.alive == 1: // the last device goes on: the file may be to blame
		t.cancel(err)
		return true, nil
	case t.lost > 1:
		t.cancel(fmt.Errorf("%s: two devices broke on the same records: %w", t.file.label(), err))
	}
	return false, r.lose(g, err)
}

// lose takes a device out of the run. It returns the error when that was the
// last one; otherwise the observer has been told and the others go on.
func (r *run) lose(g *group, err *DeviceError) error {
	if g.alive--; g.alive == 0 {
		g.cancel(&errStranded{err})
	}
	if r.alive--; r.alive == 0 {
		return err
	}
	r.Observer.DeviceLost(err.Device, err.Err)
	return nil
}

// settle records how a file ended; the caller holds no lock. The files of a
// group without devices go back to the queue, for another.
func (r *run) settle(g *group, report FileReport, f File, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var stranded *errStranded
	switch {
	case err == nil:
		r.summary.add(report)
		r.Observer.FileFinished(report)
	case errors.Is(err, ErrInterrupted):
		return
	case errors.As(err, &stranded) && !f.once():
		r.queue <- f // there is room: it came from there
		return
	default:
		failure := NewFailure(f.Path, err)
		r.summary.Failed = append(r.summary.Failed, failure)
		r.Observer.FileFailed(failure)
	}
	if r.left--; r.left == 0 {
		close(r.done)
	}
}

func (r *run) finish() Summary {
	r.summary.Finished = time.Now()
	return r.summary
}
