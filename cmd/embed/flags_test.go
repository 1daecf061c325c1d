package main

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"seqembed/internal/seqio"
	"seqembed/internal/store"
	"seqembed/transformer"
)

// promised lists the flags that the page of embed --help must list.
var promised = []string{"dna", "protein", "out", "format", "dnabert-model", "esm-model", "dnabert-tokenizer", "gpus", "dnabert-batch-size",
	"esm-batch-size", "dtype", "dtype-out", "pool", "layers", "long", "max-length", "overlap", "windows", "min-length", "gaps", "on-bad-record", "duplicates", "keep-case", "threads",
	"force", "part-records", "stall-timeout", "offline", "quiet", "verbose", "no-progress", "log-format", "preset", "expected-length", "dry-run", "report", "help", "version", "compress", "h5-matrix",
	"shard", "shards", "include", "repr_layers", "truncation_seq_length"}

func TestHelp(t *testing.T) {
	for _, flag := range []string{"--help", "-h", "-help"} {
		r := embed(t, flag).wantCode(0)
		if r.stderr != "" {
			t.Errorf("%s writes %q to stderr", flag, r.stderr)
		}
		var named []string
		for _, match := range regexp.MustCompile(`(?m)^ .*?--([a-z0-9_-]+)`).FindAllStringSubmatch(r.stdout, -1) {
			if line := match[0]; strings.HasPrefix(line, "      --") || strings.HasPrefix(line, "  -") {
				named = append(named, match[1])
			}
		}
		want := slices.Clone(promised)
		for _, f := range transformer.Families {
			want = append(want, f.Flag+"-model", f.Flag+"-batch-size")
			if !f.FixedVocabulary {
				want = append(want, f.Flag+"-tokenizer")
			}
		}
		slices.Sort(want)
		slices.Sort(named)
		if want = slices.Compact(want); !slices.Equal(named, want) {
			t.Errorf("the help lists %q, want %q", named, want)
		}
		for line := range strings.Lines(r.stdout) {
			if n := len([]rune(strings.TrimRight(line, "\n"))); n > helpWidth {
				t.Errorf("%d characters: %q", n, line)
			}
		}
		for _, not := range []string{"[=true|false]", "[-1]", "default 0)\n", "``", "`"} {
			if strings.Contains(r.stdout, not) {
				t.Errorf("the help shows %q", not)
			}
		}
		for _, part := range []string{"-o, --out DIR", "(default embeddings)", "(default -1)", "--gpus GPUS", "Examples:", "Exit codes"} {
			if !strings.Contains(r.stdout, part) {
				t.Errorf("the help does not show %q", part)
			}
		}
	}
}

// TestHelpColumns checks that the descriptions of flags in the help begin in the same column.
func TestHelpColumns(t *testing.T) {
	var column int
	for line := range strings.Lines(embed(t, "--help").stdout) {
		match := regexp.MustCompile(`^ +(-\w, )?--[a-z-]+( [A-Z]+)?  +`).FindString(line)
		if match == "" {
			continue
		}
		if column == 0 {
			column = len(match)
		}
		if len(match) != column {
			t.Errorf("column %d, not %d: %q", len(match), column, line)
		}
	}
	if column == 0 {
		t.Fatal("no flag found in the help")
	}
}

// TestHelpOfSyntheticFamily checks the help with a third family of models, which is for DNA and has no published
// checkpoints. The help must list no empty name, and must give the length limit of each family.
func TestHelpOfSyntheticFamily(t *testing.T) {
	third := &transformer.Family{Name: "Third", Alphabet: seqio.DNA, Flag: "third", Default: "synthetic:third-s",
		Published: []transformer.Published{{Name: "third-s"}}, FixedVocabulary: true, MaxLength: 77}
	var page strings.Builder
	printHelp(&page, declare(&settings{}, append(slices.Clone(transformer.Families), third)))
	text := strings.Join(strings.Fields(page.String()), " ")
	for _, part := range []string{
		"--third-model MODEL MODEL for DNA: a folder, a checkpoint file, a hub id, or synthetic:NAME[@SEED] (default synthetic:third-s)",
		"(default 0 for DNABERT, 1022 for ESM-2, 77 for Third; of windows 10000 for DNABERT, 1022 for ESM-2, 77 for Third)",
		"mean (special tokens: DNABERT with, ESM-2 without, Third without)",
	} {
		if !strings.Contains(text, part) {
			t.Errorf("the help does not show %q:\n%s", part, page.String())
		}
	}
}

