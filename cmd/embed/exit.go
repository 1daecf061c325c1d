package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"syscall"

	"seqembed/internal/seqio"
	"seqembed/internal/store"
	"seqembed/kernels"
	"seqembed/pool"
)

// Exit codes. docs/command-line.md lists them.
const (
	exitDone        = 0
	exitNothing     = 1  // nothing could be done
	exitSome        = 2  // only some inputs are done, or embed inspect or embed verify found faults
	exitUsage       = 64 // the command line is wrong
	exitInterrupted = 75 // stopped by a signal; the same command continues the run
)

// usageError is the error for a mistake on the command line.
type usageError struct{ error }

// Unwrap returns the wrapped error.
func (e *usageError) Unwrap() error { return e.error }

func usagef(format string, args ...any) error { return &usageError{fmt.Errorf(format, args...)} }

// commandLine returns the program and the arguments of this process, joined by spaces.
func commandLine() string { return strings.Join(os.Args, " ") }

// exitCode returns the exit code of the program. err is the error of the run as a whole; done and failed are the
// numbers of complete and of failed files.
func exitCode(err error, done, failed int) int {
	var usage *usageError
	switch {
	case errors.As(err, &usage):
		return exitUsage
	case errors.Is(err, pool.ErrInterrupted):
		return exitInterrupted
	case err == nil && failed == 0:
		return exitDone
	case done > 0:
		return exitSome
	}
	return exitNothing
}

// printError writes the error of a failed run as one line.
func printError(w io.Writer, err error) { printErrorOf(w, "embed", err) }

// printErrorOf writes the error of a command, such as "embed pull", as one line.
func printErrorOf(w io.Writer, command string, err error) {
	hint := ""
	if usage := (*usageError)(nil); errors.As(err, &usage) {
		hint = " (" + command + " --help lists the flags)"
	}
	fmt.Fprintf(w, "embed: %s%s\n", oneLine(err), hint)
}

// inOut reports whether err, about a full disk, may be about the folder of --out: it is not about standard output or
// the cache of models.
func inOut(err error) bool {
	var path *fs.PathError
	return !(errors.As(err, &path) && path.Path == os.Stdout.Name()) && !errors.As(err, new(*cacheError))
}

// withHint appends advice to an error, such as a flag that helps, if there is any. The packages that return the errors
// do not know the flags.
func withHint(err error) error {
	var hints []string
	for _, h := range []struct {
		err  error
		hint string
	}{
		{pool.ErrInterrupted, "the same command continues"},
		{pool.ErrMixture, "--force replaces it, --out takes another folder"},
		{pool.ErrUndividable, "store it in a file"},
		{pool.ErrShardMissing, "run these shards again, or join what is there with --allow-missing"},
		{pool.ErrOutput, "--out takes another folder"},
		{store.ErrFormat, "--format selects another format"},
		{store.ErrInUse, "wait until that run has ended, or take another folder with --out"},
		{store.ErrLater, "--out takes another folder"},
		{store.ErrNotFinite, "damaged weights may be the cause, or an overflow with --dtype fp16, where bf16 helps"},
		{store.ErrManifest, "embed inspect --repair DIR takes the damaged lines out and keeps the old file; in the folder of --out, --force does the same and starts over"},
		{pool.ErrTooLong, "--max-length allows longer ones, --long truncate or window shortens or cuts it"},
		{pool.ErrMemory, "--long window with --max-length N embeds it in windows of N letters, --on-bad-record skip leaves it out"},
		{pool.ErrStalled, "--stall-timeout allows more time"},
		{seqio.ErrInputName, "--out takes an output folder for each of two commands"},
		{seqio.ErrAlphabet, "--dna or --protein says which it is"},
		{seqio.ErrGuessed, "--dna or --protein says which alphabet it is"},
		{seqio.ErrGap, "--gaps remove takes gaps out"},
		{seqio.ErrBadRecord, "--on-bad-record skip leaves such records out"},
		{seqio.ErrLongRecord, "--on-bad-record skip leaves it out"},
		{seqio.ErrDuplicateID, "--duplicates suffix renames the later one"},
	} {
		if errors.Is(err, h.err) {
			hints = append(hints, h.hint)
		}
	}
	if errors.Is(err, syscall.ENOSPC) && inOut(err) {
		hints = append(hints, "--out takes a folder on another disk")
	}
	var device *pool.DeviceError
	switch {
	case errors.Is(err, kernels.ErrUnsupported) && !strings.HasPrefix(err.Error(), "cpu "):
		hints = append(hints, "--gpus none computes it on the CPU")
	case errors.Is(err, kernels.ErrOutOfMemory) && !errors.Is(err, pool.ErrMemory):
		hints = append(hints, "--dtype bf16, where it is not the default, halves the memory of the weights, and a smaller --esm-batch-size or --dnabert-batch-size needs less")
	case errors.As(err, &device) && !errors.Is(err, pool.ErrMemory) && !strings.HasPrefix(device.Device, "cpu "):
		hints = append(hints, "--gpus with other indices leaves it out, --gpus none with another --out computes on the CPU")
	}
	if len(hints) == 0 {
		return err
	}
	return fmt.Errorf("%w; %s", err, strings.Join(hints, ", "))
}
