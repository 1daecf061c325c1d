package store

import (
	"bytes"
	"cmp"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// ManifestName is the file name of the manifest in an output folder.
const ManifestName = "manifest.json"

// manifestFormat is the version of the file's layout. A program that does not know a version refuses it: guessing could
// mix outputs that do not belong together.
const manifestFormat = 1

// ErrManifest is wrapped by the error for a manifest that exists but cannot be used.
var ErrManifest = errors.New("not a usable manifest")

// Manifest describes the outputs in a folder, one entry per input and model. It is not safe for concurrent use.
type Manifest struct {
	entries []Entry // sorted by input path, then model; no two alike
}

// Entry describes the output of one model on one input file: everything that has to agree for the output to be taken
// as it is instead of being computed again.
type Entry struct {
	Input            Source            `json:"input"`
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
	Records          int64             `json:"records"`   // written
	Tokens           int64             `json:"tokens"`    // of the written records
	Truncated        int64             `json:"truncated"` // records of which only a part was used
	Skipped          map[string]int64  `json:"skipped"`   // records left out, by reason; never null in the file
	Outputs          []File            `json:"outputs"`   // in the file, their paths are relative to its folder
	Started          time.Time         `json:"started"`   // in the file, UTC as in RFC 3339
	Finished         time.Time         `json:"finished"`
}

// Source identifies an input file by its content.
type Source struct {
	Path   string `json:"path"`   // as the user gave it
	Size   int64  `json:"size"`   // bytes, as stored (compressed inputs are not unpacked for it)
	SHA256 string `json:"sha256"` // lower-case hexadecimal; empty when it is not known
}

// Entries returns the entries by input path, then model. The slice is the caller's, the maps in it are not.
func (m *Manifest) Entries() []Entry { return slices.Clone(m.entries) }

// Find returns the entry of an input path and a model.
func (m *Manifest) Find(input, model string) (Entry, bool) {
	i, ok := m.search(validText(input), validText(model))
	if !ok {
		return Entry{}, false
	}
	return m.entries[i], true
}

// Put adds an entry, in the place of an earlier one of the same input path and model.
func (m *Manifest) Put(e Entry) {
	// JSON cannot hold other text, and an entry must be found again under the name that it was put.
	e.Input.Path, e.Model = validText(e.Input.Path), validText(e.Model)
	i, ok := m.search(e.Input.Path, e.Model)
	if ok {
		m.entries[i] = e
		return
	}
	m.entries = slices.Insert(m.entries, i, e)
}

func (m *Manifest) search(input, model string) (int, bool) {
	return slices.BinarySearchFunc(m.entries, [2]string{input, model}, func(e Entry, key [2]string) int {
		return cmp.Or(cmp.Compare(e.Input.Path, key[0]), cmp.Compare(e.Model, key[1]))
	})
}

// manifestFile is the manifest as it is on disk.
type manifestFile struct {
	Format  int     `json:"manifest_version"`
	Entries []Entry `json:"entries"`
}

// Write replaces the manifest of folder dir, which is created if needed: temporary file, sync, rename, sync of the
// folder. Outputs have to lie in dir or below.
func (m *Manifest) Write(dir string) error { return m.write(dir, osFS{}) }

func (m *Manifest) write(dir string, fs fileSystem) error {
	path := filepath.Join(dir, ManifestName)
	text, err := m.marshal(dir)
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := fs.mkdirAll(dir); err != nil {
		return ioError("create output folder", dir, err)
	}
	files := fileSet{fs: fs}
	f, err := files.create(path, false)
	if err != nil {
		return err
	}
	if _, err = f.Write(text); err == nil {
		_, err = files.commit()
	}
	if err != nil {
		_ = files.discard() // err is the cause and the one to report
	}
	return err
}

// marshal returns the content of the manifest in dir.
func (m *Manifest) marshal(dir string) ([]byte, error) {
	onDisk := manifestFile{Format: manifestFormat, Entries: []Entry{}}
	for _, e := range m.entries {
		if err := e.toDisk(dir); err != nil {
			return nil, err
		}
		onDisk.Entries = append(onDisk.Entries, e)
	}
	var text bytes.Buffer
	enc := json.NewEncoder(&text)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	err := enc.Encode(&onDisk)
	return text.Bytes(), err
}

// ReadManifest reads the manifest of folder dir, and the journal with what came later. The error is fs.ErrNotExist,
// wrapped, when there is neither, and ErrManifest when there is one that this program did not write or that was damaged.
func ReadManifest(dir string) (*Manifest, error) {
	path, journal := filepath.Join(dir, ManifestName), filepath.Join(dir, JournalName)
	// The journal first: what another run moves over meanwhile is then met twice, and not missed.
	lines, missing := os.ReadFile(journal)
	if missing != nil && !errors.Is(missing, fs.ErrNotExist) {
		return nil, ioError("read", journal, missing)
	}
	m := new(Manifest)
	content, err := os.ReadFile(path)
	switch {
	case err == nil:
		if m, err = parseManifest(content, dir); err != nil {
			return nil, fmt.Errorf("%s: %w: %w", path, ErrManifest, err)
		}
	case missing != nil || !errors.Is(err, fs.ErrNotExist):
		return nil, ioError("read", path, err)
	}
	if err := m.addJournal(lines, dir); err != nil {
		return nil, fmt.Errorf("%s: %w: %w", journal, ErrManifest, err)
	}
	return m, nil
}

// parseManifest reads the content of the manifest in dir.
func parseManifest(content []byte, dir string) (*Manifest, error) {
	// The version comes first: what else a later one holds cannot be known.
	var version struct {
		Format int `json:"manifest_version"`
	}
	if err := json.Unmarshal(content, &version); err != nil {
		return nil, err
	}
	if version.Format != manifestFormat {
		return nil, fmt.Errorf("manifest_version is %d, expected %d", version.Format, manifestFormat)
	}
	var onDisk manifestFile
	dec := json.NewDecoder(bytes.NewReader(content))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&onDisk); err != nil {
		return nil, err
	}
	if _, err := dec.Token(); err != io.EOF {
		return nil, errors.New("more text after its end")
	}
	m := new(Manifest)
	for _, e := range onDisk.Entries {
		if err := e.fromDisk(dir); err != nil {
			return nil, err
		}
		if _, ok := m.Find(e.Input.Path, e.Model); ok {
			return nil, fmt.Errorf("two entries for input %q and model %q", e.Input.Path, e.Model)
		}
		m.Put(e)
	}
	return m, nil
}

