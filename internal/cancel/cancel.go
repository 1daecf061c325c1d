// Package cancel lets long reads of files end with a context. It knows nothing of their content.
package cancel

import (
	"context"
	"io"
)

// Reader returns a reader of r whose reads fail with the cause of ctx once ctx has ended. A read that is already
// waiting for r is not ended.
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
