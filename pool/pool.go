// Package pool runs one model over many files: it plans which input goes
// where, packs records into batches of a token budget, drives one worker for
// each device, and writes every record in the order of its input.
//
// A worker takes whole files from a queue, largest first. In a file, reading
// and tokenizing, computing, and writing run at the same time, joined by
// short queues of spans of records, so that memory stays bounded however long
// the file is. Workers that find no file left help with the spans of others.
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
	// Start begins a batch, which does not change until finish has returned
	// for each layer [S, Dim] values, or [T, Dim] per token. finish is called
	// once, in the order of the Starts.
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
	// Ahead is how many batches of a span are started beyond the one that is
	// waited for, so that the device need not wait for the host: 0 where
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

// run is the state that the workers of one Job share.
type run struct {
	*Job
	queue chan File             // every file that is left; its capacity is the number of files
	help  map[string]chan *task // spans for idle workers, by the name of their backend

	manifest *store.Manifest // as the run found it; describe writes the one on disk

	mu       sync.Mutex // guards what follows, and the manifest on disk where folders have no locks
	summary  Summary
	alive    int // workers that have not lost their device
	failures int // of devices, in a row: no span was computed in between
	left     int // files neither finished nor failed
}

// worker is one device at work. It belongs to one goroutine.
type worker struct {
	Device
	embedder Embedder
	budget   int // tokens of a batch: the embedder's, halved whenever memory ran out
}

// Run works off the files. A failed file is in the summary and stops nothing.
// The error is about the run as a whole: no device is left, the run was
// interrupted (ErrInterrupted) or given up (ErrSystemic), or the output folder
// cannot be written to (ErrOutput) or holds what this job would not have
// written (ErrMixture). The summary counts what was done in any case.
//
// Every goroutine that Run started has ended when it returns, but for one that
// waits for a pipe after an error or an interruption.
func (j *Job) Run(ctx context.Context) (Summary, error) {
	r := &run{Job: j, queue: make(chan File, len(j.Files)), help: make(map[string]chan *task), alive: len(j.Devices)}
	for _, d := range j.Devices {
		r.help[d.Backend] = make(chan *task)
	}
	r.summary.Started = time.Now()
	manifest, err := j.Output.readManifest()
	if err != nil {
		return r.finish(), err
	}
	r.manifest = manifest
	if err := j.refuseMixture(manifest); err != nil {
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
	for _, f := range largestFirst(todo) {
		r.queue <- f
	}

	// stop ends the work when the run is given up; a worker also ends by
	// itself when the queue is closed, which happens when no file is left.
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	errs := make(chan error, len(j.Devices)) // one a worker
	for _, d := range j.Devices {
		go func() { errs <- r.work(ctx, stop, d) }()
	}
	var last error // of the device after which none was left
	for range j.Devices {
		last = errors.Join(last, <-errs)
	}
	summary := r.finish()
	switch {
	case errors.Is(context.Cause(ctx), ErrSystemic):
		return summary, fmt.Errorf("%w: %w", ErrSystemic, last)
	case r.left == 0:
		return summary, nil
	case ctx.Err() != nil:
		return summary, ErrInterrupted
	}
	return summary, fmt.Errorf("no device is left for %d files: %w", r.left, last)
}

// work is the life of one worker: it opens its device and embeds files until
// the queue is closed, the context ends or the device is lost.
func (r *run) work(ctx context.Context, stop context.CancelCauseFunc, d Device) error {
	began := time.Now()
	r.Observer.DeviceOpening(d.Name)
	e, err := d.Open()
	if err != nil {
		r.mu.Lock()
		defer r.mu.Unlock()
		return r.lose(&DeviceError{d.Name, err})
	}
	defer e.Close()
	r.Observer.DeviceReady(d.Name, time.Since(began))
	w := &worker{d, e, e.Budget()}
	for ctx.Err() == nil {
		f, t, ok := r.next(ctx, w)
		goOn, err := ok, error(nil)
		switch {
		case t != nil:
			goOn, err = r.lend(stop, w, t)
		case ok:
			goOn, err = r.take(ctx, stop, w, f)
		}
		if !goOn {
			return err
		}
	}
	return nil
}

// next waits for a file or, when none is left, for a span of another worker's
// file. It is not ok when there is nothing more to come.
func (r *run) next(ctx context.Context, w *worker) (f File, t *task, ok bool) {
	select {
	case f, ok = <-r.queue:
		return f, nil, ok
	default:
	}
	select {
	case f, ok = <-r.queue:
		return f, nil, ok
	case t = <-r.help[w.Backend]:
		return File{}, t, true
	case <-ctx.Done():
		return File{}, nil, false
	}
}

// lend computes a span of another worker's file. It reports whether the device
// is still of use; when it is not, somebody else computes the span, unless it
// has cost another device before: then its file fails.
func (r *run) lend(stop context.CancelCauseFunc, w *worker, t *task) (goOn bool, err error) {
	err = r.computeTask(w, t)
	var broken *DeviceError
	if !errors.As(err, &broken) {
		if err != nil {
			t.cancel(err)
		}
		t.finish()
		return true, nil
	}
	r.mu.Lock()
	r.failures++
	t.lost++
	switch {
	case r.failures == systemicFailures:
		r.fail(t.file, err) // its worker sees only that the run is over
		stop(ErrSystemic)
	case t.lost > 1:
		t.cancel(fmt.Errorf("%s: two devices broke on the same records: %v", t.file.label(), err))
	}
	err = r.lose(broken)
	r.mu.Unlock()
	t.offer(r)
	return false, err
}

// take embeds one file and records how that ended. It reports whether the
// device is still of use.
func (r *run) take(ctx context.Context, stop context.CancelCauseFunc, w *worker, f File) (goOn bool, err error) {
	report, err := r.embed(ctx, w, f)
	var broken *DeviceError
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case err == nil:
		r.summary.add(report)
		r.settle()
		r.Observer.FileFinished(report)
	case errors.Is(err, ErrInterrupted):
	case errors.As(err, &broken):
		r.failures++
		if r.failures >= systemicFailures {
			r.fail(f, err)
			stop(ErrSystemic)
			return false, err
		}
		if r.alive == 1 {
			r.fail(f, err) // the last device goes on: the file may be to blame
			break
		}
		if f.once() {
			r.fail(f, err)
		} else {
			r.queue <- f // there is room: it came from there
		}
		return false, r.lose(broken)
	default:
		r.fail(f, err)
	}
	return true, nil
}

// lose takes a device out of the run. It returns the error when that was the
// last one; otherwise the observer has been told and the others go on.
func (r *run) lose(err *DeviceError) error {
	if r.alive--; r.alive == 0 {
		return err
	}
	r.Observer.DeviceLost(err.Device, err.Err)
	return nil
}

func (r *run) fail(f File, err error) {
	failure := NewFailure(f.Path, err)
	r.summary.Failed = append(r.summary.Failed, failure)
	r.settle()
	r.Observer.FileFailed(failure)
}

// settle counts a file as dealt with, and ends the workers after the last.
func (r *run) settle() {
	if r.left--; r.left == 0 {
		close(r.queue)
	}
}

func (r *run) finish() Summary {
	r.summary.Finished = time.Now()
	return r.summary
}
