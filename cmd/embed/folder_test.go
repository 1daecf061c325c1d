package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"seqembed/internal/store"
)

// npyArgs returns the arguments of a run with the smallest protein model, in the format npy, in which each output has
// two files.
func npyArgs(more ...string) []string {
	return append([]string{"--esm-model", tiny, "--format", "npy", "-o", "out"}, more...)
}

// TestFailedListsOfTwoRuns checks that a run keeps the lines of failed_files.txt about inputs of other runs. It must
// remove the lines about inputs that it has embedded, whether the command line names the input or its folder.
func TestFailedListsOfTwoRuns(t *testing.T) {
	workspace(t)
	write(t, "bad.faa", ">x\nMK1V\n")
	write(t, "a.faa", proteinFile)
	write(t, "b.faa", proteinFile)
	if err := os.Mkdir("later", 0o777); err != nil {
		t.Fatal(err)
	}
	embed(t, npyArgs("bad.faa", "later", "a.faa")...).wantCode(exitSome)
	embed(t, npyArgs("b.faa")...).wantCode(0)
	list := func() string {
		content, err := os.ReadFile("out/failed_files.txt")
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		return string(content)
	}
	if got := list(); strings.Count(got, "\n") != 2 || !strings.Contains(got, "bad.faa|record|") || !strings.Contains(got, "later|missing|") {
		t.Errorf("the list of the first run became %q", got)
	}
	write(t, "later/c.faa", proteinFile)
	embed(t, npyArgs("later")...).wantCode(0)
	write(t, "bad.faa", proteinFile)
	embed(t, npyArgs("./bad.faa")...).wantCode(0)
	if got := list(); got != "" {
		t.Errorf("nothing fails any more, and the list holds %q", got)
	}
}

// TestForceRemovesOtherColumns checks that a run with --force and other poolings removes the arrays of the first run,
// whose list of ids it replaces. Without --force no array may get the ids of another run.
func TestForceRemovesOtherColumns(t *testing.T) {
	workspace(t)
	write(t, "a.faa", ">x\nMKV\n>y\nMLLL\n")
	embed(t, npyArgs("--pool", "mean,cls", "a.faa")...).wantCode(exitDone)
	mean := read(t, "out/a.esm2-tiny.mean.npy")
	write(t, "a.faa", ">y\nMLLL\n>x\nMKV\n")
	embed(t, npyArgs("--force", "--pool", "cls", "a.faa")...).wantCode(exitDone)
	complete := func() {
		t.Helper()
		wantFiles(t, "out", "a.esm2-tiny.ids.txt", "a.esm2-tiny.npy", "manifest.jsonl")
		if r := embed(t, "inspect", "out").wantCode(exitDone); r.stdout != "2 complete\n" {
			t.Errorf("embed inspect:\n%s", r.stdout)
		}
	}
	complete()
	// An array that is put there again belongs to other ids. A rerun must remove it.
	write(t, "out/a.esm2-tiny.mean.npy", mean)
	if r := embed(t, "inspect", "out").wantCode(exitSome); !strings.Contains(r.stdout, "changed     a.esm2-tiny.mean.npy  belongs to an earlier output, whose list of ids") {
		t.Errorf("embed inspect:\n%s", r.stdout)
	}
	embed(t, npyArgs("--pool", "cls", "a.faa")...).wantCode(exitNothing).wantProblem("mean.npy was made with", "--force")
	embed(t, npyArgs("--force", "--pool", "cls", "a.faa")...).wantCode(exitDone)
	complete()
	if err := os.Remove("out/a.esm2-tiny.ids.txt"); err != nil {
		t.Fatal(err)
	}
	embed(t, npyArgs("--pool", "mean,cls", "a.faa")...).wantCode(exitNothing).wantProblem("a.esm2-tiny.npy was made with", "--force")
	embed(t, npyArgs("--pool", "cls", "a.faa")...).wantCode(exitDone)
	complete()
}

