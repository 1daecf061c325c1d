package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"seqembed/internal/seqio"
	"seqembed/internal/store"
	"seqembed/kernels"
	"seqembed/pool"
	"seqembed/transformer"
)

// TestHints checks that withHint appends the listed advice to each error, and that embed has every flag that a hint
// names.
func TestHints(t *testing.T) {
	flags := allFlags(declare(&settings{}, transformer.Families))
	for _, c := range []struct {
		err  error
		want string // expected part of the hint; "" means no hint
	}{
		{errors.New("something else"), ""},
		{pool.ErrInterrupted, "the same command"},
		{pool.ErrMixture, "--force"},
		{pool.ErrOutput, "--out"},
		{pool.ErrTooLong, "--max-length"},
		{fmt.Errorf("%w: %w", pool.ErrMemory, kernels.ErrOutOfMemory), "--long window"},
		{&pool.DeviceError{Device: "cpu (2 threads)", Err: kernels.ErrOutOfMemory}, "--dtype bf16"},
		{&pool.DeviceError{Device: "cuda:0", Err: errors.New("unspecified launch failure")}, "--gpus none"},
		{&pool.DeviceError{Device: "cpu (2 threads)", Err: errors.New("a checkpoint on a disk that failed")}, ""},
		{kernels.ErrUnsupported, "--gpus none"},
		{fmt.Errorf("cpu (2 threads) does not compute this model: %w", kernels.ErrUnsupported), ""},
		{&fs.PathError{Op: "write", Path: os.Stdout.Name(), Err: syscall.ENOSPC}, ""},
		{&pool.DeviceError{Device: "cuda:0", Err: pool.ErrStalled}, "--stall-timeout"},
		{store.ErrFormat, "--format"},
		{store.ErrInUse, "--out"},
		{store.ErrManifest, "--force"},
		{store.ErrLater, "--out"},
		{store.ErrNotFinite, "--dtype fp16"},
		{syscall.ENOSPC, "--out"},
		{seqio.ErrInputName, "--out"},
		{seqio.ErrGivenTwice, ""},
		{seqio.ErrAlphabet, "--protein"},
		{seqio.ErrGuessed, "--dna"},
		{seqio.ErrGap, "--gaps remove"},
		{seqio.ErrBadRecord, "--on-bad-record skip"},
		{seqio.ErrLongRecord, "--on-bad-record skip"},
		{seqio.ErrLimit, ""},
		{seqio.ErrDuplicateID, "--duplicates suffix"},
	} {
		wrapped := fmt.Errorf("%w, for p.faa", c.err)
		hint := strings.TrimPrefix(withHint(wrapped).Error(), wrapped.Error())
		if !strings.Contains(hint, c.want) || c.want == "" && hint != "" {
			t.Errorf("%v: the hint is %q, want %q", c.err, hint, c.want)
		}
		for _, name := range regexp.MustCompile(`--[a-z-]+`).FindAllString(hint, -1) {
			if name != "--repair" && flags.Lookup(name[2:]) == nil { // --repair is a flag of embed inspect
				t.Errorf("%v: there is no flag %s", c.err, name)
			}
		}
	}
}

// TestTokenizerHint checks that the error for a broken tokenizer names --dnabert-tokenizer, whether the file was given
// by this flag or belongs to the checkpoint.
func TestTokenizerHint(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds under the race detector; other tests run the same goroutines")
	}
	workspace(t)
	write(t, "d.fna", ">a\nACGTTGCAACGGATTACAGT\n")
	write(t, "broken.json", "{")
	writeCheckpoint(t, "net", tinyDNA, nil)
	write(t, "net/tokenizer.json", "{")
	for _, args := range [][]string{{"--dnabert-model", tinyDNA, "--dnabert-tokenizer", "broken.json"}, {"--dnabert-model", "net"}} {
		embed(t, append(args, "-o", "out", "d.fna")...).wantCode(exitNothing).wantProblem("--dnabert-tokenizer", ".json: it is not a tokenizer.json")
	}
}
