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

	"seqembed/internal/seqio"
	"seqembed/internal/store"
)

// Merge joins the shards (see Shard) in several folders to the outputs that a single run would have written, byte for
// byte.
type Merge struct {
	Dirs         []string // folders with shards; a folder may have several shards
	Out          string   // folder for the outputs
	AllowMissing bool     // joins the shards that are there, even if others are missing
	Duplicates   string   // policy for a repeated id: error or suffix; "" means the policy of the shards
	Force        bool     // replaces outputs that were made with other settings or from another input
	Command      string   // command line of this run; other runs show it in their ErrInUse

	plans    map[string]*foundPlan // plans of the shards (see PlanPrefix), by the names of the plan files
	absent   []Failure             // outputs of which there is no shard
	manifest *store.Manifest       // manifest of the folder Out
}

// Merged is an output that was joined.
type Merged struct {
	Path    string
	Records int64
	Resumed bool     // the output was complete before
	Missing []string // shards that are missing, such as 3-of-8; nil unless Merge.AllowMissing is set
}

// ErrShardMissing is wrapped by the error for shards that are missing or not complete.
var ErrShardMissing = errors.New("shards are missing")

// ErrShardsDiffer is wrapped by the error for shards that cannot be joined, because they were made from other inputs or
// with other settings.
var ErrShardsDiffer = errors.New("the shards do not belong together")

// Names of parameters in the manifest. missing_shards contains the shards that an output lacks, and duplicates the
// policy for repeated ids.
const (
	missingParameter    = "missing_shards"
	duplicatesParameter = "duplicates"
)

// foundPlan is a plan of shards (see PlanPrefix) that was found in a folder, and the outputs to be joined.
type foundPlan struct {
	content []byte
	dir     string // the first folder in which the plan was found
	shardPlan
	outputs []*joinedOutput
}

// joinedOutput is an output that is joined from shards.
type joinedOutput struct {
	plannedOutput
	pieces  []piece // the shards that were found, in the order of the input
	missing []string
	want    store.Entry // manifest entry of the output, without the fields that are known only after writing
}

// piece is a shard of one output, which was found in a folder.
type piece struct {
	plannedPart
	entry store.Entry // the shard's entry in the manifest of the folder
	file  store.File
}

// Run joins the shards. Before it writes anything, it compares all shards and returns an ErrShardMissing or an
// ErrShardsDiffer if they cannot be joined. Run may also end with an ErrMixture, an ErrOutput, a store.ErrInUse, a
// store.ErrManifest or an ErrInterrupted. If a single output fails, for example because of a repeated id, Run lists it
// in failed and joins the other outputs.
func (m *Merge) Run(ctx context.Context) (done []Merged, failed []Failure, err error) {
	if err := m.find(); err != nil {
		return nil, nil, err
	}
	release, err := m.claim(ctx)
	if err != nil {
		return nil, nil, err
	}
	defer release()
	failed = m.absent
	for _, j := range m.found() {
		merged, err := m.join(ctx, j)
		switch {
		case ctx.Err() != nil:
			return done, failed, ErrInterrupted
		case errors.Is(err, ErrMixture), errors.Is(err, ErrOutput), errors.Is(err, store.ErrManifest):
			return done, failed, err
		case err != nil:
			failed = append(failed, NewFailure(j.want.Input.Path, err))
		default:
			done = append(done, merged)
		}
	}
	return done, failed, nil
}

// found returns, from all plans, the outputs of which at least one shard was found.
func (m *Merge) found() (list []*joinedOutput) {
	for _, name := range slices.Sorted(maps.Keys(m.plans)) {
		list = append(list, m.plans[name].outputs...)
	}
	return list
}

