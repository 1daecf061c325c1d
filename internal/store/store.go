// Package store writes the results of a run: one output per input file and model, in one of several formats, and the
// manifest that describes the outputs. Every output is streamed to temporary files in the output folder, which are
// synced and renamed, so that an output file with its final name is always complete.
//
// The package does not depend on models, devices or sequence files. It receives ids, counts and vectors, and escapes
// every id that becomes part of a path.
package store

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"strings"
)

// Format is the name of an output format on the command line.
type Format string

// layout describes how outputs of one format are written.
type layout struct {
	format Format
	// names returns the names of the output's files, the main file first. The argument stem is the name of the output
	// without extensions, such as sample.esm2-8m. Most formats begin each name with the stem.
	names func(s *Spec, stem string) []string
	// check returns an error if the format does not support the output. It is nil for a format that supports every output.
	check func(s *Spec) error
	// open creates the files of an output and returns the encoder that writes rows to them.
	open func(s *Spec, files *fileSet) (encoder, error)
}

// layouts returns the layouts of all formats, the default format first.
func layouts() []layout {
	return []layout{
		{Parquet, oneFile, checkParquet, newParquetEncoder},
		{Npy, npyNames, nil, newNpyEncoder},
		{Safetensors, oneFile, nil, newSafetensorsEncoder},
		{H5, oneFile, checkH5, newH5Encoder},
		{TSV, oneFilePerColumn, nil, newTSVEncoder},
		{Pt, oneFile, checkPt, newPtEncoder},
		{VirNucPro, virNucProNames, checkVirNucPro, newVirNucProEncoder},
	}
}

// oneFile returns the name of an output that is a single file or, in the format Pt, a single folder. The extension is
// the name of the format.
func oneFile(s *Spec, stem string) []string { return []string{stem + "." + string(s.Format)} }

func (f Format) layout() (layout, error) {
	var known []string
	for _, l := range layouts() {
		if l.format == f {
			return l, nil
		}
		known = append(known, string(l.format))
	}
	return layout{}, fmt.Errorf("unknown output format %q: use one of %s", f, strings.Join(known, ", "))
}

// Formats returns all formats, the default first.
func Formats() (list []Format) {
	for _, l := range layouts() {
		list = append(list, l.format)
	}
	return list
}

// ParseFormat returns the format called name. The error for an unknown name lists the known ones.
func ParseFormat(name string) (Format, error) {
	l, err := Format(name).layout()
	return l.format, err
}

// Kind is the kind of sequence that was embedded. It determines the layout of the format VirNucPro, and whether npy,
// safetensors and h5 files have the letters of residues beside the embeddings.
type Kind uint8

// Kinds of sequences.
const (
	Nucleotide Kind = iota
	Protein
)

// String returns "nucleotide" or "protein".
func (k Kind) String() string {
	switch k {
	case Nucleotide:
		return "nucleotide"
	case Protein:
		return "protein"
	}
	return fmt.Sprintf("Kind(%d)", uint8(k))
}

// Spec describes one output: the results of one model on one input file.
type Spec struct {
	Dir     string            // path of the output folder, which must exist
	Base    string            // name of the input without folder and extensions; Paths escapes it
	Model   string            // label of the model in file names; Paths escapes it
	Kind    Kind              // kind of the input sequences
	Format  Format            // one of Formats
	Dim     int               // number of values per embedding
	Columns []Column          // the embeddings of each record
	DType   DType             // type of the values; FP32 if it is empty
	Windows bool              // a row is a window (a part) of a record, see Row.Start
	Meta    map[string]string // metadata of parquet, safetensors and h5 files: model, revision, dtype, …
	// Compress makes Parquet compress everything with Zstandard. The other formats do not compress.
	Compress bool
	// Matrix makes H5 write one array of all records for each column, instead of an array for each record, and one more
	// array with the ids.
	Matrix bool

	// Shard, if not empty, makes the output a shard with this name, such as 1-of-8: one file with the results of a part of
	// the input. OpenShard reads the rows as they were written. The shards 1-of-8 to 8-of-8 are later joined to one output
	// of Format.
	Shard string

	// IDsOnly makes Parquet leave out the description, counts and truncation of a record.
	IDsOnly bool

	// Replaces lists files of earlier outputs that Commit removes (see Manifest.Replaced).
	Replaces []string

	stem  string // name of the output without extensions; if empty, Paths makes it from Base and Model
	table string // text, such as .tokens, that follows the model in file names if the output has several tables
}

// Row is the result for one record, or with Spec.Windows for one window of a record. A Writer does not retain a Row
// after Write.
type Row struct {
	ID, Description string
	Index           int64 // position of the record in its input; stored only in shards
	Length          int   // number of letters that were embedded
	Tokens          int   // number of tokens, including special tokens
	Truncated       bool  // whether the record has more letters than were embedded
	RecordLength    int   // number of letters of the whole record
	// Start and End are the first and the last letter of a window in its record, counted from 1, if Spec.Windows is set.
	// Parquet has columns for them. In other formats the id becomes ID:START-END, as samtools writes a region.
	Start, End int
	// Residues has, for each row of the columns with the pooling Residues, the range of letters that the row describes.
	// If a record was embedded in windows that overlap, several rows may have the same letters.
	Residues []Letters
	// Embeddings has one slice per entry of Spec.Columns, with rows of Spec.Dim values one after the other: len(Residues)
	// rows for the pooling Residues, Row.Tokens rows for the pooling Tokens, and one row for any other pooling.
	Embeddings [][]float32
}

