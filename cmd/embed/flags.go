package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"seqembed/internal/store"
	"seqembed/pool"
	"seqembed/transformer"
)

// settings contains the values of the flags, from the command line and the environment.
type settings struct {
	inputs       []string
	dna, protein []string

	out      string
	format   string
	dtypeOut string
	compress bool
	h5Matrix bool
	extract  extractFlags

	families []familyFlags // flags of each family of models

	gpus    string
	dtype   string
	offline bool
	threads int

	pool     []string
	poolings []transformer.Pooling // parsed value of --pool; set by check
	layers   []int

	long       string
	maxLength  int
	overlap    int
	windows    bool
	minLength  int
	gaps       string
	onBad      string
	duplicates string
	keepCase   bool

	shardText string
	shards    int
	shard     pool.Shard // the zero value if there is no --shard; set by parseShard

	partRecords  int
	stallTimeout time.Duration

	force      bool
	dryRun     bool
	page       string // path of the page that --report writes, or ""
	quiet      bool
	verbose    bool
	noProgress bool
	logFormat  string

	presetName     string
	expectedLength int
	preset         *preset // nil without --preset; set by usePreset

	help, version bool
	environ       []string
	given         func(flag string) bool // reports whether a flag was set, on the command line or in the environment
}

// group is a section of the help: a title and flags.
type group struct {
	title string
	flags *pflag.FlagSet
}

// declare declares every flag of embed, in the groups and the order of the help. The flags set the fields of s. Each
// family of models adds flags of its own.
func declare(s *settings, families transformer.List) []group {
	var groups []group
	in := func(title string) *pflag.FlagSet {
		f := pflag.NewFlagSet(title, pflag.ContinueOnError)
		f.SortFlags = false
		groups = append(groups, group{title, f})
		return f
	}

	f := in("Input and output")
	f.StringArrayVar(&s.dna, "dna", nil, "`FILE`s up to the next flag are DNA, whatever their letters; repeatable; --dna=FILE applies to one file only")
	f.StringArrayVar(&s.protein, "protein", nil, "`FILE`s up to the next flag are protein; otherwise as --dna")
	f.StringVarP(&s.out, "out", "o", "embeddings", "the folder `DIR` for the outputs, created if needed")
	f.StringVar(&s.format, "format", string(store.Formats()[0]), "`FORMAT` of the outputs: "+formatNames())
	f.StringVar(&s.dtypeOut, "dtype-out", string(store.DTypes()[0]), "`TYPE` of the values in the outputs: fp32 or fp16")
	f.BoolVar(&s.compress, "compress", false, "compress parquet with Zstandard")
	f.BoolVar(&s.h5Matrix, "h5-matrix", false, "one matrix and a list of ids in h5, instead of an array for each id")
	f.StringVar(&s.shardText, "shard", "", "embed the records of shard `I/N` alone, the first being 1/N, for embed merge; auto: I comes from the scheduler")
	f.IntVar(&s.shards, "shards", 0, "`N` of --shard auto")
	f.BoolVar(&s.force, "force", false, "compute everything again, and replace outputs that differ")

	f.IntVar(&s.partRecords, "part-records", pool.DefaultPartRecords, "a rerun after a kill computes at most `N` records of a file again; 0: the whole file")
	f.BoolVar(&s.dryRun, "dry-run", false, "read the inputs and say what would be computed, how large the outputs would be, and what is complete; write nothing")

	f = in("Models")
	var means []string
	s.families = make([]familyFlags, len(families))
	for i, family := range families {
		m := &s.families[i]
		m.Family = family
		means = append(means, m.Name+" "+map[bool]string{false: "without", true: "with"}[m.MeanOfSpecial])
		names := slices.Concat([]string{"a folder", "a checkpoint file", "a hub id"}, m.ModelNames(), []string{"or synthetic:NAME[@SEED]"})
		f.StringVar(&m.model, m.flag("model"), m.Default, fmt.Sprintf("`MODEL` for %s: %s", m.Alphabet, strings.Join(names, ", ")))
		if !m.FixedVocabulary {
			f.StringVar(&m.vocabulary, m.flag("tokenizer"), "", m.VocabularyFile+" `FILE` to use instead of the checkpoint's")
		}
	}
	f.StringSliceVar(&s.pool, "pool", []string{string(transformer.Mean)}, "`POOLINGS` of a record's tokens, such as mean,max: mean (special tokens: "+
		strings.Join(means, ", ")+"), max (of the same tokens), cls (the first token alone), residues (a row for each token but the special ones: "+
		"a letter of a protein, several of DNA) or tokens (a row for every token; none is its old name)")
	f.IntSliceVar(&s.layers, "layers", []int{-1}, "`NUMBERS` of the blocks after which embeddings are taken, such as 0,6,-1: 0 is before the first, negative ones count from the end")
	f.BoolVar(&s.offline, "offline", false, "never download a model, as with HF_HUB_OFFLINE=1")

	declareCompute(in("Compute"), s)

	declareSequences(in("Sequences"), s)

	declareExtract(in("Flags of fair-esm's extract.py"), &s.extract)

	declarePreset(in("Presets"), s)

	declareMessages(in("Messages"), s)
	return groups
}

