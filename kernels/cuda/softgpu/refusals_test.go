//go:build linux

package softgpu

import (
	"path/filepath"
	"runtime"
	"testing"
	"unsafe"

	"github.com/ebitengine/purego"
)

// sharedPTX is a kernel with 16 KB of static shared memory and with dynamic shared memory.
const sharedPTX = `.version 7.0
.target sm_80
.address_size 64
.extern .shared .align 16 .b8 dynamic[];
.visible .entry both()
.maxntid 64, 1, 1
{
	.reg .b32 	%r<3>;
	.shared .align 16 .b8 fixed[16384];
	mov.u32 	%r1, fixed;
	mov.u32 	%r2, dynamic;
	st.shared.u32 	[%r1], %r2;
	ret;
}
`

// TestRefusals checks that the driver of the software GPU answers invalid calls with the error codes of a real driver.
func TestRefusals(t *testing.T) {
	folder(t) // skips the test in short mode or without a compiler
	dir := t.TempDir()
	if err := buildBeside(dir, sharedPTX); err != nil {
		t.Fatal(err)
	}
	t.Setenv("SOFTGPU_DEVICES", "2")
	library, err := purego.Dlopen(filepath.Join(dir, driverLibrary), purego.RTLD_NOW|purego.RTLD_LOCAL)
	if err != nil {
		t.Fatal(err)
	}
	runtime.LockOSThread() // a context is current on one thread
	defer runtime.UnlockOSThread()
	const (
		ok, invalidValue, outOfMemory, notInitialized         = 0, 1, 2, 3
		invalidDevice, invalidContext, invalidHandle, tooMany = 101, 201, 400, 701
		dynamicShared                                         = 8 // CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
	)
	call := func(want int32, name string, args ...uintptr) {
		t.Helper()
		symbol, err := purego.Dlsym(library, name)
		if err != nil {
			t.Fatal(err)
		}
		if r, _, _ := purego.SyscallN(symbol, args...); int32(r) != want {
			t.Errorf("%s%v returns %d, want %d", name, args, int32(r), want)
		}
	}
	// C writes these variables during calls. They are a single allocation on the heap, so that none of them moves.
	v := new(struct {
		context, other, module, function, stream, foreign, event, device, host uintptr
		image                                                                  [len(sharedPTX) + 1]byte
		name                                                                   [5]byte
		pageable                                                               [64]byte
	})
	copy(v.image[:], sharedPTX)
	copy(v.name[:], "both")
	at := func(p *uintptr) uintptr { return uintptr(unsafe.Pointer(p)) }
	bytes := func(p *byte) uintptr { return uintptr(unsafe.Pointer(p)) }

	call(notInitialized, "cuMemAlloc_v2", at(&v.device), 64)
	call(ok, "cuInit", 0)
	call(invalidContext, "cuMemAlloc_v2", at(&v.device), 64)
	call(invalidDevice, "cuDevicePrimaryCtxRetain", at(&v.context), 2)
	call(ok, "cuDevicePrimaryCtxRetain", at(&v.other), 1)
	call(ok, "cuDevicePrimaryCtxRetain", at(&v.context), 0)
	call(invalidContext, "cuCtxSetCurrent", v.context+8)
	call(ok, "cuCtxSetCurrent", v.other)
	call(ok, "cuStreamCreate", at(&v.foreign), 1)
	call(ok, "cuCtxSetCurrent", v.context)

	call(invalidValue, "cuMemAlloc_v2", at(&v.device), 0)
	call(outOfMemory, "cuMemAlloc_v2", at(&v.device), 1<<40)
	call(ok, "cuMemAlloc_v2", at(&v.device), 64)
	call(ok, "cuMemAllocHost_v2", at(&v.host), 64)
	call(invalidValue, "cuMemFree_v2", v.device+16)
	call(invalidValue, "cuStreamCreate", at(&v.stream), 0)
	call(ok, "cuStreamCreate", at(&v.stream), 1)

	call(ok, "cuMemcpyHtoDAsync_v2", v.device, v.host, 64, v.stream)
	call(invalidValue, "cuMemcpyHtoDAsync_v2", v.device+16, v.host, 64, v.stream)
	call(invalidValue, "cuMemcpyDtoHAsync_v2", v.host+16, v.device, 64, v.stream)
	call(invalidValue, "cuMemcpyDtoHAsync_v2", bytes(&v.pageable[0]), v.device, 64, v.stream)
	call(invalidHandle, "cuMemcpyHtoDAsync_v2", v.device, v.host, 64, 0)
	call(invalidHandle, "cuMemcpyHtoDAsync_v2", v.device, v.host, 64, v.foreign)

	call(ok, "cuModuleLoadDataEx", at(&v.module), bytes(&v.image[0]), 0, 0, 0)
	call(ok, "cuModuleGetFunction", at(&v.function), v.module, bytes(&v.name[0]))
	launch := func(want int32, gx, gy, gz, threads, shared, stream uintptr) {
		t.Helper()
		call(want, "cuLaunchKernel", v.function, gx, gy, gz, threads, 1, 1, shared, stream, 0, 0)
	}
	launch(ok, 1, 1, 1, 64, 0, v.stream)
	launch(invalidValue, 0, 1, 1, 64, 0, v.stream)
	launch(invalidValue, 1<<31, 1, 1, 64, 0, v.stream)
	launch(invalidValue, 1, 65536, 1, 64, 0, v.stream)
	launch(tooMany, 1, 1, 1, 96, 0, v.stream)
	launch(invalidHandle, 1, 1, 1, 64, 0, 0)
	launch(invalidHandle, 1, 1, 1, 64, 0, v.foreign)
	launch(ok, 1, 1, 1, 64, 32<<10, v.stream)
	launch(invalidValue, 1, 1, 1, 64, 32<<10+1, v.stream) // more than 48 KB with the 16 KB of static memory
	call(invalidValue, "cuFuncSetAttribute", v.function, dynamicShared, 212<<10)
	call(ok, "cuFuncSetAttribute", v.function, dynamicShared, 211<<10)
	launch(ok, 1, 1, 1, 64, 211<<10, v.stream)

	call(ok, "cuEventCreate", at(&v.event), 2) // CU_EVENT_DISABLE_TIMING
	call(ok, "cuEventRecord", v.event, v.stream)
	call(invalidHandle, "cuEventRecord", v.event, v.foreign)
	call(invalidHandle, "cuEventElapsedTime", at(&v.other), v.event, v.event)
	call(ok, "cuStreamSynchronize", v.stream)
	call(ok, "cuStreamDestroy_v2", v.stream)
	call(invalidHandle, "cuStreamSynchronize", v.stream)

	call(ok, "cuDevicePrimaryCtxRelease_v2", 0)
	call(invalidContext, "cuMemAlloc_v2", at(&v.device), 64)
	call(invalidContext, "cuDevicePrimaryCtxRelease_v2", 0)
}