func TestVersion(t *testing.T) {
	for _, flag := range []string{"--version", "-version"} {
		r := embed(t, flag).wantCode(0)
		if !regexp.MustCompile(`^embed \d+\.\d+\.\d+(\+[0-9a-f]{12}(\.dirty)?)? go\S+ \w+/\w+\n$`).MatchString(r.stdout) || r.stderr != "" {
			t.Errorf("%q, %q", r.stdout, r.stderr)
		}
	}
}

// TestOneDashOrTwo checks that every long flag can be written with one dash or two, and that its value can follow "="
// or be the next argument.
func TestOneDashOrTwo(t *testing.T) {
	values := map[string]string{"int": "7", "intSlice": "0,2", "string": "x", "stringArray": "x", "stringSlice": "x,y", "duration": "5m"}
	for _, g := range declare(&settings{}, transformer.Families) {
		g.flags.VisitAll(func(f *pflag.Flag) {
			forms := [][]string{{"-" + f.Name}, {"--" + f.Name}}
			if value := values[f.Value.Type()]; value != "" {
				forms = [][]string{{"-" + f.Name, value}, {"--" + f.Name, value}, {"-" + f.Name + "=" + value}, {"--" + f.Name + "=" + value}}
			}
			var want string
			for _, form := range forms {
				s, _, err := parse(append([]string{"in.fa"}, form...), nil)
				if err != nil || !s.given(f.Name) || !slices.Equal(s.inputs, []string{"in.fa"}) {
					t.Errorf("%q: %v, inputs %q", form, err, s.inputs)
					continue
				}
				s.given = nil
				got := fmt.Sprintf("%+v", *s)
				if want == "" {
					want = got
				}
				if got != want {
					t.Errorf("%q gives %s, the first form %s", form, got, want)
				}
			}
		})
	}
}

func TestShortFlags(t *testing.T) {
	s, _, err := parse([]string{"-o", "x", "-q", "in.fa"}, nil)
	if err != nil || s.out != "x" || !s.quiet || !slices.Equal(s.inputs, []string{"in.fa"}) {
		t.Errorf("%+v: %v", s, err)
	}
	if s, _, err = parse([]string{"-layers", "-1,0", "--dna", "-", "--", "-v"}, nil); err != nil || !slices.Equal(s.layers, []int{-1, 0}) ||
		!slices.Equal(s.dna, []string{"-"}) || !slices.Equal(s.inputs, []string{"-v"}) {
		t.Errorf("%+v: %v", s, err)
	}
}

// TestFlagsOfManyFiles checks that --dna and --protein apply to all files up to the next flag, as in --dna *.fa. With
// "=" they apply to one file only.
func TestFlagsOfManyFiles(t *testing.T) {
	for line, want := range map[string]string{
		"--dna a b c":                               "dna a b c",
		"-dna a b":                                  "dna a b",
		"x --dna a b -o out y":                      "x, y dna a b",
		"--dna a b --protein c d":                   "dna a b protein c d",
		"--dna a - --protein - b":                   "dna a - protein - b",
		"--dna=a b":                                 "b dna a",
		"--dna a --force b":                         "b dna a",
		"--dna a b -- c --dna":                      "c, --dna dna a b",
		"--dna a --dna b c --protein=d e --dna=f g": "e, g dna a b c f protein d",
	} {
		s, _, err := parse(strings.Fields(line), nil)
		if err != nil {
			t.Errorf("%s: %v", line, err)
			continue
		}
		got := strings.Join(s.inputs, ", ")
		for _, list := range []struct {
			name  string
			files []string
		}{{"dna", s.dna}, {"protein", s.protein}} {
			if len(list.files) > 0 {
				got += " " + list.name + " " + strings.Join(list.files, " ")
			}
		}
		if strings.TrimSpace(got) != want {
			t.Errorf("%s: %s, want %s", line, got, want)
		}
	}
	if _, _, err := parse([]string{"--dna"}, nil); err == nil {
		t.Error("--dna without a file is taken")
	}
}

