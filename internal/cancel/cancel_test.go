package cancel

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
)

func TestReader(t *testing.T) {
	cause := errors.New("interrupted")
	ctx, end := context.WithCancelCause(t.Context())
	r := Reader(ctx, strings.NewReader("ACGT"))
	b := make([]byte, 2)
	if n, err := r.Read(b); n != 2 || err != nil {
		t.Errorf("%d bytes, %v", n, err)
	}
	end(cause)
	if n, err := r.Read(b); n != 0 || !errors.Is(err, cause) {
		t.Errorf("after the end of the context: %d bytes, %v", n, err)
	}
	if content, err := io.ReadAll(Reader(t.Context(), strings.NewReader("ACGT"))); string(content) != "ACGT" || err != nil {
		t.Errorf("%q, %v", content, err)
	}
}
