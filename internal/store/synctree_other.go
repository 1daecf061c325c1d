//go:build !linux

package store

import (
	"errors"
	"os"
	"path/filepath"
)

// syncTree writes the files of a folder to the disk, one after the other.
func syncTree(dir string) error {
	list, err := os.ReadDir(dir)
	for _, entry := range list {
		f, opened := os.OpenFile(filepath.Join(dir, entry.Name()), os.O_RDWR, 0)
		if opened != nil {
			return errors.Join(err, opened)
		}
		err = errors.Join(err, f.Sync(), f.Close())
	}
	return err
}
