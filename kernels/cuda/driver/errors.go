package driver

import (
	"errors"
	"fmt"
)

// ErrUnavailable is wrapped by the error that tells why CUDA cannot be used at all, for example because the driver is
// missing or too old.
var ErrUnavailable = errors.New("CUDA is not available")

// ErrOutOfMemory is wrapped by the error for a device with too little memory.
var ErrOutOfMemory = errors.New("the device is out of memory")

// Unavailable returns an error with the text that fmt.Errorf would format. The error wraps ErrUnavailable.
func Unavailable(format string, args ...any) error { return unavailable{fmt.Errorf(format, args...)} }

type unavailable struct{ error }

func (e unavailable) Is(target error) bool { return target == ErrUnavailable }
func (e unavailable) Unwrap() error        { return e.error }

// Error is a failed call of the driver or of cuBLASLt.
type Error struct {
	Op     string // the function and its arguments, for messages
	Code   int    // the CUresult or cublasStatus_t
	Cublas bool   // whether the function is one of cuBLASLt
}

// Error returns the operation and the name of the code.
func (e *Error) Error() string {
	names, other := codeNames, "CUDA error"
	if e.Cublas {
		names, other = statusNames, "cuBLAS status"
	}
	if name, ok := names[e.Code]; ok {
		return fmt.Sprintf("%s: %s (%d)", e.Op, name, e.Code)
	}
	return fmt.Sprintf("%s: %s %d", e.Op, other, e.Code)
}

// Is reports whether target is ErrOutOfMemory and the code says that the device is out of memory.
func (e *Error) Is(target error) bool {
	return target == ErrOutOfMemory && (e.Code == int(OutOfMemory) && !e.Cublas || e.Code == allocFailed && e.Cublas)
}

// Result is a CUresult.
type Result int32

// Codes that callers distinguish.
const (
	OutOfMemory Result = 2
	NoDevice    Result = 100
)

// Err returns nil for success, and otherwise an *Error with the formatted operation. A call with args allocates memory
// even for success, so code that runs for every batch calls Err with args only if r is not 0.
func (r Result) Err(format string, args ...any) error {
	if r == 0 {
		return nil
	}
	return &Error{fmt.Sprintf(format, args...), int(r), false}
}

// Status is a cublasStatus_t.
type Status int32

// Err returns nil for success, and otherwise an *Error with the formatted operation.
func (s Status) Err(format string, args ...any) error {
	if s == 0 {
		return nil
	}
	return &Error{fmt.Sprintf(format, args...), int(s), true}
}

const allocFailed = 3 // CUBLAS_STATUS_ALLOC_FAILED

var statusNames = map[int]string{
	1: "CUBLAS_STATUS_NOT_INITIALIZED", 3: "CUBLAS_STATUS_ALLOC_FAILED", 7: "CUBLAS_STATUS_INVALID_VALUE",
	8: "CUBLAS_STATUS_ARCH_MISMATCH", 11: "CUBLAS_STATUS_MAPPING_ERROR", 13: "CUBLAS_STATUS_EXECUTION_FAILED",
	14: "CUBLAS_STATUS_INTERNAL_ERROR", 15: "CUBLAS_STATUS_NOT_SUPPORTED", 16: "CUBLAS_STATUS_LICENSE_ERROR",
}

// codeNames maps the codes that a user may see to their names in cuda.h.
var codeNames = map[int]string{
	1: "CUDA_ERROR_INVALID_VALUE", 2: "CUDA_ERROR_OUT_OF_MEMORY", 3: "CUDA_ERROR_NOT_INITIALIZED",
	4: "CUDA_ERROR_DEINITIALIZED", 34: "CUDA_ERROR_STUB_LIBRARY", 46: "CUDA_ERROR_DEVICE_UNAVAILABLE",
	100: "CUDA_ERROR_NO_DEVICE", 101: "CUDA_ERROR_INVALID_DEVICE", 200: "CUDA_ERROR_INVALID_IMAGE",
	201: "CUDA_ERROR_INVALID_CONTEXT", 209: "CUDA_ERROR_NO_BINARY_FOR_GPU", 214: "CUDA_ERROR_ECC_UNCORRECTABLE",
	218: "CUDA_ERROR_INVALID_PTX", 220: "CUDA_ERROR_NVLINK_UNCORRECTABLE", 221: "CUDA_ERROR_JIT_COMPILER_NOT_FOUND",
	222: "CUDA_ERROR_UNSUPPORTED_PTX_VERSION", 223: "CUDA_ERROR_JIT_COMPILATION_DISABLED",
	304: "CUDA_ERROR_OPERATING_SYSTEM", 400: "CUDA_ERROR_INVALID_HANDLE", 401: "CUDA_ERROR_ILLEGAL_STATE",
	500: "CUDA_ERROR_NOT_FOUND", 600: "CUDA_ERROR_NOT_READY", 700: "CUDA_ERROR_ILLEGAL_ADDRESS",
	701: "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES", 702: "CUDA_ERROR_LAUNCH_TIMEOUT", 709: "CUDA_ERROR_CONTEXT_IS_DESTROYED",
	714: "CUDA_ERROR_HARDWARE_STACK_ERROR", 715: "CUDA_ERROR_ILLEGAL_INSTRUCTION", 716: "CUDA_ERROR_MISALIGNED_ADDRESS",
	717: "CUDA_ERROR_INVALID_ADDRESS_SPACE", 718: "CUDA_ERROR_INVALID_PC", 719: "CUDA_ERROR_LAUNCH_FAILED",
	800: "CUDA_ERROR_NOT_PERMITTED", 801: "CUDA_ERROR_NOT_SUPPORTED", 802: "CUDA_ERROR_SYSTEM_NOT_READY",
	803: "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH", 804: "CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE",
	999: "CUDA_ERROR_UNKNOWN",
}
