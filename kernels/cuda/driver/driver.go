// Package driver calls the CUDA driver, cuBLASLt and NVML without cgo and without a toolkit. It searches for libcuda,
// libcublasLt and libnvidia-ml when the program runs; a program also starts without them.
//
//	cuda, searched, err := driver.System().FindCUDA()
//	if err != nil {
//		return err // err names the fault; searched lists every place that was tried
//	}
//	if err := cuda.Init(0).Err("cuInit"); err != nil {
//		return err
//	}
//
// CUDA and CublasLt are structs of functions. Each field is a C function, with its parameters in C's order; tests can
// replace it. NVIDIA's documentation describes the functions, and the context and thread that they require. The package
// adds only names for error codes. It must not know any kernel. Package gpu is built on it.
//
// On systems other than Linux on amd64 and arm64 the package compiles but finds no library.
package driver

import "unsafe"

// Sizes are those of cuda.h on 64-bit machines: size_t and CUdeviceptr have 64 bits, CUdevice and enumerations have 32.
// All other handles are pointers, which Go never dereferences.
type (
	// Handle refers to a context, module, function, stream or event, or to an object of cuBLASLt.
	Handle uintptr
	// Pointer is a CUdeviceptr, an address in a device's memory.
	Pointer uint64
)

// CUDA contains the functions of libcuda that the program uses. A field has the name of its function without cu. Its
// tag is the name that the library exports. The last fields have no tag: they are the functions that every batch calls,
// and BindCUDA binds them without reflection, which would be slow.
//
// A host pointer is an unsafe.Pointer if it points to memory that Go did not allocate. It is a typed pointer if it
// points to Go memory that C uses only during the call.
type CUDA struct {
	Init             func(flags uint32) Result                 `c:"cuInit"`
	DriverGetVersion func(version *int32) Result               `c:"cuDriverGetVersion"`
	DeviceGetCount   func(count *int32) Result                 `c:"cuDeviceGetCount"`
	DeviceGet        func(device *int32, ordinal int32) Result `c:"cuDeviceGet"`

	DeviceGetName      func(name *byte, size int32, device int32) Result  `c:"cuDeviceGetName"`
	DeviceGetAttribute func(value *int32, attribute, device int32) Result `c:"cuDeviceGetAttribute"`
	DeviceTotalMem     func(bytes *uint64, device int32) Result           `c:"cuDeviceTotalMem_v2"`

	DevicePrimaryCtxRetain  func(context *Handle, device int32) Result `c:"cuDevicePrimaryCtxRetain"`
	DevicePrimaryCtxRelease func(device int32) Result                  `c:"cuDevicePrimaryCtxRelease_v2"`

	MemGetInfo   func(free, total *uint64) Result             `c:"cuMemGetInfo_v2"`
	MemAlloc     func(p *Pointer, bytes uint64) Result        `c:"cuMemAlloc_v2"`
	MemFree      func(p Pointer) Result                       `c:"cuMemFree_v2"`
	MemAllocHost func(p *unsafe.Pointer, bytes uint64) Result `c:"cuMemAllocHost_v2"`
	MemFreeHost  func(p unsafe.Pointer) Result                `c:"cuMemFreeHost"`

	ModuleLoadDataEx func(module *Handle, image *byte, options uint32, keys *int32,
		values *uintptr) Result `c:"cuModuleLoadDataEx"`
	ModuleUnload      func(module Handle) Result                               `c:"cuModuleUnload"`
	ModuleGetFunction func(function *Handle, module Handle, name *byte) Result `c:"cuModuleGetFunction"`
	FuncSetAttribute  func(function Handle, attribute, value int32) Result     `c:"cuFuncSetAttribute"`

	StreamCreate      func(stream *Handle, flags uint32) Result             `c:"cuStreamCreate"`
	StreamDestroy     func(stream Handle) Result                            `c:"cuStreamDestroy_v2"`
	StreamSynchronize func(stream Handle) Result                            `c:"cuStreamSynchronize"`
	EventCreate       func(event *Handle, flags uint32) Result              `c:"cuEventCreate"`
	EventDestroy      func(event Handle) Result                             `c:"cuEventDestroy_v2"`
	EventElapsedTime  func(milliseconds *float32, start, end Handle) Result `c:"cuEventElapsedTime"`

	// LaunchKernel passes null for extra, the last parameter of cuLaunchKernel.
	LaunchKernel func(function Handle, grid, block [3]uint32, shared uint32, stream Handle,
		params unsafe.Pointer) Result
	MemcpyHtoDAsync  func(dst Pointer, src unsafe.Pointer, bytes uint64, stream Handle) Result
	MemcpyDtoHAsync  func(dst unsafe.Pointer, src Pointer, bytes uint64, stream Handle) Result
	CtxSetCurrent    func(context Handle) Result
	StreamWaitEvent  func(stream, event Handle, flags uint32) Result
	EventRecord      func(event, stream Handle) Result
	EventSynchronize func(event Handle) Result
}

// Values of cuda.h, each with its name there.
const (
	AttributePCIBus    = 33 // CU_DEVICE_ATTRIBUTE_PCI_BUS_ID
	AttributePCIDevice = 34 // CU_DEVICE_ATTRIBUTE_PCI_DEVICE_ID
	AttributePCIDomain = 50 // CU_DEVICE_ATTRIBUTE_PCI_DOMAIN_ID
	AttributeMajor     = 75 // CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR
	AttributeMinor     = 76 // CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR

	FunctionMaxShared = 8 // CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES

	StreamNonBlocking  = 1 // CU_STREAM_NON_BLOCKING
	EventDefault       = 0 // CU_EVENT_DEFAULT
	EventBlockingSync  = 1 // CU_EVENT_BLOCKING_SYNC
	EventDisableTiming = 2 // CU_EVENT_DISABLE_TIMING

	JITErrorLog      = 5 // CU_JIT_ERROR_LOG_BUFFER
	JITErrorLogBytes = 6 // CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES
)
