package pool

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"seqembed/internal/store"
)

// Output describes the outputs of a job.
type Output struct {
	Dir      string
	Label    string // label of the model in file names
	Format   store.Format
	Kind     store.Kind
	Dim      int
	Columns  []store.Column
	DType    store.DType       // type of the values
	Windows  bool              // one row for each window
	Compress bool              // compresses Parquet
	Matrix   bool              // makes the format H5 write one array of all records, see store.Spec
	Meta     map[string]string // metadata that the output files themselves contain
	Shard    string            // name of the shard, such as 3-of-8, or ""; set by Job.Divide
	Template store.Entry       // entry for the manifest, without the fields that differ between files
}

// ErrMixture is wrapped by the error of a run that finds an existing output which it must not replace: one that was
// made with other settings or from another content of the input, that the manifest does not list, or that was made from
// an input that can be read only once. With Job.Force the run replaces such an output. A missing output, and an output
// that differs from its entry in the manifest, count as incomplete and are computed again. A single file of a run fails
// with ErrMixture if another run has meanwhile written its output with other settings or from other content.
var ErrMixture = errors.New("the output folder holds other results")

// Folder returns the folder, in the output folder out, for the outputs of an input. dir is the Dir of the input (see
// seqio.Input).
func Folder(out, dir string) string {
	names := strings.Split(dir, "/")
	for i, name := range names {
		// The manifest decodes a name in Latin-1 to UTF-8. So without escaping, a folder with such a name would share
		// entries with the folder that has the same name in UTF-8. A % is escaped, too, because it marks the escaped
		// bytes.
		if !utf8.ValidString(name) || strings.Contains(name, "%") {
			names[i] = store.EscapeName(name)
		}
	}
	return filepath.Join(append([]string{out}, names...)...)
}

func (o Output) spec(f File) store.Spec {
	return store.Spec{Dir: Folder(o.Dir, f.Dir), Base: f.Name, Model: o.Label, Kind: o.Kind,
		Format: o.Format, Dim: o.Dim, Columns: o.Columns, DType: o.DType, Windows: o.Windows, Compress: o.Compress, Matrix: o.Matrix, Meta: o.Meta, Shard: o.Shard}
}

// Check returns the error that Run would return because the manifest is not usable, or because an existing output was
// made with other settings or is not in the manifest. With Job.Force it returns nil. It reads the content of an input
// only to find out whether an earlier output was made from the same file at another path.
func (j *Job) Check(ctx context.Context) error {
	if j.Force {
		return nil
	}
	return j.check(ctx)
}

// check reads the manifest, or the lines that have been added since it was last read. Then it returns an error if the
// existing outputs do not match the job; see Check.
func (j *Job) check(ctx context.Context) (err error) {
	if j.manifest == nil {
		j.manifest, err = store.ReadManifest(j.Output.Dir)
	} else {
		err = j.manifest.Update()
	}
	if err != nil {
		return err
	}
	if j.plan == nil { // a shard must use the names in its plan, which all shards share
		j.keepNames(ctx, j.manifest)
	}
	if j.Force {
		return nil
	}
	if err := j.checkPlan(); err != nil {
		return err
	}
	return j.refuseMixture(j.manifest)
}

// refuseMixture returns an ErrMixture if an output of this job already exists and has no entry in the manifest, was
// made with other settings, or belongs to an input that can be read only once.
func (j *Job) refuseMixture(m *store.Manifest) error {
	for _, f := range j.Files {
		for _, path := range slices.Concat(j.Output.existing(f), existing(m.Replaced(j.Output.spec(f).Paths()))) {
			entry, _, ok := m.Find(path)
			if !ok { // another run may have just added the entry and written the output
				if err := m.Update(); err != nil {
					return err
				}
				entry, _, ok = m.Find(path)
			}
			switch {
			case !ok:
				return fmt.Errorf("%s exists but has no entry in %s: %w", path, store.ManifestName, ErrMixture)
			case f.once():
				return fmt.Errorf("%s exists, and %s cannot be compared with the input that it was made from: %w", path, f.label(), ErrMixture)
			}
			if d := difference(entry, j.template(f)); d != "" {
				return fmt.Errorf("%s was made with %s: %w", path, d, ErrMixture)
			}
		}
	}
	return nil
}

// existing returns the paths of the file's outputs that exist.
func (o Output) existing(f File) []string { return existing(o.spec(f).Paths()) }

// existing returns the paths at which there is a file or folder.
func existing(paths []string) []string {
	return slices.DeleteFunc(paths, func(path string) bool {
		_, err := os.Lstat(path)
		return err != nil
	})
}

// difference describes the first setting in which an existing output, with the entry had, differs from the entry want.
// It returns "" if there is no difference.
func difference(had, want store.Entry) string {
	fields := []struct{ name, had, want string }{
		{"model", had.Model, store.ValidText(want.Model)},
		{"revision", had.Revision, want.Revision},
		{"checkpoint", had.CheckpointSHA256, want.CheckpointSHA256},
		{"tokenizer", had.TokenizerSHA256, want.TokenizerSHA256},
		{"dtype", had.DType, want.DType},
		{"backend", had.Backend, want.Backend},
		{"numerics version", strconv.Itoa(had.NumericsVersion), strconv.Itoa(want.NumericsVersion)},
	}
	names := map[string]string{shardParameter: "", missingParameter: ""} // compared even if want lacks them
	maps.Copy(names, want.Parameters)
	for _, name := range slices.Sorted(maps.Keys(names)) {
		fields = append(fields, struct{ name, had, want string }{name, had.Parameters[name], want.Parameters[name]})
	}
	for _, f := range fields {
		if f.had != f.want {
			return fmt.Sprintf("%s %q, now %q", f.name, f.had, f.want)
		}
	}
	return ""
}