// find reads the plans and the manifests of the folders and compares the shards with each other.
func (m *Merge) find() error {
	m.plans = map[string]*foundPlan{}
	manifests := map[string]*store.Manifest{}
	for _, dir := range m.Dirs {
		paths, _ := fs.Glob(os.DirFS(dir), PlanPrefix+"*.json") // fails only for an invalid pattern
		switch info, err := os.Stat(dir); {
		case err == nil && !info.IsDir():
			return fmt.Errorf("%s is not a folder", dir)
		case errors.Is(err, fs.ErrNotExist) && !m.AllowMissing:
			return fmt.Errorf("%s does not exist: %w", dir, ErrShardMissing)
		case len(paths) == 0 && !m.AllowMissing:
			return fmt.Errorf("%s: no plan of shards (%s*.json): %w", dir, PlanPrefix, ErrShardMissing)
		}
		for _, name := range paths {
			if err := m.addPlan(dir, name); err != nil {
				return err
			}
		}
		var err error
		if manifests[dir], err = store.ReadManifest(dir); err != nil {
			return err
		}
	}
	if len(m.plans) == 0 {
		return errors.New("there is no shard in any folder")
	}
	var missing []string
	for _, name := range slices.Sorted(maps.Keys(m.plans)) {
		lost, err := m.findPieces(m.plans[name], manifests)
		if err != nil {
			return err
		}
		missing = append(missing, lost...)
	}
	if len(missing) > 0 && !m.AllowMissing {
		const most = 10
		more := ""
		if len(missing) > most {
			more = fmt.Sprintf(", and %d more", len(missing)-most)
		}
		return fmt.Errorf("%w, or not complete: %s%s", ErrShardMissing, strings.Join(missing[:min(most, len(missing))], ", "), more)
	}
	return nil
}

// addPlan reads the plan of shards in the file called name in the folder dir. If another folder has a file of this name
// with another content, addPlan returns an ErrShardsDiffer.
func (m *Merge) addPlan(dir, name string) error {
	content, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		return err
	}
	had, ok := m.plans[name]
	if ok && string(had.content) == string(content) {
		return nil
	}
	if ok {
		return fmt.Errorf("%w: those in %s and %s are of other inputs, or of another number of shards", ErrShardsDiffer, had.dir, dir)
	}
	p := &foundPlan{content: content, dir: dir}
	if err := p.parse(); err != nil {
		return fmt.Errorf("%s: %w", filepath.Join(dir, name), err)
	}
	m.plans[name] = p
	return nil
}

// findPieces finds the shards of a plan in the folders. missing names each shard that was not found, such as "3-of-8 of
// reads.esm2.parquet".
func (m *Merge) findPieces(p *foundPlan, manifests map[string]*store.Manifest) (missing []string, err error) {
	var settings *store.Entry // entry of the first shard, whose settings all other shards must have
	for _, output := range p.Outputs {
		j := &joinedOutput{plannedOutput: output}
		for _, part := range output.Parts {
			s := Shard{part.Shard, p.Shards}
			found, err := m.findPiece(output, part, s, manifests)
			if err != nil {
				return nil, err
			}
			if found == nil {
				j.missing = append(j.missing, s.String())
				missing = append(missing, fmt.Sprintf("%s of %s", s, output.Name))
				continue
			}
			if settings == nil {
				settings = &found.entry
			}
			want := *settings
			want.Parameters = with(want.Parameters, shardParameter, found.entry.Parameters[shardParameter])
			if d := difference(found.entry, want); d != "" {
				return nil, fmt.Errorf("%w: %s was made with %s (of %s)", ErrShardsDiffer, found.file.Path, d, settings.Outputs[0].Path)
			}
			j.pieces = append(j.pieces, *found)
		}
		if len(j.pieces) > 0 {
			if err := j.compareInputs(); err != nil {
				return nil, err
			}
			m.describe(j)
			p.outputs = append(p.outputs, j)
		} else {
			m.absent = append(m.absent, NewFailure(output.Name, fmt.Errorf("%s: all of its %w", output.Name, ErrShardMissing)))
		}
	}
	return missing, nil
}

// with returns a copy of parameters in which name has the value, or without name if value is empty.
func with(parameters map[string]string, name, value string) map[string]string {
	all := maps.Clone(parameters)
	if value == "" {
		delete(all, name)
		return all
	}
	if all == nil {
		all = map[string]string{}
	}
	all[name] = value
	return all
}

// findPiece looks in the folders for the shard s of an output. It returns the first complete shard that it finds, or
// nil.
func (m *Merge) findPiece(output plannedOutput, part plannedPart, s Shard, manifests map[string]*store.Manifest) (*piece, error) {
	for _, dir := range m.Dirs {
		path := filepath.Join(dir, filepath.FromSlash(output.Name)+store.ShardSuffix+s.String())
		entry, file, ok := manifests[dir].Find(path)
		if !ok || entry.Finished.IsZero() {
			continue
		}
		if size, _, err := store.Size(path); err != nil || size != file.Size {
			continue
		}
		if got, want := entry.Parameters[shardParameter], output.parameter(s, part); got != want {
			return nil, fmt.Errorf("%w: %s has shard %s, and the plan %s", ErrShardsDiffer, path, got, want)
		}
		return &piece{part, entry, file}, nil
	}
	return nil, nil
}

