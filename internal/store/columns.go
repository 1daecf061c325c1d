package store

import (
	"fmt"
	"slices"
	"strconv"
)

// Pooling determines how the hidden states of a record's tokens become the rows of a column.
type Pooling string

// Poolings. Columns of Mean, Max and CLS have one row per record. The tokens that Mean and Max cover depend on the
// model.
const (
	Mean     Pooling = "mean"     // the mean of the states of tokens
	Max      Pooling = "max"      // the maxima of the states of tokens, value by value
	CLS      Pooling = "cls"      // the state of the first token
	Residues Pooling = "residues" // one row per token, except special tokens; see Row.Residues
	Tokens   Pooling = "tokens"   // one row per token, including special tokens
)

// Poolings returns all poolings, the default first.
func Poolings() []Pooling { return []Pooling{Mean, Max, CLS, Residues, Tokens} }

// PerRecord reports whether a column with the pooling p has one row per record.
func (p Pooling) PerRecord() bool { return p != Residues && p != Tokens }

// Column is one kind of embedding of every record: a pooling of the states of one layer.
type Column struct {
	Pooling Pooling
	Layer   int // number of the transformer block after which the states are taken; 0 is before the first block
}

// Letters is a range of letters in the sequence of a record: the first and the last letter, counted from 1.
type Letters struct{ First, Last int32 }

// If the columns of a Spec have different kinds of rows, the output is usually (see Spec.tables) written as several
// tables, each in files of its own: one with a row per record, one with a row per residue and one with a row per token.
// Each table has a copy of the Spec with only the columns of the table.

// pooling returns the kind of rows in the table with this Spec: Residues for a row per residue, Tokens for a row per
// token, and Mean for a row per record, even if the columns have the pooling Max or CLS.
func (s *Spec) pooling() Pooling {
	if p := s.Columns[0].Pooling; !p.PerRecord() {
		return p
	}
	return Mean
}

// perRecord reports whether the rows of the table with this Spec are records, and not residues or tokens.
func (s *Spec) perRecord() bool { return s.pooling() == Mean }

// rows returns the number of rows that a record has in the table with this Spec.
func (s *Spec) rows(r *Row) int {
	switch s.pooling() {
	case Residues:
		return len(r.Residues)
	case Tokens:
		return r.Tokens
	}
	return 1
}

// table is one table of an output, with some or all of the columns of the output (see Spec.tables).
type table struct {
	spec    Spec  // the Spec of the output, with the columns of the table only
	columns []int // indices of the table's columns among all columns of the output
	enc     encoder
}

// tables divides a Spec into its tables, each with one kind of rows: records, residues or tokens, in this order. If
// there are several tables, the file names of the tables of residues and tokens contain the pooling. The format Pt, and
// a shard (see Spec.Shard), have all columns in one table.
func (s *Spec) tables() (list []table) {
	if s.Format == Pt || s.Shard != "" {
		all := table{spec: *s}
		for i := range s.Columns {
			all.columns = append(all.columns, i)
		}
		return []table{all}
	}
	for _, rows := range []Pooling{Mean, Residues, Tokens} {
		t := table{spec: *s}
		t.spec.Columns = nil
		for i, c := range s.Columns {
			if c.Pooling == rows || c.Pooling.PerRecord() && rows.PerRecord() {
				t.spec.Columns, t.columns = append(t.spec.Columns, c), append(t.columns, i)
			}
		}
		if len(t.columns) > 0 && len(t.columns) < len(s.Columns) && !rows.PerRecord() {
			t.spec.table = "." + string(rows)
		}
		if len(t.columns) > 0 {
			list = append(list, t)
		}
	}
	return list
}

// row returns r with the embeddings of the table's columns only.
func (t *table) row(r Row) *Row {
	all := r.Embeddings
	if len(t.columns) < len(all) {
		r.Embeddings = make([][]float32, len(t.columns))
		for i, column := range t.columns {
			r.Embeddings[i] = all[column]
		}
	}
	return &r
}

// suffixes returns a suffix for the name of each column, by which the columns differ. If there are several poolings, a
// suffix begins with the argument pooling, such as "_", and the name of the column's pooling. If there are several
// layers, the argument layer, such as ".layer", and the number of the column's layer follow.
func (s *Spec) suffixes(pooling, layer string) []string {
	names := make([]string, len(s.Columns))
	for i, c := range s.Columns {
		if slices.ContainsFunc(s.Columns, func(other Column) bool { return other.Pooling != c.Pooling }) {
			names[i] = pooling + string(c.Pooling)
		}
		if slices.ContainsFunc(s.Columns, func(other Column) bool { return other.Layer != c.Layer }) {
			names[i] += layer + strconv.Itoa(c.Layer)
		}
	}
	return names
}

// columnNames returns the names of the columns: prefix, followed by the suffix of the column (see suffixes). A single
// column has no suffix.
func (s *Spec) columnNames(prefix string) []string {
	names := s.suffixes("_", "_")
	for i, suffix := range names {
		names[i] = prefix + suffix
	}
	return names
}

// checkColumns returns an error if there is no column, or a column that is invalid or listed twice.
func (s *Spec) checkColumns() error {
	if len(s.Columns) == 0 {
		return fmt.Errorf("output of %q: no column to write", s.Base)
	}
	for i, c := range s.Columns {
		switch {
		case !slices.Contains(Poolings(), c.Pooling):
			return fmt.Errorf("output of %q: unknown pooling %q", s.Base, c.Pooling)
		case c.Layer < 0:
			return fmt.Errorf("output of %q: layer %d is negative", s.Base, c.Layer)
		case slices.Contains(s.Columns[:i], c):
			return fmt.Errorf("output of %q: %s of layer %d is listed twice", s.Base, c.Pooling, c.Layer)
		}
	}
	return nil
}

// recordNames has the names of the arrays that were written for records or, in the format Pt, the names of the files.
// No two names may be equal.
type recordNames map[string]struct{}

// check returns an error about the record with the given id if one of the names is already taken.
func (n recordNames) check(id string, names ...string) error {
	for _, name := range names {
		if _, ok := n[name]; ok {
			return &recordError{id, errDuplicateName}
		}
	}
	return nil
}

func (n recordNames) add(names ...string) {
	for _, name := range names {
		n[name] = struct{}{}
	}
}

// lettersSuffix follows the id of a DNA record in the name of the array with the first and the last letter of each
// residue.
const lettersSuffix = "_letters"

// withLetters reports whether a table has arrays with the positions of the first and the last letter of each residue in
// its sequence (see Letters). A residue of DNA is a token of one or more letters. A residue of a protein is one letter,
// so a table of proteins has no such arrays.
func (s *Spec) withLetters() bool { return s.pooling() == Residues && s.Kind == Nucleotide }
