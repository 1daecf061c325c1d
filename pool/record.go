package pool

import (
	"errors"
	"fmt"
	"slices"

	"seqembed/internal/seqio"
	"seqembed/internal/store"
	"seqembed/tokenizer"
)

// LongPolicy determines the treatment of a record of more than MaxLength letters.
type LongPolicy string

const (
	// LongTruncate uses the first MaxLength letters and counts the record as truncated.
	LongTruncate LongPolicy = "truncate"
	// LongWindow divides the record into consecutive windows of MaxLength letters, embeds them separately and joins the
	// results: the mean over all their tokens, the mean of their first tokens, or the concatenation of their tokens.
	LongWindow LongPolicy = "window"
	// LongError fails the file with an error that names the record.
	LongError LongPolicy = "error"
)

// ParseLongPolicy returns the policy named s.
func ParseLongPolicy(s string) (LongPolicy, error) {
	if p := LongPolicy(s); slices.Contains([]LongPolicy{LongTruncate, LongWindow, LongError}, p) {
		return p, nil
	}
	return "", fmt.Errorf("unknown policy %q: use truncate, window or error", s)
}

// ErrTooLong is wrapped by the error for a record of more than Job.MaxLength letters under LongError.
var ErrTooLong = errors.New("record too long")

// record is a record of the input that is tokenized, then embedded, then written as one row.
type record struct {
	row     store.Row
	line    int64
	letters int // before truncation
	unknown int // number of letters that became the unknown token
	windows []*window
	failure error // the reason why the record has no row
}

// window is a part of a record that is embedded as one sequence. Only a long record has several.
type window struct {
	rec    *record
	ids    []int32
	result [][]float32 // one slice per layer; set after the window is embedded
}

func (w *window) tokens() int { return len(w.ids) }

// newRecord tokenizes r according to the job's LongPolicy.
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
		Msg: fmt.Sprintf("%d letters; the longest allowed is %d", len(r.Seq), j.MaxLength)}
}

func (rec *record) add(t tokenizer.Tokenizer, letters []byte) {
	ids, unknown := t.Append(nil, letters)
	rec.windows = append(rec.windows, &window{rec: rec, ids: ids})
	rec.row.Tokens += len(ids)
	rec.unknown += unknown
}

// join computes the row's embeddings from the results of its windows: their mean, weighted by averaged tokens, or their
// concatenation if perToken is set.
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