// TestEscapeSequencesInNames checks that neither the list of failed files nor a message contains escape sequences from
// file names.
func TestEscapeSequencesInNames(t *testing.T) {
	workspace(t)
	names := []string{write(t, "e\x1b[31m\x1b]0;title\a.faa", ">x\nMK1V\n"), write(t, "=HYPERLINK(1)|x.faa", ">x\nMK1V\n")}
	r := embed(t, npyArgs(names...)...).wantCode(exitNothing)
	content, err := os.ReadFile("out/failed_files.txt")
	if err != nil || strings.Count(string(content), "\n") != 2 || strings.Count(string(content), "|") != 4 {
		t.Errorf("%q, %v", content, err)
	}
	if strings.ContainsAny(string(content)+r.stdout+r.stderr, "\x1b\a") {
		t.Errorf("an escape sequence is left:\n%q\n%q", content, r.stderr)
	}
}

// TestRepairOfTheManifest checks the commands that the error for a damaged manifest suggests. Each of these commands
// must make the folder usable.
func TestRepairOfTheManifest(t *testing.T) {
	for name, damage := range map[string]func(content string) map[string]string{
		"a line":       func(c string) map[string]string { return map[string]string{"manifest.jsonl": "{}\n" + c} },
		"the last one": func(c string) map[string]string { return map[string]string{"manifest.jsonl": c + "\x00\n"} },
		"an earlier manifest": func(string) map[string]string {
			return map[string]string{"manifest.journal": "\n"}
		},
	} {
		for _, repair := range [][]string{{"inspect", "--repair", "out"}, npyArgs("--force", "a.faa")} {
			workspace(t)
			write(t, "a.faa", proteinFile)
			embed(t, npyArgs("a.faa")...).wantCode(0)
			content, err := os.ReadFile("out/manifest.jsonl")
			if err != nil {
				t.Fatal(err)
			}
			for file, damaged := range damage(string(content)) {
				write(t, "out/"+file, damaged)
			}
			embed(t, npyArgs("a.faa")...).wantCode(exitNothing).wantProblem("out/manifest.j", "embed inspect --repair", "--force")
			embed(t, repair...).wantCode(0)
			if r := embed(t, npyArgs("a.faa")...).wantCode(0); !strings.Contains(r.stdout, "complete already") {
				t.Errorf("%s, after %q:\n%s", name, repair, r.stdout)
			}
			if kept, err := filepath.Glob("out/*.damaged-*"); err != nil || len(kept) != 1 {
				t.Errorf("%s, after %q: the damaged file is kept as %q, %v", name, repair, kept, err)
			}
		}
	}
	write(t, "out/manifest.jsonl", "damaged\n")
	leave, err := store.Claim("out", store.Holder{Host: "node7", PID: 42, Command: "embed x.faa"}, func(store.Holder) string { return "" })
	if err != nil {
		t.Fatal(err)
	}
	embed(t, "inspect", "--repair", "out").wantCode(exitNothing).wantProblem("out", "process 42 on node7", "embed x.faa", "repair it when that run has ended")
	leave()
	// An empty manifest does not say with which settings the outputs were made, so a run fails unless --force replaces
	// the outputs.
	write(t, "out/manifest.jsonl", "")
	embed(t, npyArgs("a.faa")...).wantCode(exitNothing).wantProblem("no entry", "--force")
	embed(t, npyArgs("--force", "a.faa")...).wantCode(0)
	embed(t, npyArgs("a.faa")...).wantCode(0)
}

