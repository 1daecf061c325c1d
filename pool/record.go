package pool

import (
	"errors"
	"fmt"
	"slices"

	"seqembed/internal/seqio"
	"seqembed/internal/store"
	"seqembed/tokenizer"
)

// LongPolicy says how a record of more than MaxLength letters is embedded.
type LongPolicy string

const (
	// LongTruncate uses the first MaxLength letters and counts the record.
	LongTruncate LongPolicy = "truncate"
	// LongWindow embeds windows of MaxLength letters, end to end, and joins them: a mean over all their tokens, the
	// mean of their first tokens, or their tokens one after the other.
	LongWindow LongPolicy = "window"
	// LongError ends the file with an error that names the record.
	LongError LongPolicy = "error"
)

// ParseLongPolicy reads the name of a policy.
func ParseLongPolicy(s string) (LongPolicy, error) {
	if p := LongPolicy(s); slices.Contains([]LongPolicy{LongTruncate, LongWindow, LongError}, p) {
		return p, nil
	}
	return "", fmt.Errorf("%q is none of truncate, window, error", s)
}

// ErrTooLong is in the chain of the error of a record over Job.MaxLength, with LongError.
var ErrTooLong = errors.New("record too long")

// record is one row on its way: tokenized, then embedded, then written.
type record struct {
	row     store.Row
	line    int64
	letters int // before it was truncated
	unknown int // letters that became the unknown token
	windows []*window
	failure error // why there is no row
}

// window is a stretch of a record that is embedded in one piece; a record has one, unless it is long and cut.
type window struct {
	rec    *record
	ids    []int32
	result [][]float32 // for each layer, once embedded
}

func (w *window) tokens() int { return len(w.ids) }

// newRecord tokenizes r as the job's policy for long records says.
func (j *Job) newRecord(file string, r seqio.Record) (*record, error) {
	if err := j.tooLong(file, r); err != nil {
		return nil, err
	}
	rec := &record{row: store.Row{ID: r.ID, Description: r.Description}, line: r.Line, letters: len(r.Seq)}
	seq := r.Seq
	step := len(seq)
	if j.MaxLength > 0 && len(seq) > j.MaxLength {
		step = j.MaxLength
		if j.Long == LongTruncate {
			seq, rec.row.Truncated = seq[:step], true
		}
	}
	rec.row.Length = len(seq)
	for piece := range slices.Chunk(seq, step) {
		rec.add(j.Tokenizer, piece)
	}
	return rec, nil
}

// tooLong returns the error for a record over the length limit, under LongError.
func (j *Job) tooLong(file string, r seqio.Record) error {
	if j.Long != LongError || j.MaxLength == 0 || len(r.Seq) <= j.MaxLength {
		return nil
	}
	return &seqio.FormatError{File: file, Record: r.ID, Line: r.Line, Err: ErrTooLong,
		Msg: fmt.Sprintf("%d letters, and the longest allowed is %d", len(r.Seq), j.MaxLength)}
}

func (rec *record) add(t tokenizer.Tokenizer, letters []byte) {
	ids, unknown := t.Append(nil, letters)
	rec.windows = append(rec.windows, &window{rec: rec, ids: ids})
	rec.row.Tokens += len(ids)
	rec.unknown += unknown
}

// join makes the row's embeddings from the results of its windows: weighted by averaged tokens, or end to end for an
// embedding per token.
func (rec *record) join(perToken bool, averaged func(n int) int) {
	if len(rec.windows) == 1 {
		rec.row.Embeddings = rec.windows[0].result
		return
	}
	layers := len(rec.windows[0].result)
	rec.row.Embeddings = make([][]float32, layers)
	for l := range layers {
		if perToken {
			for _, w := range rec.windows {
				rec.row.Embeddings[l] = append(rec.row.Embeddings[l], w.result[l]...)
			}
			continue
		}
		sums, total := make([]float64, len(rec.windows[0].result[l])), 0.0
		for _, w := range rec.windows {
			weight := float64(averaged(len(w.ids)))
			total += weight
			for c, v := range w.result[l] {
				sums[c] += weight * float64(v)
			}
		}
		mean := make([]float32, len(sums))
		for c, v := range sums {
			mean[c] = float32(v / total)
		}
		rec.row.Embeddings[l] = mean
	}
}