// Region returns ID:START-END, the id of a window in formats without columns for windows.
func (r *Row) Region() string { return fmt.Sprintf("%s:%d-%d", r.ID, r.Start, r.End) }

// File describes a finished output file or, in the format Pt, folder, with its total size and its digest (see
// HashFile).
type File struct {
	Path   string `json:"path"`
	Size   int64  `json:"size"`   // in bytes
	SHA256 string `json:"sha256"` // lower-case hexadecimal
}

// Writer writes one output. It is not safe for concurrent use. Either Commit or Abort must be called at the end. Abort
// does nothing after Commit or another Abort.
type Writer interface {
	// Write adds a record. After an error about the record itself (errors.Is(err, ErrRecord)) the output is unchanged and
	// the writer can be used further. After any other error the temporary files are removed, and every later call of Write
	// or Commit returns the same error.
	Write(Row) error
	// Commit completes the output, syncs it and renames it to its final paths. It returns the files in the order of
	// Spec.Paths.
	Commit() ([]File, error)
	// Abort removes all temporary files.
	Abort() error
	// Overflows returns the number of values, in all rows so far, that are infinities in the type Spec.DType.
	Overflows() int64
}

var (
	// ErrRecord matches every error that concerns a single record rather than the whole output.
	ErrRecord = errors.New("record not written")
	// ErrNotFinite matches the error for a record whose embedding contains a NaN or an infinity. ErrRecord matches the
	// same error.
	ErrNotFinite = errors.New("not a finite number")
	// ErrFormat matches errors about a record or an output that its format cannot hold.
	ErrFormat = errors.New("beyond the limits of the format")
)

// recordError is an error about one record.
type recordError struct {
	id    string
	cause error
}

func (e *recordError) Error() string {
	const shown = 100 // in bytes: enough of an id to find its record, and short enough for one line
	id := e.id
	if len(id) > shown {
		id = id[:shown] + "…"
	}
	return fmt.Sprintf("record %q: %v", id, e.cause)
}

func (e *recordError) Unwrap() error        { return e.cause }
func (e *recordError) Is(target error) bool { return target == ErrRecord }

// maxText bounds the total size of an id and a description in bytes. It is far above any real header and below the
// formats' 32-bit lengths.
const maxText = 16 << 20

// maxDim bounds Spec.Dim, so that sizes in bytes cannot overflow. It is far above the dimension of any model.
const maxDim = 1 << 20

// encoder converts the rows of one table to the bytes of one format. Spec.check has accepted the rows.
type encoder interface {
	// add writes one row.
	add(r *Row) error
	// finish writes everything that can be written only after the last row.
	finish() error
}

// rowChecker is implemented by encoders that cannot write every row. Their function check returns a *recordError for a
// row that they cannot write. It is called before any table adds the row, so that the output stays unchanged.
type rowChecker interface{ check(r *Row) error }

// Create starts the output described by s. Until Commit, no file at s.Paths is created or changed.
func Create(s Spec) (Writer, error) { return create(s, osFS{}) }

func create(s Spec, fs fileSystem) (Writer, error) {
	l, err := s.validate()
	if err != nil {
		return nil, err
	}
	o := &output{spec: s, files: fileSet{fs: fs, replaced: s.Replaces}, tables: s.tables()}
	for i := range o.tables {
		t := &o.tables[i]
		if t.enc, err = l.open(&t.spec, &o.files); err != nil {
			_ = o.files.discard() // err is the error that matters
			return nil, err
		}
	}
	return o, nil
}

// validate returns the layout of the output, or an error if the output is impossible.
func (s *Spec) validate() (layout, error) {
	l, err := s.Format.layout()
	switch {
	case err != nil:
		return l, err
	case s.Dir == "":
		return l, errors.New("output folder: empty path")
	case s.Model == "":
		return l, fmt.Errorf("output of %q: no model label", s.Base)
	case s.Kind != Nucleotide && s.Kind != Protein:
		return l, fmt.Errorf("output of %q: unknown kind of sequence %v", s.Base, s.Kind)
	case s.Dim < 1 || s.Dim > maxDim:
		return l, fmt.Errorf("output of %q: %d values per embedding, want 1 to %d", s.Base, s.Dim, maxDim)
	}
	if err := cmp.Or(s.checkColumns(), s.checkDType()); err != nil {
		return l, err
	}
	if err := s.Supported(); err != nil || s.Shard == "" {
		return l, err
	}
	return shardLayout(), nil
}

