package cuda

import (
	"cmp"
	"math"

	"seqembed/kernels"
	"seqembed/kernels/cuda/driver"
	"seqembed/kernels/cuda/gpu"
)

// memory is a slot: rows of cols columns in float32, in the operands' type, or in both. In fp32 there is only the
// float32 array.
type memory struct {
	wide   driver.Pointer // float32
	narrow driver.Pointer // bf16 or fp16

	reading gpu.Event // the last copy from here has left; made when first needed
	busy    bool      // reading has been recorded, and nobody has waited for it yet
}

// matrix is a value in its slot.
type matrix struct {
	*memory
	cols        int
	perSequence bool
}

// outputs gives the two pointers of a kernel that writes both copies.
func (m *matrix) outputs() (wide, narrow gpu.Param) { return gpu.Ptr(m.wide), gpu.Ptr(m.narrow) }

// operand is the copy of the operands' type.
func (m *matrix) operand(t DType) driver.Pointer {
	if t == FP32 {
		return m.wide
	}
	return m.narrow
}

// residual is the float32 copy of a value that may be nil.
func residual(m *matrix) driver.Pointer {
	if m == nil {
		return 0
	}
	return m.wide
}

// arena is the memory of a runner on the device, but for its tables.
type arena struct {
	limits    kernels.Limits
	stream    gpu.Stream // on which constants are sent
	slots     []*memory
	rotations map[string]driver.Pointer // tables of cosines and sines, by the bytes of their frequencies
	pieces    []driver.Pointer          // everything but the slots
}

// alloc allocates memory that lives as long as the arena.
func (a *arena) alloc(c *gpu.Context, bytes int) (driver.Pointer, error) {
	at, err := c.Alloc(bytes)
	a.pieces = append(a.pieces, at)
	return at, err
}

// slot makes a slot for the limits.
func (a *arena) slot(c *gpu.Context, s kernels.Slot, t DType) error {
	rows := a.limits.Tokens
	if s.PerSequence {
		rows = a.limits.Sequences
	}
	m, values := new(memory), rows*pitch(s.Cols)
	a.slots = append(a.slots, m)
	var err error
	if s.Precision&kernels.Float32 != 0 {
		m.wide, err = c.Alloc(4 * values)
	}
	if err == nil && s.Precision&kernels.Operand != 0 {
		m.narrow, err = c.Alloc(t.size() * values)
	}
	return err
}

// rowsAtATime is how many rows of a table are sent in one piece.
const rowsAtATime = 1024

// table allocates rows of that many bytes and fills them. It waits until each piece has arrived.
func (a *arena) table(c *gpu.Context, rows, rowBytes int, fill func(row int, to []byte)) (driver.Pointer, error) {
	at, err := a.alloc(c, rows*rowBytes)
	if err != nil {
		return 0, err
	}
	piece, err := c.Pin(min(rowsAtATime, rows) * rowBytes)
	if err != nil {
		return 0, err
	}
	defer c.Unpin(piece)
	for first := 0; first < rows; first += rowsAtATime {
		n := min(rowsAtATime, rows-first)
		for i := range n {
			fill(first+i, piece.Bytes[i*rowBytes:][:rowBytes])
		}
		err := c.Upload(at+driver.Pointer(first*rowBytes), piece, 0, n*rowBytes, a.stream)
		if err = cmp.Or(err, c.Synchronize(a.stream)); err != nil {
			return 0, err
		}
	}
	return at, nil
}

// rotation gives a table of (cos, sin), float32 [positions of the limits, len(invFreq), 2]. The blocks of a model
// usually share one.
func (a *arena) rotation(c *gpu.Context, invFreq []float32) (driver.Pointer, error) {
	key := string(floatBytes(invFreq))
	if at := a.rotations[key]; at != 0 {
		return at, nil
	}
	at, err := a.table(c, a.limits.Tokens, 8*len(invFreq), func(position int, to []byte) {
		for i, f := range invFreq {
			// The angle is a product in float32, as in the reference.
			sin, cos := math.Sincos(float64(float32(position) * f))
			FP32.encode(to[8*i:], []float32{float32(cos), float32(sin)})
		}
	})
	a.rotations[key] = at
	return at, err
}

// constant gives a copy of some float32 values on the device.
func (a *arena) constant(c *gpu.Context, values []float32) (driver.Pointer, error) {
	return a.table(c, 1, 4*len(values), func(_ int, to []byte) { FP32.encode(to, values) })
}

func (a *arena) free(c *gpu.Context) {
	for _, m := range a.slots {
		c.Free(m.wide)
		c.Free(m.narrow)
		c.FreeEvent(m.reading)
	}
	for _, p := range a.pieces {
		c.Free(p)
	}
}

func floatBytes(values []float32) []byte {
	raw := make([]byte, 4*len(values))
	FP32.encode(raw, values)
	return raw
}
