package cuda

import "seqembed/kernels"

// The functions of this file run on the device's thread.

// memory is a slot: rows of cols columns in float32, in the operands' type, or in both. In fp32 there is only the
// float32 array.
type memory struct {
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

// matrix is a value in its slot.
type matrix struct {
	*memory
	cols        int
	perSequence bool
}

// outputs gives the two pointers of a kernel that writes both copies.
func (m *matrix) outputs() (wide, narrow param) { return ptr(m.wide), ptr(m.narrow) }

// operand is the copy of the operands' type.
func (m *matrix) operand(t DType) devicePtr {
	if t == FP32 {
		return m.wide
	}
	return m.narrow
}

// residual is the float32 copy of a value that may be nil.
func residual(m *matrix) devicePtr {
	if m == nil {
		return 0
	}
	return m.wide
}

// allocate makes a slot for the limits.
func (r *runner) allocate(s kernels.Slot) error {
	rows := r.limits.Tokens
	if s.PerSequence {
		rows = r.limits.Sequences
	}
	m, values := new(memory), rows*pitch(s.Cols)
	r.slots = append(r.slots, m)
	var err error
	if s.Precision&kernels.Float32 != 0 {
		m.wide, err = r.device.alloc(4 * values)
	}
	if err == nil && s.Precision&kernels.Operand != 0 {
		m.narrow, err = r.device.alloc(r.backend.dtype.size() * values)
	}
	return err
}

// waitForReaders makes the compute stream wait until what the next launch overwrites has been copied to the host.
func (r *runner) waitForReaders(m *memory) error {
	if !m.busy {
		return nil
	}
	m.busy = false
	return r.device.drv.cuStreamWaitEvent(r.compute, m.reading, 0).err("cuStreamWaitEvent")
}

// narrow gives what brings the copy in the operands' type up to date with the float32 one, where there are both.
func (r *runner) narrow(m *matrix) (func(rows int) error, error) {
	if m.wide == 0 || m.narrow == 0 {
		return func(int) error { return nil }, nil
	}
	return r.convert("narrow", m.narrow, m.wide, m.cols)
}

// widen does the opposite.
func (r *runner) widen(wide, narrow devicePtr, cols int) (func(rows int) error, error) {
	if wide == 0 || narrow == 0 {
		return func(int) error { return nil }, nil
	}
	return r.convert("widen", wide, narrow, cols)
}

func (r *runner) convert(name string, to, from devicePtr, cols int) (func(rows int) error, error) {
	k, err := r.kernel(r.typed(name), 0)
	stride := num(pitch(cols))
	return func(rows int) error {
		g := geometry{x: ceilDiv(cols, 256), y: min(rows, maxGridY), block: 256}
		return r.launch(k, g, ptr(to), ptr(from), num(rows), num(cols), stride, stride)
	}, err
}
