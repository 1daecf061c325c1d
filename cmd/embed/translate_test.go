package main

import (
	"os"
	"strings"
	"testing"
)

func TestTranslateCommand(t *testing.T) {
	workspace(t)
	write(t, "a.fna", ">s1 text\nATGGCCTGAACC\n>s2\nATG-GCC\n")
	frames := ">s1_F1\nMA*T\n>s1_F2\nWPE\n>s1_F3\nGLN\n>s1_R1\nGSGH\n>s1_R2\nVQA\n>s1_R3\nFRP\n"
	orfs := ">s1_orf1 F1 1-6\nMA\n>s1_orf2 F2 2-10\nWPE\n>s1_orf3 F3 3-11\nGLN\n>s1_orf4 R1 1-12\nGSGH\n>s1_orf5 R2 3-11\nVQA\n>s1_orf6 R3 2-10\nFRP\n"
	// With --start, the open reading frame in F3 of s1 begins at CTG, which is also a start codon of the genetic code.
	for args, want := range map[string]string{
		"--on-bad-record skip a.fna":                               frames,
		"--on-bad-record skip --code 4 --min-length 4 a.fna":       ">s1_F1\nMAWT\n>s1_R1\nGSGH\n",
		"--on-bad-record skip --orfs --min-length 2 a.fna":         orfs,
		"--on-bad-record skip --orfs a.fna":                        "",
		"--on-bad-record skip --orfs --start --min-length 2 a.fna": ">s1_orf1 F1 1-6\nMA\n>s1_orf2 F3 6-11\nMN\n",
		"--gaps remove --min-length 4 a.fna":                       ">s1_F1\nMA*T\n>s1_R1\nGSGH\n",
	} {
		if r := embed(t, append([]string{"translate"}, strings.Fields(args)...)...).wantCode(exitDone); r.stdout != want {
			t.Errorf("%s: %q, want %q", args, r.stdout, want)
		} else if skips := strings.Contains(args, "skip"); skips != strings.Contains(r.stderr, "a.fna: skipped 1: ") {
			t.Errorf("%s: standard error says %q", args, r.stderr)
		}
	}
	one := embed(t, "translate", "--gaps", "remove", "--orfs", "--min-length", "1", "a.fna").wantCode(exitDone)
	if r := embed(t, "translate", "--gaps", "remove", "--orfs", "--min-length", "0", "a.fna").wantCode(exitDone); r.stdout != one.stdout || r.stdout == "" {
		t.Errorf("with --min-length 0 %q, with 1 %q", r.stdout, one.stdout)
	}
	embed(t, "translate", "--gaps", "remove", "--min-length", "4", "-o", "p.faa", "a.fna").wantCode(exitDone)
	if got := read(t, "p.faa"); got != ">s1_F1\nMA*T\n>s1_R1\nGSGH\n" {
		t.Errorf("-o writes %q", got)
	}
	withStdin(t, ">s\nATG\n")
	if r := embedWith(t, []string{"EMBED_OUT=x"}, "translate", "-").wantCode(exitDone); r.stdout != ">s_F1\nM\n>s_R1\nH\n" {
		t.Errorf("standard input gives %q", r.stdout)
	}
	for args, c := range map[string]struct {
		code int
		says []string
	}{
		"a.fna":               {exitNothing, []string{"a.fna:3", "--gaps remove"}},
		"-o none.faa a.fna":   {exitNothing, []string{"a.fna:3"}},
		"no.fna":              {exitNothing, []string{"no.fna"}},
		"--code 7 a.fna":      {exitUsage, []string{"--code", "11"}},
		"--start a.fna":       {exitUsage, []string{"--orfs"}},
		"--gaps no a.fna":     {exitUsage, []string{"--gaps", "remove"}},
		"--min-length -1 a.f": {exitUsage, []string{"--min-length"}},
		"":                    {exitUsage, []string{"input"}},

		"--gaps remove -o ./a.fna a.fna": {exitUsage, []string{"a.fna would be read and written"}},
	} {
		embed(t, append([]string{"translate"}, strings.Fields(args)...)...).wantCode(c.code).wantProblem(c.says...)
	}
	if _, err := os.Stat("none.faa"); err == nil {
		t.Error("a failed run leaves its output")
	}
}