// TestInspect checks that embed inspect reports whether each file of an output folder is complete, changed, missing,
// unfinished or foreign, and whether inputs have failed.
func TestInspect(t *testing.T) {
	workspace(t)
	for _, name := range []string{"a", "b", "c", "d"} {
		write(t, name+".faa", proteinFile)
	}
	embed(t, npyArgs("a.faa", "b.faa", "c.faa", "d.faa")...).wantCode(0)
	if r := embed(t, "inspect", "out").wantCode(0); r.stdout != "8 complete\n" {
		t.Errorf("a complete folder:\n%s", r.stdout)
	}
	write(t, "out/notes.txt", "mine")
	embed(t, "inspect", "out").wantCode(0) // a file that embed has not made is not an error
	write(t, "none/x.txt", "x")
	embed(t, "inspect", "none").wantCode(exitNothing).wantProblem("none is no output folder: it has no manifest.jsonl")

	write(t, "out/.x.m.npy.tmp-0123456789abcdef", "")
	write(t, "bad.faa", ">x\nMK1V\n")
	embed(t, npyArgs("bad.faa")...).wantCode(exitNothing) // this run removes the temporary file
	write(t, "out/.x.m.npy.tmp-0123456789abcdef", "")
	write(t, "out/.force-0123456789abcdef", "{}")
	write(t, "out/.e.esm2-tiny.npy.parts", "{}\n")
	flip(t, "out/a.esm2-tiny.npy")
	write(t, "out/b.esm2-tiny.npy", "short")
	if err := os.Remove("out/c.esm2-tiny.ids.txt"); err != nil {
		t.Fatal(err)
	}
	lines := strings.SplitAfter(string(mustReadFile(t, "out/manifest.jsonl")), "\n")
	var kept string
	for _, line := range lines { // as if the run had been killed before it finished the output of d.faa
		if !strings.Contains(line, "d.esm2-tiny") || !strings.Contains(line, `"finished"`) {
			kept += line
		}
	}
	write(t, "out/manifest.jsonl", kept)
	want := map[string]string{
		"a.esm2-tiny.ids.txt": "complete", "a.esm2-tiny.npy": "changed", "b.esm2-tiny.ids.txt": "complete", "b.esm2-tiny.npy": "changed",
		"c.esm2-tiny.ids.txt": "missing", "c.esm2-tiny.npy": "complete", "d.esm2-tiny.ids.txt": "unfinished", "d.esm2-tiny.npy": "unfinished",
		"notes.txt": "foreign", ".x.m.npy.tmp-0123456789abcdef": "unfinished", ".force-0123456789abcdef": "unfinished",
		".e.esm2-tiny.npy.parts": "unfinished", "failed_files.txt": "failed",
	}
	for _, quick := range []bool{false, true} {
		args := []string{"inspect", "--json", "out"}
		if quick {
			args = append(args, "--quick")
			// flip keeps the size, and --quick tolerates changes within a minute after the run.
			want["a.esm2-tiny.npy"] = "complete"
		}
		got := map[string]string{}
		for line := range strings.Lines(embed(t, args...).wantCode(exitSome).stdout) {
			var file struct{ Path, State, Input string }
			if err := json.Unmarshal([]byte(line), &file); err != nil {
				t.Fatal(err)
			}
			got[file.Path] = file.State
			if file.State == "complete" && file.Input != file.Path[:1]+".faa" {
				t.Errorf("%s was made from %q", file.Path, file.Input)
			}
		}
		for path, state := range want {
			if got[path] != state {
				t.Errorf("quick %v: %s is %q, want %s", quick, path, got[path], state)
			}
		}
		if len(got) != len(want) {
			t.Errorf("quick %v: %d files, want %d: %v", quick, len(got), len(want), got)
		}
	}
	r := embed(t, "inspect", "out").wantCode(exitSome)
	for _, part := range []string{"changed     b.esm2-tiny.npy  5 bytes, ", "missing     c.esm2-tiny.ids.txt", "killed; the next run removes it", "bad.faa: ",
		"if none will, delete this file", "3 complete, 2 changed, 1 missing, 5 unfinished, 1 foreign, 1 failed"} {
		if !strings.Contains(r.stdout, part) {
			t.Errorf("no %q in\n%s", part, r.stdout)
		}
	}

	embed(t, "inspect", "none").wantCode(exitNothing).wantProblem("none")
	embed(t, "inspect", "a.faa").wantCode(exitNothing).wantProblem("a.faa cannot be read", ".parquet")
	embed(t, "inspect").wantCode(exitUsage).wantProblem("one output folder")
}

