// Package cancel provides a reader that stops when a context ends, so that reading a long file can be interrupted.
package cancel

import (
	"context"
	"io"
)

// Reader returns an io.Reader that reads from r. Once ctx has ended, each Read returns context.Cause(ctx) as its error.
// A call of r.Read that has already begun is not interrupted.
func Reader(ctx context.Context, r io.Reader) io.Reader { return &reader{ctx, r} }

type reader struct {
	ctx context.Context
	r   io.Reader
}

func (r *reader) Read(p []byte) (int, error) {
	if r.ctx.Err() != nil {
		return 0, context.Cause(r.ctx)
	}
	return r.r.Read(p)
}
