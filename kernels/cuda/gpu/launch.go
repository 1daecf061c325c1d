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
	memory Pinned
	values []uint64
	array  unsafe.Pointer
}

func (c *Context) pinParameters() error {
	memory, err := c.Pin(16 * MaxParameters)
	if err != nil {
		return err
	}
	p := parameters{memory, unsafe.Slice((*uint64)(memory.At), MaxParameters), unsafe.Add(memory.At, 8*MaxParameters)}
	for i, pointers := 0, unsafe.Slice((*unsafe.Pointer)(p.array), MaxParameters); i < MaxParameters; i++ {
		pointers[i] = unsafe.Add(memory.At, 8*i)
	}
	c.parameters = p
	return nil
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

// Geometry is the grid and block of a launch and its dynamic shared memory in bytes. Blocks are one-dimensional.
type Geometry struct {
	X, Y   int
	Block  int
	Shared int
}

// Launch enqueues a kernel on a stream.
func (c *Context) Launch(on Stream, k Kernel, g Geometry, params ...Param) error {
	if len(params) > MaxParameters || g.X < 1 || g.Y < 1 {
		return fmt.Errorf("a launch of %s with %d parameters on a grid of %d by %d", k.Name, len(params), g.X, g.Y)
	}
	for i, p := range params {
		c.parameters.values[i] = uint64(p)
	}
	grid, block := [3]uint32{uint32(g.X), uint32(g.Y), 1}, [3]uint32{uint32(g.Block), 1, 1}
	r := c.LaunchKernel(k.function, grid, block, uint32(g.Shared), driver.Handle(on), c.parameters.array)
	if r != 0 {
		return r.Err("cuLaunchKernel of %s on a grid of %d by %d", k.Name, g.X, g.Y)
	}
	return nil
}
