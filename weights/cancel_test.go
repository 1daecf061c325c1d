package weights

import (
	"context"
	"errors"
	"os"
	"testing"
)

// countdown is a context that ends when its error has been asked for a number of times.
type countdown struct {
	context.Context
	end  context.CancelCauseFunc
	left int
}

func (c *countdown) Err() error {
	if c.left--; c.left < 0 {
		c.end(errEnded)
	}
	return c.Context.Err()
}

var errEnded = errors.New("interrupted")

// TestHashingEndsWithItsContext cancels the hashing of a file of 1 TiB, most of which is a hole.
func TestHashingEndsWithItsContext(t *testing.T) {
	path := writeFile(t, t.TempDir(), "x.safetensors", safetensorsOf(f32Tensor("w", []int{2}, 1, 2)))
	c, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := os.Truncate(path, 1<<40); err != nil {
		t.Skipf("no file of this size here: %v", err)
	}
	c.files[0].size = 1 << 40
	ctx := &countdown{left: 3}
	ctx.Context, ctx.end = context.WithCancelCause(t.Context())
	if _, err := c.SHA256(ctx); !errors.Is(err, errEnded) {
		t.Error(err)
	}
}
