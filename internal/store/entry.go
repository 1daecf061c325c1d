package store

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"time"
	"unicode/utf8"
)

// manifestFormat is the version of the format of a line in the manifest. A program refuses lines of another version,
// because it might misread their settings and combine outputs that do not belong together.
const manifestFormat = 2

// Entry describes an output, usually that of one model on one input file. It is a line of the manifest. By the settings
// in the entry, a later run decides whether it may keep the output instead of computing it again. The last entry that
// names an output file is valid.
type Entry struct {
	Model            string            `json:"model"`             // name of the model that the user chose
	Revision         string            `json:"revision"`          // revision of the checkpoint; empty if unknown
	CheckpointSHA256 string            `json:"checkpoint_sha256"` // digest of the weights, or of synthetic weights' description; empty if unknown
	TokenizerSHA256  string            `json:"tokenizer_sha256"`  // digest of the vocabulary; empty if unknown
	Parameters       map[string]string `json:"parameters"`        // other settings that affect numbers or layout
	Device           string            `json:"device"`
	DType            string            `json:"dtype"`
	Backend          string            `json:"backend"`
	ProgramVersion   string            `json:"program_version"`
	NumericsVersion  int               `json:"numerics_version"` // raised when the program changes any number in outputs
	LibraryVersions  map[string]string `json:"library_versions"`
	// The fields above usually equal those of the previous line, so lineDecoder, which parses lines, caches them.
	// lineDecoder relies on the order of Input and of all fields below Input.
	Input     Source           `json:"input"`
	Records   int64            `json:"records"`           // number of records written
	Tokens    int64            `json:"tokens"`            // number of tokens in these records
	Truncated int64            `json:"truncated"`         // number of records of which only a part was used
	Repeated  int64            `json:"repeated"`          // number of records that reuse an earlier record's result
	Overflows int64            `json:"overflows"`         // number of values that became infinities in float16
	Skipped   map[string]int64 `json:"skipped"`           // number of skipped records, by reason; not null in the manifest
	Outputs   []File           `json:"outputs"`           // main file first; the manifest has paths relative to its folder
	Started   time.Time        `json:"started"`           // start of the work on the input, in UTC (RFC 3339)
	Finished  time.Time        `json:"finished,omitzero"` // end of the work; zero until the outputs have their final names
}

// Source identifies an input file by its content. As long as its path, size and modification time are unchanged, the
// content need not be read again.
type Source struct {
	Path     string    `json:"path"`              // as given by the user
	Absolute string    `json:"absolute"`          // absolute form of Path; empty for standard input and pipes
	Size     int64     `json:"size"`              // in bytes, as stored; compressed input is not decompressed
	Modified time.Time `json:"modified,omitzero"` // taken before the file was read; zero for standard input and pipes
	SHA256   string    `json:"sha256"`            // lower-case hexadecimal; empty if unknown
}

// SameState reports whether two files have the same size and the same modification time.
func (s Source) SameState(other Source) bool {
	return s.Size == other.Size && s.Modified.Equal(other.Modified)
}

// manifestLine is the JSON object on a line of the manifest.
type manifestLine struct {
	Format int `json:"manifest_version"`
	Entry
}

// encodeLine returns the line for an entry in the manifest of folder dir, including the newline. It does not modify the
// maps and slices of e, because copies of e may share them.
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
	// Write empty objects instead of null, so that readers in other languages see only one type.
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
	enc := json.NewEncoder(&line) // Encode adds the newline
	enc.SetEscapeHTML(false)
	err := enc.Encode(manifestLine{manifestFormat, e})
	return line.Bytes(), err
}

// lineDecoder decodes the lines of the manifest in folder dir.
type lineDecoder struct {
	dir      string
	settings map[string]manifestLine // cache of decoded settings, keyed by the part of the line before the input
}

// ErrLater is wrapped by the error for a manifest with a line that a later version of the program has written. Such a
// line is not damaged.
var ErrLater = errors.New("a later version of this program wrote it: use that version")

// decode returns the entry of a line, or nil for a blank line. The error is ErrLater or wraps ErrManifest.
func (d *lineDecoder) decode(line []byte) (*Entry, error) {
	e, err := d.parse(line)
	if err != nil && !errors.Is(err, ErrLater) {
		err = fmt.Errorf("%w: %w", ErrManifest, err)
	}
	return e, err
}

func (d *lineDecoder) parse(line []byte) (*Entry, error) {
	if len(bytes.TrimSpace(line)) == 0 {
		return nil, nil
	}
	l := new(manifestLine)
	if !d.decodeWritten(line, l) {
		*l = manifestLine{}
		if err := json.Unmarshal(line, l); err != nil {
			return nil, err
		}
	}
	if l.Format > manifestFormat {
		return nil, ErrLater
	}
	if l.Format != manifestFormat {
		return nil, fmt.Errorf("manifest_version is %d, want %d", l.Format, manifestFormat)
	}
	if err := l.validate(); err != nil {
		return nil, err
	}
	for i, o := range l.Outputs {
		l.Outputs[i].Path = filepath.Join(d.dir, filepath.FromSlash(o.Path))
	}
	return &l.Entry, nil
}

