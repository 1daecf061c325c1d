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
	// LongWindow divides the record into windows of MaxLength letters; the last window may be shorter. Each window
	// shares Overlap letters with the previous one. The windows are embedded separately. Unless Job.Windows is set, the
	// results of the windows are joined to one result of the record: for the pooling Mean the mean and for Max the
	// maximum over the tokens of all windows, for CLS the mean of the first tokens of the windows, and for Residues and
	// Tokens the concatenation of the tokens. A letter in two windows counts twice.
	LongWindow LongPolicy = "window"
	// LongError fails the file with an error that names the record.
	LongError LongPolicy = "error"
)

// ErrTooLong is wrapped by the error for a record of more than Job.MaxLength letters under LongError.
var ErrTooLong = errors.New("record too long")

// record is a record of the input. It is tokenized, then embedded, then written as one row, or with Job.Windows as one
// row for each window.
type record struct {
	row     store.Row
	line    int64
	unknown int // number of letters that became the unknown token
	windows []*window
}

// window is a part of a record that is embedded as one sequence. Only a record of more than Job.MaxLength letters has
// several.
type window struct {
	from, to int // range [from, to) of the letters of the record
	seq      *sequence
	repeated bool // an earlier window of the file has the same sequence; the result is computed for that window
}

// failure returns the reason why the record has no row, or nil.
func (rec *record) failure() error {
	for _, w := range rec.windows {
		if w.seq.failure != nil {
			return w.seq.failure
		}
	}
	return nil
}

// repeated reports whether nothing had to be computed for the record, because earlier records of the file have the same
// sequences.
func (rec *record) repeated() bool {
	return !slices.ContainsFunc(rec.windows, func(w *window) bool { return !w.repeated })
}

// newRecord tokenizes r according to the job's LongPolicy.
func (j *Job) newRecord(file string, r seqio.Record) (*record, error) {
	if err := j.tooLong(file, r); err != nil {
		return nil, err
	}
	rec := &record{row: store.Row{ID: r.ID, Description: r.Description, Index: r.Index, RecordLength: len(r.Seq)}, line: r.Line}
	seq := r.Seq
	size := len(seq) // number of letters in a window
	if j.MaxLength > 0 && len(seq) > j.MaxLength {
		size = j.MaxLength
		if j.Long == LongTruncate {
			seq, rec.row.Truncated = seq[:size], true
		}
	}
	rec.row.Length = len(seq)
	for from := 0; ; from += size - j.Overlap {
		rec.add(j.Tokenizer, seq, from, min(from+size, len(seq)))
		if from+size >= len(seq) {
			return rec, nil
		}
	}
}

// tooLong returns an ErrTooLong if a record has more than MaxLength letters and the policy is LongError, otherwise nil.
func (j *Job) tooLong(file string, r seqio.Record) error {
	if j.Long != LongError || j.MaxLength == 0 || len(r.Seq) <= j.MaxLength {
		return nil
	}
	return &seqio.FormatError{File: file, Record: r.ID, Line: r.Line, Err: ErrTooLong,
		Msg: fmt.Sprintf("%d letters; the longest allowed is %d", len(r.Seq), j.MaxLength)}
}

// add tokenizes seq[from:to] and appends it to the record's windows.
func (rec *record) add(t tokenizer.Tokenizer, seq []byte, from, to int) {
	ids, unknown := t.Append(nil, seq[from:to])
	rec.windows = append(rec.windows, &window{from: from, to: to, seq: &sequence{ids: ids, first: rec.row.ID, line: rec.line}})
	rec.row.Tokens += len(ids)
	rec.unknown += unknown
}

// makeRows returns the rows of a record from the results of its windows: with Job.Windows one row for each window,
// otherwise one row that joins all windows.
func (j *Job) makeRows(rec *record) (rows []store.Row) {
	if !j.Windows {
		row := rec.row
		row.Embeddings = rec.windows[0].seq.result
		if len(rec.windows) > 1 {
			row.Embeddings = j.join(rec.windows)
		}
		row.Residues = j.residues(rec.windows)
		return []store.Row{row}
	}
	for i, w := range rec.windows {
		row := rec.row
		row.Start, row.End = w.from+1, w.to
		row.Length, row.Tokens, row.Embeddings = w.to-w.from, w.seq.tokens(), w.seq.result
		row.Residues = j.residues(rec.windows[i : i+1])
		rows = append(rows, row)
	}
	return rows
}

// residues returns a list with an element for each token that the pooling Residues covers in the windows: the letters
// of the record for which the token stands. It returns nil if no column of the output has that pooling.
func (j *Job) residues(windows []*window) (list []store.Letters) {
	if !slices.ContainsFunc(j.Output.Columns, func(c store.Column) bool { return c.Pooling == store.Residues }) {
		return nil
	}
	for _, w := range windows {
		from, to := j.Covered(store.Residues, w.seq.tokens())
		end := w.from
		for _, id := range w.seq.ids[from:to] {
			first := end + 1
			end += j.Tokenizer.Letters(id)
			list = append(list, store.Letters{First: int32(first), Last: int32(end)})
		}
	}
	return list
}

// join combines the results of the windows of a record into its embeddings, one for each column.
func (j *Job) join(windows []*window) (embeddings [][]float32) {
	for c, column := range j.Output.Columns {
		var joined []float32
		switch column.Pooling {
		case store.Max:
			joined = slices.Clone(windows[0].seq.result[c])
			for _, w := range windows[1:] {
				for i, v := range w.seq.result[c] {
					joined[i] = max(joined[i], v)
				}
			}
		case store.Residues, store.Tokens:
			for _, w := range windows {
				joined = append(joined, w.seq.result[c]...)
			}
		default:
			joined = j.average(windows, c)
		}
		embeddings = append(embeddings, joined)
	}
	return embeddings
}

// average returns the mean of the windows' results in one column. The weight of a window is the number of its tokens
// that the pooling of the column covers.
func (j *Job) average(windows []*window, column int) []float32 {
	sums, total := make([]float64, len(windows[0].seq.result[column])), 0.0
	for _, w := range windows {
		from, to := j.Covered(j.Output.Columns[column].Pooling, w.seq.tokens())
		weight := float64(to - from)
		total += weight
		for i, v := range w.seq.result[column] {
			sums[i] += weight * float64(v)
		}
	}
	mean := make([]float32, len(sums))
	for i, v := range sums {
		mean[i] = float32(v / total)
	}
	return mean
}
