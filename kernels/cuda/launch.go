package cuda

import (
	"fmt"
	"math"
	"unsafe"
)

// maxParameters is the most that a kernel of src/README.md takes, rounded up.
const maxParameters = 16

// parameters is where a launch puts the values of a kernel's parameters. The
// driver wants an array of pointers, one to each value, and copies the values
// before cuLaunchKernel returns. Both lie in pinned memory that the driver
// allocated: C never sees a pointer to Go memory, nothing has to be held in
// place for the time of the call, and since the device's thread alone launches
// one such block is enough.
//
//	bytes 0 to 127    the values, eight bytes each
//	bytes 128 to 255  a pointer to each value
//	bytes 256 to 263  alpha and beta of a cuBLAS product
type parameters struct {
	memory pinned
	values []uint64
	array  unsafe.Pointer
	scalar []float32 // alpha, beta
}

func (d *device) newParameters() (*parameters, error) {
	memory, err := d.pin(4096)
	if err != nil {
		return nil, err
	}
	p := &parameters{memory: memory, array: unsafe.Add(memory.at, 8*maxParameters)}
	p.values = unsafe.Slice((*uint64)(memory.at), maxParameters)
	pointers := unsafe.Slice((*unsafe.Pointer)(p.array), maxParameters)
	for i := range pointers {
		pointers[i] = unsafe.Add(memory.at, 8*i)
	}
	p.scalar = unsafe.Slice((*float32)(unsafe.Add(memory.at, 16*maxParameters)), 2)
	return p, nil
}

// scalarAddress is where cuBLAS reads alpha; beta follows it.
func (p *parameters) scalarAddress() uintptr { return uintptr(unsafe.Pointer(&p.scalar[0])) }

// param is one parameter's bits. An int or a float takes the low half, which
// is the first on the little-endian machines that CUDA runs on.
type param uint64

func ptr(p devicePtr) param { return param(p) }
func num(n int) param       { return param(uint32(int32(n))) }
func fl(f float32) param    { return param(math.Float32bits(f)) }

// geometry is the grid and block of a launch and its dynamic shared memory in
// bytes. Blocks are one-dimensional.
type geometry struct {
	x, y   int
	block  int
	shared int
}

// launch enqueues a kernel on a stream. It runs on the device's thread.
func (d *device) launch(stream handle, k kernel, g geometry, params ...param) error {
	if len(params) > maxParameters || g.x < 1 || g.y < 1 {
		return fmt.Errorf("a launch of %s with %d parameters on a grid of %d by %d", k.name, len(params), g.x, g.y)
	}
	for i, p := range params {
		d.params.values[i] = uint64(p)
	}
	grid := [3]uint32{uint32(g.x), uint32(g.y), 1}
	r := d.drv.cuLaunchKernel(k.function, grid, [3]uint32{uint32(g.block), 1, 1}, uint32(g.shared), stream, d.params.array)
	if r != 0 {
		return r.err("cuLaunchKernel of %s on a grid of %d by %d", k.name, g.x, g.y)
	}
	return nil
}

func ceilDiv(a, b int) int { return (a + b - 1) / b }