// declareCompute declares the flags about devices. For each family of models in s there is a flag for the batch size.
func declareCompute(f *pflag.FlagSet, s *settings) {
	f.StringVar(&s.gpus, "gpus", "all", "`GPUS` to use: all, none, or indices such as 0,1")
	for i := range s.families {
		m := &s.families[i]
		f.IntVar(&m.batch, m.flag("batch-size"), 0, fmt.Sprintf("`TOKENS` in a batch of %s; 0: automatic", m.Name))
	}
	f.StringVar(&s.dtype, "dtype", "auto", "`TYPE` of the matrix products: auto (bf16 on a GPU, fp32 on a CPU), fp32, bf16 (on a CPU without instructions for it: of the weights in memory alone) or fp16 (GPUs only)")
	f.DurationVar(&s.stallTimeout, "stall-timeout", 10*time.Minute, "give up a GPU that does not finish a batch in this `TIME`, such as 90s or 10m; 0: never")
	f.IntVar(&s.threads, "threads", 0, "use `N` CPU threads; 0: all that the machine, the container or the scheduler (SLURM_CPUS_PER_TASK) gives")
}

// declareMessages declares the flags about messages, and --report, --help and --version.
func declareMessages(f *pflag.FlagSet, s *settings) {
	f.StringVar(&s.page, "report", "", "write a page about the run, a `FILE` that ends in .html: throughput, lengths, failures and a map of the embeddings")
	f.BoolVarP(&s.quiet, "quiet", "q", false, "errors only")
	f.BoolVarP(&s.verbose, "verbose", "v", false, "every batch as well")
	f.BoolVar(&s.noProgress, "no-progress", false, "log lines instead of a dashboard")
	f.StringVar(&s.logFormat, "log-format", "text", "`FORMAT` of log lines: text or json")
	f.BoolVarP(&s.help, "help", "h", false, "this page")
	f.BoolVar(&s.version, "version", false, "the version")
}

// declarePreset declares the flags of presets.
func declarePreset(f *pflag.FlagSet, s *settings) {
	f.StringVar(&s.presetName, "preset", "", "replace another program: `NAME` virnucpro cuts DNA into chunks, translates six frames, embeds the frames without a stop and their proteins, and merges both for VirNucPro")
	f.IntVar(&s.expectedLength, "expected-length", 0, "`N` letters in a chunk: 300 or 500 (default 500)")
}

// declareSequences declares the flags about records. The descriptions of the flags name the length limits of the
// families of models in s.
func declareSequences(f *pflag.FlagSet, s *settings) {
	var limits, windows []string
	for _, m := range s.families {
		limits = append(limits, fmt.Sprintf("%d for %s", m.MaxLength, m.Name))
		windows = append(windows, fmt.Sprintf("%d for %s", cmp.Or(m.MaxLength, m.Window), m.Name))
	}
	f.StringVar(&s.long, "long", "truncate", "`POLICY` for records over --max-length: truncate (use the beginning), window (in pieces that are joined) or error")
	f.IntVar(&s.maxLength, "max-length", 0, "use at most `N` letters of a record, or in a window; 0: no limit (default "+strings.Join(limits, ", ")+
		"; of windows "+strings.Join(windows, ", ")+")")
	f.IntVar(&s.overlap, "overlap", 0, "`N` letters that a window shares with the one before it (--long window)")
	f.BoolVar(&s.windows, "windows", false, "one row for each window, with its start and end in the record (--long window)")
	f.IntVar(&s.minLength, "min-length", 0, "skip and count records of fewer than `N` letters")
	f.StringVar(&s.gaps, "gaps", "error", "`POLICY` for gaps (- and . inside a sequence): error or remove")
	f.StringVar(&s.onBad, "on-bad-record", "error", "`POLICY` for empty records and illegal letters: error or skip")
	f.StringVar(&s.duplicates, "duplicates", "error", "`POLICY` for an id that comes twice: error or suffix")
	f.BoolVar(&s.keepCase, "keep-case", false, "do not upper-case letters (the DNA tokenizer does not know lower-case ones)")
}

