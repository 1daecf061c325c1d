package store

import (
	"strconv"

	"seqembed/internal/half"
)

// TSV is a text file per column with one line per record, residue or token. A line has the id, the position of a token
// or the letters of a residue, and the values, separated by tabs.
const TSV Format = "tsv"

// oneFilePerColumn returns the names of the files of a format that has a file for each column.
func oneFilePerColumn(s *Spec, stem string) (names []string) {
	for _, suffix := range s.suffixes(".", ".layer") {
		names = append(names, stem+suffix+"."+string(s.Format))
	}
	return names
}

// Names of the fields of a TSV file that come before the values.
const (
	tsvID       = "id"
	tsvPosition = "position"
	tsvStart    = "start"
	tsvEnd      = "end"
)

// tsvEncoder writes a file for each Column of the Spec. The first line has the names of the fields; the names of the
// values are numbers from 0 on. In the line of a residue, its first and last letter follow the id. In the line of a
// token, its position, counted from 0, follows the id. A value is the shortest decimal number that reads back as the
// same float32. Control characters in an id become %XX, so that no id contains a tab.
type tsvEncoder struct {
	spec  *Spec
	files []*atomicFile
	line  []byte
}

func newTSVEncoder(s *Spec, files *fileSet) (encoder, error) {
	e := &tsvEncoder{spec: s, line: []byte(tsvID)}
	switch s.pooling() {
	case Residues:
		e.line = append(e.line, "\t"+tsvStart+"\t"+tsvEnd...)
	case Tokens:
		e.line = append(e.line, "\t"+tsvPosition...)
	}
	for i := range s.Dim {
		e.line = strconv.AppendInt(append(e.line, '\t'), int64(i), 10)
	}
	e.line = append(e.line, '\n')
	for _, path := range s.Paths() {
		f, err := files.create(path, false)
		if err != nil {
			return nil, err
		}
		if _, err := f.Write(e.line); err != nil {
			return nil, err
		}
		e.files = append(e.files, f)
	}
	return e, nil
}

func (e *tsvEncoder) add(r *Row) error {
	id := oneLine(r.ID)
	for c, values := range r.Embeddings {
		for i := range e.spec.rows(r) {
			e.line = append(e.line[:0], id...)
			switch e.spec.pooling() {
			case Residues:
				e.line = strconv.AppendInt(append(e.line, '\t'), int64(r.Residues[i].First), 10)
				e.line = strconv.AppendInt(append(e.line, '\t'), int64(r.Residues[i].Last), 10)
			case Tokens:
				e.line = strconv.AppendInt(append(e.line, '\t'), int64(i), 10)
			}
			for _, v := range values[i*e.spec.Dim : (i+1)*e.spec.Dim] {
				if e.spec.DType == FP16 {
					v = half.FromFP16(half.ToFP16(v))
				}
				e.line = strconv.AppendFloat(append(e.line, '\t'), float64(v), 'g', -1, 32)
			}
			if _, err := e.files[c].Write(append(e.line, '\n')); err != nil {
				return err
			}
		}
	}
	return nil
}

func (e *tsvEncoder) finish() error { return nil }
