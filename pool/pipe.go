package pool

import (
	"context"
	"io"
	"os"
)

// pipe reads standard input or a named pipe, whose other end may be silent for ever, in a goroutine of its own: Read
// can be ended at any time, on every system, even where the input has no writer yet to be opened with.
//
// The goroutine ends with the input or, after stop, as soon as the system call that it is in returns. That is at once
// where Go polls the input, such as a named pipe, because stop closes it; a read of standard input or the opening of a
// pipe without a writer may outlive the run, holding one buffer, until the process ends. (A deadline would not help
// with these: standard input has none, unless it is made non-blocking for every process that shares it.)
type pipe struct {
	*io.PipeReader // has no buffer: the goroutine holds at most one piece of the input
	stop           context.CancelCauseFunc
}

// newPipe begins to read an input, until ctx ends or stop is called. Read then returns the cause.
func newPipe(ctx context.Context, open func() (io.ReadCloser, error)) *pipe {
	ctx, stop := context.WithCancelCause(ctx)
	r, w := io.Pipe()
	context.AfterFunc(ctx, func() { w.CloseWithError(context.Cause(ctx)) })
	go func() {
		defer stop(nil) // closes the input
		input, err := open()
		if err == nil {
			context.AfterFunc(ctx, func() { input.Close() })
			_, err = io.Copy(w, input)
		}
		w.CloseWithError(err) // io.EOF where it is nil
	}()
	return &pipe{r, stop}
}

// openPipe opens a path that is not a regular file, or standard input for "-", which stays open.
func openPipe(path string) (io.ReadCloser, error) {
	if path == "-" {
		return io.NopCloser(os.Stdin), nil
	}
	return os.Open(path)
}
