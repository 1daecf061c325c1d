package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"syscall"
)

// ManifestName is the file name of the manifest in an output folder. The file contains JSON objects, one per line, each
// of which describes an output (see Entry). Runs append lines to it. For each output file, the last line that names it
// is valid.
const ManifestName = "manifest.jsonl"

// olderManifests are the file names of version 1 of the manifest, which this version of the program cannot read.
var olderManifests = []string{"manifest.json", "manifest.journal"}

// ErrManifest is wrapped by the error for a manifest that exists but cannot be used.
var ErrManifest = errors.New("not a usable manifest")

// Manifest describes the output files in a folder, as read from its manifest. It is not safe for concurrent use, but
// several processes may append to the manifest of one folder.
type Manifest struct {
	dir   string
	size  int64                  // number of bytes in the lines read so far
	lines int                    // number of lines read so far
	known int                    // number of lines that the manifest had when ReadManifest read it
	last  map[string]outputEntry // last entry for each output file
	// arrays has, for the list of ids of NumPy files (see Npy), the NumPy files that entries have named beside it. The
	// keys of both maps are those of last. The values are the paths of the files.
	arrays map[string]map[string]string
}

// outputEntry is one output file of an entry in the manifest.
type outputEntry struct {
	*Entry
	file File
	line int // line of the entry, counted from 1
}

// ReadManifest reads the manifest of folder dir. A missing manifest has no entries. An incomplete last line is ignored:
// its writer was killed or has not finished it, and nothing depends on the line. A damaged line or a manifest of an
// earlier version is an error that wraps ErrManifest.
func ReadManifest(dir string) (*Manifest, error) {
	m := &Manifest{dir: dir, last: map[string]outputEntry{}, arrays: map[string]map[string]string{}}
	err := m.Update()
	m.known = m.lines
	return m, err
}

// Update reads the lines that have been appended since the last read.
func (m *Manifest) Update() error {
	for _, name := range olderManifests {
		path := filepath.Join(m.dir, name)
		if _, err := os.Lstat(path); err == nil {
			return fmt.Errorf("%s: %w: an earlier version of this program wrote it", path, ErrManifest)
		}
	}
	f, err := os.Open(m.path())
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR):
		m.reset()
		return nil
	case err != nil:
		return ioError("read", m.path(), err)
	}
	defer f.Close()
	_, err = m.read(f)
	return err
}

// reset discards all entries, so that the next read begins at the start of the file.
func (m *Manifest) reset() {
	m.size, m.lines, m.known = 0, 0, 0
	clear(m.last)
	clear(m.arrays)
}

func (m *Manifest) path() string { return filepath.Join(m.dir, ManifestName) }

// outputKey returns the key of an output path in Manifest.last. The key is valid UTF-8, because JSON, the form of the
// manifest, cannot represent other paths.
func outputKey(path string) string { return ValidText(filepath.Clean(path)) }

// Find returns the last entry that names an output file, and the description of that file in the entry. The SHA-256 of
// the description is empty if the entry was written before the file got its final name.
func (m *Manifest) Find(path string) (Entry, File, bool) {
	p, ok := m.last[outputKey(path)]
	if !ok {
		return Entry{}, File{}, false
	}
	return *p.Entry, p.file, true
}

// Outputs yields the paths of all output files that the manifest names, in no particular order.
func (m *Manifest) Outputs() iter.Seq[string] { return maps.Keys(m.last) }

// Replaced returns the NumPy files whose list of ids an output at the given paths replaces, although the files
// themselves are not among the paths: the arrays of other poolings or layers, which then lie beside the ids of other
// records. Only files that an entry of the manifest has named are returned.
func (m *Manifest) Replaced(paths []string) (list []string) {
	own := map[string]bool{}
	for _, path := range paths {
		own[outputKey(path)] = true
	}
	for key := range own {
		for array, path := range m.arrays[key] {
			if !own[array] {
				list = append(list, path)
			}
		}
	}
	slices.Sort(list)
	return list
}

// Lines returns the number of lines that have been read.
func (m *Manifest) Lines() int { return m.lines }

// Line returns the number of the line with the entry that Find returns, counted from 1. It returns 0 if there is no
// such entry.
func (m *Manifest) Line(path string) int { return m.last[outputKey(path)].line }

// Append appends an entry to the manifest and syncs it to disk. The folder must exist. If an output of e has an entry
// that was added since ReadManifest, Append first calls clash with the last such entry. If clash returns an error,
// Append returns it and writes nothing. Append waits while other processes append. If ctx ends while Append waits,
// Append soon returns an error that wraps the cause.
func (m *Manifest) Append(ctx context.Context, e Entry, clash func(later Entry) error) error {
	return m.append(ctx, e, clash, osFS{})
}

func (m *Manifest) append(ctx context.Context, e Entry, clash func(Entry) error, disk fileSystem) error {
	line, err := encodeLine(m.dir, e)
	if err != nil {
		return fmt.Errorf("write %s: %w", m.path(), err)
	}
	f, err := disk.openLog(ctx, m.path())
	if err != nil {
		return ioError("write", m.path(), err)
	}
	defer f.Close() // also releases the lock, after the line has been synced
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
		_ = disk.truncate(m.path(), m.size) // if this fails, too, readers ignore an incomplete line
		return ioError("write", m.path(), err)
	}
	// Append does not add the entry to m. The next Update does: on a file system without locks, lines of other
	// processes may precede the new line.
	return nil
}

// write appends a line and syncs it.
func (m *Manifest) write(f logFile, line []byte, disk fileSystem) error {
	if _, err := f.Write(line); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if m.size == 0 { // the file may be new, and then its folder must be synced
		return disk.syncDir(m.dir)
	}
	return nil
}

// read reads the complete lines that have been appended to the manifest since the last read. torn reports whether an
// incomplete line follows them. If the file has become shorter, it is another file, and read reads it from the
// beginning.
func (m *Manifest) read(f logFile) (torn bool, err error) {
	info, err := f.Stat()
	if err != nil {
		return false, ioError("read", m.path(), err)
	}
	if info.Size() < m.size { // another file has taken the place of the manifest
		m.reset()
	}
	content := make([]byte, info.Size()-m.size)
	n, err := f.ReadAt(content, m.size)
	if err != nil && err != io.EOF {
		return false, ioError("read", m.path(), err)
	}
	whole := bytes.LastIndexByte(content[:n], '\n') + 1
	return whole < n, m.addLines(content[:whole])
}

// addLines adds the entries of the lines in content, which are all complete.
func (m *Manifest) addLines(content []byte) error {
	d := lineDecoder{m.dir, map[string]manifestLine{}}
	for line := range bytes.Lines(content) {
		e, err := d.decode(line)
		if err != nil {
			return fmt.Errorf("%s:%d: %w", m.path(), m.lines+1, err)
		}
		m.lines++
		m.size += int64(len(line))
		if e == nil {
			continue
		}
		for _, o := range e.Outputs {
			m.last[outputKey(o.Path)] = outputEntry{e, o, m.lines}
			list := listOf(o.Path, func(list string) bool {
				return slices.ContainsFunc(e.Outputs, func(other File) bool { return other.Path == list })
			})
			if list == "" {
				continue
			}
			ids := outputKey(list)
			if m.arrays[ids] == nil {
				m.arrays[ids] = map[string]string{}
			}
			m.arrays[ids][outputKey(o.Path)] = o.Path
		}
	}
	return nil
}