func TestEnvironment(t *testing.T) {
	environ := []string{"EMBED_OUT=there", "EMBED_ESM_BATCH_SIZE=99", "EMBED_LAYERS=0,1", "EMBED_FORCE=true", "EMBED_MAX_LENGTH=5", "PATH=/bin"}
	s, _, err := parse([]string{"-esm-batch-size", "7"}, environ)
	if err != nil {
		t.Fatal(err)
	}
	esm := s.families[slices.IndexFunc(s.families, func(f familyFlags) bool { return f.Flag == "esm" })]
	if s.out != "there" || esm.batch != 7 || !slices.Equal(s.layers, []int{0, 1}) || !s.force || s.maxLength != 5 || !s.given("max-length") {
		t.Errorf("%+v", s)
	}
	// Variables with the prefix EMBED_ that set no flag are not an error: other programs may use the prefix.
	if _, _, err := parse(nil, []string{"EMBED_VERSION=1.2.3", "EMBED_HELP=me", "EMBED_CUBLAS=/x", "EMBED_="}); err != nil {
		t.Error(err)
	}
	embedWith(t, []string{"EMBED_ESM_BATCH_SIZE=many"}, "x.fa").wantCode(exitUsage)
	r := embedWith(t, []string{"EMBED_ESM_BATCH_SIZE=many"}, "x.fa")
	r.wantProblem("EMBED_ESM_BATCH_SIZE", "many")
}

