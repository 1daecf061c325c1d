package cuda

import (
	"fmt"

	"seqembed/kernels"
)

// memory is what buffers lie on: rows of cols columns in float32, in the
// operands' type, or in both. In fp32 there is only the float32 array.
type memory struct {
	cols   int
	wide   devicePtr // float32
	narrow devicePtr // bf16 or fp16

	reading handle // event: the last copy from here has left; made when first needed
	busy    bool   // reading has been recorded, and nobody has waited for it yet
}

func (m *memory) free(d *device) {
	d.free(m.wide)
	d.free(m.narrow)
	if m.reading != 0 {
		d.drv.cuEventDestroy(m.reading)
	}
}

// buffer is an activation: a view of memory.
type buffer struct {
	*memory
	cols        int
	kind        kernels.Kind
	perSequence bool
}

func (b *buffer) Cols() int          { return b.cols }
func (b *buffer) Kind() kernels.Kind { return b.kind }
func (b *buffer) PerSequence() bool  { return b.perSequence }

func of(b kernels.Buffer) *buffer { return b.(*buffer) }

// outputs gives the two pointers of a kernel that writes both copies.
func (b *buffer) outputs() (wide, narrow param) { return ptr(b.wide), ptr(b.narrow) }

// operand is the copy of the operands' type.
func (b *buffer) operand(t DType) devicePtr {
	if t == FP32 {
		return b.wide
	}
	return b.narrow
}

// Tokens allocates for the limits; when the device is out of memory Wait says
// so.
func (s *stream) Tokens(cols int, k kernels.Kind) kernels.Buffer {
	b := &buffer{memory: &memory{cols: cols}, cols: cols, kind: k}
	s.allocate(b, s.limits.Tokens)
	return b
}

// Sequences allocates for the limits.
func (s *stream) Sequences(cols int) kernels.Buffer {
	b := &buffer{memory: &memory{cols: cols}, cols: cols, kind: kernels.Residual, perSequence: true}
	s.allocate(b, s.limits.Sequences)
	return b
}

func (s *stream) allocate(b *buffer, rows int) {
	s.enqueue("allocate", func() string { return fmt.Sprintf("[%d %d]", rows, b.cols) }, func() error { return s.provide(b, rows) })
}

// provide allocates the memory of a buffer. It runs on the device's thread.
func (s *stream) provide(b *buffer, rows int) error {
	wide, narrow := widths(s.backend.dtype, b.kind)
	m, values := b.memory, rows*pitch(b.cols)
	s.memories = append(s.memories, m)
	var err error
	if wide {
		m.wide, err = s.device.alloc(4 * values)
	}
	if err == nil && narrow {
		m.narrow, err = s.device.alloc(s.backend.dtype.size() * values)
	}
	return err
}

// widths says which copies a kind needs.
func widths(t DType, k kernels.Kind) (wide, narrow bool) {
	if t == FP32 {
		return true, false
	}
	return k&kernels.Residual != 0, k&kernels.Operand != 0
}

// Reuse is another view of the same memory.
func (s *stream) Reuse(b kernels.Buffer, cols int) kernels.Buffer {
	from := of(b)
	if cols > from.cols {
		panic(fmt.Sprintf("reuse: %d columns do not fit in %d", cols, from.cols))
	}
	return &buffer{memory: from.memory, cols: cols, kind: from.kind, perSequence: from.perSequence}
}

// writes makes the compute stream wait until what the next launch
// overwrites has been copied to the host. It runs on the device's thread.
func (s *stream) writes(m *memory) error {
	if !m.busy {
		return nil
	}
	m.busy = false
	return s.device.drv.cuStreamWaitEvent(s.compute, m.reading, 0).err("cuStreamWaitEvent")
}

// narrowed brings the copy in the operands' type up to date with the float32
// one, where there are both.
func (s *stream) narrowed(b *buffer, rows int) error {
	if b.wide == 0 || b.narrow == 0 {
		return nil
	}
	stride := num(pitch(b.cols))
	return s.launch(s.typed("narrow"), conversion(rows, b.cols), ptr(b.narrow), ptr(b.wide), num(rows), num(b.cols), stride, stride)
}

// widened does the opposite.
func (s *stream) widened(b *buffer, rows int) error {
	if b.wide == 0 || b.narrow == 0 {
		return nil
	}
	stride := num(pitch(b.cols))
	return s.launch(s.typed("widen"), conversion(rows, b.cols), ptr(b.wide), ptr(b.narrow), num(rows), num(b.cols), stride, stride)
}

func conversion(rows, cols int) geometry {
	return geometry{x: ceilDiv(cols, 256), y: min(rows, maxGridY), block: 256}
}
