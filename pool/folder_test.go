package pool

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"seqembed/kernels"
)

// removeAll removes a folder. It tries again until it succeeds, because a run may still create files in the folder.
func removeAll(dir string) error {
	for os.RemoveAll(dir) != nil {
	}
	return nil
}

// TestOutputFolderGone checks that the loss of the output folder ends the run with one error. No file may count as
// failed, and nothing may be written elsewhere.
func TestOutputFolderGone(t *testing.T) {
	for name, lose := range map[string]func(dir string) error{
		"removed": removeAll,
		"emptied": func(dir string) error {
			files, err := filepath.Glob(filepath.Join(dir, "*"))
			for _, file := range files {
				os.Remove(file) // fails if the run has just renamed the file
			}
			return err
		},
		"remade": func(dir string) error { removeAll(dir); return os.Mkdir(dir, 0o777) },
		"moved":  func(dir string) error { return os.Rename(dir, dir+".moved") },
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			b.addFiles(12)
			b.fake.fault = func(kernels.Batch) error {
				if b.fake.calls.Load() == 5 {
					return lose(b.out)
				}
				return nil
			}
			s, err := b.job.Run(t.Context())
			if !errors.Is(err, ErrFolderGone) || !errors.Is(err, ErrOutput) || len(s.Failed) != 0 || len(s.Files) > 4 {
				t.Errorf("%d finished, failed %v: %v", len(s.Files), s.Failed, err)
			}
			if calls := b.fake.calls.Load(); calls == 12 {
				t.Errorf("all batches were computed")
			}
			switch names := b.names(); {
			// The run may have created the manifest in a folder that was made anew.
			case name == "emptied", name == "remade" && slices.Equal(names, outputsOf()):
			case len(names) > 0:
				t.Errorf("%q were written elsewhere", names)
			}
			if _, err := os.Stat(b.out); (err == nil) != (name == "remade" || name == "emptied") {
				t.Errorf("the folder exists: %v", err)
			}
		})
	}
}
