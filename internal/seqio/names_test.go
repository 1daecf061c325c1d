package seqio

import (
	"path"
	"strings"
	"testing"
)

func TestTellApart(t *testing.T) {
	for paths, want := range map[string]string{ // keys: the paths of the inputs; a Dir, if not empty, follows a "|"
		"/w/a/x.fa /w/b/y.fa":                       "x y",
		"/w/a/x.fa /w/b/x.fa":                       "a/x b/x",
		"/w/a/m/x.fa /w/b/m/x.fa":                   "a/x b/x",
		"/w/a/1/x.fa /w/a/2/x.fa /w/b/1/x.fa":       "a/1/x a/2/x b/1/x",
		"/w/x.fa /w/a/x.fa /w/a/b/x.fa":             "x a/x a/b/x",
		"/m/x.fa /a/m/x.fa":                         "x a/x",
		"/w/a/x.fa /w/a/x.fa.gz /w/b/x.fna":         "a/x.fa a/x.fa.gz b/x",
		"/w/in1/t/x.fa|t /w/in2/t/x.fa|t":           "in1/t/x in2/t/x",
		"/w/a/x.fa /w/b/x.fa /w/c/y.fa /w/d/y.fa":   "a/x b/x c/y d/y",
		"- /w/stdin.fa":                             "stdin stdin",
		"/w/a/x.fa /w/b/x.fa /v/in/a/x.fa|a":        "a/x b/x a/x",
		"/w/in1/t/u/x.fa|t/u /w/in2/v/t/u/x.fa|t/u": "in1/t/u/x in2/v/t/u/x",
	} {
		var inputs []*Input
		for _, p := range strings.Fields(paths) {
			p, dir, _ := strings.Cut(p, "|")
			in := &Input{Path: p, Dir: dir, Name: baseName(p)}
			if p == "-" {
				in.Name = "stdin"
			}
			inputs = append(inputs, in)
		}
		TellApart(inputs)
		var got []string
		for _, in := range inputs {
			got = append(got, path.Join(in.Dir, in.Name))
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%s: %q, want %q", paths, got, want)
		}
	}
}
