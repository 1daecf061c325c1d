package pool

import (
	"context"
	"io"

	"seqembed/internal/seqio"
)

// Survey is the work that a run would do for a file.
type Survey struct {
	Path      string
	Output    string // path of the output's main file
	Complete  bool   // the output is complete, so that a run would leave the file out
	Unread    bool   // the input was not read, because it can be read only once; the counts are 0
	Records   int64  // number of records that would be written
	Windows   int64  // number of windows, at least one for each record
	Tokens    int64  // number of tokens, including special tokens
	Truncated int64
	Skipped   int64
	Text      int64 // number of bytes of the ids and descriptions
}

// Survey reads a file and tokenizes its records as Run would, without devices and without writing. Check must have been
// called before, unless Job.Force is set. If the file has bad records that are not skipped, the error lists them (see
// seqio.Faults), as Run does in Summary.Failed.
func (j *Job) Survey(ctx context.Context, f File) (Survey, error) {
	s := Survey{Path: f.Path, Output: j.Output.Main(f), Unread: f.once()}
	if s.Unread {
		return s, nil
	}
	var err error
	if !j.Force {
		if s.Complete, err = (&run{Job: j}).complete(ctx, f); err != nil {
			return s, err
		}
	}
	r, err := f.open(j.Reading)
	if err != nil {
		return s, err
	}
	defer r.Close()
	for ctx.Err() == nil {
		raw, err := r.Read()
		if err == io.EOF {
			for _, n := range r.SkipCounts() {
				s.Skipped += n
			}
			return s, nil
		}
		var rec *record
		if err == nil {
			rec, err = j.newRecord(f.label(), raw)
		}
		if err != nil {
			if all := seqio.Check(ctx, f.Path, f.reading(j.Reading), func(r seqio.Record) error { return j.tooLong(f.label(), r) }); all != nil {
				err = all
			}
			return s, err
		}
		s.count(rec)
	}
	return s, ErrInterrupted
}

// count adds a record to the numbers of the survey.
func (s *Survey) count(rec *record) {
	s.Records++
	s.Windows += int64(len(rec.windows))
	s.Tokens += int64(rec.row.Tokens)
	s.Text += int64(len(rec.row.ID) + len(rec.row.Description))
	if rec.row.Truncated {
		s.Truncated++
	}
}
