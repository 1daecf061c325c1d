package main

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"seqembed/internal/store"
	"seqembed/transformer"
)

// settings contains the values of the flags, from the command line and the environment.
type settings struct {
	inputs       []string
	dna, protein []string

	out    string
	format string

	families []familyFlags // one for each family

	gpus    string
	dtype   string
	threads int

	pool   string
	layers []int

	long       string
	maxLength  int
	minLength  int
	gaps       string
	onBad      string
	duplicates string
	keepCase   bool

	force      bool
	quiet      bool
	verbose    bool
	noProgress bool
	logFormat  string

	help, version bool
	given         func(flag string) bool // reports whether a flag was set, on the command line or in the environment
}

// group is a section of the help.
type group struct {
	title string
	flags *pflag.FlagSet
}

// declare declares every flag, including those of the families, in the groups and the order of the help.
func declare(s *settings, families transformer.List) []group {
	var groups []group
	in := func(title string) *pflag.FlagSet {
		f := pflag.NewFlagSet(title, pflag.ContinueOnError)
		f.SortFlags = false
		groups = append(groups, group{title, f})
		return f
	}

	f := in("Input and output")
	f.StringArrayVar(&s.dna, "dna", nil, "`FILE`s, up to the next flag, that are DNA, whatever they look like; repeatable; --dna=FILE is one alone")
	f.StringArrayVar(&s.protein, "protein", nil, "`FILE`s that are protein, likewise")
	f.StringVarP(&s.out, "out", "o", "embeddings", "the folder `DIR` for the outputs, created if needed")
	f.StringVar(&s.format, "format", string(store.Formats()[0]), "`FORMAT` of the outputs: "+formatNames())
	f.BoolVar(&s.force, "force", false, "start over where a rerun would continue, and replace what differs")

	f = in("Models")
	var limits []string
	s.families = make([]familyFlags, len(families))
	for i, family := range families {
		m := &s.families[i]
		m.Family = family
		limits = append(limits, fmt.Sprintf("%d for %s", m.MaxLength, m.Name))
		names := slices.Concat([]string{"a folder", "a checkpoint file", "a hub id"}, m.ModelNames(), []string{"or synthetic:NAME[@SEED]"})
		f.StringVar(&m.model, m.flag("model"), m.Default, fmt.Sprintf("`MODEL` for %s: %s", m.Alphabet, strings.Join(names, ", ")))
		if !m.FixedVocabulary {
			f.StringVar(&m.vocabulary, m.flag("tokenizer"), "", m.VocabularyFile+" `FILE` to use instead of the checkpoint's")
		}
	}
	f.StringVar(&s.pool, "pool", "mean", "`POOLING` of a record's tokens: mean, cls (the first one alone), or none (each keeps its own embedding)")
	f.IntSliceVar(&s.layers, "layers", []int{-1}, "`NUMBERS` of the blocks after which embeddings are taken, such as 0,6,-1: 0 is before the first, negative ones count from the end")

	f = in("Compute")
	f.StringVar(&s.gpus, "gpus", "all", "`GPUS` to use: all, none, or indices such as 0,1")
	for i := range s.families {
		m := &s.families[i]
		f.IntVar(&m.batch, m.flag("batch-size"), 0, fmt.Sprintf("`TOKENS` in a batch of %s; 0: chosen", m.Name))
	}
	f.StringVar(&s.dtype, "dtype", "auto", "`TYPE` of the matrix products: auto (bf16 on a GPU, fp32 on a CPU), fp32, bf16 (on a CPU without AVX512_BF16: of the weights in memory alone) or fp16 (GPUs only)")
	f.IntVar(&s.threads, "threads", 0, "use `N` CPU threads; 0: all that the machine, the container or the scheduler (SLURM_CPUS_PER_TASK) gives")

	f = in("Sequences")
	f.StringVar(&s.long, "long", "truncate", "`POLICY` for records over --max-length: truncate, window (in pieces that are joined) or error")
	f.IntVar(&s.maxLength, "max-length", 0, "use at most `N` letters of a record; 0: no limit (default "+strings.Join(limits, ", ")+")")
	f.IntVar(&s.minLength, "min-length", 0, "skip and count records of fewer than `N` letters")
	f.StringVar(&s.gaps, "gaps", "error", "`POLICY` for gaps (- and . inside a sequence): error or remove")
	f.StringVar(&s.onBad, "on-bad-record", "error", "`POLICY` for empty records and illegal letters: error or skip")
	f.StringVar(&s.duplicates, "duplicates", "error", "`POLICY` for an id that comes twice: error or suffix")
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

// formatNames returns the names of all output formats as a sentence has them: "a, b or c".
func formatNames() string {
	var names []string
	for _, format := range store.Formats() {
		names = append(names, string(format))
	}
	last := len(names) - 1
	return strings.Join(names[:last], ", ") + " or " + names[last]
}

// environmentPrefix is the prefix of the variables for flags: EMBED_ESM_MODEL sets --esm-model.
const environmentPrefix = "EMBED_"

// notFromEnvironment lists the flags that the environment cannot set. Container images often set EMBED_VERSION for
// another purpose.
var notFromEnvironment = []string{"help", "version"}

// parse parses the command line, and the environment for flags that are not on the command line. Its errors are usage
// errors.
func parse(args, environ []string) (*settings, []group, error) {
	s := &settings{}
	groups := declare(s, transformer.Families)
	all := pflag.NewFlagSet("embed", pflag.ContinueOnError)
	all.SetOutput(io.Discard) // the caller prints errors
	for _, g := range groups {
		all.AddFlagSet(g.flags)
	}
	s.given = all.Changed
	if err := all.Parse(repeatFor(fileLists, twoDashes(args, all))); err != nil {
		return s, groups, usagef("%v", err)
	}
	s.inputs = all.Args()
	return s, groups, fromEnvironment(all, environ)
}

// fromEnvironment sets the flags that are not on the command line. An invalid value is a usage error.
func fromEnvironment(flags *pflag.FlagSet, environ []string) error {
	for _, variable := range environ {
		name, value, _ := strings.Cut(variable, "=")
		suffix, ok := strings.CutPrefix(name, environmentPrefix)
		flag := flags.Lookup(strings.ReplaceAll(strings.ToLower(suffix), "_", "-"))
		if !ok || flag == nil || flag.Changed || slices.Contains(notFromEnvironment, flag.Name) {
			continue
		}
		if err := flags.Set(flag.Name, value); err != nil {
			return usagef("environment variable %s: %v", name, err)
		}
	}
	return nil
}

// twoDashes replaces the form of Go's package flag, -gpus 0,1, by --gpus 0,1. A dash with a single letter remains a
// short flag.
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

// fileLists lists the flags that apply to all files that follow them, because a shell expands --dna *.fa to one flag
// and many files.
var fileLists = []string{"--dna", "--protein"}

// repeatFor repeats these flags before each of the files that follow them, up to the next flag.
func repeatFor(flags, args []string) []string {
	var out []string
	list := "" // the flag that applies to the current argument, or ""
	for i, a := range args {
		switch {
		case a == "--":
			return append(out, args[i:]...)
		case a != "-" && strings.HasPrefix(a, "-"):
			list = ""
		case list != "" && !slices.Contains(flags, args[i-1]):
			out = append(out, list)
		}
		if slices.Contains(flags, a) {
			list = a
		}
		out = append(out, a)
	}
	return out
}
