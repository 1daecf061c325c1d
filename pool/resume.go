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
	"time"
	"unicode/utf8"

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

// ErrMixture is in the chain of the error of a run whose output folder holds what does not match: an output that this
// run would replace, made with other settings, from another content of the input, or not listed in the manifest. Only
// Job.Force replaces it. An output that is gone, or is not what its entry in the manifest says, is merely incomplete,
// and is made again. A file of a run fails with it when another run has made its output meanwhile.
var ErrMixture = errors.New("the output folder holds other results")

// ErrOutput is in the chain of the error of a run whose output folder cannot be created or written to.
var ErrOutput = errors.New("cannot write to the output folder")

func (o Output) spec(f File) store.Spec {
	dir := strings.Split(f.Dir, "/")
	for i, name := range dir {
		// The manifest holds only UTF-8: a folder named in Latin-1 must not share entries with the same name in UTF-8.
		if !utf8.ValidString(name) || strings.Contains(name, "%") {
			dir[i] = store.EscapeName(name)
		}
	}
	return store.Spec{Dir: filepath.Join(append([]string{o.Dir}, dir...)...), Base: f.Name, Model: o.Label, Kind: o.Kind,
		Format: o.Format, Dim: o.Dim, Layers: o.Layers, PerToken: o.PerToken, Meta: o.Meta}
}

// prepare creates the output folder and tries whether it can be written to, so that this is one error at the beginning
// and not one for every file.
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

// tidy removes what killed runs have left in the output folder and where these files go. That is no part of the work:
// what cannot be removed stays.
func (o Output) tidy(files []File) {
	seen := map[string]bool{o.Dir: true}
	_, _ = store.RemoveLeftovers(o.Dir)
	for _, f := range files {
		if dir := o.spec(f).Dir; !seen[dir] {
			seen[dir] = true
			_, _ = store.RemoveLeftovers(dir)
		}
	}
}

// Check returns the error with which Run would refuse the output folder because of its manifest or of other settings.
// It reads no input.
func (j *Job) Check() error {
	_, err := j.check()
	return err
}

// check does so and returns the manifest, which Force replaces.
func (j *Job) check() (*store.Manifest, error) {
	if j.Force {
		return store.NewManifest(j.Output.Dir), nil
	}
	if j.manifest == nil {
		m, err := store.ReadManifest(j.Output.Dir)
		if err != nil {
			return nil, err
		}
		j.manifest = m
	} else if err := j.manifest.Update(); err != nil {
		return nil, err
	}
	return j.manifest, j.refuseMixture(j.manifest)
}

// refuseMixture returns an error when an output that this job would write is there already and was made with other
// settings, or has no entry.
func (j *Job) refuseMixture(m *store.Manifest) error {
	for _, f := range j.Files {
		for _, path := range j.Output.there(f) {
			entry, _, ok := m.Find(path)
			if !ok { // another run may just have made it, and announced it before
				if err := m.Update(); err != nil {
					return err
				}
				entry, _, ok = m.Find(path)
			}
			switch {
			case !ok:
				return fmt.Errorf("%s is there, and no entry of %s describes it: %w", path, store.ManifestName, ErrMixture)
			case f.once():
				return fmt.Errorf("%s is there, and %s cannot be compared with what it was made from: %w", path, f.label(), ErrMixture)
			}
			if what := j.difference(entry); what != "" {
				return fmt.Errorf("%s was made with %s: %w", path, what, ErrMixture)
			}
		}
	}
	return nil
}

// there lists those of the file's outputs that exist.
func (o Output) there(f File) []string {
	return slices.DeleteFunc(o.spec(f).Paths(), func(path string) bool {
		_, err := os.Lstat(path)
		return err != nil
	})
}

// difference names the first setting in which a finished output differs from what would be made now, or is empty.
func (j *Job) difference(had store.Entry) string {
	want := j.Output.Template
	fields := []struct{ name, had, want string }{
		{"model", had.Model, store.ValidText(want.Model)},
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

// skipFinished returns the files that are left to do. Those whose output is complete, from the same input and settings,
// are reported as resumed.
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

// complete reports whether the file's outputs are there as the manifest describes them, byte for byte. The settings
// match: refuseMixture has looked. An output from another content of the input is an ErrMixture.
func (r *run) complete(f File) (bool, error) {
	there := r.Output.there(f)
	var made store.Source // that of the output before
	for _, path := range there {
		entry, _, ok := r.manifest.Find(path)
		switch {
		case !ok: // with Force, or where another run has just made it
			return false, nil
		case entry.Input == made:
			continue
		}
		made = entry.Input
		same, err := sameInput(f.Path, entry)
		if err != nil {
			return false, nil // embedding it reports what is wrong with the input
		}
		if !same {
			return false, fmt.Errorf("%s was made from another content of %s: %w", path, f.Path, ErrMixture)
		}
	}
	if len(there) < len(r.Output.spec(f).Paths()) {
		return false, nil
	}
	for _, path := range there {
		_, o, _ := r.manifest.Find(path)
		if same, err := isSame(path, o.Size, o.SHA256); err != nil || !same {
			return false, nil
		}
	}
	return true, nil
}

// coarseClock is the coarsest that file systems keep times. What was modified so shortly before it was read may have
// been modified since, unseen.
const coarseClock = 2 * time.Second

// sameInput reports whether an input is what an output was made from: the file of that place, size and time, or one of
// the same content.
func sameInput(path string, entry store.Entry) (bool, error) {
	had := entry.Input
	now, err := identify(path)
	if err != nil || now.Size != had.Size {
		return false, err
	}
	if now.Absolute != "" && now.Absolute == had.Absolute && now.Modified.Equal(had.Modified) && entry.Started.Sub(had.Modified) > coarseClock {
		return true, nil
	}
	return isSame(path, had.Size, had.SHA256)
}

// identify describes an input file as far as that is possible without reading it.
func identify(path string) (store.Source, error) {
	s := store.Source{Path: path}
	info, err := os.Stat(path)
	if err != nil {
		return s, err
	}
	s.Absolute, _ = filepath.Abs(path) // without a working folder it is empty, and the content is compared
	s.Size, s.Modified = info.Size(), info.ModTime()
	return s, nil
}

// ErrChanged is the error of a file that was written to, replaced or removed while it was read.
var ErrChanged = errors.New("the input changed while it was read; run again when it is complete")

// changed returns an ErrChanged when the file is not as it was before it was read.
func (f *fileJob) changed() error {
	if f.once() {
		return nil
	}
	if now, err := identify(f.Path); err == nil && now.Size == f.source.Size && now.Modified.Equal(f.source.Modified) {
		return nil
	}
	return fmt.Errorf("%s: %w", f.label(), ErrChanged)
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
