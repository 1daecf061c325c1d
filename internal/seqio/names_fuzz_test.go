package seqio

import (
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// FuzzTellApart checks TellApart with files in any folders. A file is named on the command line, or is found in a
// folder that is named there. Afterwards the Name and the Dir of each input must be among those that Names and Dirs
// list for its path. CheckNames must return an error if two outputs have the same name, and only then.
func FuzzTellApart(f *testing.F) {
	for _, list := range []string{"S1/final.contigs.fa|S2/final.contigs.fa", "p/d:s/y.faa|q/d:s/y.faa", "x.fa|a/x.fa", "a:x.fna|a:x.ffn|b:x.fna",
		"/a/b/x.fa|/a/x.fa|x.fa.gz", "a:b/c/x.fa|a/b:c/x.fa", "../x.fa|x.fa", ":x.fa|.:x.fa"} {
		f.Add(list)
	}
	f.Fuzz(func(t *testing.T, list string) {
		if len(list) > 1000 || strings.ContainsRune(list, 0) {
			return
		}
		var inputs []*Input
		seen := map[string]bool{}
		for _, arg := range strings.Split(list, "|") {
			root, below, found := strings.Cut(arg, ":") // the folder that is named, and the path of a file in it
			in := &Input{Path: spelling(root), Name: baseName(spelling(root)), Alphabet: DNA}
			if found {
				below = strings.TrimPrefix(path.Clean("/"+below), "/")
				in.Path = filepath.Join(spelling(cleanRoot(root)), below)
				in.Name = baseName(in.Path)
				if in.Dir = path.Dir(below); in.Dir == "." {
					in.Dir = ""
				}
			}
			absolute, err := filepath.Abs(in.Path)
			if base := filepath.Base(in.Path); err != nil || base == "." || base == "/" || base == ".." || seen[absolute] || len(inputs) == 20 {
				continue
			}
			seen[absolute] = true
			inputs = append(inputs, in)
		}
		began := time.Now()
		TellApart(inputs)
		names := map[output]bool{}
		var values []Input
		for _, in := range inputs {
			values = append(values, *in)
			names[in.output()] = true
			again := Input{Path: in.Path}
			if !slices.Contains(again.Names(), in.Name) || !slices.Contains(again.Dirs(), in.Dir) {
				t.Errorf("%q: a rerun looks for %q in %q, but %q in %q was made", in.Path, again.Names(), again.Dirs(), in.Name, in.Dir)
			}
		}
		if err := CheckNames(values); (err == nil) != (len(names) == len(inputs)) {
			t.Errorf("%d names of %d inputs: %v", len(names), len(inputs), err)
		}
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("%d inputs take %v", len(inputs), took)
		}
	})
}

// cleanRoot returns the folder root, or the current folder "." if root is empty.
func cleanRoot(root string) string {
	if root == "" {
		return "."
	}
	return root
}
