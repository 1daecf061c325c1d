package store

import (
	"bytes"
	"encoding/json"
	"fmt"
	"path/filepath"
	"time"
)

// manifestFormat is the version of a line's layout. A program that does not know a version refuses it: guessing could
// mix outputs that do not belong together.
const manifestFormat = 2

// Entry describes the output of one model on one input file: everything that has to agree for the output to be taken
// as it is instead of being computed again. Its key is the content of the input, the model and the name of the output.
type Entry struct {
	Model            string            `json:"model"`             // as the user would name it
	Revision         string            `json:"revision"`          // of the checkpoint, where it has one
	CheckpointSHA256 string            `json:"checkpoint_sha256"` // empty when there is no file, as for a synthetic one
	TokenizerSHA256  string            `json:"tokenizer_sha256"`  // likewise
	Parameters       map[string]string `json:"parameters"`        // every setting that changes numbers or layout
	Device           string            `json:"device"`
	DType            string            `json:"dtype"`
	Backend          string            `json:"backend"`
	ProgramVersion   string            `json:"program_version"`
	LibraryVersions  map[string]string `json:"library_versions"`
	// Input is where lineDecoder cuts a line: the fields above are mostly those of the line before.
	Input     Source           `json:"input"`
	Records   int64            `json:"records"`           // written
	Tokens    int64            `json:"tokens"`            // of the written records
	Truncated int64            `json:"truncated"`         // records of which only a part was used
	Skipped   map[string]int64 `json:"skipped"`           // records left out, by reason; never null in the file
	Outputs   []File           `json:"outputs"`           // the main one first; in the file, relative to its folder
	Started   time.Time        `json:"started"`           // in the file, UTC as in RFC 3339
	Finished  time.Time        `json:"finished,omitzero"` // zero before the outputs have their names
}

// Source identifies an input file by its content. An input whose path, size and time are the same need not be read to
// know its content.
type Source struct {
	Path     string    `json:"path"`              // as the user gave it
	Absolute string    `json:"absolute"`          // the same from the root; empty for standard input and pipes
	Size     int64     `json:"size"`              // bytes, as stored (compressed inputs are not unpacked for it)
	Modified time.Time `json:"modified,omitzero"` // before it was read; zero for standard input and pipes
	SHA256   string    `json:"sha256"`            // lower-case hexadecimal; empty when it is not known
}

// manifestLine is an entry as it is in the file.
type manifestLine struct {
	Format int `json:"manifest_version"`
	Entry
}

// encodeLine returns the line of an entry in the manifest of folder dir, with its line end. It changes nothing that e
// shares with copies.
func encodeLine(dir string, e Entry) ([]byte, error) {
	e.Outputs = append([]File{}, e.Outputs...)
	for i := range e.Outputs {
		rel, err := filepath.Rel(dir, e.Outputs[i].Path)
		if err != nil {
			return nil, err
		}
		e.Outputs[i].Path = ValidText(filepath.ToSlash(rel))
	}
	e.Input.Path, e.Input.Absolute, e.Model = ValidText(e.Input.Path), ValidText(e.Input.Absolute), ValidText(e.Model)
	e.Input.Modified, e.Started, e.Finished = e.Input.Modified.UTC(), e.Started.UTC(), e.Finished.UTC()
	// Empty objects in the place of null: readers in other languages meet one type.
	if e.Parameters == nil {
		e.Parameters = map[string]string{}
	}
	if e.LibraryVersions == nil {
		e.LibraryVersions = map[string]string{}
	}
	if e.Skipped == nil {
		e.Skipped = map[string]int64{}
	}
	if err := e.validate(); err != nil {
		return nil, err
	}
	var line bytes.Buffer
	enc := json.NewEncoder(&line) // ends it with a line end
	enc.SetEscapeHTML(false)
	err := enc.Encode(manifestLine{manifestFormat, e})
	return line.Bytes(), err
}

// lineDecoder reads the lines of the manifest of folder dir.
type lineDecoder struct {
	dir string
	// settings are the beginnings of lines up to the input, which most lines share, and what they say: decoding them
	// once for all halves the time.
	settings map[string]manifestLine
}

