package store

import (
	"errors"
	"io/fs"
)

// UpdateManifest puts an entry into the manifest of a folder, which has to
// exist, and keeps what is there: two runs that write to one folder at the
// same time do not lose each other's entries, as far as the file system can
// lock a folder.
func UpdateManifest(dir string, e Entry) error {
	unlock := lockFolder(dir)
	defer unlock()
	m, err := ReadManifest(dir)
	if errors.Is(err, fs.ErrNotExist) {
		m, err = &Manifest{}, nil
	}
	if err != nil {
		return err
	}
	m.Put(e)
	return m.Write(dir)
}
