package pool

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// ForcePrefix is the beginning of the name of a file in the output folder that describes a run with Force until it
// completes. The rest of the name is a digest of the run's outputs and settings, by which the same command finds an
// interrupted run and continues it.
const ForcePrefix = ".force-"

// forcedRun is the content of the file that ForcePrefix describes.
type forcedRun struct {
	Since time.Time `json:"since"`
	Lines int       `json:"manifest_lines"` // number of lines of the manifest before the run
}

// forcePath returns the path of the file that describes a run with Force of this job.
func (j *Job) forcePath() string {
	sum := sha256.New()
	settings, _ := json.Marshal(j.Output.Template) // strings and numbers cannot fail
	sum.Write(settings)
	for _, f := range j.Files {
		s := j.Output.spec(f)
		s.Dir, _ = filepath.Rel(j.Output.Dir, s.Dir) // cannot fail, because both paths have the same beginning
		fmt.Fprintf(sum, "%q", s.Paths())
	}
	return filepath.Join(j.Output.Dir, fmt.Sprintf("%s%x", ForcePrefix, sum.Sum(nil)[:8]))
}

// continueForce looks for an interrupted run with Force of the same job.
func (r *run) continueForce() {
	if !r.Force {
		return
	}
	content, err := os.ReadFile(r.forcePath())
	if f := new(forcedRun); err == nil && json.Unmarshal(content, f) == nil {
		r.forcedRun = f
	}
}

// beginForce records that a run with Force begins, unless it continues one.
func (r *run) beginForce() error {
	if !r.Force || r.forcedRun != nil {
		return nil
	}
	r.forcedRun = &forcedRun{time.Now().UTC(), r.manifest.Lines()}
	content, err := json.Marshal(r.forcedRun)
	if err == nil {
		err = os.WriteFile(r.forcePath(), content, 0o666)
	}
	if err != nil {
		return outputFolderError(r.Output.Dir, err)
	}
	return nil
}

// endForce records that a run with or without Force has ended without a failed file. Afterwards an interrupted run with
// Force of the same job is not continued.
func (r *run) endForce() {
	_ = os.Remove(r.forcePath()) // usually missing
}

// madeByForce reports whether the outputs of a file were made by the run with Force that this run continues.
func (r *run) madeByForce(f File) bool {
	if r.forcedRun == nil || f.once() {
		return false
	}
	for _, path := range r.Output.spec(f).Paths() {
		entry, _, ok := r.manifest.Find(path)
		if !ok || r.manifest.Line(path) <= r.forcedRun.Lines || r.difference(entry) != "" {
			return false
		}
	}
	return true
}
