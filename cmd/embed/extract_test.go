package main

import (
	"os"
	"slices"
	"strings"
	"testing"
)

func TestListsOfExtract(t *testing.T) {
	for _, c := range []struct{ args, want string }{
		{"p.faa --repr_layers 0 -1 33 --include mean per_tok bos", "p.faa --repr_layers=0,-1,33 --include=mean,per_tok,bos"},
		{"--include mean p.faa per_tok", "--include=mean p.faa per_tok"},
		{"-include mean bos -repr_layers -1 p.faa", "-include=mean,bos -repr_layers=-1 p.faa"},
		{"--include=mean,bos --include p.faa", "--include=mean,bos --include p.faa"},
		{"include mean -- --include mean bos", "include mean -- --include mean bos"},
		{"--repr_layers", "--repr_layers"},
	} {
		if got := strings.Join(joinLists(strings.Fields(c.args)), " "); got != c.want {
			t.Errorf("%q becomes %q, want %q", c.args, got, c.want)
		}
	}
}

// TestExtractFlags checks that embed accepts the flags of fair-esm's scripts/extract.py and writes one .pt file for
// each record. If one of these files is missing, the same command must write it again.
func TestExtractFlags(t *testing.T) {
	workspace(t)
	write(t, "p.faa", ">sp|P1|A protein a\nMKVMKVMKV\n>b/c\nMKV\n")
	args := []string{"--esm-model", tiny, "-o", "out", "p.faa", "--repr_layers", "0", "-1", "--include", "mean", "per_tok", "--truncation_seq_length", "5"}
	embed(t, args...).wantCode(0)
	var names []string
	list, err := os.ReadDir("out/p.esm2-tiny.pt")
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range list {
		names = append(names, entry.Name())
	}
	if want := []string{"b%2Fc.pt", "sp|P1|A protein a.pt"}; !slices.Equal(names, want) {
		t.Errorf("files %q, want %q", names, want)
	}
	content, err := os.ReadFile("out/p.esm2-tiny.pt/sp|P1|A protein a.pt")
	if err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]int{"label": 1, "mean_representations": 1, "representations": 2, "bos_representations": 0} {
		if n := strings.Count(string(content), key); n != want {
			t.Errorf("%q comes %d times, want %d", key, n, want)
		}
	}
	if r := embed(t, args...).wantCode(0); !strings.Contains(r.stdout, "complete already") {
		t.Errorf("the second run prints %q", r.stdout)
	}
	lists := []string{"EMBED_INCLUDE=mean per_tok", "EMBED_REPR_LAYERS=0 -1"} // lists with spaces in one text
	if r := embedWith(t, lists, "--esm-model", tiny, "-o", "out", "p.faa", "--max-length", "5").wantCode(0); !strings.Contains(r.stdout, "complete already") {
		t.Errorf("the run with variables prints %q", r.stdout)
	}
	if err := os.Remove("out/p.esm2-tiny.pt/b%2Fc.pt"); err != nil {
		t.Fatal(err)
	}
	embed(t, "inspect", "out").wantCode(exitSome)
	embed(t, args...).wantCode(0)
	embed(t, "inspect", "out").wantCode(0)
}
