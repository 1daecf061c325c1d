package store

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"time"
)

// temporaryName matches the names that createTemp gives to files.
var temporaryName = regexp.MustCompile(`^\..+\.tmp-[0-9a-f]{16}$`)

// leftoverAge is the minimum time since the last change of a temporary file before it is considered a leftover. It is
// much longer than the time between the creation of a file and its lock.
const leftoverAge = time.Minute

// RemoveLeftovers removes the temporary files of killed runs from folder dir and returns their total size. A run that
// is still alive holds locks on its files. On a file system without locks nothing is removed. A missing folder is not
// an error.
func RemoveLeftovers(dir string) (bytes int64, err error) {
	list, err := os.ReadDir(dir)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return 0, nil
		}
		return 0, ioError("read", dir, err)
	}
	for _, entry := range list {
		if !entry.Type().IsRegular() || !temporaryName.MatchString(entry.Name()) {
			continue
		}
		info, err := entry.Info()
		if err != nil || time.Since(info.ModTime()) < leftoverAge {
			continue
		}
		path := filepath.Join(dir, entry.Name())
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			continue // removed in the meantime, or owned by another user
		}
		if tryLock(f) && os.Remove(path) == nil {
			bytes += info.Size()
		}
		f.Close()
	}
	return bytes, nil
}
