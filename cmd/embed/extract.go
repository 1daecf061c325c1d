package main

import (
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"seqembed/internal/store"
	"seqembed/transformer"
)

// extractFlags holds the values of the flags that embed shares with scripts/extract.py of the package fair-esm.
type extractFlags struct {
	include    []string
	reprLayers []int
	truncation int
}

// declareExtract declares the flags that embed shares with extract.py of the package fair-esm.
func declareExtract(f *pflag.FlagSet, e *extractFlags) {
	f.StringSliceVar(&e.include, "include", nil, "`WHAT` to store in --format pt, which this flag makes the default: mean, per_tok, bos, separated by spaces or commas")
	f.IntSliceVar(&e.reprLayers, "repr_layers", nil, "`NUMBERS` as for --layers, separated by spaces or commas")
	for _, name := range []string{"include", "repr_layers"} {
		list := f.Lookup(name)
		list.Value = spacedList{list.Value}
	}
	f.IntVar(&e.truncation, "truncation_seq_length", 0, "`N` as for --max-length")
}

// spacedList is the value of a flag with a list. Its function Set accepts spaces in place of the commas between the
// elements.
type spacedList struct{ pflag.Value }

// listSpace matches what may be between two elements of a list.
var listSpace = regexp.MustCompile(`\s*,\s*|\s+`)

// Set sets the flag to a list whose elements are separated by spaces or commas.
func (l spacedList) Set(list string) error {
	return l.Value.Set(listSpace.ReplaceAllString(strings.TrimSpace(list), ","))
}

// extractPoolings maps the values of --include, a flag of fair-esm's extract.py, to poolings.
var extractPoolings = map[string]transformer.Pooling{"mean": transformer.Mean, "per_tok": transformer.Residues, "bos": transformer.CLS}

// extractLists maps the flags that take several arguments in fair-esm's extract.py to the pattern of their arguments.
var extractLists = map[string]*regexp.Regexp{
	"include":     regexp.MustCompile(`^(mean|per_tok|bos|contacts)$`),
	"repr_layers": regexp.MustCompile(`^-?[0-9]+$`),
}

// joinLists joins the arguments of each flag in extractLists: "--include mean bos" becomes "--include=mean,bos". The
// list of a flag ends before the first argument that does not match the flag's pattern.
func joinLists(args []string) (joined []string) {
	for i := 0; i < len(args); i++ {
		if args[i] == "--" {
			return append(joined, args[i:]...)
		}
		form, ok := extractLists[strings.TrimLeft(args[i], "-")]
		if !ok || !strings.HasPrefix(args[i], "-") {
			joined = append(joined, args[i])
			continue
		}
		end := i + 1
		for end < len(args) && form.MatchString(args[end]) {
			end++
		}
		if end == i+1 {
			joined = append(joined, args[i])
			continue
		}
		joined = append(joined, args[i]+"="+strings.Join(args[i+1:end], ","))
		i = end - 1
	}
	return joined
}

// applyExtractFlags copies the flags of fair-esm's extract.py to the settings that they stand for: --include to --pool,
// --repr_layers to --layers, and --truncation_seq_length to --max-length. With --include the format is pt, unless
// --format is given.
func (s *settings) applyExtractFlags() error {
	for _, f := range []struct{ name, ours string }{{"include", "pool"}, {"repr_layers", "layers"}, {"truncation_seq_length", "max-length"}} {
		if s.given(f.name) && s.given(f.ours) {
			return usagef("--%s and --%s set the same: give one of them", f.name, f.ours)
		}
	}
	if s.given("include") {
		s.pool = nil
		for _, name := range s.extract.include {
			p, ok := extractPoolings[name]
			switch {
			case name == "contacts":
				return usagef("--include contacts: embed computes no contact maps; extract.py of fair-esm does")
			case !ok:
				return usagef("--include: %q is none of mean, per_tok, bos", name)
			case !slices.Contains(s.pool, string(p)):
				s.pool = append(s.pool, string(p))
			}
		}
		if !s.given("format") {
			s.format = string(store.Pt)
		}
	}
	if s.given("repr_layers") {
		s.layers = s.extract.reprLayers
	}
	if s.given("truncation_seq_length") {
		if s.extract.truncation < 1 {
			return usagef("--truncation_seq_length: %d is not a length", s.extract.truncation)
		}
		s.maxLength = s.extract.truncation
	}
	return nil
}
