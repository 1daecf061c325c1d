package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/pflag"

	"seqembed/internal/store"
	"seqembed/pool"
)

const convertUsage = `embed convert writes the embeddings of a file in another format.

Usage:
  embed convert [flags] IN OUT

The extensions name the formats: .parquet, .npy (with its .ids.txt) or, for residues and tokens, .npz (an array
for each record), .safetensors, .h5 or .tsv, and of IN alone .pt, if its format is virnucpro. Into .npy and .tsv
each column of IN gets a file of its own. Values stay what they are, bit for bit. From a Parquet file into another
one the columns that describe a record are kept; otherwise id and embeddings. The id of a window becomes
ID:START-END.

Exit codes: 0 done, 1 not done, 64 a mistake on the command line.

Flags:
      --dtype-out TYPE   type of the values: fp32 or fp16 (default that of IN)
      --compress         compress parquet with Zstandard
      --h5-matrix        one matrix and a list of ids in h5, instead of an array for each id
      --force            replace OUT if it exists
  -h, --help             this page
`

// convert is the command "embed convert".
func convert(ctx context.Context, _ machine, args, environ []string, w, log io.Writer) (code int, err error) {
	flags := pflag.NewFlagSet("embed convert", pflag.ContinueOnError)
	dtype := flags.String("dtype-out", "", "")
	compress := flags.Bool("compress", false, "")
	matrix := flags.Bool("h5-matrix", false, "")
	force := flags.Bool("force", false, "")
	rest, helped, err := parseSubcommand(flags, convertUsage, 2, args, environ, w)
	if err != nil || helped {
		return exitCode(err, 0, 0), err
	}
	if len(rest) != 2 {
		return exitUsage, usagef("embed convert takes two files: IN and OUT")
	}
	s := store.Spec{DType: store.DType(*dtype), Compress: *compress, Matrix: *matrix}
	format, dir, stem, err := store.FormatOf(rest[1])
	switch {
	case err != nil:
		return exitUsage, usagef("embed convert: %w", err)
	case *dtype != "" && *dtype != string(store.FP32) && *dtype != string(store.FP16):
		return exitUsage, usagef("--dtype-out: %q is none of fp32, fp16", *dtype)
	case *compress && format != store.Parquet:
		return exitUsage, usagef("--compress is about parquet")
	case *matrix && format != store.H5:
		return exitUsage, usagef("--h5-matrix is about h5")
	}
	s.Format = format
	t, err := store.OpenTable(rest[0])
	if err != nil {
		return exitNothing, err
	}
	defer t.Close()
	stopOnInterrupt(ctx, t)
	if err := checkConverted(t.ConvertedPaths(s, dir, stem), rest[0], rest[1], *force); err != nil {
		return exitCode(err, 0, 0), err
	}
	files, overflows, err := t.Convert(s, dir, stem)
	switch {
	case ctx.Err() != nil:
		return exitInterrupted, pool.ErrInterrupted
	case err != nil:
		return exitNothing, err
	}
	if overflows > 0 {
		fmt.Fprintf(log, "embed: %s values are beyond float16 and became infinities; --dtype-out fp32 keeps them\n", grouped(overflows))
	}
	for _, f := range files {
		if _, err := fmt.Fprintf(w, "%s (%s bytes)\n", plain(f.Path), grouped(f.Size)); err != nil {
			return exitNothing, err
		}
	}
	return exitDone, nil
}

// checkConverted returns an error if embed convert must not write files to the given paths: if they do not have the
// extension of out, if one of them is the file in, if one exists and force is not set, or if an array of another output
// would then lie beside their list of ids.
func checkConverted(paths []string, in, out string, force bool) error {
	if ext := filepath.Ext(paths[0]); ext != filepath.Ext(out) { // .npy in place of .npz, or the reverse
		return usagef("embed convert: %s: the extension of arrays of these embeddings is %s", out, ext)
	}
	for _, path := range paths {
		if sameFile(path, in) {
			return usagef("embed convert: %s would be read and written", path)
		}
		if _, err := os.Lstat(path); err == nil && !force {
			return fmt.Errorf("%s exists; --force replaces it", path)
		}
	}
	if others := store.Orphans(paths); len(others) > 0 {
		return fmt.Errorf("%s would lie beside the ids of %s: remove it, or choose another name", others[0], in)
	}
	return nil
}

// sameFile reports whether two paths lead to the same file. Equal paths count as the same file, even if no file exists.
func sameFile(a, b string) bool {
	x, err := os.Stat(a)
	y, err2 := os.Stat(b)
	return err == nil && err2 == nil && os.SameFile(x, y) || filepath.Clean(a) == filepath.Clean(b)
}
