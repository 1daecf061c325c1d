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

// outputFolderError wraps err, the error of an operation in the output folder dir, in an error that wraps ErrOutput.
// The result names dir and leaves out the path that err contains.
func outputFolderError(dir string, err error) error {
	return fmt.Errorf("%w %s: %w", ErrOutput, dir, cmp.Or(errors.Unwrap(err), err))
}

// claim is the registration of a run in its output folder, made by store.Claim. It also says whether the run can write
// there.
type claim struct {
	holder store.Holder // description of this run, which other runs read
	err    error        // reason why the run cannot write to the folder, or nil
}

// Claim registers the jobs of a run in their common output folder until release is called. It first removes the
// temporary files of killed runs. It returns a store.ErrInUse if another run repairs the manifest, if another run with
// other settings is making outputs that may have the same names, or if the registration of another run cannot be read.
// Runs with the same settings may share the folder, and so may runs of other models or formats. If the folder cannot be
// written to, Claim returns no error. Job.Run then returns an ErrOutput if it has something to write. command is the
// command line of this run; other runs show it in their ErrInUse.
//
// Job.Run calls Claim for its own job if the caller has not. A caller of Claim calls EndForce at the end.
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

// clash compares the settings of these jobs with those of another run whose outputs may have the same file names (see
// Output.kind). It returns the first difference, or "" if there is none.
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

// kind returns a key that is the same for two outputs if their files may have the same names.
func (o Output) kind() string { return o.Label + "." + string(o.Format) + o.Shard }

// removeLeftovers removes the temporary files of killed runs from the output folder, and from the folders in it to
// which the outputs of files are written. It ignores errors, because a leftover file does no harm.
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
