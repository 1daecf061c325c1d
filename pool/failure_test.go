package pool

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"seqembed/internal/seqio"
	"seqembed/internal/store"
)

// TestOneBadFileOfThree checks that a bad file is listed with its error and leaves no output, and that the two other
// files are written.
func TestOneBadFileOfThree(t *testing.T) {
	enough := fasta(randomRecords(9, upTo(120)...)) // longer than the part that planning reads
	cases := map[string]struct {
		name, content string
		reading       seqio.Options
		kind, says    string
	}{
		"illegal letter": {"bad.faa", enough + ">x\nMK!V\n", seqio.Options{}, "record", `:241: record "x": letter 3`},
		"duplicate":      {"bad.faa", enough + ">x\nMKV\n>x\nMKV\n", seqio.Options{}, "record", `record "x"`},
		"cut FASTQ":      {"bad.fastq", strings.Repeat("@r\nMKV\n+\nIII\n", 120)[:1500], seqio.Options{Duplicates: seqio.DuplicateSuffix}, "format", "ends inside this record"},
		"gone":           {"bad.faa", enough, seqio.Options{}, "missing", "no such file"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			b.job.Reading = c.reading
			a, z := randomRecords(1, upTo(30)...), randomRecords(2, upTo(40)...)
			b.add("a.faa", fasta(a))
			bad := b.add(c.name, c.content)
			b.add("z.faa", fasta(z))
			if c.kind == "missing" {
				if err := os.Remove(bad); err != nil {
					t.Fatal(err)
				}
			}
			s := b.run()
			b.check("a", a)
			b.check("z", z)
			b.wantNames(outputsOf("a", "z")...)
			if len(s.Failed) != 1 || s.Failed[0].Path != bad || s.Failed[0].Type != c.kind || !strings.Contains(s.Failed[0].Err.Error(), c.says) {
				t.Fatalf("failed: %v, want %s %q", s.Failed, c.kind, c.says)
			}
			if len(b.seen.failed) != 1 {
				t.Errorf("the observer received %v", b.seen.failed)
			}

			if err := WriteFailures(b.Context(), b.out, s.Done(), s.Failed); err != nil {
				t.Fatal(err)
			}
			want := fmt.Sprintf("%s|%s|%v\n", bad, c.kind, s.Failed[0].Err)
			if got := b.outputs()[FailedFiles]; got != want {
				t.Errorf("%s contains %q, want %q", FailedFiles, got, want)
			}

			// After the file is repaired, a second run computes it and removes the list of failed files.
			writeFile(t, bad, ">now\nMKV\n")
			if c.name == "bad.fastq" {
				writeFile(t, bad, "@now\nMKV\n+\nIII\n")
			}
			b = b.again()
			s = b.run()
			if len(s.Failed) != 0 || len(s.Resumed) != 2 || len(s.Files) != 1 {
				t.Fatalf("second run: %+v", s)
			}
			if err := WriteFailures(b.Context(), b.out, s.Done(), s.Failed); err != nil {
				t.Fatal(err)
			}
			b.wantNames(outputsOf("a", "bad", "z")...)
		})
	}
}

