package weights

import (
	"context"
	"errors"
	"os"
	"testing"
)

// countdown is a context that ends, with the cause errEnded, after a number of calls of Err. The field left is the
// number of calls that still return nil.
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

// TestHashingEndsWithItsContext checks that SHA256 returns when its context ends. It hashes a sparse file of 1 TiB,
// which would take far longer than the test.
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
