package cuda

import (
	"cmp"
	"encoding/binary"
	"math"
	"slices"

	"seqembed/kernels"
)

// tables is the device's memory for what describes a batch, allocated once for
// the limits. The pointers lie in one allocation, each on 256 bytes.
//
// What the host sends is there twice, so that one batch is sent while the one
// before it computes.
type tables struct {
	at     devicePtr
	pos    devicePtr // int32 [T], the position of each token in its sequence
	seq    devicePtr // int32 [T], its sequence
	scale  devicePtr // float32 [S], of an Embed
	halves [2]half
	*half  // of the batch of the moment

	pooled    []kernels.Range // the different ones of a program
	maxBlocks int
	order     []int // scratch of cut
	list      []attentionBlock
}

// half is what the host sends for one batch: a half of a double buffer.
type half struct {
	ids    devicePtr   // int32 [T]
	cu     devicePtr   // int32 [S+1]
	blocks devicePtr   // int2 [maxBlocks], of an Attention
	ranges []devicePtr // int2 [S], of each range that is pooled

	read handle // event: what read this half, before the other took over, has run
}

// ranges lists the different ranges that a program pools.
func ranges(p *kernels.Program) (list []kernels.Range) {
	for _, op := range p.Ops() {
		if o, ok := op.Do.(kernels.Range); ok && !slices.Contains(list, o) {
			list = append(list, o)
		}
	}
	return list
}

// index is the number of a range.
func (t *tables) index(o kernels.Range) int { return slices.Index(t.pooled, o) }

func newTables(d *device, l kernels.Limits, pooled []kernels.Range) (*tables, error) {
	t := &tables{pooled: pooled}
	t.half = &t.halves[0]
	// Each sequence has at most one block that is not full.
	t.maxBlocks = l.Tokens/attentionRows + l.Sequences
	type part struct {
		p     *devicePtr
		bytes int
	}
	parts := []part{{&t.pos, 4 * l.Tokens}, {&t.seq, 4 * l.Tokens}, {&t.scale, 4 * l.Sequences}}
	for i := range t.halves {
		h := &t.halves[i]
		parts = append(parts, part{&h.ids, 4 * l.Tokens}, part{&h.cu, 4 * (l.Sequences + 1)}, part{&h.blocks, 8 * t.maxBlocks})
		h.ranges = make([]devicePtr, len(pooled))
		for k := range h.ranges {
			parts = append(parts, part{&h.ranges[k], 8 * l.Sequences})
		}
	}
	total := 0
	for _, part := range parts {
		total += (part.bytes + 255) &^ 255
	}
	var err error
	if t.at, err = d.alloc(total); err != nil {
		return t, err
	}
	at := t.at
	for _, part := range parts {
		*part.p = at
		at += devicePtr((part.bytes + 255) &^ 255)
	}
	for i := range t.halves {
		if t.halves[i].read, err = d.newEvent(); err != nil {
			return t, err
		}
	}
	return t, nil
}

// swap takes the other half for the next batch. loads, on which that is sent,
// waits until the batch before last, which used the same half, has run.
func (t *tables) swap(d *device, compute, loads handle) error {
	err := d.drv.cuEventRecord(t.read, compute).err("cuEventRecord")
	other := &t.halves[0]
	if t.half == other {
		other = &t.halves[1]
	}
	t.half = other
	// An event that was never recorded is no reason to wait.
	return first(err, d.drv.cuStreamWaitEvent(loads, other.read, 0).err("cuStreamWaitEvent"))
}

// free runs on the device's thread; nil is nothing.
func (t *tables) free(d *device) {
	if t == nil {
		return
	}
	d.free(t.at)
	for _, h := range t.halves {
		if h.read != 0 {
			d.drv.cuEventDestroy(h.read)
		}
	}
}

// attentionBlock is what one block of the attention kernel works on: query
// rows of a sequence from the first on, counted in the sequence.
type attentionBlock struct{ sequence, first int32 }

// cut gives the blocks of the queries of a batch, until it is called again. The
// longest sequences come first, because their blocks take longest; the order
// changes no result.
func (t *tables) cut(b kernels.Batch) []attentionBlock {
	t.order, t.list = t.order[:0], t.list[:0]
	for i := range b.Sequences() {
		t.order = append(t.order, i)
	}
	slices.SortStableFunc(t.order, func(x, y int) int { return cmp.Compare(b.Len(y), b.Len(x)) })
	for _, s := range t.order {
		for first := 0; first < b.Len(s); first += attentionRows {
			t.list = append(t.list, attentionBlock{int32(s), int32(first)})
		}
	}
	return t.list
}

// positionsAtATime is how many positions of a table of rotations are sent in one piece.
const positionsAtATime = 1024

// rotation gives a table of (cos, sin), float32 [positions of the limits, len(invFreq), 2]. The blocks of a model
// usually share one. It runs on the device's thread and waits for what it sends.
func (r *runner) rotation(invFreq []float32) (devicePtr, error) {
	key := string(floatBytes(invFreq))
	if at := r.rotations[key]; at != 0 {
		return at, nil
	}
	rowBytes := 8 * len(invFreq)
	table, err := r.device.alloc(r.limits.Tokens * rowBytes)
	if err != nil {
		return 0, err
	}
	r.rotations[key] = table
	piece, err := r.device.pin(min(positionsAtATime, r.limits.Tokens) * rowBytes)
	if err != nil {
		return 0, err
	}
	defer r.device.unpin(piece)
	for first := 0; first < r.limits.Tokens; first += positionsAtATime {
		n := min(positionsAtATime, r.limits.Tokens-first)
		rest := piece.bytes
		for position := first; position < first+n; position++ {
			for _, f := range invFreq {
				// The angle is a product in float32, as in the reference.
				sin, cos := math.Sincos(float64(float32(position) * f))
				binary.LittleEndian.PutUint32(rest, math.Float32bits(float32(cos)))
				binary.LittleEndian.PutUint32(rest[4:], math.Float32bits(float32(sin)))
				rest = rest[8:]
			}
		}
		if err := r.send(table+devicePtr(first*rowBytes), piece, n*rowBytes); err != nil {
			return 0, err
		}
	}
	return table, nil
}

// constant gives a copy of some float32 values on the device.
func (r *runner) constant(values []float32) (devicePtr, error) {
	raw := floatBytes(values)
	at, err := r.device.alloc(len(raw))
	if err != nil {
		return 0, err
	}
	r.constants = append(r.constants, at)
	piece, err := r.device.pin(len(raw))
	if err != nil {
		return 0, err
	}
	defer r.device.unpin(piece)
	copy(piece.bytes, raw)
	return at, r.send(at, piece, len(raw))
}

// send copies the first bytes of a piece and waits until they have arrived.
func (r *runner) send(to devicePtr, piece pinned, bytes int) error {
	if err := r.device.upload(to, piece, 0, bytes, r.compute); err != nil {
		return err
	}
	return r.device.drv.cuStreamSynchronize(r.compute).err("cuStreamSynchronize")
}

func floatBytes(values []float32) []byte {
	raw := make([]byte, 4*len(values))
	FP32.encode(raw, values)
	return raw
}