// formatNames returns the names of all output formats in the form "a, b or c".
func formatNames() string {
	var names []string
	for _, format := range store.Formats() {
		names = append(names, string(format))
	}
	last := len(names) - 1
	return strings.Join(names[:last], ", ") + " or " + names[last]
}

// parse parses the command line. It takes flags that are not on the command line from the environment. All errors are
// usage errors.
func parse(args, environ []string) (*settings, []group, error) {
	s := &settings{}
	groups := declare(s, transformer.Families)
	all := allFlags(groups)
	s.given, s.environ = all.Changed, environ
	err := parseFlags(all, joinLists(args), environ)
	s.inputs = all.Args()
	return s, groups, err
}

// allFlags returns the flags of all groups.
func allFlags(groups []group) *pflag.FlagSet {
	all := pflag.NewFlagSet("embed", pflag.ContinueOnError)
	for _, g := range groups {
		all.AddFlagSet(g.flags)
	}
	return all
}

// parseFlags parses arguments. It takes flags that are not among the arguments from the environment.
func parseFlags(flags *pflag.FlagSet, args, environ []string) error {
	flags.SetOutput(io.Discard) // pflag prints nothing, because the caller prints errors
	args, err := twoDashes(args, flags)
	if err != nil {
		return err
	}
	if err := flags.Parse(repeatFor(fileLists, args)); err != nil {
		return explainFlag(err, flags)
	}
	return fromEnvironment(flags, environ)
}

// environmentPrefix is the prefix of the variables for flags: EMBED_ESM_MODEL sets --esm-model.
const environmentPrefix = "EMBED_"

var (
	// notFromEnvironment lists the flags that the environment cannot set. Container images often set EMBED_VERSION for
	// another purpose.
	notFromEnvironment = []string{"help", "version"}
	// otherVariables lists variables with environmentPrefix that set no flag; other packages read them.
	otherVariables = []string{"EMBED_CUBLAS"}
)

// variableFlag returns the flag that an environment variable names, or nil if there is none. ours reports whether the
// name of the variable consists of environmentPrefix and at least one more character.
func variableFlag(flags *pflag.FlagSet, name string) (flag *pflag.Flag, ours bool) {
	suffix, ours := strings.CutPrefix(name, environmentPrefix)
	if !ours {
		return nil, false
	}
	flags.VisitAll(func(f *pflag.Flag) {
		if variableSuffix(f.Name) == strings.ToUpper(suffix) {
			flag = f
		}
	})
	return flag, suffix != ""
}

// variableSuffix returns the name of a flag as it stands in an environment variable, after environmentPrefix.
func variableSuffix(flag string) string { return strings.ToUpper(strings.ReplaceAll(flag, "-", "_")) }

// fromEnvironment sets flags from the environment variables that name them. A flag on the command line keeps its value.
// An invalid value is a usage error.
func fromEnvironment(flags *pflag.FlagSet, environ []string) error {
	for _, variable := range environ {
		name, value, _ := strings.Cut(variable, "=")
		flag, _ := variableFlag(flags, name)
		if flag == nil || flag.Changed || slices.Contains(notFromEnvironment, flag.Name) {
			continue
		}
		if err := flags.Set(flag.Name, value); err != nil {
			return usagef("environment variable %s: %s", name, wrongValue(flag, value))
		}
	}
	return nil
}

// unknownVariables lists the environment variables whose names begin with environmentPrefix, but that neither name a
// flag nor are in otherVariables. If a listed name is similar to those of known variables, a suggestion follows the
// listed name.
func unknownVariables(groups []group, environ []string) (list []string) {
	flags := allFlags(groups)
	known := slices.Clone(otherVariables)
	flags.VisitAll(func(f *pflag.Flag) {
		known = append(known, environmentPrefix+variableSuffix(f.Name))
	})
	for _, variable := range environ {
		name, _, _ := strings.Cut(variable, "=")
		if flag, ours := variableFlag(flags, name); ours && flag == nil && !slices.Contains(known, name) {
			list = append(list, name+didYouMean(name, "", known))
		}
	}
	return list
}

