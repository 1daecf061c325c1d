package gpu

import (
	"fmt"
	"math"
	"unsafe"

	"seqembed/kernels/cuda/driver"
)

// MaxParameters is the maximum number of parameters of a kernel.
const MaxParameters = 16

// parameters is the memory for the parameters of a launch. The driver expects an array of pointers, one to each value,
// and copies the values before cuLaunchKernel returns. The array and the values are in pinned memory, which Go did not
// allocate, so C never receives a pointer to Go memory. A device needs this memory only once, because only one
// goroutine at a time launches kernels.
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

// Param holds the bits of one parameter. An int or a float is in the lower half, which comes first on a little-endian
// machine.
type Param uint64

// Ptr returns a pointer parameter.
func Ptr(p driver.Pointer) Param { return Param(p) }

// Int returns a parameter of type int.
func Int(n int) Param { return Param(uint32(int32(n))) }

// Float returns a parameter of type float.
func Float(f float32) Param { return Param(math.Float32bits(f)) }

// Launch enqueues a kernel on a stream, with a grid of x by y blocks.
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
