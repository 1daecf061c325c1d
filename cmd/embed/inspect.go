package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/pflag"

	"seqembed/internal/store"
	"seqembed/pool"
)

const inspectUsage = `embed inspect compares the files of an output folder with its manifest, by their SHA-256, or says what the
values of an output file look like.

Usage:
  embed inspect [flags] DIR
  embed inspect [--json] FILE

A file is complete, changed, missing, unreadable, unfinished (its run was killed, or is going on) or foreign (the
manifest does not describe it). Complete ones are counted, all others listed, and so are the inputs that have failed.

Of a FILE (.parquet, .npy, .npz, .safetensors, .h5, .tsv, .pt) it counts records, ids that come again, NaN and
infinite values, rows of zeros, constant rows, and rows that are equal to an earlier one.

Exit codes: 0 nothing is changed, missing, unreadable, unfinished or failed, 1 the folder or its manifest cannot be
read, 2 something is. Of a FILE: 0 nothing is wrong, 2 an id comes again, or values or rows are not those of a model;
equal rows are no fault, because equal sequences have them.

Flags:
      --quick    compare sizes and modification times alone
      --json     a JSON object a line for each file: path, state, detail, input
      --repair   first take lines that cannot be read out of the manifest; the old one stays under another name
  -h, --help     this page
`

// inspect is the command "embed inspect".
func inspect(ctx context.Context, _ machine, args, environ []string, w, _ io.Writer) (code int, err error) {
	flags := pflag.NewFlagSet("embed inspect", pflag.ContinueOnError)
	quick := flags.Bool("quick", false, "")
	lines := flags.Bool("json", false, "")
	repair := flags.Bool("repair", false, "")
	if _, helped, err := parseSubcommand(flags, inspectUsage, 1, args, environ, w); err != nil || helped {
		return exitCode(err, 0, 0), err
	}
	if flags.NArg() != 1 {
		return exitUsage, usagef("embed inspect takes one output folder, or one file")
	}
	dir := flags.Arg(0)
	if info, err := os.Stat(dir); err != nil {
		return exitNothing, err
	} else if !info.IsDir() && (*quick || *repair) {
		return exitUsage, usagef("--quick and --repair are about folders, and %s is a file", dir)
	} else if !info.IsDir() {
		return inspectFile(ctx, dir, *lines, w)
	}
	var aside []string
	if *repair {
		aside, err = store.Repair(ctx, dir, store.ThisProcess(commandLine()))
		switch {
		case errors.Is(err, store.ErrInUse):
			// The error is not wrapped, so that withHint does not suggest --out.
			return exitNothing, fmt.Errorf("%v; repair it when that run has ended", err)
		case err != nil:
			return exitNothing, err
		}
	}
	found := findings{w: w, json: *lines, count: map[store.State]int{}}
	for _, path := range aside {
		found.note("repaired: the damaged file is kept as " + path)
	}
	if err := found.all(ctx, dir, *quick); err != nil {
		if ctx.Err() != nil {
			return exitInterrupted, pool.ErrInterrupted
		}
		return exitNothing, err
	}
	if found.err != nil {
		return exitNothing, found.err // the printed list is incomplete
	}
	if _, err := os.Stat(filepath.Join(dir, store.ManifestName)); err != nil && found.onlyForeign() {
		return exitNothing, fmt.Errorf("%s is no output folder: it has no %s", dir, store.ManifestName)
	}
	return found.code(), nil
}

// findings prints the states of the files in an output folder, and counts them.
type findings struct {
	w     io.Writer
	json  bool
	count map[store.State]int
	err   error // the first error of a write
}

// failed is the state that embed inspect reports for an input in the list of failed files, failed_files.txt.
const failed store.State = "failed"

func (f *findings) print(line string) {
	if _, err := io.WriteString(f.w, line+"\n"); f.err == nil {
		f.err = err
	}
}

// note prints a line for people. With --json the output is for programs, and note prints nothing.
func (f *findings) note(line string) {
	if !f.json {
		f.print(plain(line))
	}
}

func (f *findings) file(i store.Inspected) {
	f.count[i.State]++
	if f.json {
		line, _ := json.Marshal(i) // cannot fail, because all fields are strings
		f.print(string(line))
	} else if i.State != store.Complete {
		f.note(strings.TrimRight(fmt.Sprintf("%-10s  %s  %s", i.State, i.Path, i.Detail), " "))
	}
}

// all prints the states of the files in folder dir, and the failed inputs. With --json it prints a line for every file.
// Without --json it only counts complete files, and prints the totals at the end.
func (f *findings) all(ctx context.Context, dir string, quick bool) error {
	known := func(path string) bool {
		return path == pool.FailedFiles || path == store.ReportName || strings.HasPrefix(path, pool.ForcePrefix) || strings.HasPrefix(path, pool.PlanPrefix) || strings.Contains(path, store.DamagedSuffix)
	}
	err := store.Inspect(ctx, dir, quick, known, f.file)
	if err != nil && !errors.Is(err, store.ErrManifest) {
		return err
	}
	list, unreadable := pool.ReadFailures(dir)
	if unreadable != nil {
		f.file(store.Inspected{Path: pool.FailedFiles, State: store.Unreadable, Detail: unreadable.Error()})
	}
	for _, l := range list {
		f.file(store.Inspected{Path: pool.FailedFiles, State: failed, Input: l.Path, Detail: l.Path + ": " + l.Err.Error()})
	}
	forced, _ := fs.Glob(os.DirFS(dir), pool.ForcePrefix+"*") // fails only if the pattern is invalid
	for _, name := range forced {
		f.file(store.Inspected{Path: name, State: store.Unfinished, Detail: "a run with --force was interrupted, or is going on; the same command continues it"})
	}
	var sums []string
	for _, s := range []store.State{store.Complete, store.Changed, store.Missing, store.Unreadable, store.Unfinished, store.Foreign, failed} {
		if n := f.count[s]; n > 0 || s == store.Complete {
			sums = append(sums, fmt.Sprintf("%s %s", grouped(int64(n)), s))
		}
	}
	f.note(strings.Join(sums, ", "))
	return err
}

// onlyForeign reports whether every file found in the folder is foreign: not described by the manifest.
func (f *findings) onlyForeign() bool {
	for state, n := range f.count {
		if state != store.Foreign && n > 0 {
			return false
		}
	}
	return true
}

func (f *findings) code() int {
	if f.count[store.Changed]+f.count[store.Missing]+f.count[store.Unreadable]+f.count[store.Unfinished]+f.count[failed] > 0 {
		return exitSome
	}
	return exitDone
}
