package store

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// JournalName is the file name of the entries that are not in the manifest
// yet. They are collected there, a line each, because the manifest is written
// as a whole: with thousands of files that would take longer than computing.
const JournalName = "manifest.journal"

// journalLine is an entry as it is in the journal.
type journalLine struct {
	Format int   `json:"manifest_version"`
	Entry  Entry `json:"entry"`
}

// UpdateManifest adds an entry to the journal of a folder, which has to exist,
// and has it on the disk when it returns; ReadManifest finds it from then on.
// Two runs that write to one folder at the same time do not lose each other's
// entries, as far as the file system can lock a folder.
func UpdateManifest(dir string, e Entry) error {
	path := filepath.Join(dir, JournalName)
	if err := e.toDisk(dir); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	var line bytes.Buffer
	enc := json.NewEncoder(&line) // ends it with a line end
	enc.SetEscapeHTML(false)
	e.Input.Path, e.Model = validText(e.Input.Path), validText(e.Model)
	if err := enc.Encode(journalLine{manifestFormat, e}); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	unlock := lockFolder(dir)
	defer unlock()
	if err := appendLine(path, line.Bytes()); err != nil {
		return ioError("write", path, err)
	}
	return nil
}

// appendLine adds a line to a file and syncs it. What is left of a line whose
// writer was killed goes first.
func appendLine(path string, line []byte) (err error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o666)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	end, err := wholeLines(f)
	if err != nil {
		return err
	}
	if err := f.Truncate(end); err != nil {
		return err
	}
	if _, err := f.WriteAt(line, end); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if end == 0 { // the name may be new
		return osFS{}.syncDir(filepath.Dir(path))
	}
	return nil
}

// wholeLines is where the last complete line of a file ends.
func wholeLines(f *os.File) (int64, error) {
	end, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return 0, err
	}
	for piece := make([]byte, 4096); end > 0; {
		from := max(0, end-int64(len(piece)))
		n, err := f.ReadAt(piece[:end-from], from)
		if err != nil {
			return 0, err
		}
		if at := bytes.LastIndexByte(piece[:n], '\n'); at >= 0 {
			return from + int64(at) + 1, nil
		}
		end = from
	}
	return 0, nil
}

// CompactManifest moves the journal's entries into the manifest. Without a
// journal there is nothing to do.
func CompactManifest(dir string) error {
	unlock := lockFolder(dir)
	defer unlock()
	path := filepath.Join(dir, JournalName)
	content, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return ioError("read", path, err)
	}
	if bytes.IndexByte(content, '\n') >= 0 { // otherwise it holds nothing
		m, err := ReadManifest(dir)
		if err != nil {
			return err
		}
		if err := m.Write(dir); err != nil {
			return err
		}
	}
	// The order matters: until here either file alone has the entries.
	if err := os.Remove(path); err != nil {
		return ioError("remove", path, err)
	}
	if err := (osFS{}).syncDir(dir); err != nil {
		return ioError("sync", dir, err)
	}
	return nil
}

// addJournal puts the entries of a journal's content into m, the later of two
// alike. A last line without its end was being written when its writer was
// killed: nobody has relied on it.
func (m *Manifest) addJournal(content []byte, dir string) error {
	for number := 1; ; number++ {
		end := bytes.IndexByte(content, '\n')
		if end < 0 {
			return nil
		}
		var line journalLine
		dec := json.NewDecoder(bytes.NewReader(content[:end]))
		dec.DisallowUnknownFields()
		err := dec.Decode(&line)
		if err == nil && line.Format != manifestFormat {
			err = fmt.Errorf("manifest_version is %d, expected %d", line.Format, manifestFormat)
		}
		if err == nil {
			err = line.Entry.fromDisk(dir)
		}
		if err == nil {
			if _, end := dec.Token(); end != io.EOF {
				err = errors.New("more text after the entry")
			}
		}
		if err != nil {
			return fmt.Errorf("line %d: %w", number, err)
		}
		m.Put(line.Entry)
		content = content[end+1:]
	}
}
