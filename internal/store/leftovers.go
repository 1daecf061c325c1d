package store

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"time"
)

// temporaryName is what createTemp calls a file.
var temporaryName = regexp.MustCompile(`^\..+\.tmp-[0-9a-f]{16}$`)

// leftoverAge is how long a temporary file has to be untouched before it can
// be taken for a leftover: far more than passes between its creation and its
// lock.
const leftoverAge = time.Minute

// RemoveLeftovers removes the temporary files that killed runs have left in a
// folder, and returns their bytes. A file belongs to a run that is alive as
// long as that holds a lock on it; where the file system has no locks nothing
// is removed. A folder that is not there has no leftovers.
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
			continue // it is gone, or somebody else's
		}
		if claim(f) && os.Remove(path) == nil {
			bytes += info.Size()
		}
		f.Close()
	}
	return bytes, nil
}
