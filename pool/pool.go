// Package pool runs one model over many files: it plans which input goes where, packs records into batches of a token
// budget, computes them on all devices of the run, and writes every record in the order of its input.
//
// Three kinds of goroutine do the work, each in a file of its own:
//
//   - a reader for each device (read.go) takes whole files from a queue, largest first, tokenizes them and cuts them
//     into spans of records;
//   - a worker for each device (compute.go) takes spans of any file, packs them into batches and computes these;
//   - a writer for each file (write.go) stores the spans in their order and commits the output.
//
// So a device waits for neither the end of one file nor the beginning of the next, and all devices share one large
// file. The devices give the same bits, so that no output shows which of them computed it.
//
// The package must not know how a model computes, what a format looks like or what a flag is called, and it prints
// nothing: it reports to an Observer.
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

// Embedder turns batches into embeddings on one device, as transformer.Encoder does. It is used by one goroutine at a
// time.
type Embedder interface {
	// Budget is the tokens of a batch, special tokens included, that suit the device. It does not change.
	Budget() int
	// Start begins a batch, as kernels.Runner.Start does; finish returns for each layer [S, Dim] values, or [T, Dim]
	// per token. A batch over the budget is begun when every one before has been finished.
	Start(kernels.Batch) (finish func() ([][]float32, error))
	// Averaged is the number of tokens behind the embedding of a sequence of n tokens: how much it weighs when windows
	// of one record are joined.
	Averaged(n int) int
	// Close frees the device's memory.
	Close() error
}

// Device opens an Embedder, loading the weights: once for each worker.
type Device struct {
	Name string
	// Ahead is how many batches are started beyond the one that is waited for, so that the device need not wait for
	// the host: 0 where Start itself computes.
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
	Devices   []Device // of one kind: their results agree to the bit, and are those of Output.Template.Backend
	Output    Output
	Force     bool     // compute again what is complete, replace what differs
	Observer  Observer // never nil

	manifest *store.Manifest // read by Check
}

// ErrInterrupted is in the chain of the error of a run whose context ended.
var ErrInterrupted = errors.New("interrupted")

// ErrSystemic is in the chain of the error of a run that was stopped because one device failure followed another.
var ErrSystemic = errors.New("three device failures in a row")

// systemicFailures is how many batches in a row may fail before a run is given up, whatever devices are left.
const systemicFailures = 3

// DeviceError is a failure of a device, as opposed to one of an input.
type DeviceError struct {
	Device string
	Err    error
}

// Error names the device.
func (e *DeviceError) Error() string { return fmt.Sprintf("device %s: %v", e.Device, e.Err) }

// Unwrap gives the cause.
func (e *DeviceError) Unwrap() error { return e.Err }

// errDone ends the context of a run in which no file is left.
var errDone = errors.New("no file is left")

// run is the state that the goroutines of one Job share.
type run struct {
	*Job
	ctx  context.Context // ends when no file or no device is left, and when the run is interrupted or given up
	stop context.CancelCauseFunc
	idle chan struct{}  // closed when no worker is left: what has not been computed is not going to be
	io   sync.WaitGroup // the readers and writers

	files  chan File     // to be embedded, largest first; filled and closed before the first reader starts
	opened chan struct{} // holds an element for each file between its opening and its commit
	places chan struct{} // holds an element for each span between its reading and its writing, which bounds the memory
	spans  chan *span    // to be computed; has room for as many as there are places

	mu       sync.Mutex // guards what follows
	manifest *store.Manifest
	summary  Summary
	alive    int // devices that are not lost
	failures int // of batches, in a row: no span was computed in between
	left     int // files neither finished nor failed
}

// Run embeds the files. A failed file is in the summary and stops nothing. The error is about the run as a whole: no
// device is left, the run was interrupted (ErrInterrupted) or given up (ErrSystemic), or the output folder cannot be
// written to (ErrOutput) or holds results of other settings (ErrMixture). The summary counts what was done in any case.
//
// Every goroutine that Run started has ended when it returns.
func (j *Job) Run(ctx context.Context) (Summary, error) {
	r := &run{Job: j, alive: len(j.Devices)}
	r.summary.Started = time.Now()
	todo, err := r.prepare(ctx)
	if err == nil && len(todo) > 0 {
		err = r.embed(ctx, todo)
	}
	r.summary.Finished = time.Now()
	return r.summary, err
}

// prepare compares the output folder with the job and returns the files that are left to do.
func (r *run) prepare(ctx context.Context) (todo []File, err error) {
	if r.manifest, err = r.check(); err != nil {
		return nil, err
	}
	if todo, err = r.skipFinished(ctx); err != nil || len(todo) == 0 {
		return nil, err
	}
	if err := r.Output.prepare(); err != nil {
		return nil, err
	}
	r.Output.tidy(todo)
	return todo, nil
}

// embed starts a worker for each device, which starts a reader, which starts a writer for each file, and returns when
// all of them have ended.
func (r *run) embed(ctx context.Context, files []File) error {
	r.ctx, r.stop = context.WithCancelCause(ctx)
	defer r.stop(nil)
	n := len(r.Devices)
	r.files, r.left = make(chan File, len(files)), len(files)
	for _, f := range largestFirst(files) {
		r.files <- f
	}
	close(r.files)
	r.opened = make(chan struct{}, 4*n) // so that small files do not wait for each other's commit
	// For each device one span that is read, one that waits, one that is computed and one that is written, and one more
	// to even out.
	r.places = make(chan struct{}, 4*n+1)
	r.spans = make(chan *span, cap(r.places))
	r.idle = make(chan struct{})

	var workers sync.WaitGroup
	for _, d := range r.Devices {
		workers.Go(func() { r.work(d) })
	}
	workers.Wait() // they end with r.ctx, or one by one when their devices are lost, the last of which ends it
	close(r.idle)
	r.io.Wait()

	cause := context.Cause(r.ctx)
	var device *DeviceError
	switch {
	case r.left == 0:
		return nil
	case !errors.As(cause, &device):
		return ErrInterrupted
	case errors.Is(cause, ErrSystemic):
		return cause
	}
	return fmt.Errorf("no device is left for %d files: %w", r.left, cause)
}

// lose takes a device out of the run that did not open, or, when s is not nil, that failed on that span. The run ends
// when no device is left, and when three batches in a row have failed: with other devices, it would fail there as well.
// A span on which two devices have failed fails its file, so that it does not take all of them.
func (r *run) lose(s *span, err *DeviceError) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.alive--
	if s != nil {
		r.failures++
		if s.failures++; s.failures == 2 {
			s.file.cancel(fmt.Errorf("two devices failed on the same records: %w", err))
		}
	}
	switch {
	case r.failures >= systemicFailures:
		r.stop(fmt.Errorf("%w: %w", ErrSystemic, err))
	case r.alive == 0:
		r.stop(err)
	default:
		r.Observer.DeviceLost(err.Device, err.Err)
	}
}

// settle records how a file ended. One that was interrupted is left.
func (r *run) settle(f File, report FileReport, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case err == nil:
		r.summary.add(report)
		r.Observer.FileFinished(report)
	case errors.Is(err, ErrInterrupted):
		return
	default:
		failure := NewFailure(f.Path, err)
		r.summary.Failed = append(r.summary.Failed, failure)
		r.Observer.FileFailed(failure)
	}
	if r.left--; r.left == 0 {
		r.stop(errDone)
	}
}
