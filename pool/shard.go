package pool

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"os"
	"path/filepath"
	"strings"

	"seqembed/internal/seqio"
	"seqembed/internal/store"
)

// Shard is the run with number I of N runs, on any machines, that divide the records of the same files among them. For
// each file of which a run has a part, it writes a shard of the output (see store.Spec). Merge joins the shards.
type Shard struct{ I, N int } // 1 ≤ I ≤ N

// String returns the form that is part of file names, such as 3-of-8.
func (s Shard) String() string { return fmt.Sprintf("%d-of-%d", s.I, s.N) }

// ErrUndividable is wrapped by the error for an input that cannot be divided among shards.
var ErrUndividable = errors.New("an input that can be read only once cannot be divided among shards")

// PlanPrefix is the beginning of the name of a file, the plan, that says which shard has which part of each input. The
// rest of the name is the model and the format of the outputs. All shards write the same plan, from which Merge knows
// which shards are missing.
const PlanPrefix = "shards."

// planVersion is the version of the format of plans, and of the rule by which inputs are cut.
const planVersion = 2

// shardPlan is the content of a plan file (see PlanPrefix). It does not contain the paths of inputs, because machines
// may have the same input at different places.
type shardPlan struct {
	Version int             `json:"plan_version"`
	Kind    string          `json:"kind"` // Output.kind of the joined outputs
	Shards  int             `json:"shards"`
	Outputs []plannedOutput `json:"outputs"`
}

// plannedOutput is an output of a plan, with the parts into which its input is divided.
type plannedOutput struct {
	Name        string        `json:"name"` // slash-separated path of the joined output in the output folder
	Size        int64         `json:"input_size"`
	Interleaved bool          `json:"interleaved"` // whether groups of records alternate between shards, see seqio.Part
	Parts       []plannedPart `json:"parts"`       // parts of the input, in its order
}

// plannedPart is the part of an input that a shard has: the records that belong to the range of bytes [From, To) of the
// stored file.
type plannedPart struct {
	Shard int   `json:"shard"`
	From  int64 `json:"from"`
	To    int64 `json:"to"`
}

// inflation is the assumed ratio of a file's size to its compressed size. gzip makes reads with qualities, and
// proteins, 2 to 3 times smaller, and DNA without qualities 4 times smaller.
const inflation = 3

// parameter returns the description, for the manifest, of the part of an input that a shard has.
func (p plannedOutput) parameter(s Shard, part plannedPart) string {
	return fmt.Sprintf("%d/%d, bytes %d to %d of %d", s.I, s.N, part.From, part.To, p.Size)
}

// shardParameter is the name of the manifest parameter that says which part of its input an output was made from.
const shardParameter = "shard"

// Divide restricts the job to the shard s. The bytes of all files together are divided into s.N ranges of almost equal
// size, one for each shard; a byte of a compressed file counts three times (see inflation). Only the files that overlap
// the shard's range remain in Job.Files, each restricted to the records in the range. Divide must be called before
// Check.
func (j *Job) Divide(s Shard) error {
	plan := shardPlan{Version: planVersion, Kind: j.Output.kind(), Shards: s.N}
	j.Output.Shard = s.String()
	weight := func(f File) int64 {
		if f.whole.Compressed {
			return inflation
		}
		return 1
	}
	total := int64(0)
	for _, f := range j.Files {
		if f.once() {
			return fmt.Errorf("%s: %w", f.label(), ErrUndividable)
		}
		total += f.whole.Size * weight(f)
	}
	// end returns the end of the range of shard i: the sum of the weights of all bytes before that end.
	end := func(i int) int64 {
		high, low := bits.Mul64(uint64(total), uint64(i))
		at, _ := bits.Div64(high, low, uint64(s.N))
		return int64(at)
	}
	var files []File
	i, at := 1, int64(0) // number of the shard, and sum of the weights of all bytes before the file
	for _, f := range j.Files {
		output := plannedOutput{Name: j.planned(f), Size: f.whole.Size, Interleaved: f.whole.Interleaved()}
		for from := int64(0); from < output.Size; {
			to := min(output.Size, (end(i)-at)/weight(f))
			if to > from {
				part := plannedPart{i, from, to}
				output.Parts = append(output.Parts, part)
				if i == s.I {
					files = append(files, f.part(from, to, output.parameter(s, part)))
				}
				from = to
			}
			if from < output.Size {
				i++
			}
		}
		plan.Outputs = append(plan.Outputs, output)
		at += output.Size * weight(f)
	}
	var err error
	j.Files = files
	j.plan, err = json.Marshal(plan)
	return err
}

