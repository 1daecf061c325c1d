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
	at    devicePtr
	pos   devicePtr // int32 [T], the position of each token in its sequence
	seq   devicePtr // int32 [T], its sequence
	scale devicePtr // float32 [S], of an Embed
	sides [2]side
	*side // of the batch of the moment

	rowsPerBlock int // query rows of an attention block
	maxBlocks    int
}

// side is what the host sends for one batch.
type side struct {
	ids    devicePtr // int32 [T]
	cu     devicePtr // int32 [S+1]
	blocks devicePtr // int2 [maxBlocks], of an Attention
	ranges devicePtr // int2 [S], of a Pool

	pooled *kernels.Pool // whose ranges have been sent for this batch
	read   handle        // event: what read this side, before the other took over, has run
}

func newTables(d *device, l kernels.Limits, rowsPerBlock int) (*tables, error) {
	t := &tables{rowsPerBlock: rowsPerBlock}
	t.side = &t.sides[0]
	// Each sequence has at most one block that is not full.
	t.maxBlocks = l.Tokens/rowsPerBlock + l.Sequences
	type part struct {
		p     *devicePtr
		bytes int
	}
	parts := []part{{&t.pos, 4 * l.Tokens}, {&t.seq, 4 * l.Tokens}, {&t.scale, 4 * l.Sequences}}
	for i := range t.sides {
		side := &t.sides[i]
		parts = append(parts, part{&side.ids, 4 * l.Tokens}, part{&side.cu, 4 * (l.Sequences + 1)},
			part{&side.blocks, 8 * t.maxBlocks}, part{&side.ranges, 8 * l.Sequences})
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
	for i := range t.sides {
		if t.sides[i].read, err = d.newEvent(); err != nil {
			return t, err
		}
	}
	return t, nil
}

// turn takes the other side for the next batch. loads, on which that is sent,
// waits until the batch before last, which used the same side, has run.
func (t *tables) turn(d *device, compute, loads handle) error {
	err := d.drv.cuEventRecord(t.read, compute).err("cuEventRecord")
	other := &t.sides[0]
	if t.side == other {
		other = &t.sides[1]
	}
	t.side, other.pooled = other, nil
	// An event that was never recorded is no reason to wait.
	return first(err, d.drv.cuStreamWaitEvent(loads, other.read, 0).err("cuStreamWaitEvent"))
}

// free runs on the device's thread; nil is nothing.
func (t *tables) free(d *device) {
	if t == nil {
		return
	}
	d.free(t.at)
	for _, side := range t.sides {
		if side.read != 0 {
			d.drv.cuEventDestroy(side.read)
		}
	}
}

// attentionBlock is what one block of the attention kernel works on: query
// rows of a sequence from the first on, counted in the sequence.
type attentionBlock struct{ sequence, first int32 }

// attentionBlocks cuts the queries of a batch into blocks. The longest
// sequences come first, because their blocks take longest; the order changes
// no result.
func attentionBlocks(b kernels.Batch, rowsPerBlock int) []attentionBlock {
	order := make([]int, b.Sequences())
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(x, y int) int { return cmp.Compare(b.Len(y), b.Len(x)) })
	var list []attentionBlock
	for _, s := range order {
		for first := 0; first < b.Len(s); first += rowsPerBlock {
			list = append(list, attentionBlock{int32(s), int32(first)})
		}
	}
	return list
}

// turns is a table of rotations (cos, sin) for each position and frequency.
type turns struct {
	at     devicePtr // float32 [positions of the limits, len(invFreq), 2]
	filled int       // positions that have been sent
}

// firstTurns is the least number of positions that are sent at a time.
const firstTurns = 1024

// rotations gives the table for some frequencies with at least that many
// positions. It runs on the device's thread; the copy goes to the compute
// stream, before the launch that needs it.
func (s *stream) rotations(invFreq []float32, positions int) (devicePtr, error) {
	key := string(floatBytes(invFreq))
	t := s.turns[key]
	rowBytes := 8 * len(invFreq)
	if t == nil {
		at, err := s.device.alloc(s.limits.Tokens * rowBytes)
		if err != nil {
			return 0, err
		}
		t = &turns{at: at}
		s.turns[key] = t
	}
	if positions <= t.filled {
		return t.at, nil
	}
	// Doubling bounds how often a table is sent as longer sequences come.
	until := min(s.limits.Tokens, max(positions, 2*t.filled, firstTurns))
	piece, err := s.slab((until - t.filled) * rowBytes)
	if err != nil {
		return 0, err
	}
	rest := piece.bytes
	for position := t.filled; position < until; position++ {
		for _, f := range invFreq {
			// The angle is a product in float32, as in the reference.
			sin, cos := math.Sincos(float64(float32(position) * f))
			binary.LittleEndian.PutUint32(rest, math.Float32bits(float32(cos)))
			binary.LittleEndian.PutUint32(rest[4:], math.Float32bits(float32(sin)))
			rest = rest[8:]
		}
	}
	at := t.at + devicePtr(t.filled*rowBytes)
	if err := s.device.upload(at, piece.pinned, 0, (until-t.filled)*rowBytes, s.compute); err != nil {
		return 0, err
	}
	t.filled = until
	return t.at, nil
}

// constant gives the device's copy of some float32 values, sent when they are
// first met. It runs on the device's thread.
func (s *stream) constant(values []float32) (devicePtr, error) {
	raw := floatBytes(values)
	if at, ok := s.constants[string(raw)]; ok {
		return at, nil
	}
	piece, err := s.slab(len(raw))
	if err != nil {
		return 0, err
	}
	copy(piece.bytes, raw)
	at, err := s.device.alloc(len(raw))
	if err != nil {
		return 0, err
	}
	if err := s.device.upload(at, piece.pinned, 0, len(raw), s.compute); err != nil {
		s.device.free(at)
		return 0, err
	}
	s.constants[string(raw)] = at
	return at, nil
}

func floatBytes(values []float32) []byte {
	raw := make([]byte, 4*len(values))
	FP32.encode(raw, values)
	return raw
}
