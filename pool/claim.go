package pool

import (
	"cmp"
	"errors"
	"fmt"
	"os"

	"seqembed/internal/store"
)

// ErrOutput is wrapped by the error of a run whose output folder cannot be created or written to.
var ErrOutput = errors.New("cannot write to the output folder")

// outputFolderError returns an error that wraps ErrOutput, for an operation that failed in the output folder. It drops
// the path that err contains.
func outputFolderError(dir string, err error) error {
	return fmt.Errorf("%w %s: %w", ErrOutput, dir, cmp.Or(errors.Unwrap(err), err))
}

// claim says whether a run can write to its output folder, in which it has registered by store.Claim.
type claim struct {
	holder store.Holder // what other runs read about this one
	err    error        // the reason why nothing can be written, or nil
}

// Claim registers the jobs of a run in their common output folder until release is called. It first removes the
// temporary files of killed runs. It returns a store.ErrInUse if another run with other settings is making outputs that
// may have the same names. Runs with the same settings may share the folder, and so may runs of other models or
// formats. If nothing can be written in the folder, Claim returns no error, but Job.Run does if it has something to
// write. command is the command line of this run; other runs show it in their ErrInUse.
//
// If Claim was not called before, Run claims the folder for its own job.
func Claim(command string, jobs ...*Job) (release func(), err error) {
	h := store.ThisProcess(command)
	h.Outputs = map[string]store.Entry{}
	for _, j := range jobs {
		j.Output.removeLeftovers(j.Files)
		h.Outputs[j.Output.kind()] = j.Output.Template
	}
	c, dir, leave := &claim{holder: h}, jobs[0].Output.Dir, func() {}
	if c.err = os.MkdirAll(dir, 0o777); c.err == nil {
		entered, err := store.Claim(dir, h, func(other store.Holder) string { return clash(jobs, other) })
		switch {
		case errors.Is(err, store.ErrInUse):
			return nil, err
		case err == nil:
			leave = entered
		default:
			c.err = err
		}
	}
	for _, j := range jobs {
		j.claim = c
	}
	return func() {
		leave()
		for _, j := range jobs {
			j.claim = nil
		}
	}, nil
}

// clash returns the first difference in settings between the outputs of these jobs and those of another run that may
// have the same file names (see Output.kind). It returns "" if there is none.
func clash(jobs []*Job, other store.Holder) string {
	for _, j := range jobs {
		if had, ok := other.Outputs[j.Output.kind()]; ok {
			if d := difference(had, j.Output.Template); d != "" {
				return d
			}
		}
	}
	return ""
}

// kind returns a key. Two outputs have the same key if their files may have the same names.
func (o Output) kind() string { return o.Label + "." + string(o.Format) + o.Shard }

// removeLeftovers removes temporary files of killed runs from the output folder, and from the folders in it to which
// the outputs of files are written. It ignores errors, because the run does not depend on it.
func (o Output) removeLeftovers(files []File) {
	seen := map[string]bool{o.Dir: true}
	_, _ = store.RemoveLeftovers(o.Dir)
	for _, f := range files {
		if dir := o.spec(f).Dir; !seen[dir] {
			seen[dir] = true
			_, _ = store.RemoveLeftovers(dir)
		}
	}
}
