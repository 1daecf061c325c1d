package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/pflag"
)

// settings is what the command line and the environment say.
type settings struct {
	inputs       []string
	dna, protein []string

	out    string
	format string

	dnabertModel, esmModel string
	dnabertTokenizer       string

	gpus                   string
	dnabertBatch, esmBatch int
	dtype                  string
	threads                int

	pool   string
	layers []int

	long       string
	maxLength  int
	minLength  int
	onBad      string
	duplicates string
	keepCase   bool

	force      bool
	quiet      bool
	verbose    bool
	noProgress bool
	logFormat  string

	help, version bool
	given         func(flag string) bool // set on the command line or in the environment
}

// group is a titled part of the help.
type group struct {
	title string
	flags *pflag.FlagSet
}

// declare lists every flag, in the groups and the order of the help.
func declare(s *settings) []group {
	var groups []group
	in := func(title string) *pflag.FlagSet {
		f := pflag.NewFlagSet(title, pflag.ContinueOnError)
		f.SortFlags = false
		groups = append(groups, group{title, f})
		return f
	}

	f := in("Input and output")
	f.StringArrayVar(&s.dna, "dna", nil, "an input `FILE` that is DNA, whatever it looks like; repeatable")
	f.StringArrayVar(&s.protein, "protein", nil, "an input `FILE` that is protein; repeatable")
	f.StringVarP(&s.out, "out", "o", "embeddings", "output `DIR`, created if needed")
	f.StringVar(&s.format, "format", "parquet", "`FORMAT` of the outputs: parquet, npy, safetensors or virnucpro")
	f.BoolVar(&s.force, "force", false, "start over where a rerun would continue, and replace what differs")

	f = in("Models")
	f.StringVar(&s.dnabertModel, "dnabert-model", "dnabert-s", "`MODEL` for DNA: a folder, a checkpoint file, a hub id, dnabert-s, or synthetic:NAME[@SEED]")
	f.StringVar(&s.esmModel, "esm-model", "esm2-650m", "`MODEL` for protein: likewise, esm2-8m, -35m, -150m, -650m, -3b, -15b")
	f.StringVar(&s.dnabertTokenizer, "dnabert-tokenizer", "", "tokenizer.json `FILE` to use instead of the checkpoint's")
	f.StringVar(&s.pool, "pool", "mean", "what becomes of a record's tokens: mean, cls, or none (`HOW`; none keeps each token)")
	f.IntSliceVar(&s.layers, "layers", []int{-1}, "block `NUMBERS`, 0 the embedding, negative from the end")

	f = in("Compute")
	f.StringVar(&s.gpus, "gpus", "all", "`GPUS` to use: all, none, or indices such as 0,1")
	f.IntVar(&s.dnabertBatch, "dnabert-batch-size", 0, "`TOKENS` in a DNABERT-S batch; 0 chooses")
	f.IntVar(&s.esmBatch, "esm-batch-size", 0, "`TOKENS` in an ESM-2 batch; 0 chooses")
	f.StringVar(&s.dtype, "dtype", "auto", "`TYPE` of the matrix products: auto, fp32, bf16 or fp16")
	f.IntVar(&s.threads, "threads", 0, "CPU threads, `N`; 0 for all cores")

	f = in("Sequences")
	f.StringVar(&s.long, "long", "truncate", "records over --max-length: truncate, window or error (`HOW`)")
	f.IntVar(&s.maxLength, "max-length", 0, "letters, `N`; 0 for no limit (default: no limit for DNA, 1022 for protein)")
	f.IntVar(&s.minLength, "min-length", 0, "skip and count records with fewer letters than `N`")
	f.StringVar(&s.onBad, "on-bad-record", "error", "empty records and illegal letters: error or skip (`HOW`)")
	f.StringVar(&s.duplicates, "duplicates", "error", "ids that come twice: error or suffix (`HOW`)")
	f.BoolVar(&s.keepCase, "keep-case", false, "do not upper-case letters (the DNA tokenizer does not know lower-case ones)")

	f = in("Messages")
	f.BoolVarP(&s.quiet, "quiet", "q", false, "errors only")
	f.BoolVarP(&s.verbose, "verbose", "v", false, "every batch as well")
	f.BoolVar(&s.noProgress, "no-progress", false, "log lines instead of a progress bar")
	f.StringVar(&s.logFormat, "log-format", "text", "`FORMAT` of log lines: text or json")
	f.BoolVarP(&s.help, "help", "h", false, "this page")
	f.BoolVar(&s.version, "version", false, "the version")
	return groups
}

