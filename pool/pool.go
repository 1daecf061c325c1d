// Package pool runs one model over many files: it plans the inputs, packs records into batches within a token budget,
// computes these on all devices of the run, and writes the results in the order of the input.
//
// Three kinds of goroutines do the work. Each kind has a file of its own:
//
//   - a reader for each device (read.go) takes files from a queue, largest first, tokenizes them and divides them
//     into spans, which are lists of consecutive records;
//   - a worker for each device (compute.go) takes spans of any file, packs them into batches and computes these;
//   - a writer for each file (write.go) stores the spans in order and commits the output.
//
// So a device waits neither for the end of one file nor for the beginning of the next, and all devices can share one
// large file. All devices give the same bits, so the output does not depend on the device that computed it.
//
// The package must not depend on the model, the output format or the command line. It prints nothing: it reports to an
// Observer.
package pool

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"seqembed/internal/seqio"
	"seqembed/internal/store"
	"seqembed/kernels"
	"seqembed/tokenizer"
)

// Embedder computes the embeddings of batches on one device, like transformer.Encoder. Only one goroutine at a time may
// use it.
type Embedder interface {
	// Budget returns the maximum number of tokens, including special tokens, in a batch of several sequences. It never
	// changes.
	Budget() int
	// Start starts a batch, as kernels.Runner.Start does. finish waits for the batch and returns one slice of values
	// for each of Output.Columns. The slice has the shape [sequences of the batch, Dim] if the pooling of the column
	// has one row per record, and otherwise [tokens of the batch, Dim], special tokens included. Before a batch over
	// the budget is started, all earlier batches must have been finished.
	Start(kernels.Batch) (finish func() ([][]float32, error))
	// Close frees the device's memory.
	Close() error
}

// Device is a device that can be opened. Each worker opens its device once.
type Device struct {
	Name string
	// Ahead is the number of batches that are started while an earlier one is computed, so that the device need not
	// wait for the host. It is 0 if Embedder.Start computes the batch itself.
	Ahead int
	Open  func() (Embedder, error)
	// Abandon is called if the device is given up, because a call of its driver does not return in time. The call may
	// still be going on, so the device is not used any more and not even closed. Abandon must not be nil if
	// Job.StallTimeout is set.
	Abandon func()
}

// Job is the run of one model over files of its alphabet.
type Job struct {
	Files     []File
	Reading   seqio.Options
	Tokenizer tokenizer.Tokenizer
	Long      LongPolicy
	MaxLength int  // in letters; 0 means no limit
	Overlap   int  // letters that two consecutive windows share, at most half of MaxLength; 0 unless Long is LongWindow
	Windows   bool // one row for each window, see LongWindow
	// Covered returns the range [from, to) of the tokens that the pooling p covers in a sequence of n tokens.
	Covered func(p store.Pooling, n int) (from, to int)
	// KeptBytes bounds the memory in which each reader (there is one for each device) keeps the latest sequences of its
	// file and their results. A kept sequence is not computed again if it is repeated in the file. 0 keeps none.
	KeptBytes int
	// PartRecords is the maximum number of records of a file that a rerun computes again after the process was killed.
	// If more than half of this number of records had been read but not written, the rerun may compute more. If
	// PartRecords is 0, no results are kept, and a rerun computes the file from its beginning.
	PartRecords int
	// StallTimeout is the time after which a device that has not finished a batch counts as failed. For a sequence of n
	// times the token budget of the device, n > 1, the time is n² times as long, because the time of attention grows
	// with n². 0 means that there is no limit.
	StallTimeout time.Duration
	Devices      []Device // all with the backend that Output.Template.Backend names, so that they compute the same bits
	Output       Output
	Force        bool     // computes all files again, except those that an interrupted run with Force has finished
	Observer     Observer // must not be nil

	manifest *store.Manifest // manifest of the output folder; set by check
	plan     []byte          // content of the plan of shards (see PlanPrefix); set by Divide, otherwise nil
	claim    *claim          // set by Claim, and nil again after the release
}

