package main

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

func TestSimilar(t *testing.T) {
	known := []string{"out", "format", "esm-model", "dnabert-model", "max-length", "min-length", "gaps", "gpus"}
	for word, want := range map[string]string{
		"outt": "out", "output": "out", "fromat": "format", "Max_Length": "max-length", "maxlength": "max-length",
		"model": "dnabert-model esm-model", "length": "max-length min-length", "gap": "gaps", "nonsense": "", "": "", "gaus": "gaps gpus",
	} {
		if got := strings.Join(similar(word, known), " "); got != want {
			t.Errorf("%q: %q, want %q", word, got, want)
		}
	}
}

// TestMisspelt checks that the error for a mistake on the command line names the mistake and, in most cases, suggests
// the flag, model or subcommand that was probably meant.
func TestMisspelt(t *testing.T) {
	workspace(t)
	write(t, "p.faa", ">a\nMKV\n")
	for args, want := range map[string]string{
		"-output x p.faa":                      "there is no flag -output; did you mean --out?",
		"-outt x p.faa":                        "there is no flag -outt; did you mean --out?",
		"-oresults p.faa":                      "there is no flag -oresults; a space separates the value from -o: -o results",
		"--outdir x p.faa":                     "there is no flag --outdir; did you mean --out?",
		"-vx p.faa":                            "there is no flag -vx",
		"-é p.faa":                             "there is no flag -é",
		"--max_lenght 5 p.faa":                 "there is no flag --max_lenght; did you mean --max-length?",
		"--batch-size 5 p.faa":                 "did you mean --dnabert-batch-size or --esm-batch-size?",
		"--esm-batch-size many p.faa":          `--esm-batch-size: "many" is not a whole number`,
		"--threads 99999999999999999999 p.faa": "--threads: 99999999999999999999 is far beyond any sensible number",
		"--layers 1,x p.faa":                   `--layers: "1,x" is not a list of whole numbers`,
		"--force=maybe p.faa":                  `--force: "maybe" is neither true nor false`,
		"p.faa --out":                          "--out needs a value: --out DIR",
		"devices --verbos":                     "there is no flag --verbos; did you mean --verbose?",
		"devices p.faa":                        `embed devices: "p.faa" is an argument too many`,
		"help devics":                          `there is no subcommand "devics"; did you mean embed devices?`,
		"device":                               "did you mean embed devices?",
		"verfy p.faa":                          "did you mean embed verify?",
		"--toks_per_batch 5 p.faa":             "there is no flag --toks_per_batch; embed has --esm-batch-size",
		"--nogpu p.faa":                        "there is no flag --nogpu; embed has --gpus none",
	} {
		r := embedWith(t, nil, strings.Fields(args)...).wantCode(exitUsage)
		r.wantProblem(want, "--help lists the flags")
		if strings.Contains(r.stderr, "strconv") || strings.Contains(r.stderr, "invalid syntax") {
			t.Errorf("%s: %s", args, r.stderr)
		}
	}
	for args, want := range map[string]string{
		"--esm-model esm2-650 p.faa":                 "did you mean esm2-650m?",
		"--esm-model EMS2_8m p.faa":                  "did you mean esm2-8m?",
		"--esm-model synthetic:esm-tiny p.faa":       "did you mean synthetic:esm2-tiny?",
		"--esm-model facebook/esm2_t6_8M_UR50 p.faa": "did you mean facebook/esm2_t6_8M_UR50D?",
		"--esm-model " + tiny + "@x p.faa":           "is not a number from 0 to 2^64-1",
	} {
		t.Setenv("HF_HUB_CACHE", t.TempDir())
		r := embed(t, strings.Fields(args)...).wantCode(exitNothing)
		r.wantProblem(want)
		if strings.Contains(r.stderr, "strconv") {
			t.Errorf("%s: %s", args, r.stderr)
		}
	}
	r := embedWith(t, []string{"EMBED_FORCE=perhaps"}, "p.faa").wantCode(exitUsage)
	r.wantProblem(`environment variable EMBED_FORCE: "perhaps" is neither true nor false`)
	if got := files(t, "."); !slices.Equal(got, []string{"p.faa"}) {
		t.Errorf("left: %q", got)
	}
}

// TestUnknownVariables checks that a warning names each unknown environment variable that begins with EMBED_, and does
// not show its value.
func TestUnknownVariables(t *testing.T) {
	workspace(t)
	write(t, "p.faa", ">a\nMKV\n")
	r := embedWith(t, []string{"EMBED_ESM_BATCHSIZE=s3cret", "EMBED_VERSION=1", "EMBED_CUBLAS=none", "EMBED_GPUS=none", "EMBED_XYZZY=s3cret", "OTHER=1"},
		"--esm-model", tiny, "-o", "out", "p.faa").wantCode(0)
	got := regexp.MustCompile(`variable="?(EMBED_[^"\n]*)`).FindAllStringSubmatch(r.stderr, -1)
	if len(got) != 2 || got[0][1] != "EMBED_ESM_BATCHSIZE; did you mean EMBED_ESM_BATCH_SIZE?" || got[1][1] != "EMBED_XYZZY" {
		t.Errorf("warnings %q", got)
	}
	if strings.Contains(r.stderr, "s3cret") {
		t.Errorf("a value is shown:\n%s", r.stderr)
	}
}

// TestVariableFlag checks that every flag has an environment variable, also flags with '_' in their names.
func TestVariableFlag(t *testing.T) {
	_, groups, err := parse([]string{"p.faa"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	flags := allFlags(groups)
	flags.VisitAll(func(f *pflag.Flag) {
		name := environmentPrefix + strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_"))
		if got, _ := variableFlag(flags, name); got != f {
			t.Errorf("%s does not set --%s", name, f.Name)
		}
	})
}

// TestSubcommands checks that help and version print the same as --help and --version, that the help lists every
// subcommand, and that -h after a subcommand prints the subcommand's usage.
func TestSubcommands(t *testing.T) {
	page := embed(t, "--help").stdout
	if got := embed(t, "help").wantCode(0).stdout; got != page {
		t.Errorf("embed help prints\n%s", got)
	}
	if got, want := embed(t, "version").wantCode(0).stdout, embed(t, "--version").stdout; got != want {
		t.Errorf("embed version prints %q, want %q", got, want)
	}
	for _, c := range subcommands() {
		if !strings.Contains(page, "embed "+c.name) {
			t.Errorf("the help does not list embed %s", c.name)
		}
		usage := "Usage:\n  embed " + c.name
		for _, args := range [][]string{{c.name, "-h"}, {c.name, "--help"}, {c.name, "-help"}, {"help", c.name}} {
			if r := embed(t, args...).wantCode(0); !strings.Contains(r.stdout, usage) || r.stderr != "" {
				t.Errorf("%q prints %q, %q", args, r.stdout, r.stderr)
			}
		}
	}
}
