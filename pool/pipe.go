package pool

import (
	"context"
	"io"
	"os"
)

// pipe reads standard input or a named pipe in a goroutine of its own, because the other end of the pipe may stay
// silent. Read can be canceled at any time, on every system, even while the pipe is being opened and has no writer yet.
//
// The goroutine ends at the end of the input or, after a call of stop, as soon as its current system call returns. If
// it is reading from a named pipe, the call returns at once, because stop closes the pipe. If it is reading from
// standard input, or opening a pipe that has no writer, the call may last until the process ends, and the goroutine
// keeps one buffer in memory. (A read deadline would not help: it works only if standard input is non-blocking, and
// that would affect all processes that share standard input.)
type pipe struct {
	*io.PipeReader // unbuffered: the goroutine holds at most one chunk of the input
	stop           context.CancelCauseFunc
}

// newPipe starts to read the input that open returns. After ctx has ended or stop has been called, Read returns the
// cause of the end as its error.
func newPipe(ctx context.Context, open func() (io.ReadCloser, error)) *pipe {
	ctx, stop := context.WithCancelCause(ctx)
	r, w := io.Pipe()
	context.AfterFunc(ctx, func() { w.CloseWithError(context.Cause(ctx)) })
	go func() {
		defer stop(nil) // closes the input, because it ends ctx
		input, err := open()
		if err == nil {
			context.AfterFunc(ctx, func() { input.Close() })
			_, err = io.Copy(w, input)
		}
		w.CloseWithError(err) // a nil err becomes io.EOF
	}()
	return &pipe{r, stop}
}

// openPipe opens a path that is not a regular file. For "-" it returns standard input, which Close leaves open.
func openPipe(path string) (io.ReadCloser, error) {
	if path == "-" {
		return io.NopCloser(os.Stdin), nil
	}
	return os.Open(path)
}