// planned returns the plannedOutput.Name of a file's output.
func (j *Job) planned(f File) string {
	path, _ := filepath.Rel(j.Output.Dir, j.Output.Main(f)) // cannot fail, because both paths have the same beginning
	return filepath.ToSlash(strings.TrimSuffix(path, store.ShardSuffix+j.Output.Shard))
}

// part returns a copy of the file that is restricted to the records of a range of its bytes. parameter describes the
// range in the manifest.
func (f File) part(from, to int64, parameter string) File {
	f.Part, f.parameter = f.whole, parameter
	f.Part.From, f.Part.To = from, to
	if !f.Part.Interleaved() {
		f.Size = to - from
	}
	return f
}

// reading returns the options for reading the file or its part. In a part, repeated ids get no suffix, because Merge
// adds the suffixes.
func (f File) reading(o seqio.Options) seqio.Options {
	o.Alphabet, o.Part = f.forced, f.Part
	if o.Duplicates == seqio.DuplicateSuffix && !f.Part.IsZero() {
		o.Duplicates = seqio.DuplicateKeep
	}
	return o
}

// template returns the manifest entry for the outputs of a file, without the fields that depend on its content.
func (j *Job) template(f File) store.Entry {
	e := j.Output.Template
	if f.parameter != "" {
		e.Parameters = with(e.Parameters, shardParameter, f.parameter)
	}
	return e
}

// same reports whether the file has the given size, and its content the SHA-256 sum. In a shard, sum is compared with
// the SHA-256 of the part of the file that the shard reads, and size is ignored.
func (f File) same(ctx context.Context, size int64, sum string) (bool, error) {
	if f.Part.IsZero() {
		return isSame(ctx, f.Path, size, sum)
	}
	content, err := f.Part.Open(f.Path)
	if err != nil {
		return false, err
	}
	defer content.Close()
	got, err := store.Hash(ctx, content)
	return got == sum, err
}

// planPath returns the path of the plan file (see PlanPrefix) for outputs with this folder, label and format.
func (o Output) planPath() string {
	return filepath.Join(o.Dir, PlanPrefix+store.EscapeName(o.Label)+"."+string(o.Format)+".json")
}

// parse decodes and checks the content of a plan.
func (p *foundPlan) parse() error {
	if err := json.Unmarshal(p.content, &p.shardPlan); err != nil {
		return err
	}
	if p.Version != planVersion || p.Shards < 1 {
		return fmt.Errorf("a plan of version %d, not %d, or of %d shards: run the shards again with this program", p.Version, planVersion, p.Shards)
	}
	for _, o := range p.Outputs {
		if !filepath.IsLocal(filepath.FromSlash(o.Name)) {
			return fmt.Errorf("an output is called %q, which is not in the folder", o.Name)
		}
	}
	return nil
}

// checkPlan returns an ErrMixture if the output folder has a plan of shards that differs from the plan of this job.
func (j *Job) checkPlan() error {
	if j.plan == nil {
		return nil
	}
	had, err := os.ReadFile(j.Output.planPath())
	if err == nil && !bytes.Equal(had, j.plan) {
		return fmt.Errorf("%s is of other inputs, or of another number of shards: %w", j.Output.planPath(), ErrMixture)
	}
	return nil
}

// writePlan writes the plan of a job that is a shard into the output folder, unless the folder has the same plan
// already.
func (j *Job) writePlan() error {
	path := j.Output.planPath()
	if had, err := os.ReadFile(path); j.plan == nil || err == nil && bytes.Equal(had, j.plan) {
		return nil
	}
	if j.claim.err != nil {
		return outputFolderError(j.Output.Dir, j.claim.err)
	}
	_, err := store.WriteFiles([]string{path}, func(files []io.Writer) error {
		_, err := files[0].Write(j.plan)
		return err
	})
	if err != nil {
		return outputFolderError(j.Output.Dir, err)
	}
	return nil
}