// ErrInterrupted is the error of an operation, such as Plan or Job.Run, that was interrupted by the end of its context.
var ErrInterrupted = errors.New("interrupted")

// ErrSystemic is wrapped by the error of a run that ended because batches failed on three devices in a row.
var ErrSystemic = errors.New("three device failures in a row")

// ErrMemory is wrapped by the error of a file with a record that does not fit the memory of a device. If bad records
// are skipped (seqio.BadSkip), such a file does not fail.
var ErrMemory = errors.New("a record that does not fit the memory")

// maxFailures is the number of devices that must fail in a row, without a complete span between the failures, to end a
// run even if devices are left. A device that cannot be opened does not count.
const maxFailures = 3

// DeviceError is a failure of a device, as opposed to an error in an input.
type DeviceError struct {
	Device string
	Err    error
}

// Error returns the name of the device and the cause.
func (e *DeviceError) Error() string { return fmt.Sprintf("device %s: %v", e.Device, e.Err) }

// Unwrap returns the cause.
func (e *DeviceError) Unwrap() error { return e.Err }

// errDone is the cause that ends the context of a run with no files left.
var errDone = errors.New("no file is left")

// run is the state that the goroutines of a Job share.
type run struct {
	*Job
	ctx         context.Context // ends when no file or no device is left, or when the run is interrupted or stopped
	stop        context.CancelCauseFunc
	workersDone chan struct{}  // closed when all workers have ended, after which no span is computed
	io          sync.WaitGroup // waits for readers, writers and goroutines of checkBeside
	folder      *folder

	files     chan File     // files to embed, largest first; filled and closed before the first reader starts
	openFiles chan struct{} // semaphore with one element for each file that is open and has not ended
	openSpans chan struct{} // semaphore with one element for each span in memory, from before it is read until it is written
	spans     chan *span    // spans to compute; has the capacity of openSpans
	unread    atomic.Int64  // number of unread bytes, as stored on disk, of all files except pipes

	forcedRun *forcedRun // describes the run with Job.Force that this run starts or continues; nil without Job.Force

	mu          sync.Mutex // guards the fields below and Job.manifest
	summary     Summary
	devicesLeft int // number of devices that are not lost
	failures    int // number of devices that failed on a span since the last complete span
	filesLeft   int // number of files that have neither finished nor failed
}

// Run embeds the files. A file that fails is listed in the summary and does not stop the run. An error concerns the run
// as a whole. It has one of these causes:
//
//   - No device is left, or the devices do not compute the model (kernels.ErrUnsupported).
//   - The run was interrupted (ErrInterrupted), or stopped after failures of devices (ErrSystemic).
//   - The output folder is not writable (ErrOutput) or was removed or replaced during the run (ErrFolderGone).
//   - The output folder contains results of other settings or inputs (ErrMixture).
//   - The manifest of the output folder is damaged (store.ErrManifest).
//   - Another run with other settings uses the output folder (store.ErrInUse).
//
// The summary is valid in all cases. When Run returns, all goroutines that it started have ended, except for calls of
// devices that were given up.
func (j *Job) Run(ctx context.Context) (Summary, error) {
	alone := j.claim == nil
	if alone {
		release, err := Claim("", j)
		if err != nil {
			return Summary{}, err
		}
		defer release()
	}
	r := &run{Job: j, devicesLeft: len(j.Devices)}
	r.summary.Started = time.Now()
	todo, err := r.prepare(ctx)
	if err == nil && len(todo) > 0 {
		err = r.embed(ctx, todo)
		r.folder.close()
	}
	if alone && err == nil && len(r.summary.Failed) == 0 {
		EndForce(j)
	}
	r.summary.Finished = time.Now()
	return r.summary, err
}

