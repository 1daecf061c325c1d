package store

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"

	"seqembed/internal/flock"
)

// leftoverName matches the names of temporary files, and of the files by which runs claim a folder (see claimPrefix). A
// run locks these files, and renames or removes them before it ends. Earlier versions of the program left files with
// the name .probe-N.
var leftoverName = regexp.MustCompile(`^\.((.+\.tmp|run)-[0-9a-f]{16}|probe-[0-9]+)$`)

// RemoveLeftovers removes the temporary files of killed runs from folder dir and returns their total size in bytes. It
// keeps locked files, because their run is still alive. On a file system without locks it removes nothing. A missing
// folder is not an error.
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
			continue // the file has just been removed, or belongs to another user
		}
		if info, err := f.Stat(); err == nil && flock.Try(f, true) == nil {
			folder, _, _ := Size(path + folderSuffix) // 0 for a temporary file without a folder
			if os.RemoveAll(path+folderSuffix) == nil && os.Remove(path) == nil {
				bytes += info.Size() + folder
			}
		}
		f.Close()
	}
	return bytes, nil
}
