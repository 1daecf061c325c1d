package store

import (
	"bytes"
	"encoding/json"
	"fmt"
	"path/filepath"
	"strconv"
	"time"
	"unicode/utf8"
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
	// The fields above are mostly those of the line before. lineDecoder relies on the place of Input and of all below.
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
	dir      string
	settings map[string]manifestLine // what lines begin with, up to the input, and what that says
}

// decode returns the entry of a line, nil for a blank one.
func (d *lineDecoder) decode(line []byte) (*Entry, error) {
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

// decodeWritten decodes a line as encodeLine mostly writes it, several times as fast as package json. It is false for
// any other line, which may be as good.
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
	c := lineCutter{rest: line[at:]}
	l.Input.Path = c.text(`,"input":{"path":"`)
	l.Input.Absolute = c.text(`,"absolute":"`)
	l.Input.Size = c.number(`,"size":`)
	l.Input.Modified = c.time(`,"modified":"`)
	l.Input.SHA256 = c.text(`,"sha256":"`)
	l.Records = c.number(`},"records":`)
	l.Tokens = c.number(`,"tokens":`)
	l.Truncated = c.number(`,"truncated":`)
	l.Skipped = map[string]int64{}
	l.Outputs = make([]File, 0, 2)
	for before := `,"skipped":{},"outputs":[{"path":"`; !c.failed; before = `},{"path":"` {
		l.Outputs = append(l.Outputs, File{c.text(before), c.number(`,"size":`), c.text(`,"sha256":"`)})
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

// lineCutter takes a line apart from its beginning on. What does not go on as expected makes it fail for good.
type lineCutter struct {
	rest   []byte
	failed bool
}

// next reports whether the line goes on with s.
func (c *lineCutter) next(s string) bool {
	return len(c.rest) >= len(s) && string(c.rest[:len(s)]) == s
}

// pass takes s off the line.
func (c *lineCutter) pass(s string) {
	if c.failed = c.failed || !c.next(s); !c.failed {
		c.rest = c.rest[len(s):]
	}
}

// text returns what stands between before and a quotation mark, and takes all of it off. Text that JSON writes in
// another way than it reads is left to package json.
func (c *lineCutter) text(before string) string {
	c.pass(before)
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

// number returns the number that follows before.
func (c *lineCutter) number(before string) int64 {
	c.pass(before)
	end := 0
	for end < len(c.rest) && '0' <= c.rest[end] && c.rest[end] <= '9' {
		end++
	}
	n, err := strconv.ParseInt(string(c.rest[:end]), 10, 64)
	c.failed = c.failed || err != nil || end > 1 && c.rest[0] == '0' // which is no number in JSON
	c.rest = c.rest[end:]
	return n
}

// time returns the time that stands between before and a quotation mark.
func (c *lineCutter) time(before string) (t time.Time) {
	err := t.UnmarshalText([]byte(c.text(before)))
	c.failed = c.failed || err != nil
	return t
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
