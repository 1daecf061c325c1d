package store

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// ManifestName is the file name of the manifest in an output folder: JSON objects, one a line, that are only ever
// appended. A line holds until a later one names one of its output files.
const ManifestName = "manifest.jsonl"

// olderManifests are the files in which version 1 kept its entries. They are not read.
var olderManifests = []string{"manifest.json", "manifest.journal"}

// ErrManifest is wrapped by the error for a manifest that exists but cannot be used.
var ErrManifest = errors.New("not a usable manifest")

// Manifest is what the manifest of a folder says of the output files in it. It is not safe for concurrent use; several
// processes may append to one folder.
type Manifest struct {
	dir     string
	replace bool              // lines are not looked at
	size    int64             // bytes of the whole lines that were read
	lines   int               // how many those are
	known   int               // of them, those that ReadManifest read
	last    map[string]placed // by output file: the last line that names it
}

// placed is a file of an entry and the entry's line, from 1 on.
type placed struct {
	*Entry
	file File
	line int
}

// NewManifest returns the manifest of folder dir for a run that replaces whatever is there: it knows no output, and its
// lines may be damaged.
func NewManifest(dir string) *Manifest { return &Manifest{dir: dir, replace: true} }

// ReadManifest reads the manifest of folder dir; one that is not there describes no output. A last line without its end
// is dropped: its writer was killed, and nothing relies on it. The error is ErrManifest, wrapped, for a line that is
// damaged and for a manifest of an earlier version.
func ReadManifest(dir string) (*Manifest, error) {
	m := &Manifest{dir: dir, last: map[string]placed{}}
	err := m.Update()
	m.known = m.lines
	return m, err
}

// Update reads what has been appended to the manifest since.
func (m *Manifest) Update() error {
	for _, name := range olderManifests {
		path := filepath.Join(m.dir, name)
		if _, err := os.Lstat(path); err == nil {
			return fmt.Errorf("%s: %w: an earlier version of this program wrote it; "+
				"delete it and start over with --force, or take another folder with --out", path, ErrManifest)
		}
	}
	f, err := os.Open(m.path())
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR):
		m.forget()
		return nil
	case err != nil:
		return ioError("read", m.path(), err)
	}
	defer f.Close()
	_, err = m.read(f)
	return err
}

// forget starts over, for another file in the place of the one that was read.
func (m *Manifest) forget() {
	m.size, m.lines, m.known = 0, 0, 0
	clear(m.last)
}

func (m *Manifest) path() string { return filepath.Join(m.dir, ManifestName) }

// outputKey is an output's path as it is found by. JSON cannot hold other text.
func outputKey(path string) string { return ValidText(filepath.Clean(path)) }

// Find returns the last entry that names an output file, and the file as described there: without a SHA-256 when it was
// about to get its name.
func (m *Manifest) Find(path string) (Entry, File, bool) {
	p, ok := m.last[outputKey(path)]
	if !ok {
		return Entry{}, File{}, false
	}
	return *p.Entry, p.file, true
}

// Append adds an entry to the manifest of the folder, which has to exist, and has it on the disk when it returns. What
// was appended since ReadManifest is looked at first: clash is called with the last entry of each output of e
// that came since, and an error of it is returned in place of writing.
func (m *Manifest) Append(e Entry, clash func(later Entry) error) error {
	return m.append(e, clash, osFS{})
}

func (m *Manifest) append(e Entry, clash func(Entry) error, disk fileSystem) error {
	line, err := encodeLine(m.dir, e)
	if err != nil {
		return fmt.Errorf("write %s: %w", m.path(), err)
	}
	f, err := disk.openLog(m.path())
	if err != nil {
		return ioError("write", m.path(), err)
	}
	defer f.Close() // which gives the lock up; a line is synced before
	torn, err := m.read(f)
	if err != nil {
		return err
	}
	for _, o := range e.Outputs {
		if p, ok := m.last[outputKey(o.Path)]; ok && p.line > m.known {
			if err := clash(*p.Entry); err != nil {
				return err
			}
		}
	}
	if torn {
		if err := disk.truncate(m.path(), m.size); err != nil {
			return ioError("write", m.path(), err)
		}
	}
	if err := m.write(f, line, disk); err != nil {
		_ = disk.truncate(m.path(), m.size) // err is the one to report, and readers drop a torn line
		return ioError("write", m.path(), err)
	}
	return nil // the line is read back with those of other processes: without locks it need not be the next one
}

// write appends a line and waits until it is on the disk.
func (m *Manifest) write(f logFile, line []byte, disk fileSystem) error {
	if _, err := f.Write(line); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if m.size == 0 { // the name may be new
		return disk.syncDir(m.dir)
	}
	return nil
}

// read takes in the whole lines after those that were read. It reports whether a part of a line follows them.
func (m *Manifest) read(f logFile) (torn bool, err error) {
	info, err := f.Stat()
	if err != nil {
		return false, ioError("read", m.path(), err)
	}
	if info.Size() < m.size { // it is another file
		m.forget()
	}
	content := make([]byte, info.Size()-m.size)
	n, err := f.ReadAt(content, m.size)
	if err != nil && err != io.EOF {
		return false, ioError("read", m.path(), err)
	}
	whole := bytes.LastIndexByte(content[:n], '\n') + 1
	return whole < n, m.take(content[:whole])
}

// take takes in whole lines.
func (m *Manifest) take(content []byte) error {
	if m.replace {
		m.size += int64(len(content))
		return nil
	}
	d := lineDecoder{m.dir, map[string]manifestLine{}}
	for line := range bytes.Lines(content) {
		e, err := d.decode(line)
		if err != nil {
			return fmt.Errorf("%s:%d: %w: %w; delete this line to go on, and its output is made again or named in an error",
				m.path(), m.lines+1, ErrManifest, err)
		}
		m.lines++
		m.size += int64(len(line))
		if e == nil {
			continue
		}
		for _, o := range e.Outputs {
			m.last[outputKey(o.Path)] = placed{e, o, m.lines}
		}
	}
	return nil
}
