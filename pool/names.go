package pool

import (
	"context"
	"path/filepath"
	"slices"

	"seqembed/internal/store"
)

// keepNames lets files keep the names that an earlier run gave to their outputs. The name of an output may depend on
// the other inputs of the run (see seqio.TellApart). So a run with fewer or more inputs might choose another name and
// compute the output again. keepNames looks for an earlier name if neither the manifest nor the folder has an output
// under the name that this run has chosen. It also looks for one if the output under that name is of another input, and
// the manifest may have an output of this input: one of an input with the same path or of the same size.
func (j *Job) keepNames(ctx context.Context, m *store.Manifest) {
	made := map[string]bool{}   // file names of all outputs in the manifest, whatever their folder
	inputs := map[string]bool{} // absolute paths of the inputs of all outputs in the manifest
	sizes := map[int64]bool{}   // sizes of these inputs
	for path := range m.Outputs() {
		made[filepath.Base(path)] = true
		entry, _, _ := m.Find(path)
		inputs[entry.Input.Absolute], sizes[entry.Input.Size] = true, true
	}
	taken := map[string]bool{}
	for _, f := range j.Files {
		taken[j.Output.Main(f)] = true
	}
	j.Files = slices.Clone(j.Files)
	for i, f := range j.Files {
		entry, _, known := m.Find(j.Output.Main(f))
		input := store.ValidText(absolute(f.Path))
		switch {
		case f.once(), !known && len(j.Output.existing(f)) > 0:
			continue
		case known && (entry.Input.Absolute == input || !inputs[input] && !sizes[f.Size] || madeFrom(ctx, f, entry)):
			continue
		}
		for _, f.Name = range f.Names() {
			if !made[filepath.Base(j.Output.Main(f))] {
				continue
			}
			for _, f.Dir = range f.Dirs() {
				path := j.Output.Main(f)
				if entry, _, ok := m.Find(path); ok && !taken[path] && len(j.Output.existing(f)) > 0 && madeFrom(ctx, f, entry) {
					taken[path], j.Files[i].Input = true, f.Input
				}
			}
		}
	}
}

// Main returns the path of the main file of the output for f: the file with the embeddings. Job.Check and Job.Run may
// change the names in Job.Files, and so this path.
func (o Output) Main(f File) string { return o.spec(f).Paths()[0] }

// madeFrom reports whether the output with the given manifest entry was made from the file f, even if the content of f
// has changed since. It also returns true if the output was made from a file with the same content at another path.
func madeFrom(ctx context.Context, f File, entry store.Entry) bool {
	if absolute, err := filepath.Abs(f.Path); err == nil && store.ValidText(absolute) == entry.Input.Absolute {
		return true
	}
	same, err := sameInput(ctx, f, entry)
	return same && err == nil
}
