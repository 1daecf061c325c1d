package store

import (
	"hash/maphash"
	"math"
	"slices"
)

// Survey describes the ids and the values of a table.
type Survey struct {
	Records int64
	Columns []ColumnSurvey
	// RepeatedIDs is the number of records whose id an earlier record has. Ids are compared by their 64-bit hashes.
	RepeatedIDs int64
	// Counted is the smaller of Records and maxCounted. Ids are compared only among the first Counted records.
	Counted int64
}

// ColumnSurvey describes the values of a column. A row is a vector of a record, residue or token.
type ColumnSurvey struct {
	Rows      int64  // number of rows, of Table.Dim values each
	NaN       int64  // number of values that are NaN
	Infinite  int64  // number of values that are infinite
	Zero      int64  // number of rows of zeros
	Constant  int64  // number of rows of two or more equal finite values other than zero
	Repeated  int64  // number of rows that are equal, bit for bit, to an earlier one
	FirstNaN  string // id of the first record with a NaN
	FirstInf  string // id of the first record with an infinite value
	FirstZero string // id of the first record with a row of zeros
	FirstSame string // id of the first record with a constant row
}

// maxCounted is the maximum number of ids, and of rows of a column, that are compared for repetitions. Each takes 8
// bytes of memory.
const maxCounted = 32 << 20

// hashes counts the repetitions among byte strings by their 64-bit hashes.
type hashes struct {
	seed maphash.Seed
	list []uint64
}

func (h *hashes) add(b []byte) {
	if len(h.list) < maxCounted {
		h.list = append(h.list, maphash.Bytes(h.seed, b))
	}
}

// repeated returns the number of byte strings that are equal to an earlier one.
func (h *hashes) repeated() (n int64) {
	slices.Sort(h.list)
	for i := 1; i < len(h.list); i++ {
		if h.list[i] == h.list[i-1] {
			n++
		}
	}
	return n
}

// Survey reads the whole table and describes its ids and values. It takes 8 bytes of memory for each id and each row of
// a column, up to maxCounted of each.
func (t *Table) Survey() (Survey, error) {
	s := Survey{Columns: make([]ColumnSurvey, len(t.Columns))}
	ids := hashes{seed: maphash.MakeSeed()}
	rows := make([]hashes, len(t.Columns))
	for i := range rows {
		rows[i].seed = ids.seed
	}
	var buffer []byte
	err := t.Read(func(r *Row) error {
		s.Records++
		id := r.ID
		if r.Start > 0 { // a window: the windows of a record have the same id
			id = r.Region()
		}
		if t.IDs {
			ids.add([]byte(id))
		}
		for c, values := range r.Embeddings {
			for row := range slices.Chunk(values, t.Dim) {
				s.Columns[c].add(id, row)
				buffer = appendFloats(buffer[:0], FP32, row)
				rows[c].add(buffer)
			}
		}
		return nil
	})
	s.RepeatedIDs, s.Counted = ids.repeated(), min(s.Records, maxCounted)
	for c := range rows {
		s.Columns[c].Repeated = rows[c].repeated()
	}
	return s, err
}

// add counts a row of the record with the given id.
func (c *ColumnSurvey) add(id string, row []float32) {
	c.Rows++
	first := func(kept *string) {
		if *kept == "" {
			*kept = id
		}
	}
	same, finite := true, true
	for _, v := range row {
		switch {
		case v != v:
			c.NaN++
			first(&c.FirstNaN)
			finite = false
		case math.IsInf(float64(v), 0):
			c.Infinite++
			first(&c.FirstInf)
			finite = false
		}
		same = same && v == row[0]
	}
	switch {
	case !finite:
	case same && row[0] == 0:
		c.Zero++
		first(&c.FirstZero)
	case same && len(row) > 1:
		c.Constant++
		first(&c.FirstSame)
	}
}
