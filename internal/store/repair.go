package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// DamagedSuffix, followed by a time, is appended to the name of an old manifest that Repair keeps.
const DamagedSuffix = ".damaged-"

// ReadRepaired reads the manifest of a folder like ReadManifest, and first repairs it if it is damaged (see Repair).
func ReadRepaired(ctx context.Context, dir string, h Holder) (*Manifest, error) {
	m, err := ReadManifest(dir)
	if errors.Is(err, ErrManifest) {
		if _, err = Repair(ctx, dir, h); err == nil {
			m, err = ReadManifest(dir)
		}
	}
	return m, err
}

// Repair makes the manifest of a folder usable. It removes the lines that cannot be read, and renames the files of a
// manifest of version 1. It returns the paths of the old files, which stay in the folder under other names. An output
// whose line was removed has no entry then, or only an earlier one, and a later run may compute it again.
//
// Repair returns an ErrInUse if another run is writing to the folder, because that run would lose its entries. A run
// that begins during the repair is refused (see Claim). h describes this process; a claim of h itself does not count as
// another run. If nothing is damaged, Repair needs no permission to write.
func Repair(ctx context.Context, dir string, h Holder) (aside []string, err error) {
	if damaged, err := isDamaged(dir); !damaged {
		return nil, err
	}
	h.Outputs, h.Repairs = nil, true
	leave, err := Claim(dir, h, func(other Holder) string {
		if other.is(h) || other.PID == 0 { // a run that has not written its claim yet will see the claim of h
			return ""
		}
		return "its entries in the manifest"
	})
	if err != nil {
		return nil, fmt.Errorf("the manifest is damaged and cannot be repaired: %w", err)
	}
	defer leave()
	return repair(ctx, dir)
}

// isDamaged reports whether there is anything to repair in a folder.
func isDamaged(dir string) (bool, error) {
	for _, name := range olderManifests {
		if _, err := os.Lstat(filepath.Join(dir, name)); err == nil {
			return true, nil
		}
	}
	path := filepath.Join(dir, ManifestName)
	content, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	case err != nil:
		return false, ioError("read", path, err)
	}
	kept, err := readableLines(dir, content)
	return len(kept) < len(content), err
}

func repair(ctx context.Context, dir string) (aside []string, err error) {
	suffix := DamagedSuffix + time.Now().UTC().Format("20060102T150405.000000000Z")
	for _, name := range olderManifests {
		path := filepath.Join(dir, name)
		switch err := os.Rename(path, path+suffix); {
		case err == nil:
			aside = append(aside, path+suffix)
		case !errors.Is(err, fs.ErrNotExist):
			return aside, ioError("rename", path, err)
		}
	}
	path := behindLink(filepath.Join(dir, ManifestName))
	if _, err := os.Stat(path); err != nil {
		return aside, nil
	}
	content, release, err := readLocked(ctx, path) // other runs wait for the lock and then open the new file
	if err != nil {
		return aside, err
	}
	defer release()
	kept, err := readableLines(dir, content)
	if err != nil || len(kept) == len(content) {
		return aside, err
	}
	if err := replaceFile(osFS{}, path+suffix, content); err != nil {
		return aside, err
	}
	return append(aside, path+suffix), replaceFile(osFS{}, path, kept)
}

// behindLink returns the path to which a symbolic link leads, and the path of any other file unchanged. A file that is
// replaced at this path keeps the link.
func behindLink(path string) string {
	if target, err := filepath.EvalSymlinks(path); err == nil {
		return target
	}
	return path
}

// readLocked locks a file, which it creates if needed, and returns its content. On systems with locks, the file stays
// locked until release is called.
func readLocked(ctx context.Context, path string) (content []byte, release func(), err error) {
	f, err := osFS{}.openLocked(ctx, path)
	if err != nil {
		return nil, nil, ioError("write", path, err)
	}
	release = func() { f.Close() }
	if content, err = io.ReadAll(f); err != nil || !keepsLocks {
		f.Close() // some systems without locks cannot replace an open file
	}
	if err != nil {
		return nil, nil, ioError("read", path, err)
	}
	return content, release, nil
}

// readableLines returns the lines of a manifest that can be read. An incomplete last line counts as damaged. A line of
// a later version of the program is an error.
func readableLines(dir string, content []byte) (kept []byte, err error) {
	d, n := lineDecoder{dir, map[string]manifestLine{}}, 0
	for line := range bytes.Lines(content) {
		n++
		_, err := d.decode(line)
		switch {
		case errors.Is(err, ErrLater):
			return nil, fmt.Errorf("%s:%d: %w", filepath.Join(dir, ManifestName), n, err)
		case err == nil && bytes.HasSuffix(line, []byte("\n")):
			kept = append(kept, line...)
		}
	}
	return kept, nil
}

// Edit replaces the content of a file by the result of the function change, which may be called twice. Edit waits while
// other processes edit the same file. If the file does not exist, change receives an empty text. If change returns an
// empty text, Edit removes the file. If the text does not change, Edit needs no permission to write.
func Edit(ctx context.Context, path string, change func(old []byte) []byte) error {
	old, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return ioError("read", path, err)
	}
	missing := err != nil
	if updated := change(old); bytes.Equal(updated, old) && (missing || len(old) > 0) {
		return nil
	}
	old, release, err := readLocked(ctx, path)
	if err != nil {
		return err
	}
	defer release()
	path = behindLink(path) // now the file exists
	if updated := change(old); len(updated) > 0 {
		err := replaceFile(osFS{}, path, updated)
		if err != nil && len(old) == 0 {
			_ = os.Remove(path) // an empty file, perhaps one that readLocked has created; err is the error to report
		}
		return err
	}
	if err := os.Remove(path); err != nil {
		return ioError("remove", path, err)
	}
	return nil
}
