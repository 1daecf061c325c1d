package seqio

import "sync"

// chunk is the unit of memory that parsers read into. Free chunks are kept for other parsers, because a run opens many
// inputs one after the other. The garbage collector frees chunks that stay unused.
type chunk [64 << 10]byte

var freeChunks = sync.Pool{New: func() any { return new(chunk) }}

func newChunk() *chunk { return freeChunks.Get().(*chunk) }

func (c *chunk) free() { freeChunks.Put(c) }

// chunks collects the bytes of a sequence without moving them when it grows. take then copies them to memory of the
// sequence's own size.
type chunks struct {
	parts []*chunk
	last  []byte // the used part of the last chunk in parts; all other chunks are full
	len   int
	block []byte // the free part of the memory block from which take returns short sequences
}

// blockSize is the length in bytes of a memory block that several sequences share, and short is the maximum length of
// such a sequence. A separate allocation for each short sequence would take a tenth of the time for reading proteins.
const (
	blockSize = 32 << 10
	short     = blockSize / 16
)

// add appends a copy of p.
func (c *chunks) add(p []byte) {
	c.len += len(p)
	for room := cap(c.last) - len(c.last); room < len(p); room = cap(c.last) {
		c.last = append(c.last, p[:room]...)
		p = p[room:]
		part := newChunk()
		c.parts = append(c.parts, part)
		c.last = part[:0]
	}
	c.last = append(c.last, p...)
}

// take returns the collected bytes, in memory that belongs to the caller, and empties c. It keeps one chunk for the
// next sequence.
func (c *chunks) take() []byte {
	all := c.allocate()
	for i := range len(c.parts) - 1 {
		all = append(all, c.parts[i][:]...)
	}
	all = append(all, c.last...)
	c.empty(1)
	return all
}

// allocate returns memory for the collected bytes, as a slice of length 0. For a short sequence the memory is a part of
// a block. The capacity of the slice ends with this part, so that appending to the sequence does not overwrite the rest
// of the block.
func (c *chunks) allocate() []byte {
	if c.len > short {
		return make([]byte, 0, c.len)
	}
	if c.len > len(c.block) {
		c.block = make([]byte, blockSize)
	}
	m := c.block[:0:c.len]
	c.block = c.block[c.len:]
	return m
}

// empty drops the bytes and frees all chunks except the given number.
func (c *chunks) empty(keep int) {
	keep = min(keep, len(c.parts))
	for _, part := range c.parts[keep:] {
		part.free()
	}
	clear(c.parts[keep:])
	c.parts, c.last, c.len = c.parts[:keep], nil, 0
	if keep > 0 {
		c.last = c.parts[0][:0]
	}
}