// Supported returns an error if the format cannot hold the columns of s. It uses only Format, Columns, DType and
// Matrix.
func (s *Spec) Supported() error {
	l, err := s.Format.layout()
	if err != nil || l.check == nil {
		return err
	}
	return l.check(s)
}

// Paths returns the final paths of the output, the main file first. Writer.Commit renames files to these paths in
// reverse order. So if the main file exists, all files of the output exist.
func (s Spec) Paths() []string {
	l, err := s.Format.layout()
	if err != nil {
		return nil // Create reports the unknown format
	}
	if s.Shard != "" {
		l = shardLayout()
	}
	var paths []string
	for _, t := range s.tables() {
		stem := cmp.Or(s.stem, escape(s.Base, maxBaseName)+"."+escape(s.Model, maxModelName)) + t.spec.table
		for _, name := range l.names(&t.spec, stem) {
			paths = append(paths, filepath.Join(s.Dir, name))
		}
	}
	return paths
}

// output implements Writer for every format. It checks rows, keeps the first error that ends the output, and owns the
// files.
type output struct {
	spec      Spec
	files     fileSet
	tables    []table
	overflows int64
	ended     error // the error for all further calls of Write and Commit; nil while the output is open
}

func (o *output) Write(r Row) error {
	if o.ended != nil {
		return o.ended
	}
	r.ID, r.Description = ValidText(r.ID), ValidText(r.Description)
	if err := o.spec.check(&r); err != nil {
		return &recordError{r.ID, err}
	}
	if o.spec.Windows && o.spec.Format != Parquet && o.spec.Shard == "" {
		r.ID = r.Region()
	}
	for _, t := range o.tables {
		if c, ok := t.enc.(rowChecker); ok {
			if err := c.check(&r); err != nil {
				return err
			}
		}
	}
	for _, t := range o.tables {
		if err := t.enc.add(t.row(r)); err != nil {
			return o.fail(err)
		}
	}
	for _, e := range r.Embeddings {
		o.overflows += o.spec.DType.overflows(e)
	}
	return nil
}

func (o *output) Overflows() int64 { return o.overflows }

func (o *output) Commit() ([]File, error) {
	if o.ended != nil {
		return nil, o.ended
	}
	for _, t := range o.tables {
		if err := t.enc.finish(); err != nil {
			return nil, o.fail(err)
		}
	}
	files, err := o.files.commit()
	if err != nil {
		return nil, o.fail(err)
	}
	o.ended = fmt.Errorf("write %s: the output is already complete", files[0].Path)
	return files, nil
}

func (o *output) Abort() error {
	if o.ended == nil {
		o.ended = fmt.Errorf("write %s: the output was aborted", o.spec.Paths()[0])
	}
	return o.files.discard()
}

// fail aborts the output and returns an error that names it. If err wraps a fileError, fail returns the fileError,
// without the text that a library has added to it.
func (o *output) fail(err error) error {
	var failed *fileError
	if !errors.As(err, &failed) {
		failed = &fileError{"write", o.spec.Paths()[0], err}
	}
	o.ended = failed
	_ = o.files.discard() // failed is the error to report
	return failed
}

// check returns an error if r does not have the shape that s requires, if its id and description together exceed
// maxText bytes, if Length or Tokens is negative, or if an embedding has only zeros, a NaN or an infinity.
func (s *Spec) check(r *Row) error {
	if len(r.ID)+len(r.Description) > maxText {
		return fmt.Errorf("id and description have %d bytes, more than %d", len(r.ID)+len(r.Description), maxText)
	}
	if len(r.Embeddings) != len(s.Columns) {
		return fmt.Errorf("%d embeddings for %d columns", len(r.Embeddings), len(s.Columns))
	}
	if r.Length < 0 || r.Tokens < 0 {
		return fmt.Errorf("negative count: %d letters, %d tokens", r.Length, r.Tokens)
	}
	for i, e := range r.Embeddings {
		column := Spec{Columns: s.Columns[i : i+1]}
		if rows := column.rows(r); len(e) != rows*s.Dim {
			return fmt.Errorf("%s has %d values, want %d rows of %d", column.Columns[0].Pooling, len(e), rows, s.Dim)
		}
		if at := firstNotFinite(e); at >= 0 {
			return fmt.Errorf("layer %d, value %d is %v: %w", s.Columns[i].Layer, at, e[at], ErrNotFinite)
		}
		for row := range slices.Chunk(e, s.Dim) {
			if !slices.ContainsFunc(row, func(v float32) bool { return v != 0 }) {
				return fmt.Errorf("layer %d: all values of an embedding are 0, as damaged weights make them", s.Columns[i].Layer)
			}
		}
	}
	return nil
}

// firstNotFinite returns the index of the first NaN or infinity in v, or -1.
func firstNotFinite(v []float32) int {
	const exponent = 0x7f800000 // all of these bits are set in NaNs and infinities, and only there
	for i, x := range v {
		if math.Float32bits(x)&exponent == exponent {
			return i
		}
	}
	return -1
}
