package store

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// folderSuffix ends the name of a folder under construction. Without the suffix, the name is that of a temporary file
// beside the folder. The lock of the temporary file shows that the run is alive.
const folderSuffix = ".d"

// atomicFolder is a folder of files under construction, which gets its final name when all files are complete. All
// files have the extension ext. By this extension publish recognises the files of an earlier output, and removes them.
type atomicFolder struct {
	lock  *atomicFile
	temp  string // "" after the folder was renamed or removed
	ext   string
	files []File // name, size and digest of each file
}

func createTempFolder(fsys fileSystem, final, ext string) (*atomicFolder, error) {
	lock, err := createTemp(fsys, final, true)
	if err != nil {
		return nil, err
	}
	d := &atomicFolder{lock: lock, temp: lock.temp + folderSuffix, ext: ext}
	if err := os.Mkdir(d.temp, 0o777); err != nil {
		_ = lock.discard() // err is the error to report
		return nil, ioError("create", final, err)
	}
	return d, nil
}

// add writes a file to the folder. It returns an error if the file system takes name for the name of an earlier file,
// as some do if only the case of letters differs.
func (d *atomicFolder) add(name string, content []byte) error {
	path := filepath.Join(d.lock.final, name)
	f, err := d.lock.fs.create(filepath.Join(d.temp, name))
	if err != nil {
		return ioError("create", path, err)
	}
	_, err = f.Write(content)
	if closed := f.Close(); err == nil {
		err = closed
	}
	if err != nil {
		return ioError("write", path, err)
	}
	sum := sha256.Sum256(content)
	d.files = append(d.files, File{name, int64(len(content)), hex.EncodeToString(sum[:])})
	return nil
}

// seal syncs the files and returns the final path of the folder, the total size of its files and the digest that
// HashFile returns for a folder.
func (d *atomicFolder) seal() (File, error) {
	if err := d.lock.fs.syncTree(d.temp); err != nil {
		return File{}, ioError("write", d.lock.final, err)
	}
	total := File{Path: d.lock.final}
	for _, f := range d.files {
		total.Size += f.Size
	}
	slices.SortFunc(d.files, func(a, b File) int { return strings.Compare(a.Path, b.Path) })
	total.SHA256 = digestFiles(d.files)
	return total, nil
}

// digestFiles returns the digest of a folder: the SHA-256 of the output of sha256sum for its files, in the order of
// their names.
func digestFiles(files []File) string {
	sum := sha256.New()
	for _, f := range files {
		fmt.Fprintf(sum, "%s  %s\n", f.SHA256, f.Path)
	}
	return hex.EncodeToString(sum.Sum(nil))
}

// publish renames the folder to its final path. If an earlier folder at that path has the same files, publish keeps the
// earlier folder and discards the new one, because another run may have just published the earlier folder, and the
// manifest may already list it. If the files differ, publish first removes the earlier folder. If the earlier folder
// has a file without the extension ext, publish returns an error and removes nothing.
func (d *atomicFolder) publish() error {
	const attempts = 16 // an attempt fails if another run has just published its folder
	final := d.lock.final
	var err error
	for range attempts {
		if sum, err := hashFolder(context.Background(), final); err == nil && sum == digestFiles(d.files) {
			return d.discard()
		}
		if err = d.removeEarlier(); err == nil {
			err = d.lock.fs.rename(d.temp, final)
		}
		if !errors.Is(err, fs.ErrExist) {
			break
		}
	}
	if err != nil {
		return ioError("write", final, err)
	}
	d.temp = ""
	return d.lock.discard()
}

// removeEarlier removes the folder at the final path, if there is one. It returns an fs.ErrExist if another run has
// meanwhile put its folder there.
func (d *atomicFolder) removeEarlier() error {
	final := d.lock.final
	list, err := os.ReadDir(final)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, entry := range list {
		if filepath.Ext(entry.Name()) != d.ext {
			return fmt.Errorf("%q in it is not of an output: move it away, so that the folder can be replaced", entry.Name())
		}
	}
	paths := make([]string, 0, len(list)+1)
	for _, entry := range list {
		paths = append(paths, filepath.Join(final, entry.Name()))
	}
	for _, path := range append(paths, final) {
		if err == nil {
			if err = d.lock.fs.remove(path); errors.Is(err, fs.ErrNotExist) { // another run has removed the file or folder
				err = nil
			}
		}
	}
	return err
}

// discard removes the folder, unless publish has renamed it, and the temporary file that locks it.
func (d *atomicFolder) discard() error {
	if d.temp != "" {
		if err := os.RemoveAll(d.temp); err != nil {
			return ioError("remove temporary folder", d.temp, err)
		}
		d.temp = ""
	}
	return d.lock.discard()
}

// hashFolder returns the digest of a folder (see digestFiles).
func hashFolder(ctx context.Context, dir string) (string, error) {
	list, err := os.ReadDir(dir)
	if err != nil {
		return "", ioError("read", dir, err)
	}
	var files []File
	for _, entry := range list {
		sum, err := HashFile(ctx, filepath.Join(dir, entry.Name()))
		if err != nil {
			return "", err
		}
		files = append(files, File{Path: entry.Name(), SHA256: sum})
	}
	return digestFiles(files), nil
}

// Size returns the size in bytes of an output: of a file, or of all files in a folder. modified describes the file; for
// a folder, it describes whichever was modified last: the folder itself or a file in it.
func Size(path string) (size int64, modified fs.FileInfo, err error) {
	info, err := os.Stat(path)
	if err != nil || !info.IsDir() {
		if err == nil {
			size = info.Size()
		}
		return size, info, err
	}
	modified = info
	err = filepath.WalkDir(path, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err == nil {
			size += info.Size()
			if info.ModTime().After(modified.ModTime()) {
				modified = info
			}
		}
		return err
	})
	return size, modified, err
}
