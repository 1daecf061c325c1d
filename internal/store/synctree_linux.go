package store

import (
	"os"

	"golang.org/x/sys/unix"
)

// syncTree writes the files of a folder to the disk by syncing their file system, which takes one call for any number
// of files.
func syncTree(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return unix.Syncfs(int(d.Fd()))
}
