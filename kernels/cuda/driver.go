package cuda

import "unsafe"

// Sizes follow cuda.h on 64-bit machines: size_t and CUdeviceptr are 64 bits,
// CUdevice and the enumerations are 32, every other handle is a pointer that
// Go only hands back.
type (
	handle    uintptr // a context, module, function, stream or event
	devicePtr uint64
)

// driver is the part of the CUDA driver API that the package uses, one field
// a function, so that tests can put their own in. The parameters are those of
// cuda.h, in its order; in the _v2 functions the suffix is left out.
//
// Host pointers are unsafe.Pointer where C keeps or fills memory that Go did
// not allocate, and typed pointers where it fills a Go variable during the
// call.
type driver struct {
	cuInit             func(flags uint32) result
	cuDriverGetVersion func(version *int32) result

	cuDeviceGetCount     func(count *int32) result
	cuDeviceGet          func(device *int32, ordinal int32) result
	cuDeviceGetName      func(name *byte, size int32, device int32) result
	cuDeviceGetAttribute func(value *int32, attribute, device int32) result
	cuDeviceTotalMem     func(bytes *uint64, device int32) result

	cuDevicePrimaryCtxRetain  func(context *handle, device int32) result
	cuDevicePrimaryCtxRelease func(device int32) result
	cuCtxSetCurrent           func(context handle) result

	cuMemGetInfo      func(free, total *uint64) result
	cuMemAlloc        func(p *devicePtr, bytes uint64) result
	cuMemFree         func(p devicePtr) result
	cuMemAllocHost    func(p *unsafe.Pointer, bytes uint64) result
	cuMemFreeHost     func(p unsafe.Pointer) result
	cuMemcpyHtoDAsync func(dst devicePtr, src unsafe.Pointer, bytes uint64, stream handle) result
	cuMemcpyDtoHAsync func(dst unsafe.Pointer, src devicePtr, bytes uint64, stream handle) result

	cuModuleLoadDataEx  func(module *handle, image *byte, options uint32, keys *int32, values *uintptr) result
	cuModuleUnload      func(module handle) result
	cuModuleGetFunction func(function *handle, module handle, name *byte) result
	cuFuncSetAttribute  func(function handle, attribute, value int32) result
	// cuLaunchKernel leaves out its last parameter, extra, which is null.
	cuLaunchKernel func(function handle, grid, block [3]uint32, shared uint32, stream handle, params unsafe.Pointer) result

	cuStreamCreate      func(stream *handle, flags uint32) result
	cuStreamDestroy     func(stream handle) result
	cuStreamSynchronize func(stream handle) result
	cuStreamWaitEvent   func(stream, event handle, flags uint32) result
	cuEventCreate       func(event *handle, flags uint32) result
	cuEventDestroy      func(event handle) result
	cuEventRecord       func(event, stream handle) result
	cuEventSynchronize  func(event handle) result
	cuEventElapsedTime  func(milliseconds *float32, start, end handle) result
}

// Values of cuda.h.
const (
	attributeMajor = 75 // CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR
	attributeMinor = 76 // CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR

	functionMaxShared = 8 // CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES

	streamNonBlocking  = 1 // CU_STREAM_NON_BLOCKING
	eventDefault       = 0 // CU_EVENT_DEFAULT
	eventBlockingSync  = 1 // CU_EVENT_BLOCKING_SYNC
	eventDisableTiming = 2 // CU_EVENT_DISABLE_TIMING

	jitErrorLog      = 5 // CU_JIT_ERROR_LOG_BUFFER
	jitErrorLogBytes = 6 // CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES
)

// symbols lists the functions that are called seldom by the names under which
// the library exports them; bindDriver adds those of every batch.
func (d *driver) symbols() map[string]any {
	return map[string]any{
		"cuInit":                       &d.cuInit,
		"cuDriverGetVersion":           &d.cuDriverGetVersion,
		"cuDeviceGetCount":             &d.cuDeviceGetCount,
		"cuDeviceGet":                  &d.cuDeviceGet,
		"cuDeviceGetName":              &d.cuDeviceGetName,
		"cuDeviceGetAttribute":         &d.cuDeviceGetAttribute,
		"cuDeviceTotalMem_v2":          &d.cuDeviceTotalMem,
		"cuDevicePrimaryCtxRetain":     &d.cuDevicePrimaryCtxRetain,
		"cuDevicePrimaryCtxRelease_v2": &d.cuDevicePrimaryCtxRelease,
		"cuCtxSetCurrent":              &d.cuCtxSetCurrent,
		"cuMemGetInfo_v2":              &d.cuMemGetInfo,
		"cuMemAlloc_v2":                &d.cuMemAlloc,
		"cuMemFree_v2":                 &d.cuMemFree,
		"cuMemAllocHost_v2":            &d.cuMemAllocHost,
		"cuMemFreeHost":                &d.cuMemFreeHost,
		"cuModuleLoadDataEx":           &d.cuModuleLoadDataEx,
		"cuModuleUnload":               &d.cuModuleUnload,
		"cuModuleGetFunction":          &d.cuModuleGetFunction,
		"cuFuncSetAttribute":           &d.cuFuncSetAttribute,
		"cuStreamCreate":               &d.cuStreamCreate,
		"cuStreamDestroy_v2":           &d.cuStreamDestroy,
		"cuStreamSynchronize":          &d.cuStreamSynchronize,
		"cuEventCreate":                &d.cuEventCreate,
		"cuEventDestroy_v2":            &d.cuEventDestroy,
		"cuEventElapsedTime":           &d.cuEventElapsedTime,
	}
}