// compareInputs returns an ErrShardsDiffer unless all shards of an output were made from the same content of its input.
// It compares the sizes of the input in the manifest entries of the shards. Interleaved shards have read the whole
// input, so compareInputs also compares the digests. The entries of other shards have only the digests of parts, so it
// compares the modification times of the input instead.
func (j *joinedOutput) compareInputs() error {
	first := j.pieces[0]
	for _, p := range j.pieces {
		a, b := first.entry.Input, p.entry.Input
		if a.Size != b.Size || j.Interleaved && a.SHA256 != b.SHA256 {
			return fmt.Errorf("%w: %s and %s were made from another content of %s", ErrShardsDiffer, first.file.Path, p.file.Path, b.Path)
		}
		if !j.Interleaved && !a.Modified.Equal(b.Modified) {
			return fmt.Errorf("%w: %s was modified at %s for %s and at %s for %s; a copy of an input must keep its time (cp -p)",
				ErrShardsDiffer, b.Path, a.Modified.Format(time.RFC3339Nano), first.file.Path, b.Modified.Format(time.RFC3339Nano), p.file.Path)
		}
	}
	return nil
}

// describe sets j.want, the manifest entry of a joined output, as far as it is known before the output is written.
func (m *Merge) describe(j *joinedOutput) {
	e := j.pieces[0].entry
	e.Parameters = with(e.Parameters, shardParameter, "")
	e.Parameters = with(e.Parameters, missingParameter, strings.Join(j.missing, ", "))
	if m.Duplicates != "" {
		e.Parameters = with(e.Parameters, duplicatesParameter, m.Duplicates)
	}
	e.Records, e.Tokens, e.Truncated, e.Repeated, e.Overflows, e.Skipped = 0, 0, 0, 0, 0, map[string]int64{}
	e.Outputs, e.Finished = nil, time.Time{}
	var devices []string
	for _, p := range j.pieces {
		e.Records, e.Tokens, e.Truncated = e.Records+p.entry.Records, e.Tokens+p.entry.Tokens, e.Truncated+p.entry.Truncated
		e.Repeated, e.Overflows = e.Repeated+p.entry.Repeated, e.Overflows+p.entry.Overflows
		for reason, n := range p.entry.Skipped {
			e.Skipped[reason] += n
		}
		if p.entry.Started.Before(e.Started) {
			e.Started = p.entry.Started
		}
		if p.entry.Device != "" { // empty for a part without records
			devices = append(devices, strings.Split(p.entry.Device, ", ")...)
		}
	}
	slices.Sort(devices)
	e.Device = strings.Join(slices.Compact(devices), ", ")
	if !j.Interleaved && j.pieces[0].To-j.pieces[0].From < j.Size {
		e.Input.SHA256 = "" // the digest of a part, which hashInput replaces by that of the whole input
	}
	j.want = e
}

// claim registers the run in the output folder until release is called (see store.Claim), and reads the manifest of the
// folder. With Merge.Force it repairs a damaged manifest.
func (m *Merge) claim(ctx context.Context) (release func(), err error) {
	if err := os.MkdirAll(m.Out, 0o777); err != nil {
		return nil, outputFolderError(m.Out, err)
	}
	h := store.ThisProcess(m.Command)
	h.Outputs = map[string]store.Entry{}
	for _, p := range m.plans {
		if len(p.outputs) > 0 {
			h.Outputs[p.Kind] = p.outputs[0].want
		}
	}
	for _, j := range m.found() {
		// An error is ignored, because a leftover file does no harm.
		_, _ = store.RemoveLeftovers(filepath.Dir(filepath.Join(m.Out, filepath.FromSlash(j.Name))))
	}
	release, err = store.Claim(m.Out, h, func(other store.Holder) string {
		for kind, had := range other.Outputs {
			if want, ok := h.Outputs[kind]; ok {
				if d := difference(had, want); d != "" {
					return d
				}
			}
		}
		return ""
	})
	if err != nil {
		if !errors.Is(err, store.ErrInUse) {
			err = outputFolderError(m.Out, err)
		}
		return nil, err
	}
	if m.Force {
		m.manifest, err = store.ReadRepaired(ctx, m.Out, h)
	} else {
		m.manifest, err = store.ReadManifest(m.Out)
	}
	if err != nil {
		release()
		return nil, err
	}
	return release, nil
}

