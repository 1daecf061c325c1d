package cuda

import (
	"encoding/binary"
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

// alloc allocates what lives as long as the arena.
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

// positionsAtATime is how many positions of a table of rotations are sent in one piece.
const positionsAtATime = 1024

// rotation gives a table of (cos, sin), float32 [positions of the limits, len(invFreq), 2]. The blocks of a model
// usually share one.
func (a *arena) rotation(c *gpu.Context, invFreq []float32) (driver.Pointer, error) {
	key := string(floatBytes(invFreq))
	if at := a.rotations[key]; at != 0 {
		return at, nil
	}
	rowBytes := 8 * len(invFreq)
	table, err := a.alloc(c, a.limits.Tokens*rowBytes)
	if err != nil {
		return 0, err
	}
	a.rotations[key] = table
	piece, err := c.Pin(min(positionsAtATime, a.limits.Tokens) * rowBytes)
	if err != nil {
		return 0, err
	}
	defer c.Unpin(piece)
	for first := 0; first < a.limits.Tokens; first += positionsAtATime {
		n := min(positionsAtATime, a.limits.Tokens-first)
		rest := piece.Bytes
		for position := first; position < first+n; position++ {
			for _, f := range invFreq {
				// The angle is a product in float32, as in the reference.
				sin, cos := math.Sincos(float64(float32(position) * f))
				binary.LittleEndian.PutUint32(rest, math.Float32bits(float32(cos)))
				binary.LittleEndian.PutUint32(rest[4:], math.Float32bits(float32(sin)))
				rest = rest[8:]
			}
		}
		if err := a.send(c, table+driver.Pointer(first*rowBytes), piece, n*rowBytes); err != nil {
			return 0, err
		}
	}
	return table, nil
}

// constant gives a copy of some float32 values on the device.
func (a *arena) constant(c *gpu.Context, values []float32) (driver.Pointer, error) {
	raw := floatBytes(values)
	at, err := a.alloc(c, len(raw))
	if err != nil {
		return 0, err
	}
	piece, err := c.Pin(len(raw))
	if err != nil {
		return 0, err
	}
	defer c.Unpin(piece)
	copy(piece.Bytes, raw)
	return at, a.send(c, at, piece, len(raw))
}

// send copies the first bytes of a piece and waits until they have arrived.
func (a *arena) send(c *gpu.Context, to driver.Pointer, piece gpu.Pinned, bytes int) error {
	if err := c.Upload(to, piece, 0, bytes, a.stream); err != nil {
		return err
	}
	return c.Synchronize(a.stream)
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
