package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/pflag"

	"seqembed/pool"
)

const mergeUsage = `embed merge joins the outputs of runs with --shard to those that one run would have written.

Usage:
  embed merge [flags] -o DIR SHARD_DIR...

A SHARD_DIR is the output folder of one shard or of several. Before anything is written the shards are compared: all
have to be there and complete, and made from the same inputs, with the same settings. The files then have the bytes of
one run, in the format of the shards' --format. A rerun skips what is complete.

Exit codes: 0 all joined, 1 nothing joined, 2 some outputs failed or, with --allow-missing, lack records, 64 a mistake
on the command line, 75 interrupted.

Flags:
  -o, --out DIR             the folder for the outputs (default embeddings)
      --allow-missing       join what is there; the outputs lack the records of shards that are missing
      --duplicates POLICY   error or suffix for an id that comes twice in an input (default that of the shards)
      --force               replace outputs that differ
  -h, --help                this page
`

// merge is the command "embed merge".
func merge(ctx context.Context, _ machine, args, environ []string, w, stderr io.Writer) (code int, err error) {
	flags := pflag.NewFlagSet("embed merge", pflag.ContinueOnError)
	m := pool.Merge{Command: commandLine()}
	flags.StringVarP(&m.Out, "out", "o", "embeddings", "")
	flags.BoolVar(&m.AllowMissing, "allow-missing", false, "")
	flags.StringVar(&m.Duplicates, "duplicates", "", "")
	flags.BoolVar(&m.Force, "force", false, "")
	rest, helped, err := parseSubcommand(flags, mergeUsage, len(args), args, environ, w)
	switch {
	case err != nil || helped:
		return exitCode(err, 0, 0), err
	case len(rest) == 0:
		return exitUsage, usagef("embed merge: name the output folders of the shards")
	case m.Out == "":
		return exitUsage, usagef("--out: the name of the folder is empty")
	}
	if m.Duplicates != "" {
		policies := (&settings{duplicates: m.Duplicates}).policies()
		if err := checkChoices(policies[len(policies)-1:]); err != nil {
			return exitUsage, err
		}
	}
	m.Dirs = rest
	done, failed, err := m.Run(ctx)
	lacking := len(failed)
	for _, d := range done {
		line := fmt.Sprintf("%s: %s records", plain(d.Path), grouped(d.Records))
		if d.Resumed {
			line += ", complete already"
		}
		if len(d.Missing) > 0 {
			lacking++
			line += ", without shard " + strings.Join(d.Missing, ", ")
		}
		if _, err := fmt.Fprintln(w, line); err != nil {
			return exitNothing, err
		}
	}
	for _, f := range failed {
		printError(stderr, withHint(f.Err))
	}
	return exitCode(err, len(done), lacking), err
}
