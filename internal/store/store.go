// Package store writes the results of a run: one output per input file and model, in one of several formats, and the
// manifest that describes them. Every output is streamed to a temporary file in its own folder, synced and renamed, so
// that a file under a final name is always complete.
//
// The package knows nothing of models, devices or sequence files: it is given ids, counts and vectors, and it never
// lets any of them become a path unescaped.
package store

import (
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Format is the name of an output format, as the command line spells it.
type Format string

// The formats that Create writes.
const (
	Parquet     Format = "parquet"     // one row per record, or per token
	Npy         Format = "npy"         // one float32 array and a text file of ids; per token an .npz with one array per record
	Safetensors Format = "safetensors" // one tensor and the ids in its metadata; per token one tensor per record
	VirNucPro   Format = "virnucpro"   // PyTorch files laid out as VirNucPro reads them
)

// Formats lists the known formats, the default first.
func Formats() []Format { return []Format{Parquet, Npy, Safetensors, VirNucPro} }

// ParseFormat returns the format called name; the error of an unknown name lists the known ones.
func ParseFormat(name string) (Format, error) {
	if slices.Contains(Formats(), Format(name)) {
		return Format(name), nil
	}
	known := make([]string, 0, len(Formats()))
	for _, f := range Formats() {
		known = append(known, string(f))
	}
	return "", fmt.Errorf("unknown output format %q: the known ones are %s", name, strings.Join(known, ", "))
}

// Kind is the kind of sequence that was embedded; the layout of VirNucPro depends on it.
type Kind uint8

// The two kinds of sequence.
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

// Spec says what one output looks like: the results of one model on one input file.
type Spec struct {
	Dir      string            // output folder, created with its parents; it is a path and is not escaped
	Base     string            // the input's name without folder and extensions; escaped by EscapeName
	Model    string            // the model's label in the file name, escaped likewise; for VirNucPro its own name for it
	Kind     Kind              // what was embedded
	Format   Format            // one of Formats
	Dim      int               // values per embedding
	Layers   []int             // block numbers, one embedding per entry and record; a single layer needs no number in names
	PerToken bool              // one embedding per token instead of one per record
	Meta     map[string]string // model, revision, pooling, dtype, …: kept in the file's metadata by parquet and safetensors
}

// Row is the result of one record. A Writer reads it only during the call of Write.
type Row struct {
	ID, Description string
	Length          int  // letters used
	Tokens          int  // tokens, special ones included
	Truncated       bool // the record had more letters than were used
	// Embeddings holds one slice per entry of Spec.Layers: Dim values, or Tokens×Dim (token after token) when
	// Spec.PerToken is set.
	Embeddings [][]float32
}

// File describes a finished output file.
type File struct {
	Path   string `json:"path"`
	Size   int64  `json:"size"`   // bytes
	SHA256 string `json:"sha256"` // lower-case hexadecimal
}

// Writer writes one output. It is not safe for concurrent use. Exactly one of Commit and Abort must be called at the
// end; calling Abort after Commit, or twice, does nothing.
type Writer interface {
	// Write adds a record. An error about the record itself (errors.Is(err, ErrRecord)) leaves the output as it was
	// and the writer usable; after any other error the temporary files are gone and every later call but Abort
	// returns the same error.
	Write(Row) error
	// Commit completes the output, syncs it and renames it into place. The files are in the order of Spec.Paths.
	Commit() ([]File, error)
	// Abort removes every temporary file.
	Abort() error
}

var (
	// ErrRecord matches every error that concerns a single record rather than the output.
	ErrRecord = errors.New("record not written")
	// ErrNotFinite matches, as ErrRecord does, the error for a record whose embedding holds a NaN or an infinity.
	ErrNotFinite = errors.New("not a finite number")
)

// recordError is an error about one record.
type recordError struct {
	id    string
	cause error
}

func (e *recordError) Error() string {
	const shown = 100 // bytes of an id: enough to find the record, and still one line
	id := e.id
	if len(id) > shown {
		id = id[:shown] + "…"
	}
	return fmt.Sprintf("record %q: %v", id, e.cause)
}

func (e *recordError) Unwrap() error        { return e.cause }
func (e *recordError) Is(target error) bool { return target == ErrRecord }

// maxText bounds an id and a description in bytes, far above any header and below what the formats' 32-bit lengths hold.
const maxText = 16 << 20

// maxDim bounds Spec.Dim far above any model, so that sizes in bytes cannot overflow.
const maxDim = 1 << 20

// encoder turns rows into the bytes of one format. The rows it gets have been checked against its Spec.
type encoder interface {
	// add writes one row. A *recordError must leave the output unchanged.
	add(r *Row) error
	// finish writes everything that had to wait for the last row.
	finish() error
}

// Create starts the output that s describes. Nothing appears under a name of s.Paths before Commit.
func Create(s Spec) (Writer, error) { return create(s, osFS{}) }

func create(s Spec, fs fileSystem) (Writer, error) {
	if err := s.validate(); err != nil {
		return nil, err
	}
	if err := fs.mkdirAll(s.Dir); err != nil {
		return nil, ioError("create output folder", s.Dir, err)
	}
	o := &output{spec: s, files: fileSet{fs: fs}}
	enc, err := o.newEncoder()
	if err != nil {
		_ = o.files.discard() // err is the cause and the one to report
		return nil, err
	}
	o.enc = enc
	return o, nil
}

func (s *Spec) validate() error {
	switch {
	case !slices.Contains(Formats(), s.Format):
		_, err := ParseFormat(string(s.Format))
		return err
	case s.Dir == "":
		return errors.New("output folder: empty path")
	case s.Model == "":
		return fmt.Errorf("output of %q: no model label", s.Base)
	case s.Kind != Nucleotide && s.Kind != Protein:
		return fmt.Errorf("output of %q: unknown kind of sequence %v", s.Base, s.Kind)
	case s.Dim < 1 || s.Dim > maxDim:
		return fmt.Errorf("output of %q: %d values per embedding, expected 1 to %d", s.Base, s.Dim, maxDim)
	case len(s.Layers) == 0:
		return fmt.Errorf("output of %q: no layer to write", s.Base)
	}
	if len(s.Layers) > 1 {
		for i, layer := range s.Layers {
			if layer < 0 {
				return fmt.Errorf("output of %q: layer %d is not a block number", s.Base, layer)
			}
			if slices.Contains(s.Layers[:i], layer) {
				return fmt.Errorf("output of %q: layer %d is listed twice", s.Base, layer)
			}
		}
	}
	if s.Format == VirNucPro {
		if s.PerToken {
			return errors.New("format virnucpro holds one embedding per record: it cannot be per token (use parquet, npy or safetensors)")
		}
		if len(s.Layers) > 1 {
			return fmt.Errorf("format virnucpro holds one layer, not %d (use parquet, npy or safetensors)", len(s.Layers))
		}
	}
	if s.Format == Parquet && len(s.Layers) > maxParquetLayers {
		return fmt.Errorf("format parquet: %d layers, at most %d fit in one file", len(s.Layers), maxParquetLayers)
	}
	return nil
}

// Paths returns the final paths of the output, the main file first. Commit renames them in the opposite order, so the
// presence of the first one tells that the others are there.
func (s Spec) Paths() []string {
	stem := filepath.Join(s.Dir, escape(s.Base, maxBaseName))
	full := stem + "." + escape(s.Model, maxModelName)
	switch s.Format {
	case Npy:
		ext := ".npy"
		if s.PerToken {
			ext = ".npz"
		}
		var paths []string
		for _, layer := range s.columnNames(".layer", "") {
			paths = append(paths, full+layer+ext)
		}
		return append(paths, full+".ids.txt")
	case VirNucPro:
		return []string{stem + "_" + escape(s.Model, maxModelName) + ".pt"}
	default:
		return []string{full + "." + string(s.Format)}
	}
}

// columnNames returns one name per layer: single when there is one layer, prefix and block number otherwise.
func (s *Spec) columnNames(prefix, single string) []string {
	if len(s.Layers) == 1 {
		return []string{single}
	}
	names := make([]string, len(s.Layers))
	for i, layer := range s.Layers {
		names[i] = prefix + strconv.Itoa(layer)
	}
	return names
}

// output is the Writer of every format: it checks rows, keeps the first fatal error and owns the files.
type output struct {
	spec  Spec
	files fileSet
	enc   encoder
	ended error // why no more calls are accepted, nil while the output is open
}

func (o *output) newEncoder() (encoder, error) {
	switch o.spec.Format {
	case Npy:
		if o.spec.PerToken {
			return newNpzEncoder(&o.spec, &o.files)
		}
		return newNpyEncoder(&o.spec, &o.files)
	case Safetensors:
		return newSafetensorsEncoder(&o.spec, &o.files)
	case VirNucPro:
		return newVirNucProEncoder(&o.spec, &o.files)
	default:
		return newParquetEncoder(&o.spec, &o.files)
	}
}

func (o *output) Write(r Row) error {
	if o.ended != nil {
		return o.ended
	}
	r.ID, r.Description = ValidText(r.ID), ValidText(r.Description)
	if err := o.spec.check(&r); err != nil {
		return &recordError{r.ID, err}
	}
	err := o.enc.add(&r)
	if err == nil || errors.Is(err, ErrRecord) {
		return err
	}
	return o.fail(err)
}

func (o *output) Commit() ([]File, error) {
	if o.ended != nil {
		return nil, o.ended
	}
	if err := o.enc.finish(); err != nil {
		return nil, o.fail(err)
	}
	files, err := o.files.commit()
	if err != nil {
		return nil, o.fail(err)
	}
	o.ended = fmt.Errorf("write %s: the output is complete already", files[0].Path)
	return files, nil
}

func (o *output) Abort() error {
	if o.ended == nil {
		o.ended = fmt.Errorf("write %s: the output was given up", o.spec.Paths()[0])
	}
	return o.files.discard()
}

// fail gives the output up because of err, and returns it as one that names the output. What the libraries in between
// add to a failed write is dropped.
func (o *output) fail(err error) error {
	var failed *fileError
	if !errors.As(err, &failed) {
		failed = &fileError{"write", o.spec.Paths()[0], err}
	}
	o.ended = failed
	_ = o.files.discard() // err is the cause and the one to report
	return failed
}

// check reports whether r has the shape that s promises and only finite values.
func (s *Spec) check(r *Row) error {
	if len(r.ID)+len(r.Description) > maxText {
		return fmt.Errorf("%d bytes of id and description, at most %d are kept", len(r.ID)+len(r.Description), maxText)
	}
	if len(r.Embeddings) != len(s.Layers) {
		return fmt.Errorf("%d embeddings for %d layers", len(r.Embeddings), len(s.Layers))
	}
	if r.Length < 0 || r.Tokens < 0 {
		return fmt.Errorf("%d letters and %d tokens", r.Length, r.Tokens)
	}
	for i, e := range r.Embeddings {
		if s.PerToken {
			if len(e)%s.Dim != 0 || len(e)/s.Dim != r.Tokens {
				return fmt.Errorf("%d values for %d tokens of %d", len(e), r.Tokens, s.Dim)
			}
		} else if len(e) != s.Dim {
			return fmt.Errorf("an embedding of %d values, expected %d", len(e), s.Dim)
		}
		if at := firstNotFinite(e); at >= 0 {
			return fmt.Errorf("layer %d, value %d is %v, %w", s.Layers[i], at, e[at], ErrNotFinite)
		}
	}
	return nil
}

// firstNotFinite returns the index of the first NaN or infinity in v, -1 when there is none.
func firstNotFinite(v []float32) int {
	const exponent = 0x7f800000 // all ones exactly in NaNs and infinities
	for i, x := range v {
		if math.Float32bits(x)&exponent == exponent {
			return i
		}
	}
	return -1
}
