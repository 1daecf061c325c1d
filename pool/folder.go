package pool

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"seqembed/internal/store"
)

// ErrFolderGone is wrapped, together with ErrOutput, by the error of a run that has lost its output folder. Files that
// could not be written for this reason do not count as failed.
var ErrFolderGone = errors.New("it, or files in it, were removed, moved or replaced during the run")

// folder is the output folder of a run. The folder and the manifest of outputs in it are kept open. Otherwise the
// system could give their identity (device and inode), by which gone recognizes them, to a new file.
type folder struct {
	dir            string
	self, manifest *os.File // the open folder and manifest; manifest is nil until the file exists
}

func openFolder(dir string) (*folder, error) {
	self, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("%w %s: %w", ErrOutput, dir, err)
	}
	f := &folder{dir: dir, self: self}
	f.openManifest()
	return f, nil
}

// openManifest opens the manifest if it exists and is not open yet.
func (f *folder) openManifest() {
	if f.manifest == nil {
		f.manifest, _ = os.Open(filepath.Join(f.dir, store.ManifestName)) // nil if the manifest does not exist
	}
}

func (f *folder) close() {
	f.self.Close()
	f.manifest.Close() // if manifest is nil, this only returns an error
}

// make creates the folder of an output inside f. The argument below is the path of that folder relative to f. If f
// itself is gone, make fails and does not create f again, because the new folder would have the outputs of the rest of
// the run, but not the manifest of the earlier ones.
func (f *folder) make(below string) error {
	dir := f.dir
	for name := range strings.SplitSeq(below, string(filepath.Separator)) {
		dir = filepath.Join(dir, name)
		if err := os.Mkdir(dir, 0o777); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	return nil
}

// gone reports whether the folder or its manifest is no longer at its path.
func (f *folder) gone() bool {
	lost := func(held *os.File, path string) bool {
		had, err := held.Stat()
		if err != nil {
			return false // held is nil, or its state is unknown
		}
		now, err := os.Stat(path)
		return errors.Is(err, fs.ErrNotExist) || err == nil && !os.SameFile(had, now)
	}
	return lost(f.self, f.dir) || lost(f.manifest, filepath.Join(f.dir, store.ManifestName))
}

// checkFolder ends the run with an ErrFolderGone in two cases: if its output folder or the manifest in it is gone, or
// if err is an error in writing an output and says that a file or folder does not exist. Otherwise it returns err.
func (r *run) checkFolder(err error) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	output := (*outputError)(nil)
	if !r.folder.gone() && !(errors.As(err, &output) && errors.Is(err, fs.ErrNotExist)) {
		return err
	}
	gone := fmt.Errorf("%w %s: %w", ErrOutput, r.Output.Dir, ErrFolderGone)
	r.stop(gone)
	return gone
}

// create returns a writer for an output, and creates the folder of the output inside the output folder. If the output
// folder itself is gone, create ends the run.
func (r *run) create(s store.Spec) (store.Writer, error) {
	if err := r.checkFolder(nil); err != nil {
		return nil, err
	}
	below, err := filepath.Rel(r.Output.Dir, s.Dir)
	if err == nil {
		err = r.folder.make(below)
	}
	if r.Force {
		r.mu.Lock()
		s.Replaces = r.manifest.Replaced(s.Paths())
		r.mu.Unlock()
	}
	var out store.Writer
	if err == nil {
		out, err = store.Create(s)
	}
	if err != nil {
		return nil, &outputError{err}
	}
	return out, nil
}
