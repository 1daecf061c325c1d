package driver

import (
	"errors"
	"io"
	"testing"
)

// TestErrors checks that messages contain the name of the error code, and that ErrOutOfMemory matches the codes with
// which the driver and cuBLAS report too little memory.
func TestErrors(t *testing.T) {
	for _, c := range []struct {
		err    error
		text   string
		memory bool
	}{
		{Result(0).Err("nothing"), "", false},
		{Status(0).Err("nothing"), "", false},
		{OutOfMemory.Err("cuMemAlloc of %d bytes", 7), "cuMemAlloc of 7 bytes: CUDA_ERROR_OUT_OF_MEMORY (2)", true},
		{Result(3).Err("cuInit"), "cuInit: CUDA_ERROR_NOT_INITIALIZED (3)", false},
		{Result(12345).Err("cuInit"), "cuInit: CUDA error 12345", false},
		{Status(3).Err("cublasLtCreate"), "cublasLtCreate: CUBLAS_STATUS_ALLOC_FAILED (3)", true},
		{Status(2).Err("cublasLtCreate"), "cublasLtCreate: cuBLAS status 2", false},
		{Unavailable("no %s", "GPU"), "no GPU", false},
		{Unavailable("the driver does not start: %w", io.EOF), "the driver does not start: EOF", false},
	} {
		if c.err == nil != (c.text == "") || c.err != nil && c.err.Error() != c.text || errors.Is(c.err, ErrOutOfMemory) != c.memory {
			t.Errorf("%v, and not %q", c.err, c.text)
		}
	}
	if err := Unavailable("no: %w", io.EOF); !errors.Is(err, ErrUnavailable) || !errors.Is(err, io.EOF) {
		t.Errorf("%v loses its cause", err)
	}
}
