package pool

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"

	"seqembed/internal/seqio"
	"seqembed/internal/store"
)

// copier copies the rows of all shards of one output into the joined output.
type copier struct {
	ctx    context.Context
	out    store.Writer
	header string // header that every shard of the output has
	input  string // path of the input, for error messages
	ids    *seqio.IDs
	id     string // id of the latest row in the joined output
	last   int64  // Row.Index of the latest row; -1 when interleave begins
}

// cursor reads the rows of one shard, one after the other.
type cursor struct {
	*store.Shard
	piece piece
	row   *store.Row // the next row; nil at the end of the shard
}

// copyAll copies the rows of all shards of an output in the order of its input. If the shards have consecutive ranges
// of the input's records, it copies one shard after the other. If their records alternate, as in an interleaved file
// (see seqio.Part), it merges the rows by the positions of the records.
func (c *copier) copyAll(j *joinedOutput) error {
	groups := [][]piece{j.pieces}
	if !j.Interleaved {
		groups = slices.Collect(slices.Chunk(j.pieces, 1))
	}
	for _, pieces := range groups {
		c.last = -1
		if err := c.interleave(pieces); err != nil {
			return err
		}
	}
	return nil
}

func (c *copier) interleave(pieces []piece) error {
	var cursors []*cursor
	defer func() {
		for _, k := range cursors {
			k.Close()
		}
	}()
	for _, p := range pieces {
		s, err := store.OpenShard(p.file.Path)
		if err != nil {
			return err
		}
		k := &cursor{s, p, nil}
		cursors = append(cursors, k)
		if s.Header != c.header {
			return fmt.Errorf("%w: %s is a shard of another output", ErrShardsDiffer, p.file.Path)
		}
		if err := k.advance(); err != nil {
			return err
		}
	}
	for {
		k := slices.MinFunc(cursors, func(a, b *cursor) int { return cmp.Compare(a.index(), b.index()) })
		if k.row == nil {
			return nil
		}
		others := uint64(beyondAll) // least index among the next rows of the other shards
		for _, other := range cursors {
			if other != k {
				others = min(others, other.index())
			}
		}
		for k.row != nil && k.index() < others {
			if c.ctx.Err() != nil {
				return c.ctx.Err()
			}
			if err := c.write(*k.row); err != nil {
				return err
			}
			if err := k.advance(); err != nil {
				return err
			}
		}
	}
}

// beyondAll is greater than the index of any record.
const beyondAll = 1 << 63

// index returns the Row.Index of the next row, or beyondAll at the end of the shard.
func (k *cursor) index() uint64 {
	if k.row == nil {
		return beyondAll
	}
	return uint64(k.row.Index)
}

// advance reads the next row. At the end of the shard it returns an error if the shard's digest differs from the one in
// the manifest.
func (k *cursor) advance() (err error) {
	k.row, err = k.Next()
	if err == io.EOF {
		k.row, err = nil, nil
		if k.SHA256() != k.piece.file.SHA256 {
			err = fmt.Errorf("%s is not what the manifest describes: run shard %d again", k.piece.file.Path, k.piece.Shard)
		}
	}
	return err
}

// write writes a row to the joined output. It applies the policy for repeated ids to the id of the row's record. If a
// record has a row for each of its windows, these rows have the same index and get the same id.
func (c *copier) write(r store.Row) error {
	if r.Index != c.last {
		var ok bool
		if c.id, ok = c.ids.Name(r.ID); !ok {
			return fmt.Errorf("%s: record %q: an earlier record has the same id: %w", c.input, r.ID, seqio.ErrDuplicateID)
		}
		c.last = r.Index
	}
	r.ID = c.id
	return c.out.Write(r)
}
