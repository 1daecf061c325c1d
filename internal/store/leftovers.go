package store

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
)

// leftoverName matches the names of files that a run locks and removes at its end: temporary files and claims. Earlier
// versions left probes.
var leftoverName = regexp.MustCompile(`^\.((.+\.tmp|run)-[0-9a-f]{16}|probe-[0-9]+)$`)

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
		if !entry.Type().IsRegular() || !leftoverName.MatchString(entry.Name()) {
			continue
		}
		path := filepath.Join(dir, entry.Name())
		f, err := os.Open(path)
		if err != nil {
			continue // removed in the meantime, or owned by another user
		}
		if info, err := f.Stat(); err == nil && tryLock(f, true) == nil && os.Remove(path) == nil {
			bytes += info.Size()
		}
		f.Close()
	}
	return bytes, nil
}
