package pool

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"seqembed/internal/store"
)

// ForcePrefix is the beginning of the name of a file in the output folder that describes a run with Job.Force until the
// run completes. The rest of the name is a digest of the run's outputs and settings, by which the same command finds an
// interrupted run and continues it.
const ForcePrefix = ".force-"

// forcedRun describes a run with Job.Force. It is the content of the file whose name begins with ForcePrefix.
type forcedRun struct {
	Since time.Time `json:"since"`
	Lines int       `json:"manifest_lines"` // number of lines of the manifest before the run
	// Outputs are the paths of the outputs' main files (see Output.Main), relative to the output folder.
	Outputs []string `json:"outputs"`
}

// forcePath returns the path of the file that describes a run of this job with Job.Force (see ForcePrefix).
func (j *Job) forcePath() string {
	sum := sha256.New()
	settings, _ := json.Marshal(j.Output.Template) // cannot fail for an Entry
	sum.Write(settings)
	for _, f := range j.Files {
		s := j.Output.spec(f)
		s.Dir, _ = filepath.Rel(j.Output.Dir, s.Dir) // cannot fail, because both paths have the same beginning
		fmt.Fprintf(sum, "%q", s.Paths())
	}
	return filepath.Join(j.Output.Dir, fmt.Sprintf("%s%x", ForcePrefix, sum.Sum(nil)[:8]))
}

// continueForce sets r.forcedRun if an earlier run of the same job with Job.Force was interrupted.
func (r *run) continueForce() {
	if !r.Force {
		return
	}
	content, err := os.ReadFile(r.forcePath())
	if f := new(forcedRun); err == nil && json.Unmarshal(content, f) == nil {
		r.forcedRun = f
	}
}

// beginForce writes the file that describes a run with Job.Force (see ForcePrefix). It also removes the results that
// interrupted runs have kept (see parts), so that everything is computed again. It does nothing if the run continues an
// interrupted run with Job.Force.
func (r *run) beginForce() error {
	if !r.Force || r.forcedRun != nil {
		return nil
	}
	r.forcedRun = &forcedRun{Since: time.Now().UTC(), Lines: r.manifest.Lines()}
	for _, f := range r.Files {
		store.RemoveParts(r.Output.Main(f))
		path, _ := filepath.Rel(r.Output.Dir, r.Output.Main(f)) // cannot fail, because both have the same beginning
		r.forcedRun.Outputs = append(r.forcedRun.Outputs, filepath.ToSlash(path))
	}
	content, err := json.Marshal(r.forcedRun)
	if err == nil {
		err = os.WriteFile(r.forcePath(), content, 0o666)
	}
	if err != nil {
		return outputFolderError(r.Output.Dir, err)
	}
	return nil
}

// EndForce ends runs with Job.Force, after which the same command starts over instead of continuing them. It is called,
// with or without Job.Force, when the jobs have run without an error and no file has failed: by Run or, if Claim has
// claimed the folder for several jobs, by the caller of Claim, once that is true of all of them.
func EndForce(jobs ...*Job) {
	for _, j := range jobs {
		endForce(j)
	}
}

// endForce removes files that describe interrupted runs with Job.Force (see ForcePrefix) and are not needed any more:
// the file of this job, and that of another job if each output of that job belongs to this job or has been finished
// since that job began. It also removes the file of another job if the manifest has fewer lines than when that job
// began, because the manifest was then replaced.
func endForce(j *Job) {
	_ = os.Remove(j.forcePath()) // most runs have no such file
	others, _ := fs.Glob(os.DirFS(j.Output.Dir), ForcePrefix+"*")
	if len(others) == 0 {
		return
	}
	mine := map[string]bool{}
	for _, f := range j.Files {
		mine[j.Output.Main(f)] = true
	}
	for _, name := range others {
		path, other := filepath.Join(j.Output.Dir, name), forcedRun{}
		content, err := os.ReadFile(path)
		if err != nil || json.Unmarshal(content, &other) != nil {
			continue // another process is writing it, or has removed it
		}
		left := slices.ContainsFunc(other.Outputs, func(output string) bool {
			output = filepath.Join(j.Output.Dir, filepath.FromSlash(output))
			entry, _, _ := j.manifest.Find(output)
			return !mine[output] && (j.manifest.Line(output) <= other.Lines || entry.Finished.IsZero())
		})
		if !left || other.Lines > j.manifest.Lines() { // fewer lines: the manifest was replaced
			_ = os.Remove(path) // if this fails, the next run tries again
		}
	}
}

// madeByForce reports whether this run continues an interrupted run with Job.Force, and the outputs of a file were made
// with the settings of this job since the interrupted run began.
func (r *run) madeByForce(f File) bool {
	if r.forcedRun == nil || f.once() {
		return false
	}
	for _, path := range r.Output.spec(f).Paths() {
		entry, _, ok := r.manifest.Find(path)
		if !ok || r.manifest.Line(path) <= r.forcedRun.Lines || difference(entry, r.template(f)) != "" {
			return false
		}
	}
	return true
}
