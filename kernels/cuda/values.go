package cuda

import (
	"fmt"
	"math"

	"seqembed/kernels"
	"seqembed/kernels/cuda/driver"
	"seqembed/kernels/cuda/gpu"
)

// memory is the device memory of one slot, which several values use one after the other. Its rows are stored in
// float32, in the operands' type, or in both. If the operands' type is float32, wide is the only array.
type memory struct {
	wide    driver.Pointer // address of the rows in float32, or null
	narrow  driver.Pointer // address of the rows in bf16 or fp16, or null
	operand driver.Pointer // the array of the operands' type: narrow, or wide if that type is float32

	reading gpu.Event // happens when the last download from this slot has finished; created when first needed
	busy    bool      // whether reading has been recorded and no launch has waited for it yet
}

// matrix is a value of a program: its device memory and its number of columns.
type matrix struct {
	*memory
	cols int
}

// outputs returns the addresses of the float32 and the 16-bit copy of a value, as parameters of the kernel that writes
// both. The address of a copy that does not exist is null.
func (m *matrix) outputs() (wide, narrow gpu.Param) { return gpu.Ptr(m.wide), gpu.Ptr(m.narrow) }

// residual returns the address of the float32 values of m, which an operation adds to its result. It returns null if m
// is nil, which means that the operation adds nothing.
func residual(m *matrix) driver.Pointer {
	if m == nil {
		return 0
	}
	return m.wide
}

// slotBytes returns the size in bytes of one row of a slot: of its float32 copy (wide) and of its copy in the operands'
// type (narrow). A size is 0 if the slot has no such copy.
func (b *Backend) slotBytes(s kernels.Slot) (wide, narrow int) {
	if s.Precision&kernels.Float32 != 0 {
		wide = 4 * pitch(s.Cols)
	}
	if s.Precision&kernels.Operand != 0 {
		narrow = sizeOf(b.dtype) * pitch(s.Cols)
	}
	return wide, narrow
}

// slot allocates the device memory of a slot, with a row for each token or each sequence that the limits allow.
func (c *compiler) slot(s kernels.Slot) *memory {
	rows, m := c.limits.Tokens, new(memory)
	if s.PerSequence {
		rows = c.limits.Sequences
	}
	wide, narrow := c.backend.slotBytes(s)
	if wide > 0 {
		m.wide = c.resources.Alloc(c.Context, rows*wide)
	}
	if narrow > 0 {
		m.narrow = c.resources.Alloc(c.Context, rows*narrow)
	}
	m.operand = m.narrow
	if c.backend.dtype == kernels.FP32 {
		m.operand = m.wide
	}
	return m
}

// rotation returns a table of (cos, sin) for all positions within the limits, float32 [positions, len(invFreq), 2].
// Operations with the same frequencies share a table. Usually all blocks of a model have the same frequencies.
func (c *compiler) rotation(invFreq []float32) driver.Pointer {
	key := fmt.Sprint(invFreq)
	if at := c.rotations[key]; at != 0 {
		return at
	}
	turns := make([]float32, 0, 2*len(invFreq)*c.limits.Tokens)
	for position := range c.limits.Tokens {
		for _, f := range invFreq {
			// The product is rounded to float32, as in the models' original PyTorch code.
			sin, cos := math.Sincos(float64(float32(position) * f))
			turns = append(turns, float32(cos), float32(sin))
		}
	}
	c.rotations[key] = c.constant(turns)
	return c.rotations[key]
}

// constant copies float32 values to the device and returns their address.
func (c *compiler) constant(values []float32) driver.Pointer {
	var host gpu.Resources
	bytes := 4 * len(values)
	from, to := host.Pin(c.Context, bytes), c.resources.Alloc(c.Context, bytes)
	defer host.Free(c.Context)
	if c.Err != nil {
		return 0
	}
	copy(gpu.View[float32](from, 0, len(values)), values)
	c.Upload(to, from, 0, bytes, c.compute)
	c.Synchronize(c.compute)
	return to
}