// TestMistakesOnTheCommandLine checks that a mistake causes one line that names the mistake, with exit code 64, and
// that nothing is written.
func TestMistakesOnTheCommandLine(t *testing.T) {
	workspace(t)
	write(t, "p.faa", ">a\nMKV\n")
	write(t, "twin/p.fasta", ">a\nMKV\n")
	unknownFormat := []string{"--format", `"hdf"`}
	for _, format := range store.Formats() {
		unknownFormat = append(unknownFormat, string(format))
	}
	for _, c := range []struct {
		args string
		says []string
	}{
		{"", []string{"no input"}},
		{"--nonsense p.faa", []string{"--nonsense"}},
		{"--gpus two p.faa", []string{"--gpus", `"two"`}},
		{"--gpus -1 p.faa", []string{"--gpus"}},
		{"--gpus none --dtype fp16 p.faa", []string{"--dtype fp16", "GPU"}},
		{"--dtype int8 p.faa", []string{"--dtype", `"int8"`}},
		{"--format hdf p.faa", unknownFormat},
		{"--dtype-out bf16 p.faa", []string{"--dtype-out", "bf16", "fp32, fp16"}},
		{"--format virnucpro --dtype-out fp16 p.faa", []string{"virnucpro", "--dtype-out fp32"}},
		{"--pool mean,best p.faa", []string{"--pool", `"best"`, "mean, max, cls, residues, tokens"}},
		{"--pool max,mean,max p.faa", []string{"--pool", "max", "twice"}},
		{"--pool tokens,none p.faa", []string{"--pool", "tokens", "twice"}},
		{"--long cut p.faa", []string{"--long", "cut"}},
		{"--on-bad-record ignore p.faa", []string{"--on-bad-record", "ignore"}},
		{"--gaps keep p.faa", []string{"--gaps", "keep"}},
		{"--duplicates drop p.faa", []string{"--duplicates", "drop"}},
		{"--windows p.faa", []string{"--windows", "--long window"}},
		{"--overlap 10 p.faa", []string{"--overlap", "--long window"}},
		{"--long window --overlap -1 p.faa", []string{"--overlap", "-1"}},
		{"--long window --max-length 0 --esm-model " + tiny + " p.faa", []string{"--max-length 0", "1022 letters"}},
		{"--long window --max-length 9 --overlap 9 --esm-model " + tiny + " p.faa", []string{"--overlap: 9 letters", "--max-length"}},
		{"--log-format xml p.faa", []string{"--log-format", "xml"}},
		{"--quiet --verbose p.faa", []string{"--quiet", "--verbose"}},
		{"--max-length -5 p.faa", []string{"--max-length", "-5"}},
		{"--include contacts p.faa", []string{"--include", "contact maps"}},
		{"--include=residues p.faa", []string{"--include", "per_tok"}},
		{"--include mean --pool mean p.faa", []string{"--include", "--pool"}},
		{"--repr_layers 0 --layers 0 p.faa", []string{"--repr_layers", "--layers"}},
		{"--truncation_seq_length 0 p.faa", []string{"--truncation_seq_length", "0"}},
		{"--truncation_seq_length 9 --max-length 9 p.faa", []string{"--truncation_seq_length", "--max-length"}},
		{"--format pt --pool max p.faa", []string{"pt", "max"}},
		{"--compress --format npy p.faa", []string{"--compress", "parquet"}},
		{"--format h5 --h5-matrix --pool tokens p.faa", []string{"--pool", "h5", "per residue or token"}},
		{"--h5-matrix p.faa", []string{"--h5-matrix", "h5"}},
		{"--min-length=-1 p.faa", []string{"--min-length"}},
		{"--threads -1 p.faa", []string{"--threads"}},
		{"--threads 1000000 p.faa", []string{"--threads"}},
		{"--esm-batch-size -1 p.faa", []string{"--esm-batch-size"}},
		{"--dnabert-batch-size 1000000000000 p.faa", []string{"--dnabert-batch-size"}},
		{"--esm-batch-size many p.faa", []string{"--esm-batch-size", "many"}},
		{"--layers 0,4 --esm-model " + tiny + " p.faa", []string{"--layers", "layer 4", "0 (the embedding) to 3"}},
		{"--layers 3,-1 --esm-model " + tiny + " p.faa", []string{"--layers", "layer 3", "twice"}},
		{"--layers one p.faa", []string{"--layers", "one"}},
		{"--format virnucpro --pool none --esm-model " + tiny + " p.faa", []string{"virnucpro", "--pool mean"}},
		{"--format virnucpro --layers 0,1 --esm-model " + tiny + " p.faa", []string{"virnucpro", "one layer"}},
	} {
		r := embed(t, strings.Fields("-o out "+c.args)...)
		r.wantCode(exitUsage)
		r.wantProblem(append(c.says, "embed --help")...)
		if r.stdout != "" {
			t.Errorf("%s writes %q to stdout", c.args, r.stdout)
		}
		wantFiles(t, "out")
	}
}

// TestOneDashIsAFullCommandLine checks that a run whose long flags have one dash writes the same bytes as a run whose
// long flags have two.
func TestOneDashIsAFullCommandLine(t *testing.T) {
	workspace(t)
	write(t, "p.faa", ">a\nMKV\n")
	embed(t, strings.Fields("-gpus none -esm-batch-size 512 -esm-model "+tiny+" -out one p.faa")...).wantCode(0)
	embed(t, strings.Fields("--gpus none --esm-batch-size 512 --esm-model "+tiny+" --out two p.faa")...).wantCode(0)
	one, err := os.ReadFile("one/p.esm2-tiny.parquet")
	if err != nil {
		t.Fatal(err)
	}
	two, err := os.ReadFile("two/p.esm2-tiny.parquet")
	if err != nil {
		t.Fatal(err)
	}
	if string(one) != string(two) {
		t.Error("the two forms give different outputs")
	}
}