// prepare compares the output folder with the job and returns the files that must be computed. With Job.Force it
// repairs a damaged manifest.
func (r *run) prepare(ctx context.Context) (todo []File, err error) {
	if err = r.check(ctx); r.Force && errors.Is(err, store.ErrManifest) {
		if _, err = store.Repair(ctx, r.Output.Dir, r.claim.holder); err == nil {
			err = r.check(ctx)
		}
	}
	if err != nil {
		return nil, err
	}
	if err = r.writePlan(); err != nil {
		return nil, err
	}
	r.continueForce()
	if todo, err = r.skipFinished(ctx); err != nil || len(todo) == 0 {
		return nil, err
	}
	if r.claim.err != nil {
		return nil, outputFolderError(r.Output.Dir, r.claim.err)
	}
	if r.folder, err = openFolder(r.Output.Dir); err != nil {
		return nil, err
	}
	if err = r.beginForce(); err != nil {
		r.folder.close()
		return nil, err
	}
	return todo, nil
}

// embed starts a worker for each device and returns when all goroutines have ended. Each worker starts a reader, which
// starts a writer for each file.
func (r *run) embed(ctx context.Context, files []File) error {
	r.ctx, r.stop = context.WithCancelCause(ctx)
	defer r.stop(nil)
	n := len(r.Devices)
	r.files, r.filesLeft = make(chan File, len(files)), len(files)
	for _, f := range largestFirst(files) {
		r.files <- f
		r.unread.Add(f.Size)
	}
	close(r.files)
	r.openFiles = make(chan struct{}, 4*n) // 4 for each device, so that small files do not wait for each other's commit
	// For each device, one span is being read, one is queued, one is being computed and one is being written. One more
	// span for the whole run evens out delays.
	r.openSpans = make(chan struct{}, 4*n+1)
	r.spans = make(chan *span, cap(r.openSpans))
	r.workersDone = make(chan struct{})

	var workers sync.WaitGroup
	for _, d := range r.Devices {
		workers.Go(func() { r.work(d) })
	}
	workers.Wait() // a worker ends when r.ctx ends or its device is lost; r.ctx ends when the last device is lost
	close(r.workersDone)
	r.io.Wait()

	cause := context.Cause(r.ctx)
	var device *DeviceError
	switch {
	case r.filesLeft == 0:
		return nil
	case errors.Is(cause, ErrSystemic), errors.Is(cause, ErrFolderGone), errors.Is(cause, kernels.ErrUnsupported):
		return cause
	case !errors.As(cause, &device):
		return ErrInterrupted
	}
	return fmt.Errorf("no device is left for %d files: %w", r.filesLeft, cause)
}

// loseDevice removes a device that could not be opened (s is nil) or that failed on span s. It ends the run if no
// device is left. It also ends the run after three failures on spans in a row, because the cause is then probably not
// in the devices. If two devices have failed on the same span, its file fails, so that the span cannot remove all
// devices.
func (r *run) loseDevice(s *span, err *DeviceError) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.devicesLeft--
	if s != nil {
		r.failures++
		if s.failures++; s.failures == 2 {
			s.file.cancel(fmt.Errorf("two devices failed on the same records: %w", err))
		}
	}
	switch {
	case r.failures >= maxFailures:
		r.stop(fmt.Errorf("%w: %w", ErrSystemic, err))
	case r.devicesLeft == 0:
		r.stop(err)
	default:
		r.Observer.DeviceLost(err.Device, err.Err)
	}
}

// endFile records the result of a file. If the file was interrupted, or if the output folder was lost, the file counts
// neither as finished nor as failed.
func (r *run) endFile(f File, report FileReport, err error) {
	if output := (*outputError)(nil); errors.As(err, &output) {
		err = r.checkFolder(err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case err == nil:
		r.summary.add(report)
		r.Observer.FileFinished(report)
	case errors.Is(err, ErrInterrupted), errors.Is(err, ErrFolderGone):
		return
	default:
		failure := NewFailure(f.Path, err)
		r.summary.Failed = append(r.summary.Failed, failure)
		r.Observer.FileFailed(failure)
	}
	if r.filesLeft--; r.filesLeft == 0 {
		r.stop(errDone)
	}
}
