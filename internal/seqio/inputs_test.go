package seqio

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// tree creates empty files in a new folder and returns the path of the folder.
func tree(t *testing.T, files ...string) string {
	t.Helper()
	root := t.TempDir()
	for _, file := range files {
		path := filepath.Join(root, filepath.FromSlash(file))
		if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// expandAll returns the inputs of several arguments.
func expandAll(args []string, forced Alphabet) (all []Input, err error) {
	for _, arg := range args {
		inputs, _, err := Expand(arg, forced)
		if err != nil {
			return nil, err
		}
		all = append(all, inputs...)
	}
	return all, nil
}

// described returns a string "path>dir/name" for each input: its path relative to root, or "-", then the folder and the
// base name of its output.
func described(t *testing.T, root string, inputs []Input) []string {
	t.Helper()
	var s []string
	for _, in := range inputs {
		path := in.Path
		if path != "-" {
			var err error
			if path, err = filepath.Rel(root, path); err != nil {
				t.Fatal(err)
			}
		}
		s = append(s, filepath.ToSlash(path)+">"+in.Dir+"/"+in.Name)
	}
	return s
}

func TestExpand(t *testing.T) {
	root := tree(t, "d/b.fa", "d/a.FASTQ.GZ", "d/x/b.fna.zst", "d/x/y/c.fq.bz2", "d/x/y/k.faa.xz", "d/notes.txt", "d/e.gz",
		"d/.hidden.fa", "d/._b.fa", "d/.git/z.fa", "d/folder.fa/f.frn", "plain.txt", "r[1].fas", "r1.ffn", "none/readme.md")
	in := func(names ...string) []string {
		args := make([]string, len(names))
		for i, name := range names {
			args[i] = name
			if name != "-" {
				args[i] = filepath.Join(root, filepath.FromSlash(name))
			}
		}
		return args
	}
	tests := []struct {
		name string
		args []string
		want []string
	}{
		{"nothing", nil, nil},
		{"standard input and a file of any name", in("plain.txt", "-"), []string{"plain.txt>/plain.txt", "->/stdin"}},
		{"folder", in("d"), []string{"d/a.FASTQ.GZ>/a", "d/b.fa>/b", "d/folder.fa/f.frn>folder.fa/f", "d/x/b.fna.zst>x/b",
			"d/x/y/c.fq.bz2>x/y/c", "d/x/y/k.faa.xz>x/y/k"}},
		{"only compressed", in("d/e.gz"), []string{"d/e.gz>/e"}},
		{"glob", in("d/x/*/*"), []string{"d/x/y/c.fq.bz2>/c", "d/x/y/k.faa.xz>/k"}},
		{"glob of a folder", in("d/?"), []string{"d/x/b.fna.zst>/b", "d/x/y/c.fq.bz2>y/c", "d/x/y/k.faa.xz>y/k"}},
		{"glob beside hidden files", in("d/*.fa"), []string{"d/b.fa>/b", "d/folder.fa/f.frn>/f"}},
		{"glob of hidden files", in("d/.h*.fa"), []string{"d/.hidden.fa>/.hidden"}},
		{"file whose name is a glob", in("r[1].fas"), []string{"r[1].fas>/r[1]"}},
		{"hidden file by name", in("d/.hidden.fa"), []string{"d/.hidden.fa>/.hidden"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			inputs, err := expandAll(tt.args, Protein)
			if err != nil {
				t.Fatal(err)
			}
			if got := described(t, root, inputs); !reflect.DeepEqual(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
			for _, in := range inputs {
				if in.Alphabet != Protein {
					t.Errorf("%s is %s", in.Path, in.Alphabet)
				}
			}
		})
	}

	failures := []struct {
		name string
		args []string
		kind error
		want string
	}{
		{"missing path", in("q.fa"), ErrNoInput, "no such sequence input: stat ROOT/q.fa: no such file or directory"},
		{"empty argument", []string{""}, ErrNoInput, "no such sequence input: stat : no such file or directory"},
		{"glob without a match", in("*.fq"), ErrNoInput, `no such sequence input: nothing matches the glob "ROOT/*.fq"`},
		{"glob that is none", in("[a"), ErrNoInput, `no such sequence input: glob "ROOT/[a": syntax error in pattern`},
		{"folder without sequences", in("none"), ErrNoInput, "no such sequence input: the folder ROOT/none holds no FASTA or FASTQ files " +
			"(.fa .fasta .fna .ffn .faa .frn .fas .fsa .mfa .pep .aa .seq .contigs .fq .fastq, also with .gz .bgz .bz2 .xz .zst); it holds 1 file: .md 1"},
		{"same name", in("d/b.fa", "d/x/b.fna.zst"), ErrInputName,
			`inputs with the same name: the outputs of ROOT/d/b.fa and ROOT/d/x/b.fna.zst would both be named "b"`},
		{"same file", []string{root + "/r1.ffn", root + "/./r1.ffn"}, ErrGivenTwice, "an input is given twice: ROOT/r1.ffn: name it, or the folder or glob that leads to it, once\n" +
			`inputs with the same name: the outputs of ROOT/r1.ffn and ROOT/r1.ffn would both be named "r1"`},
		{"file and its folder", in("d/x/b.fna.zst", "d/x"), ErrGivenTwice, "an input is given twice: ROOT/d/x/b.fna.zst: name it, or the folder or glob that leads to it, once\n" +
			`inputs with the same name: the outputs of ROOT/d/x/b.fna.zst and ROOT/d/x/b.fna.zst would both be named "b"`},
		{"standard input twice", []string{"-", "-"}, ErrGivenTwice, "an input is given twice: -: name it, or the folder or glob that leads to it, once\n" +
			`inputs with the same name: the outputs of - and - would both be named "stdin"`},
	}
	for _, tt := range failures {
		t.Run(tt.name, func(t *testing.T) {
			inputs, err := expandAll(tt.args, Unknown)
			if err == nil {
				err = errors.Join(CheckPaths(inputs), CheckNames(inputs))
			}
			if err == nil {
				t.Fatalf("got %q", described(t, root, inputs))
			}
			if got := strings.ReplaceAll(err.Error(), root, "ROOT"); got != tt.want || !errors.Is(err, tt.kind) {
				t.Errorf("the error is %q, want %q", got, tt.want)
			}
		})
	}
}

func TestExpandFollowsLinksButNotInCircles(t *testing.T) {
	root := tree(t, "real/a.fa", "real/sub/b.fa", "kept/c.fa")
	links := map[string]string{"staged": "real", "kept/d.fa": "../real/a.fa", "kept/more": "../real/sub", "kept/more2": "../kept"}
	for link, target := range links {
		if err := os.Symlink(target, filepath.Join(root, link)); err != nil {
			t.Skip("this file system has no symbolic links:", err)
		}
	}
	inputs, _, err := Expand(filepath.Join(root, "staged"), Unknown)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := described(t, root, inputs), []string{"staged/a.fa>/a", "staged/sub/b.fa>sub/b"}; !reflect.DeepEqual(got, want) {
		t.Errorf("a linked folder gives %q, want %q", got, want)
	}
	inputs, _, err = Expand(filepath.Join(root, "kept"), Unknown)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := described(t, root, inputs), []string{"kept/c.fa>/c", "kept/d.fa>/d", "kept/more/b.fa>more/b"}; !reflect.DeepEqual(got, want) {
		t.Errorf("a folder with links gives %q, want %q", got, want)
	}
	if err := os.Symlink("nowhere", filepath.Join(root, "kept/gone.fa")); err != nil {
		t.Fatal(err)
	}
	inputs, _, err = Expand(filepath.Join(root, "kept"), Unknown)
	if got := described(t, root, inputs); err != nil || !slices.Contains(got, "kept/gone.fa>/gone") || len(got) != 4 {
		t.Errorf("with a link that leads nowhere the inputs are %q, error %v", got, err)
	}
}

// TestCheckNamesOverCombinedLists checks CheckNames with two inputs whose outputs have the same name. CheckNames must
// return an error if the inputs have the same alphabet and output folder, and none if one of these differs. CheckPaths
// must find a file that is given twice.
func TestCheckNamesOverCombinedLists(t *testing.T) {
	one, two := Input{Path: "x/s.fna", Name: "s", Alphabet: DNA}, Input{Path: "y/s.fa", Name: "s", Alphabet: DNA}
	if err := CheckNames([]Input{one, two}); !errors.Is(err, ErrInputName) || !strings.Contains(err.Error(), "x/s.fna and y/s.fa") {
		t.Errorf("the error is %v", err)
	}
	two.Alphabet = Protein
	if err := CheckNames([]Input{one, two}); err != nil {
		t.Errorf("of different alphabets: %v", err)
	}
	two.Alphabet, two.Dir = DNA, "y"
	if err := CheckNames([]Input{one, two}); err != nil {
		t.Errorf("in different folders: %v", err)
	}
	two.Alphabet, two.Path = Protein, "./x/s.fna"
	if err := CheckPaths([]Input{one, two}); !errors.Is(err, ErrGivenTwice) || !strings.Contains(err.Error(), "twice") {
		t.Errorf("the same file as both: %v", err)
	}
}

// TestSpelling checks that spelling removes differences between two paths of the same file. If links could make the two
// paths different files, spelling must keep the difference.
func TestSpelling(t *testing.T) {
	for given, want := range map[string]string{
		"x.fa": "x.fa", "./x.fa": "x.fa", "a//b/./x.fa": "a/b/x.fa", "./-": "./-", "a/../x.fa": "a/../x.fa", "../x.fa": "../x.fa", "..x.fa": "..x.fa",
	} {
		if got := filepath.ToSlash(spelling(filepath.FromSlash(given))); got != want {
			t.Errorf("%s is spelled %s, want %s", given, got, want)
		}
	}
}

// TestExpandCountsFilesLeftOut checks that files that are not inputs are counted by extension, in all folders below the
// argument. Hidden files are not counted.
func TestExpandCountsFilesLeftOut(t *testing.T) {
	root := tree(t, "d/a.fa", "d/b.fsa.bgz", "d/c.PEP", "d/readme", "d/x.txt", "d/sub/y.TXT", "d/sub/z.fa.zip", "d/sub/t.tar.gz",
		"d/.hidden.txt", "d/.git/config", "d/a.contigs", "d/s.seq", "d/m.mfa", "d/p.aa")
	inputs, leftOut, err := Expand(filepath.Join(root, "d"), Unknown)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := described(t, root, inputs), []string{"d/a.contigs>/a", "d/a.fa>/a", "d/b.fsa.bgz>/b", "d/c.PEP>/c", "d/m.mfa>/m",
		"d/p.aa>/p", "d/s.seq>/s"}; !reflect.DeepEqual(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if len(leftOut) != 1 || leftOut[0].Folder != filepath.Join(root, "d") ||
		leftOut[0].String() != "5 files: .txt 2, none 1, .tar.gz 1, .zip 1" {
		t.Errorf("left out: %v", leftOut)
	}
	if _, leftOut, err = Expand(filepath.Join(root, "d", "a.fa"), Unknown); err != nil || len(leftOut) != 0 {
		t.Errorf("beside a file %v is left out, error %v", leftOut, err)
	}
}
