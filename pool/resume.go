package pool

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"seqembed/internal/seqio"
	"seqembed/internal/store"
)

// Output says where results go and what describes them.
type Output struct {
	Dir      string
	Label    string // the model's part of a file name
	Format   store.Format
	Kind     store.Kind
	Dim      int
	Layers   []int
	PerToken bool
	Meta     map[string]string // for the files' own metadata
	Template store.Entry       // what the manifest says of every file of this job
}

// ErrMixture is in the chain of the error of a run whose output folder holds
// results of other settings.
var ErrMixture = errors.New("the output folder holds other results")

func (o Output) spec(f File) store.Spec {
	return store.Spec{Dir: filepath.Join(o.Dir, filepath.FromSlash(f.Dir)), Base: f.Name, Model: o.Label, Kind: o.Kind,
		Format: o.Format, Dim: o.Dim, Layers: o.Layers, PerToken: o.PerToken, Meta: o.Meta}
}

func (o Output) readManifest() (*store.Manifest, error) {
	m, err := store.ReadManifest(o.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return &store.Manifest{}, nil
	}
	return m, err
}

// refuseMixture returns an error when an output that this job would write is
// there already and was made with other settings, or by nobody knows whom.
func (r *run) refuseMixture() error {
	if r.Force {
		return nil
	}
	for _, f := range r.Files {
		path := r.Output.spec(f).Paths()[0]
		if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		entry, ok := r.manifest.Find(f.Path, r.Output.Template.Model)
		switch {
		case !ok:
			return fmt.Errorf("%s is there, and no entry of manifest.json describes it for %s: %w; --force replaces it", path, f.Path, ErrMixture)
		case f.Path == "-":
			return fmt.Errorf("%s is there, and standard input cannot be compared with what it was made from: %w; --force replaces it", path, ErrMixture)
		}
		if what := difference(entry, r.Output.Template); what != "" {
			return fmt.Errorf("%s was made with %s: %w; --force replaces it, --out takes another folder", path, what, ErrMixture)
		}
	}
	return nil
}

// difference names the first setting in which a finished output differs from
// what would be made now, or is empty.
func difference(had, want store.Entry) string {
	fields := []struct{ name, had, want string }{
		{"revision", had.Revision, want.Revision},
		{"checkpoint", had.CheckpointSHA256, want.CheckpointSHA256},
		{"tokenizer", had.TokenizerSHA256, want.TokenizerSHA256},
		{"dtype", had.DType, want.DType},
		{"backend", had.Backend, want.Backend},
	}
	for _, name := range slices.Sorted(maps.Keys(want.Parameters)) {
		fields = append(fields, struct{ name, had, want string }{name, had.Parameters[name], want.Parameters[name]})
	}
	for _, f := range fields {
		if f.had != f.want {
			return fmt.Sprintf("%s %q, now %q", f.name, f.had, f.want)
		}
	}
	return ""
}

// skipFinished returns the files that are left to do. Those whose output is
// complete, from the same input and settings, are reported as resumed.
func (r *run) skipFinished() []File {
	var todo []File
	for _, f := range r.Files {
		entry, ok := r.manifest.Find(f.Path, r.Output.Template.Model)
		if r.Force || !ok || !r.complete(f, entry) {
			todo = append(todo, f)
			continue
		}
		r.summary.Resumed = append(r.summary.Resumed, f.Path)
		r.Observer.FileSkipped(f.Path)
	}
	return todo
}

// complete reports whether the input is the one that the entry describes and
// its outputs are there, byte for byte.
func (r *run) complete(f File, entry store.Entry) bool {
	if f.Path == "-" || difference(entry, r.Output.Template) != "" {
		return false
	}
	if !same(f.Path, entry.Input.Size, entry.Input.SHA256) {
		return false
	}
	paths := r.Output.spec(f).Paths()
	if len(paths) != len(entry.Outputs) {
		return false
	}
	for i, o := range entry.Outputs {
		if o.Path != paths[i] || !same(o.Path, o.Size, o.SHA256) {
			return false
		}
	}
	return true
}

func same(path string, size int64, sum string) bool {
	if info, err := os.Stat(path); err != nil || info.Size() != size {
		return false
	}
	got, _, err := seqio.HashFile(path)
	return err == nil && got == sum
}