// twoDashes adds the second dash to a long flag that has only one, as Go's package flag allows: -gpus 0,1 becomes
// --gpus 0,1. It leaves short flags as they are, such as -o, or -qv for -q -v. Any other flag with one dash is a usage
// error: -output is not read as -o with the value utput.
func twoDashes(args []string, flags *pflag.FlagSet) ([]string, error) {
	var out []string
	isValue := false // whether the current argument is the value of the flag before it
	for i, a := range args {
		name, isFlag := strings.CutPrefix(a, "-")
		name, _, joined := strings.Cut(strings.TrimPrefix(name, "-"), "=")
		switch {
		case isValue || !isFlag || a == "-":
			isValue = false
		case a == "--":
			return append(out, args[i:]...), nil
		default:
			short := a[1] != '-'
			flag := flags.Lookup(name)
			if short && len(name) == 1 {
				flag = flags.ShorthandLookup(name)
			} else if short && flag != nil {
				a = "-" + a
			} else if short && !allSwitches(name, flags) {
				return nil, unknownFlag("-"+name, flags)
			}
			isValue = flag != nil && flag.NoOptDefVal == "" && !joined
		}
		out = append(out, a)
	}
	return out, nil
}

// allSwitches reports whether each of the letters is a short flag without a value.
func allSwitches(letters string, flags *pflag.FlagSet) bool {
	return !strings.ContainsFunc(letters, func(letter rune) bool {
		if letter > '~' {
			return true
		}
		flag := flags.ShorthandLookup(string(letter))
		return flag == nil || flag.NoOptDefVal == ""
	})
}

// flagsOfExtract maps flags of fair-esm's extract.py to flags of embed that do the same under another name. The keys
// have hyphens instead of underscores, as plainName returns them.
var flagsOfExtract = map[string]string{"toks-per-batch": "--esm-batch-size", "nogpu": "--gpus none"}

// unknownFlag returns the usage error for a flag that does not exist. typed is the flag as the user wrote it, with its
// dashes.
func unknownFlag(typed string, flags *pflag.FlagSet) error {
	name := strings.TrimLeft(typed, "-")
	var names []string
	flags.VisitAll(func(f *pflag.Flag) { names = append(names, f.Name) })
	hint := didYouMean(name, "--", names)
	if instead := flagsOfExtract[plainName(name)]; instead != "" {
		hint = "; embed has " + instead
	}
	if letter := name[:1]; hint == "" && typed[1] != '-' && letter <= "~" {
		if flag := flags.ShorthandLookup(letter); flag != nil && flag.NoOptDefVal == "" {
			hint = fmt.Sprintf("; a space separates the value from -%s: -%[1]s %s", letter, name[1:])
		}
	}
	return usagef("there is no flag %s%s", typed, hint)
}

// explainFlag turns an error of package pflag into a usage error that names the flag and its mistake.
func explainFlag(err error, flags *pflag.FlagSet) error {
	var unknown *pflag.NotExistError
	var invalid *pflag.InvalidValueError
	var missing *pflag.ValueRequiredError
	switch {
	case errors.As(err, &unknown) && unknown.GetSpecifiedShortnames() != "":
		return unknownFlag("-"+unknown.GetSpecifiedShortnames(), flags)
	case errors.As(err, &unknown):
		return unknownFlag("--"+unknown.GetSpecifiedName(), flags)
	case errors.As(err, &invalid):
		return usagef("--%s: %s", invalid.GetFlag().Name, wrongValue(invalid.GetFlag(), invalid.GetValue()))
	case errors.As(err, &missing):
		value, _ := pflag.UnquoteUsage(missing.GetFlag())
		return usagef("--%s needs a value: --%[1]s %s", missing.GetFlag().Name, value)
	}
	return usagef("%v", err)
}

// wrongValue returns the reason why a flag refuses a value.
func wrongValue(flag *pflag.Flag, value string) string {
	_, err := strconv.ParseInt(value, 0, 0)
	switch kind := flag.Value.Type(); {
	case kind == "bool":
		return fmt.Sprintf("%q is neither true nor false", value)
	case kind == "duration":
		return fmt.Sprintf("%q is not a time, such as 90s, 10m or 0", value)
	case kind == "intSlice":
		return fmt.Sprintf("%q is not a list of whole numbers, such as 0,6,-1", value)
	case errors.Is(err, strconv.ErrRange):
		return fmt.Sprintf("%s is far beyond any sensible number", value)
	}
	return fmt.Sprintf("%q is not a whole number", value)
}

// fileLists lists the flags that apply to all files up to the next flag, because a shell expands --dna *.fa to one flag
// and many files.
var fileLists = []string{"--dna", "--protein"}

// repeatFor repeats each of the given flags before every file that follows it, up to the next flag: --dna a b becomes
// --dna a --dna b.
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
