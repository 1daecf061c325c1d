package cuda

import (
	"errors"
	"fmt"

	"seqembed/kernels"
)

// ErrUnavailable is in the chain of an error that says why this machine, or
// one of its devices, cannot run the package at all: no driver, no device, a
// driver or a device too old.
var ErrUnavailable = errors.New("CUDA is not available")

// unavailable is a sentence of its own that is also ErrUnavailable.
type unavailable struct {
	sentence string
	cause    error // may be nil
}

func unavailablef(cause error, format string, args ...any) error {
	return &unavailable{fmt.Sprintf(format, args...), cause}
}

func (e *unavailable) Error() string {
	if e.cause == nil {
		return e.sentence
	}
	return fmt.Sprintf("%s: %v", e.sentence, e.cause)
}

func (e *unavailable) Is(target error) bool { return target == ErrUnavailable }
func (e *unavailable) Unwrap() error        { return e.cause }

// Error is a call of the CUDA driver that failed.
type Error struct {
	Op   string // the driver's function, and what it was asked for
	Code int    // the CUresult
}

// Error gives the operation and the code's name.
func (e *Error) Error() string { return fmt.Sprintf("%s: %s", e.Op, codeName(e.Code)) }

// Unwrap makes a device that is out of memory kernels.ErrOutOfMemory.
func (e *Error) Unwrap() error {
	if e.Code == int(codeOutOfMemory) {
		return kernels.ErrOutOfMemory
	}
	return nil
}

// result is a CUresult.
type result int32

const (
	codeOutOfMemory           result = 2
	codeNoDevice              result = 100
	codeInvalidPTX            result = 218
	codeUnsupportedPTXVersion result = 222
	codeNotFound              result = 500
)

// err is nil for success; the operation is described only when it is not. Its
// args are on the heap also then: the calls of every batch ask first.
func (r result) err(format string, args ...any) error {
	if r == 0 {
		return nil
	}
	return &Error{Op: fmt.Sprintf(format, args...), Code: int(r)}
}

// first is the first error of several calls that were all made: one line, where
// joining them would give one for each.
func first(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// codeName gives the name in cuda.h of the codes that a user may meet.
func codeName(code int) string {
	if name, ok := codeNames[code]; ok {
		return fmt.Sprintf("%s (%d)", name, code)
	}
	return fmt.Sprintf("CUDA error %d", code)
}

var codeNames = map[int]string{
	1:   "CUDA_ERROR_INVALID_VALUE",
	2:   "CUDA_ERROR_OUT_OF_MEMORY",
	3:   "CUDA_ERROR_NOT_INITIALIZED",
	4:   "CUDA_ERROR_DEINITIALIZED",
	34:  "CUDA_ERROR_STUB_LIBRARY",
	46:  "CUDA_ERROR_DEVICE_UNAVAILABLE",
	100: "CUDA_ERROR_NO_DEVICE",
	101: "CUDA_ERROR_INVALID_DEVICE",
	200: "CUDA_ERROR_INVALID_IMAGE",
	201: "CUDA_ERROR_INVALID_CONTEXT",
	209: "CUDA_ERROR_NO_BINARY_FOR_GPU",
	214: "CUDA_ERROR_ECC_UNCORRECTABLE",
	218: "CUDA_ERROR_INVALID_PTX",
	220: "CUDA_ERROR_NVLINK_UNCORRECTABLE",
	221: "CUDA_ERROR_JIT_COMPILER_NOT_FOUND",
	222: "CUDA_ERROR_UNSUPPORTED_PTX_VERSION",
	223: "CUDA_ERROR_JIT_COMPILATION_DISABLED",
	304: "CUDA_ERROR_OPERATING_SYSTEM",
	400: "CUDA_ERROR_INVALID_HANDLE",
	401: "CUDA_ERROR_ILLEGAL_STATE",
	500: "CUDA_ERROR_NOT_FOUND",
	600: "CUDA_ERROR_NOT_READY",
	700: "CUDA_ERROR_ILLEGAL_ADDRESS",
	701: "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES",
	702: "CUDA_ERROR_LAUNCH_TIMEOUT",
	709: "CUDA_ERROR_CONTEXT_IS_DESTROYED",
	714: "CUDA_ERROR_HARDWARE_STACK_ERROR",
	715: "CUDA_ERROR_ILLEGAL_INSTRUCTION",
	716: "CUDA_ERROR_MISALIGNED_ADDRESS",
	717: "CUDA_ERROR_INVALID_ADDRESS_SPACE",
	718: "CUDA_ERROR_INVALID_PC",
	719: "CUDA_ERROR_LAUNCH_FAILED",
	800: "CUDA_ERROR_NOT_PERMITTED",
	801: "CUDA_ERROR_NOT_SUPPORTED",
	802: "CUDA_ERROR_SYSTEM_NOT_READY",
	803: "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH",
	804: "CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE",
	999: "CUDA_ERROR_UNKNOWN",
}