// decodeWritten decodes a line in the usual form written by encodeLine, several times as fast as package json. It
// returns false for any other line, valid or not.
func (d *lineDecoder) decodeWritten(line []byte, l *manifestLine) bool {
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
	c := lineParser{rest: line[at:]}
	l.Input.Path = c.text(`,"input":{"path":"`)
	l.Input.Absolute = c.text(`,"absolute":"`)
	l.Input.Size = c.number(`,"size":`)
	l.Input.Modified = c.time(`,"modified":"`)
	l.Input.SHA256 = c.text(`,"sha256":"`)
	l.Records = c.number(`},"records":`)
	l.Tokens = c.number(`,"tokens":`)
	l.Truncated = c.number(`,"truncated":`)
	l.Repeated, l.Overflows = 0, 0
	if c.next(`,"repeated":`) { // earlier versions of the program did not write these two counts
		l.Repeated = c.number(`,"repeated":`)
		l.Overflows = c.number(`,"overflows":`)
	}
	l.Skipped = map[string]int64{}
	l.Outputs = make([]File, 0, 2)
	for prefix := `,"skipped":{},"outputs":[{"path":"`; !c.failed; prefix = `},{"path":"` {
		l.Outputs = append(l.Outputs, File{c.text(prefix), c.number(`,"size":`), c.text(`,"sha256":"`)})
		if !c.next(`},`) {
			break
		}
	}
	l.Started = c.time(`}],"started":"`)
	l.Finished = time.Time{}
	if c.next(`,`) {
		l.Finished = c.time(`,"finished":"`)
	}
	return !c.failed && string(c.rest) == "}\n"
}

// lineParser parses a line of the manifest from left to right. The first mismatch sets failed, which then stays set.
type lineParser struct {
	rest   []byte
	failed bool
}

// next reports whether the unparsed rest of the line begins with s.
func (c *lineParser) next(s string) bool {
	return len(c.rest) >= len(s) && string(c.rest[:len(s)]) == s
}

// skip consumes s, or sets failed if the line does not go on with s.
func (c *lineParser) skip(s string) {
	if c.failed = c.failed || !c.next(s); !c.failed {
		c.rest = c.rest[len(s):]
	}
}

// text consumes prefix, the text up to the next quotation mark, and the mark, and returns the text. It sets failed if
// the line does not go on with prefix, or if the text has no end, or has escapes, control characters or invalid UTF-8.
// Package json parses the lines for which failed is set.
func (c *lineParser) text(prefix string) string {
	c.skip(prefix)
	end := bytes.IndexByte(c.rest, '"')
	if c.failed = c.failed || end < 0; c.failed {
		return ""
	}
	text := c.rest[:end]
	for _, b := range text {
		c.failed = c.failed || b < ' ' || b == '\\'
	}
	c.failed = c.failed || !utf8.Valid(text)
	c.rest = c.rest[end+1:]
	return string(text)
}

// number consumes prefix and the digits behind it, and returns their value. It sets failed if the line does not go on
// with prefix and a number.
func (c *lineParser) number(prefix string) int64 {
	c.skip(prefix)
	end := 0
	for end < len(c.rest) && '0' <= c.rest[end] && c.rest[end] <= '9' {
		end++
	}
	n, err := strconv.ParseInt(string(c.rest[:end]), 10, 64)
	c.failed = c.failed || err != nil || end > 1 && c.rest[0] == '0' // JSON does not allow leading zeros
	c.rest = c.rest[end:]
	return n
}

// time consumes prefix, the time up to the next quotation mark, and the mark, and returns the time. It sets failed if
// the line does not go on with prefix and a time.
func (c *lineParser) time(prefix string) (t time.Time) {
	err := t.UnmarshalText([]byte(c.text(prefix)))
	c.failed = c.failed || err != nil
	return t
}

// validate checks an entry whose output paths are relative to the folder of the manifest. There must be an input, a
// model and an output. Output paths must be inside the folder, counts not negative, and digests well-formed.
func (e *Entry) validate() error {
	if e.Input.Path == "" || e.Model == "" || len(e.Outputs) == 0 {
		return fmt.Errorf("incomplete entry: input %q, model %q and %d outputs", e.Input.Path, e.Model, len(e.Outputs))
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
			return bad("an output path", fmt.Sprintf("%q, which is not in the folder", o.Path))
		case o.Size < 0:
			return bad("the size of "+o.Path, o.Size)
		case !isDigest(o.SHA256):
			return bad("the SHA-256 of "+o.Path, fmt.Sprintf("%q", o.SHA256))
		}
	}
	for _, c := range [...]struct {
		what string
		n    int64
	}{{"the input's size", e.Input.Size}, {"records", e.Records}, {"tokens", e.Tokens}, {"truncated", e.Truncated},
		{"repeated", e.Repeated}, {"overflows", e.Overflows}} {
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

// isDigest reports whether s is a SHA-256 in lower-case hexadecimal, or empty, which means unknown.
func isDigest(s string) bool {
	for _, c := range []byte(s) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return len(s) == 64 || s == ""
}