// join joins the shards of an output, unless the output is already complete.
func (m *Merge) join(ctx context.Context, j *joinedOutput) (Merged, error) {
	done := Merged{Records: j.want.Records, Missing: j.missing}
	first, err := store.OpenShard(j.pieces[0].file.Path)
	if err != nil {
		return done, err
	}
	first.Close()
	spec := first.Spec
	spec.Dir = filepath.Dir(filepath.Join(m.Out, filepath.FromSlash(j.Name)))
	done.Path = spec.Paths()[0]
	if done.Resumed, err = m.complete(ctx, j, spec.Paths()); done.Resumed || err != nil {
		return done, err
	}
	if err := m.hashInput(ctx, j); err != nil {
		return done, err
	}
	if err := os.MkdirAll(spec.Dir, 0o777); err != nil {
		return done, outputFolderError(m.Out, err)
	}
	if m.Force {
		spec.Replaces = m.manifest.Replaced(spec.Paths())
	}
	w, err := store.Create(spec)
	if err != nil {
		return done, outputFolderError(m.Out, err)
	}
	defer w.Abort()
	c := copier{ctx: ctx, out: w, header: first.Header, input: j.want.Input.Path, ids: seqio.NewIDs(j.policy()), last: -1}
	if err := c.copyAll(j); err != nil {
		return done, err
	}
	for _, path := range spec.Paths() {
		j.want.Outputs = append(j.want.Outputs, store.File{Path: path})
	}
	if err := m.record(ctx, j.want); err != nil {
		return done, err
	}
	if j.want.Outputs, err = w.Commit(); err != nil {
		return done, outputFolderError(m.Out, err)
	}
	j.want.Finished = time.Now()
	return done, m.record(ctx, j.want)
}

// policy returns the policy for a repeated id.
func (j *joinedOutput) policy() seqio.DuplicatePolicy {
	if j.want.Parameters[duplicatesParameter] == "suffix" {
		return seqio.DuplicateSuffix
	}
	return seqio.DuplicateError
}

// complete reports whether the files of an output exist and match the manifest. Without Merge.Force, it returns an
// ErrMixture if the files were made with other settings or from an input of another size or modification time, or if
// the manifest does not describe them.
func (m *Merge) complete(ctx context.Context, j *joinedOutput, paths []string) (bool, error) {
	orphans := existing(m.manifest.Replaced(paths))
	if len(orphans) > 0 && !m.Force {
		return false, fmt.Errorf("%s would lie beside the ids of another output: %w", orphans[0], ErrMixture)
	}
	complete := len(orphans) == 0
	for _, path := range paths {
		if _, err := os.Lstat(path); err != nil {
			complete = false
			continue
		}
		entry, file, ok := m.manifest.Find(path)
		d := ""
		switch {
		case m.Force && ok && difference(entry, j.want) != "", m.Force && !ok:
			complete = false
			continue
		case !ok:
			return false, fmt.Errorf("%s exists but has no entry in %s: %w", path, store.ManifestName, ErrMixture)
		case !entry.Input.SameState(j.want.Input):
			d = "another state of " + j.want.Input.Path
		default:
			d = difference(entry, j.want)
		}
		if d != "" && !m.Force {
			return false, fmt.Errorf("%s was made with %s: %w", path, d, ErrMixture)
		}
		same, err := isSame(ctx, path, file.Size, file.SHA256)
		complete = complete && d == "" && same && err == nil
	}
	return complete, nil
}

// hashInput sets the digest of the whole input in j.want if the entries of the shards have only digests of parts. The
// digest stays empty if the input is no longer at its path, or has changed since the shards were made.
func (m *Merge) hashInput(ctx context.Context, j *joinedOutput) error {
	in := &j.want.Input
	if in.SHA256 != "" {
		return nil
	}
	for _, p := range j.pieces {
		path := p.entry.Input.Absolute
		if now, err := Identify(path); err != nil || !now.SameState(*in) {
			continue
		}
		sum, err := store.HashFile(ctx, path)
		if err == nil {
			*in = p.entry.Input
			in.SHA256 = sum
		}
		return ctx.Err()
	}
	return nil
}

// record appends an entry to the manifest.
func (m *Merge) record(ctx context.Context, e store.Entry) error {
	err := m.manifest.Append(ctx, e, func(other store.Entry) error {
		if m.Force {
			return nil
		}
		return meanwhile(other, difference(other, e))
	})
	if err != nil && !errors.Is(err, ErrMixture) {
		err = outputFolderError(m.Out, err)
	}
	return err
}