func TestPlanReportsWhatCannotBeRead(t *testing.T) {
	dir := t.TempDir()
	var inputs []seqio.Input
	add := func(name, content string) {
		inputs = append(inputs, seqio.Input{Path: writeFile(t, filepath.Join(dir, name), content), Name: name})
	}
	add("page.fa", "<!DOCTYPE html><html></html>\n")
	add("dna.fa", ">a\nACGTNNACGT\n")
	add("empty.fa", "")
	add("protein.fa", ">a\nMKVLLA\n")
	add("cut.fa.gz", "\x1f\x8b\x08")
	inputs = append(inputs, seqio.Input{Path: filepath.Join(dir, "none.fa"), Name: "none"})
	dna, protein, failed, err := Plan(t.Context(), inputs, seqio.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if len(dna) != 1 || dna[0].Name != "dna.fa" || dna[0].Alphabet != seqio.DNA || dna[0].Size != 14 {
		t.Errorf("DNA: %+v", dna)
	}
	if len(protein) != 1 || protein[0].Name != "protein.fa" || protein[0].Alphabet != seqio.Protein {
		t.Errorf("protein: %+v", protein)
	}
	var got []string
	for _, f := range failed {
		got = append(got, filepath.Base(f.Path)+" "+f.Type)
		if strings.Contains(f.Err.Error(), "\n") || !strings.Contains(f.Err.Error(), f.Path) {
			t.Errorf("%q is not one line that names the file", f.Err)
		}
	}
	if want := "page.fa format, empty.fa format, cut.fa.gz format, none.fa missing"; strings.Join(got, ", ") != want {
		t.Errorf("failed: %q, want %q", got, want)
	}
}

// TestPipeThatCannotBeOpened checks that the failure of a pipe that cannot be opened has the type of the cause, here
// "permission", and not the type "format".
func TestPipeThatCannotBeOpened(t *testing.T) {
	denied := &fs.PathError{Op: "open", Path: "pipe.fa", Err: fs.ErrPermission}
	f := File{Input: seqio.Input{Path: "pipe.fa"}}
	err := f.connect(t.Context(), seqio.Options{}, func() (io.ReadCloser, error) { return nil, denied })
	if failed := NewFailure(f.Path, err); failed.Type != "permission" || err.Error() != "open input: "+denied.Error() {
		t.Errorf("%+v", failed)
	}
}

func TestFailureTypes(t *testing.T) {
	for _, c := range []struct {
		err  error
		want string
	}{
		{&DeviceError{"gpu0", errBroken}, "device"},
		{fmt.Errorf("x.fa:3: %w", store.ErrRecord), "record"},
		{&seqio.FormatError{Err: ErrTooLong}, "record"},
		{&seqio.FormatError{Err: seqio.ErrBadRecord}, "record"},
		{&seqio.FormatError{Err: seqio.ErrDuplicateID}, "record"},
		{&seqio.FormatError{Err: seqio.ErrTruncated}, "format"},
		{&outputError{fs.ErrPermission}, "output"},
		{fmt.Errorf("open: %w", fs.ErrPermission), "permission"},
		{fmt.Errorf("open: %w", fs.ErrNotExist), "missing"},
		{errors.New("whatever"), "other"},
	} {
		if got := NewFailure("x", c.err).Type; got != c.want {
			t.Errorf("%v is of type %s, want %s", c.err, got, c.want)
		}
	}
}

// TestFailedFilesHasOneLineForEach checks that every failure has one line in FailedFiles, for any path and message, and
// that the line contains no escape sequence of a terminal.
func TestFailedFilesHasOneLineForEach(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new")
	path := "a|b\nc%7C\x1b[31m\u202e\xe9é.fa"
	failed := []Failure{
		{Path: path, Type: "format", Err: errors.New("two\r\nlines | and a bar, \x1b]0;title\a")},
		{Path: "d.fa", Type: "missing", Err: errors.New("gone")},
	}
	list := func(done []string, failed []Failure) string {
		t.Helper()
		if err := WriteFailures(t.Context(), dir, done, failed); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(filepath.Join(dir, FailedFiles))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
		return string(got)
	}
	here := escape(absolute("."), "|%") + string(filepath.Separator)
	want := here + "a%7Cb%0Ac%257C%1B[31m%E2%80%AE%E9é.fa|format|two  lines %7C and a bar, %1B]0;title%07\n" + here + "d.fa|missing|gone\n"
	if got := list(nil, failed); got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if got := list([]string{path}, nil); got != here+"d.fa|missing|gone\n" {
		t.Errorf("after the first has succeeded: %q", got)
	}
	for range 2 { // the second time, there is no list to remove
		if got := list([]string{"d.fa"}, nil); got != "" {
			t.Errorf("the list still holds %q", got)
		}
	}
}

// TestFailedFilesOfSeveralRuns checks that a run changes only the lines of its own inputs, in whatever form their paths
// are given, and from whatever working directory.
func TestFailedFilesOfSeveralRuns(t *testing.T) {
	t.Chdir(t.TempDir())
	here := escape(absolute("."), "|%") + string(filepath.Separator)
	failure := func(path, message string) []Failure { return []Failure{{path, "format", errors.New(message)}} }
	for _, c := range []struct {
		done   []string
		failed []Failure
		want   string
	}{
		{nil, failure("a.fa", "first"), here + "a.fa|format|first\n"},
		{[]string{"b.fa"}, nil, here + "a.fa|format|first\n"},
		{nil, failure("-", "stdin"), here + "a.fa|format|first\n-|format|stdin\n"},
		{nil, failure("./x/../a.fa", "again"), "-|format|stdin\n" + here + "a.fa|format|again\n"},
		{[]string{"a.fa"}, failure("-", "new"), "-|format|new\n"},
	} {
		if err := WriteFailures(t.Context(), "out", c.done, c.failed); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile("out/" + FailedFiles); err != nil || string(got) != c.want {
			t.Errorf("%q, want %q: %v", got, c.want, err)
		}
	}
	// The first line is by another program, and the last line is incomplete.
	writeFile(t, "out/"+FailedFiles, "50%.fa|format|odd\nc.fa|for")
	if err := WriteFailures(t.Context(), "out", []string{"50%.fa"}, failure("d.fa", "bad")); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile("out/" + FailedFiles); err != nil || string(got) != "c.fa|for\n"+here+"d.fa|format|bad\n" {
		t.Errorf("%q, %v", got, err)
	}
	if err := os.Mkdir("elsewhere", 0o777); err != nil {
		t.Fatal(err)
	}
	t.Chdir("elsewhere")
	if err := WriteFailures(t.Context(), "../out", []string{"../d.fa"}, nil); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile("../out/" + FailedFiles); err != nil || string(got) != "c.fa|for\n" {
		t.Errorf("%q, %v", got, err)
	}
}

// TestOutputThatCannotBeWritten checks two kinds of folders that cannot be written. If the output folder cannot be
// written, the run ends with an error before any device is opened. If a folder below the output folder cannot be
// written, only the files whose outputs belong there fail.
func TestOutputThatCannotBeWritten(t *testing.T) {
	b := newBench(t)
	obstacle := writeFile(t, filepath.Join(t.TempDir(), "file"), "")
	b.out = filepath.Join(obstacle, "out")
	b.job.Output.Dir = b.out
	b.addFiles(4)
	s, err := b.job.Run(t.Context())
	if !errors.Is(err, ErrOutput) || !strings.Contains(err.Error(), b.out) || len(s.Failed) != 0 || len(b.seen.ready) != 0 {
		t.Errorf("failed %v, %v", s.Failed, err)
	}

	b = newBench(t)
	b.addFiles(4)
	b.job.Files[1].Dir = "sub"
	if err := os.Mkdir(b.out, 0o777); err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(b.out, "sub"), "a file where a folder should be")
	if s := b.run(); len(s.Files) != 3 || len(s.Failed) != 1 || s.Failed[0].Type != OutputFailure {
		t.Errorf("failed %v", s.Failed)
	}
}