// toDisk changes e from its form in the program to that in the file, and fromDisk back. Neither touches what e shares
// with other copies.
func (e *Entry) toDisk(dir string) error {
	e.Outputs = append([]File{}, e.Outputs...)
	for i := range e.Outputs {
		rel, err := filepath.Rel(dir, e.Outputs[i].Path)
		if err != nil || !insideFolder(rel) {
			return fmt.Errorf("input %q: output %q is not in folder %q", e.Input.Path, e.Outputs[i].Path, dir)
		}
		e.Outputs[i].Path = filepath.ToSlash(rel)
	}
	return e.complete()
}

func (e *Entry) fromDisk(dir string) error {
	for i := range e.Outputs {
		rel := filepath.FromSlash(e.Outputs[i].Path)
		if !insideFolder(rel) {
			return fmt.Errorf("input %q: output path %q leaves the folder", e.Input.Path, e.Outputs[i].Path)
		}
		e.Outputs[i].Path = filepath.Join(dir, rel)
	}
	return e.complete()
}

// insideFolder reports whether the path rel of an output, relative to its folder, names something below the folder.
func insideFolder(rel string) bool { return filepath.IsLocal(rel) && filepath.Clean(rel) != "." }

// complete brings e to its one form: times in UTC, and empty maps in the place of missing ones so that readers in other
// languages meet one type. It reports what is wrong with e.
func (e *Entry) complete() error {
	e.Started, e.Finished = e.Started.UTC(), e.Finished.UTC()
	if e.Parameters == nil {
		e.Parameters = map[string]string{}
	}
	if e.LibraryVersions == nil {
		e.LibraryVersions = map[string]string{}
	}
	if e.Skipped == nil {
		e.Skipped = map[string]int64{}
	}
	if e.Outputs == nil {
		e.Outputs = []File{}
	}
	return e.validate()
}

// validate checks what a comparison with files and counts relies on.
func (e *Entry) validate() error {
	if e.Input.Path == "" || e.Model == "" {
		return fmt.Errorf("an entry with input %q and model %q", e.Input.Path, e.Model)
	}
	bad := func(what string, value any) error {
		return fmt.Errorf("input %q, model %q: %s is %v", e.Input.Path, e.Model, what, value)
	}
	counts := map[string]int64{"records": e.Records, "tokens": e.Tokens, "truncated": e.Truncated}
	for reason, n := range e.Skipped {
		counts["skipped for "+reason] = n
	}
	for what, n := range counts {
		if n < 0 {
			return bad(what, n)
		}
	}
	for what, t := range map[string]time.Time{"started": e.Started, "finished": e.Finished} {
		if t.Year() < 0 || t.Year() > 9999 { // RFC 3339 has four digits
			return bad(what, t)
		}
	}
	digests := map[string]string{
		"checkpoint_sha256":   e.CheckpointSHA256,
		"tokenizer_sha256":    e.TokenizerSHA256,
		"the input's SHA-256": e.Input.SHA256,
	}
	for what, sum := range digests {
		if sum != "" && !isSHA256(sum) {
			return bad(what, fmt.Sprintf("%q", sum))
		}
	}
	if e.Input.Size < 0 {
		return bad("the input's size", e.Input.Size)
	}
	for _, f := range e.Outputs {
		if f.Size < 0 {
			return bad("the size of "+f.Path, f.Size)
		}
		if !isSHA256(f.SHA256) {
			return bad("the SHA-256 of "+f.Path, fmt.Sprintf("%q", f.SHA256))
		}
	}
	return nil
}

func isSHA256(s string) bool {
	raw, err := hex.DecodeString(s)
	return err == nil && len(raw) == 32
}