// skipFinished returns the files that must be computed. If the outputs of a file are complete, for the same input and
// settings, it reports the file as resumed.
func (r *run) skipFinished(ctx context.Context) ([]File, error) {
	var todo []File
	var resumed []string
	for _, f := range r.Files {
		if ctx.Err() != nil { // hashing existing outputs may take long
			return nil, ErrInterrupted
		}
		complete, err := r.complete(ctx, f)
		switch {
		case err != nil:
			return nil, err
		case complete:
			resumed = append(resumed, f.Path)
			store.RemoveParts(r.Output.Main(f)) // removes the log of a run that was killed right after the commit
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

// complete reports whether the file's outputs exist and match the manifest byte for byte. The settings need no
// comparison here: refuseMixture has compared them, or Force is set. If an output was made from another input, or from
// other content of this input, complete returns an ErrMixture. With Job.Force it returns false instead.
func (r *run) complete(ctx context.Context, f File) (bool, error) {
	if r.Force && !r.madeByForce(f) {
		return false, nil
	}
	existing := r.Output.existing(f)
	var made store.Source // input that the previous iteration compared
	for _, path := range existing {
		entry, _, ok := r.manifest.Find(path)
		switch {
		case !ok: // another run has just written the output
			return false, nil
		case entry.Input == made:
			continue
		}
		made = entry.Input
		same, err := sameInput(ctx, f, entry)
		if err != nil {
			return false, nil // the reader will report any error of the input
		}
		if !same && r.Force {
			return false, nil
		}
		if !same {
			if madeFrom(ctx, f, entry) {
				return false, fmt.Errorf("%s was made from another content of %s: %w", path, f.Path, ErrMixture)
			}
			return false, fmt.Errorf("%s was made from %s, not from %s: %w", path, entry.Input.Path, f.Path, ErrMixture)
		}
	}
	if len(existing) < len(r.Output.spec(f).Paths()) {
		return false, nil
	}
	for _, path := range existing {
		_, o, _ := r.manifest.Find(path)
		if same, err := isSame(ctx, path, o.Size, o.SHA256); err != nil || !same {
			return false, nil
		}
	}
	return true, nil
}

// coarseClock is the coarsest resolution of modification times in common file systems. If a file is read within this
// time after a modification, a later modification may have the same time as the first.
const coarseClock = 2 * time.Second

// sameInput reports whether an input is the one from which an output was made: it has the same path, size and
// modification time, or the same content. It does not rely on a modification time shortly before the output was begun
// (see coarseClock).
func sameInput(ctx context.Context, f File, entry store.Entry) (bool, error) {
	had := entry.Input
	now, err := Identify(f.Path)
	if err != nil || now.Size != had.Size {
		return false, err
	}
	if now.Absolute != "" && now.Absolute == had.Absolute && now.Modified.Equal(had.Modified) && entry.Started.Sub(had.Modified) > coarseClock {
		return true, nil
	}
	return f.same(ctx, had.Size, had.SHA256)
}

// Identify returns the Source of an input file without reading its content.
func Identify(path string) (store.Source, error) {
	s := store.Source{Path: path}
	info, err := os.Stat(path)
	if err != nil {
		return s, err
	}
	s.Absolute, _ = filepath.Abs(path) // empty if there is no working directory; then sameInput compares the content
	s.Size, s.Modified = info.Size(), info.ModTime()
	return s, nil
}

// ErrChanged is wrapped by the error of a file that was written to, replaced or removed after it was planned and before
// it was read to its end.
var ErrChanged = errors.New("the input changed while it was read; run again when it is complete")

// changed returns an ErrChanged if the file has changed since just before it was opened for reading.
func (f *fileJob) changed() error {
	if f.once() {
		return nil
	}
	if now, err := Identify(f.Path); err == nil && now.SameState(f.source) {
		return nil
	}
	return fmt.Errorf("%s: %w", f.label(), ErrChanged)
}

// isSame reports whether a file, or a folder, has the given size and SHA-256.
func isSame(ctx context.Context, path string, size int64, sum string) (bool, error) {
	if now, _, err := store.Size(path); err != nil || now != size {
		return false, err
	}
	got, err := store.HashFile(ctx, path)
	return got == sum, err
}

// meanwhile returns an ErrMixture for an output that another run has written since this one began. d describes how the
// settings or the input of that output differ. If d is empty, meanwhile returns nil.
func meanwhile(other store.Entry, d string) error {
	if d == "" {
		return nil
	}
	return fmt.Errorf("another run has written %s in the meantime, with %s: %w", other.Outputs[0].Path, d, ErrMixture)
}

// appendEntry appends an entry to the manifest. Without Job.Force, it fails if another process has added an entry with
// other settings or other input content for the same output since this run began.
func (r *run) appendEntry(entry store.Entry) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	err := r.manifest.Append(r.ctx, entry, func(other store.Entry) error {
		if r.Force {
			return nil
		}
		d := difference(other, entry)
		if d == "" && other.Input.SHA256 != entry.Input.SHA256 {
			d = "another content of " + entry.Input.Path
		}
		return meanwhile(other, d)
	})
	switch {
	case err == nil:
		r.folder.openManifest()
		return nil
	case errors.Is(err, store.ErrLocked): // another process held the lock until the run ended
		return ErrInterrupted
	}
	return &outputError{err}
}
