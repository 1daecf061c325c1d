package gpu

import (
	"fmt"
	"math"
	"unsafe"

	"seqembed/kernels/cuda/driver"
)

// MaxParameters is the most parameters of a kernel.
const MaxParameters = 16

// parameters is where a launch puts the values of a kernel's parameters. The driver wants an array of pointers, one to
// each value, and copies the values before cuLaunchKernel returns. Both lie in pinned memory that the driver allocated:
// C never sees a pointer to Go memory, nothing has to be held in place for the time of the call, and since one
// goroutine at a time launches, one such block is enough.
type parameters struct {
	values []uint64
	array  unsafe.Pointer
}

func pinParameters(c *Context, r *Resources) parameters {
	memory := r.Pin(c, 16*MaxParameters)
	if c.Err != nil {
		return parameters{}
	}
	p := parameters{unsafe.Slice((*uint64)(memory.At), MaxParameters), unsafe.Add(memory.At, 8*MaxParameters)}
	for i, pointers := 0, unsafe.Slice((*unsafe.Pointer)(p.array), MaxParameters); i < MaxParameters; i++ {
		pointers[i] = unsafe.Add(memory.At, 8*i)
	}
	return p
}

// Param is one parameter's bits. An int or a float takes the low half, which is the first on the little-endian machines
// that CUDA runs on.
type Param uint64

// Ptr is a pointer parameter.
func Ptr(p driver.Pointer) Param { return Param(p) }

// Int is a parameter of type int.
func Int(n int) Param { return Param(uint32(int32(n))) }

// Float is a parameter of type float.
func Float(f float32) Param { return Param(math.Float32bits(f)) }

// Launch enqueues a kernel on a stream, on a grid of x by y blocks.
func (c *Context) Launch(on Stream, k Kernel, x, y int, params ...Param) {
	if len(params) > MaxParameters || x < 1 || y < 1 {
		c.Fail(fmt.Errorf("a launch of %s with %d parameters on a grid of %d by %d", k.Name, len(params), x, y))
	}
	if c.Err != nil {
		return
	}
	for i, p := range params {
		c.parameters.values[i] = uint64(p)
	}
	grid, block := [3]uint32{uint32(x), uint32(y), 1}, [3]uint32{uint32(k.block), 1, 1}
	r := c.LaunchKernel(k.function, grid, block, uint32(k.shared), driver.Handle(on), c.parameters.array)
	if r != 0 {
		c.Err = r.Err("cuLaunchKernel of %s on a grid of %d by %d", k.Name, x, y)
	}
}