// environmentPrefix begins the variable of a flag: EMBED_ESM_MODEL is
// --esm-model.
const environmentPrefix = "EMBED_"

// parse reads the command line, then the environment for the flags that the
// command line leaves open. Mistakes are usage errors.
func parse(args, environ []string) (*settings, []group, error) {
	s := &settings{}
	groups := declare(s)
	all := pflag.NewFlagSet("embed", pflag.ContinueOnError)
	all.SetOutput(io.Discard) // errors are ours to print
	for _, g := range groups {
		all.AddFlagSet(g.flags)
	}
	s.given = all.Changed
	if err := all.Parse(twoDashes(args, all)); err != nil {
		return s, groups, usagef("%v", err)
	}
	s.inputs = all.Args()
	for _, variable := range environ {
		name, value, _ := strings.Cut(variable, "=")
		suffix, ok := strings.CutPrefix(name, environmentPrefix)
		flag := all.Lookup(strings.ReplaceAll(strings.ToLower(suffix), "_", "-"))
		if !ok || flag == nil || flag.Changed {
			continue
		}
		if err := all.Set(flag.Name, value); err != nil {
			return s, groups, usagef("environment variable %s: %v", name, err)
		}
	}
	return s, groups, nil
}

// twoDashes turns the Go style -gpus 0,1 into --gpus 0,1. One dash and one
// letter stays a short flag.
func twoDashes(args []string, flags *pflag.FlagSet) []string {
	var out []string
	for i, a := range args {
		if a == "--" {
			return append(out, args[i:]...)
		}
		name, isFlag := strings.CutPrefix(a, "-")
		name, _, _ = strings.Cut(name, "=")
		if isFlag && len(name) > 1 && flags.Lookup(name) != nil {
			a = "-" + a
		}
		out = append(out, a)
	}
	return out
}

const usage = `embed turns FASTA and FASTQ files into embeddings: DNABERT-S for DNA, ESM-2 for protein.

Usage:
  embed [flags] INPUT...

An INPUT is a file (plain, .gz, .bz2, .xz or .zst), a folder, a glob, or - for standard input. DNA runs
first, to completion, then protein; each file's alphabet is detected. Every input gives one output,
DIR/<name>.<model>.<format>. A rerun continues where an earlier one ended.

Examples:
  embed -o out contigs.fna proteins.faa
  embed -gpus 0,1,2,3 -dnabert-batch-size 4096 -o out samples/
  zcat reads.fastq.gz | embed --dnabert-model ./DNABERT-S -o out --dna -
  embed --esm-model synthetic:esm2-8m --format npy -o try proteins.faa
`

// printHelp writes the help page.
func printHelp(w io.Writer, groups []group) {
	fmt.Fprint(w, usage)
	for _, g := range groups {
		fmt.Fprintf(w, "\n%s:\n%s", g.title, g.flags.FlagUsagesWrapped(110))
	}
	fmt.Fprint(w, `
Every long flag works with one dash, too, and can be given as an environment variable: EMBED_ESM_MODEL is
--esm-model; the command line wins.

Exit codes: 0 all done, 1 nothing could be done, 2 some inputs failed and the rest is written, 64 a mistake
on the command line, 75 interrupted: the same command continues.
`)
}
