package pool

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

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
	Template store.Entry       // what the manifest says of every file of this job, but for its device
}

// ErrMixture is in the chain of the error of a run whose output folder holds
// what does not match: an output that this run would replace, made with other
// settings, from another content of the input, or by nobody knows whom. Only
// Job.Force replaces it. An output that is gone, or is not what its entry in
// the manifest says, is merely incomplete, and is made again.
var ErrMixture = errors.New("the output folder holds other results")

// ErrOutput is in the chain of the error of a run whose output folder cannot
// be created or written to.
var ErrOutput = errors.New("cannot write to the output folder")

func (o Output) spec(f File) store.Spec {
	return store.Spec{Dir: filepath.Join(o.Dir, filepath.FromSlash(f.Dir)), Base: f.Name, Model: o.Label, Kind: o.Kind,
		Format: o.Format, Dim: o.Dim, Layers: o.Layers, PerToken: o.PerToken, Meta: o.Meta}
}

func (o Output) readManifest() (*store.Manifest, error) {
	m, err := store.ReadManifest(o.Dir)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return &store.Manifest{}, nil
	}
	return m, err
}

// prepare creates the output folder and tries whether it can be written to,
// so that this is one error at the beginning and not one for every file.
func (o Output) prepare() error {
	err := os.MkdirAll(o.Dir, 0o777)
	if err == nil {
		var probe *os.File
		if probe, err = os.CreateTemp(o.Dir, ".probe-*"); err == nil {
			err = errors.Join(probe.Close(), os.Remove(probe.Name()))
		}
	}
	if path := (*fs.PathError)(nil); errors.As(err, &path) {
		err = path.Err
	}
	if err != nil {
		return fmt.Errorf("%w %s: %w", ErrOutput, o.Dir, err)
	}
	return nil
}

// tidy removes what killed runs have left where these files go. That is no
// part of the work: what cannot be removed stays.
func (o Output) tidy(files []File) {
	seen := map[string]bool{}
	for _, f := range files {
		if dir := o.spec(f).Dir; !seen[dir] {
			seen[dir] = true
			_, _ = store.RemoveLeftovers(dir)
		}
	}
	_, _ = store.RemoveLeftovers(o.Dir) // the manifest's
}

// compact leaves one manifest of everything in the folder.
func (o Output) compact() error {
	if err := store.CompactManifest(o.Dir); err != nil {
		return fmt.Errorf("%w %s: %w", ErrOutput, o.Dir, err)
	}
	return nil
}

// Check returns the error with which Run would refuse the output folder
// because of its manifest or of other settings. It reads no input.
func (j *Job) Check() error {
	manifest, err := j.Output.readManifest()
	if err != nil {
		return err
	}
	return j.refuseMixture(manifest)
}

// refuseMixture returns an error when an output that this job would write is
// there already and was made with other settings, or by nobody knows whom.
func (j *Job) refuseMixture(manifest *store.Manifest) error {
	if j.Force {
		return nil
	}
	for _, f := range j.Files {
		path := j.Output.firstThere(f)
		if path == "" {
			continue
		}
		entry, ok := manifest.Find(f.Path, j.Output.Template.Model)
		switch {
		case !ok:
			return fmt.Errorf("%s is there, and no entry of manifest.json describes it for %s: %w; --force replaces it", path, f.label(), ErrMixture)
		case f.once():
			return fmt.Errorf("%s is there, and %s cannot be compared with what it was made from: %w; --force replaces it", path, f.label(), ErrMixture)
		}
		if what := j.difference(entry); what != "" {
			return fmt.Errorf("%s was made with %s: %w; --force replaces it, --out takes another folder", path, what, ErrMixture)
		}
	}
	return nil
}

// firstThere is the first of the file's outputs that exists, or empty.
func (o Output) firstThere(f File) string {
	for _, path := range o.spec(f).Paths() {
		if _, err := os.Lstat(path); err == nil {
			return path
		}
	}
	return ""
}

// difference names the first setting in which a finished output differs from
// what would be made now, or is empty.
func (j *Job) difference(had store.Entry) string {
	want := j.Output.Template
	var backends []string
	for _, d := range j.Devices {
		backends = append(backends, d.Backend)
	}
	if want.Backend = had.Backend; !slices.Contains(backends, had.Backend) {
		want.Backend = strings.Join(slices.Compact(backends), " or ")
	}
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
func (r *run) skipFinished(ctx context.Context) ([]File, error) {
	var todo []File
	var resumed []string
	for _, f := range r.Files {
		if ctx.Err() != nil { // hashing what is there can take long
			return nil, ErrInterrupted
		}
		complete, err := r.complete(f)
		switch {
		case err != nil:
			return nil, err
		case complete:
			resumed = append(resumed, f.Path)
		default:
			todo = append(todo, f)
		}
	}
	r.summary.Resumed = resumed
	for _, path := range resumed {
		r.Observer.FileSkipped(path)
	}
	return todo, nil
}

// complete reports whether the file's outputs are there as the manifest
// describes them, byte for byte. The settings match: refuseMixture has
// looked. An output from another content of the input is an ErrMixture.
func (r *run) complete(f File) (bool, error) {
	entry, ok := r.manifest.Find(f.Path, r.Output.Template.Model)
	there := r.Output.firstThere(f)
	if r.Force || !ok || there == "" {
		return false, nil
	}
	same, err := isSame(f.Path, entry.Input.Size, entry.Input.SHA256)
	if err != nil {
		return false, nil // embedding it reports what is wrong with the input
	}
	if !same {
		return false, fmt.Errorf("%s was made from another content of %s: %w; --force replaces it, or delete it", there, f.Path, ErrMixture)
	}
	paths := r.Output.spec(f).Paths()
	if len(paths) != len(entry.Outputs) {
		return false, nil
	}
	for i, o := range entry.Outputs {
		if same, err := isSame(o.Path, o.Size, o.SHA256); err != nil || !same || o.Path != paths[i] {
			return false, nil
		}
	}
	return true, nil
}

// isSame reports whether a file has that size and SHA-256.
func isSame(path string, size int64, sum string) (bool, error) {
	info, err := os.Stat(path)
	if err != nil || info.Size() != size {
		return false, err
	}
	got, _, err := seqio.HashFile(path)
	return got == sum, err
}