// decode returns the entry of a line, nil for a blank one.
func (d *lineDecoder) decode(line []byte) (*Entry, error) {
	if len(bytes.TrimSpace(line)) == 0 {
		return nil, nil
	}
	l := new(manifestLine)
	if !d.decodeInput(line, l) {
		*l = manifestLine{}
		if err := json.Unmarshal(line, l); err != nil {
			return nil, err
		}
	}
	if l.Format != manifestFormat {
		return nil, fmt.Errorf("manifest_version is %d, expected %d", l.Format, manifestFormat)
	}
	if err := l.validate(); err != nil {
		return nil, err
	}
	for i, o := range l.Outputs {
		l.Outputs[i].Path = filepath.Join(d.dir, filepath.FromSlash(o.Path))
	}
	return &l.Entry, nil
}

// decodeInput decodes a line in two parts, each an object without the other: the settings, and from the input on. It is
// false for a line that cannot be cut so.
func (d *lineDecoder) decodeInput(line []byte, l *manifestLine) bool {
	at := bytes.Index(line, []byte(`,"input":`))
	if at < 0 {
		return false
	}
	settings, ok := d.settings[string(line[:at])]
	if !ok {
		if json.Unmarshal(append(bytes.Clone(line[:at]), '}'), &settings) != nil {
			return false
		}
		d.settings[string(line[:at])] = settings
	}
	*l = settings
	// A decoder writes into a map or slice that is there, and these are those of other lines, too.
	l.Parameters, l.LibraryVersions, l.Skipped, l.Outputs = nil, nil, nil, nil
	line[at] = '{'
	err := json.Unmarshal(line[at:], l)
	line[at] = ','
	again := l.Parameters != nil || l.LibraryVersions != nil || settings.Skipped != nil || settings.Outputs != nil
	if err != nil || again {
		return false
	}
	l.Parameters, l.LibraryVersions = settings.Parameters, settings.LibraryVersions
	return true
}

// validate checks, of an entry as it is in the file, what a comparison with files and counts relies on.
func (e *Entry) validate() error {
	if e.Input.Path == "" || e.Model == "" || len(e.Outputs) == 0 {
		return fmt.Errorf("an entry with input %q, model %q and %d outputs", e.Input.Path, e.Model, len(e.Outputs))
	}
	bad := func(what string, value any) error {
		return fmt.Errorf("input %q, model %q: %s is %v", e.Input.Path, e.Model, what, value)
	}
	for reason, n := range e.Skipped {
		if n < 0 {
			return bad("skipped for "+reason, n)
		}
	}
	for _, o := range e.Outputs {
		local := filepath.FromSlash(o.Path)
		switch {
		case !filepath.IsLocal(local) || filepath.Clean(local) == ".":
			return bad("an output", fmt.Sprintf("%q, which is not in the folder", o.Path))
		case o.Size < 0:
			return bad("the size of "+o.Path, o.Size)
		case !isDigest(o.SHA256):
			return bad("the SHA-256 of "+o.Path, fmt.Sprintf("%q", o.SHA256))
		}
	}
	for _, c := range [...]struct {
		what string
		n    int64
	}{{"the input's size", e.Input.Size}, {"records", e.Records}, {"tokens", e.Tokens}, {"truncated", e.Truncated}} {
		if c.n < 0 {
			return bad(c.what, c.n)
		}
	}
	for _, d := range [...]struct{ what, sum string }{{"the input's SHA-256", e.Input.SHA256},
		{"checkpoint_sha256", e.CheckpointSHA256}, {"tokenizer_sha256", e.TokenizerSHA256}} {
		if !isDigest(d.sum) {
			return bad(d.what, fmt.Sprintf("%q", d.sum))
		}
	}
	return nil
}

// isDigest reports whether s is a SHA-256 in lower-case hexadecimal, or empty for one that is not known.
func isDigest(s string) bool {
	for _, c := range []byte(s) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return len(s) == 64 || s == ""
}