func mustReadFile(t testing.TB, path string) []byte {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return content
}

// flip changes the last byte of a file, and keeps the size.
func flip(t testing.TB, path string) {
	t.Helper()
	content := mustReadFile(t, path)
	content[len(content)-1] ^= 1
	write(t, path, string(content))
}

// TestOutputsOfOtherNumerics checks that a run does not accept outputs of a program with another numerics version.
// Programs with different numerics versions may compute different embeddings.
func TestOutputsOfOtherNumerics(t *testing.T) {
	workspace(t)
	write(t, "a.faa", proteinFile)
	embed(t, npyArgs("a.faa")...).wantCode(0)
	content := string(mustReadFile(t, "out/manifest.jsonl"))
	old := strings.ReplaceAll(content, `"numerics_version":`, `"numerics_version":99`)
	if old == content {
		t.Fatal("the manifest has no numerics_version")
	}
	write(t, "out/manifest.jsonl", old)
	embed(t, npyArgs("a.faa")...).wantCode(exitNothing).wantProblem("numerics version", `"991"`, `now "1"`, "--force")
	embed(t, npyArgs("--force", "a.faa")...).wantCode(0)
	embed(t, npyArgs("a.faa")...).wantCode(0)
}

// digestsOfNumerics contains the SHA-256 of all outputs of TestNumericsVersion together, by the name of the backend. If
// a digest changes, the constant numerics, which is the version of the numbers in outputs, must be raised.
var digestsOfNumerics = map[string]string{
	"cpu avx512 amd64":   "a9ed445265b24f99d60c82615f759bf7ddfba88bf04b97ee01bc0f0588f3f090",
	"cpu avx2 amd64":     "dbebc5e36643dae6502e7f0308d855cce9557bd535a07d8d9b090c696dd3c14f",
	"cpu portable amd64": "081d59286e5d75532806213962f48174c6b27f692a2c24487ef97aa449b29314",
	"cpu neon arm64":     "6490eae858eb935eae0f90dac59881627428ae0644a8c55ff56a11035c361b3f",
}

// TestNumericsVersion checks that the embeddings of both models and the means over windows have the same bits as when
// numerics, the version of the numbers in outputs, was last raised. It is skipped on a backend that digestsOfNumerics
// does not contain.
func TestNumericsVersion(t *testing.T) {
	workspace(t)
	write(t, "p.faa", proteinFile)
	write(t, "n.fna", nucleotideFile)
	embed(t, npyArgs("--dnabert-model", "synthetic:dnabert-s-2l", "p.faa", "n.fna")...).wantCode(0)
	embed(t, npyArgs("--long", "window", "--max-length", "20", "-o", "windows", "p.faa")...).wantCode(0)
	sum := sha256.New()
	for _, path := range []string{"out/n.dnabert-s-2l.npy", "out/p.esm2-tiny.npy", "windows/p.esm2-tiny.npy"} {
		sum.Write(mustReadFile(t, path))
	}
	var entry struct{ Backend string }
	line, _, _ := strings.Cut(string(mustReadFile(t, "out/manifest.jsonl")), "\n")
	if err := json.Unmarshal([]byte(line), &entry); err != nil {
		t.Fatal(err)
	}
	want, ok := digestsOfNumerics[entry.Backend]
	if got := hex.EncodeToString(sum.Sum(nil)); !ok {
		t.Skipf("no digest for %s: %s", entry.Backend, got)
	} else if got != want {
		t.Errorf("%s computes other numbers, %s: if that is intended, raise numerics in version.go, and change this digest", entry.Backend, got)
	}
}
