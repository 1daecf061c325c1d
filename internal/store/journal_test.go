package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
)

// Several processes write entries into one folder and compact it at the same
// time, and every entry is there in the end.
func TestUpdateManifestFromSeveralProcesses(t *testing.T) {
	const variable, processes, entries = "STORE_TEST_UPDATE", 4, 8
	if who := os.Getenv(variable); who != "" {
		for i := range entries {
			if err := UpdateManifest(os.Getenv(variable+"_DIR"), Entry{Input: Source{Path: fmt.Sprintf("%s-%d", who, i)}, Model: "m"}); err != nil {
				t.Fatal(err)
			}
			if i%3 == 2 {
				if err := CompactManifest(os.Getenv(variable + "_DIR")); err != nil {
					t.Fatal(err)
				}
			}
		}
		return
	}
	dir := t.TempDir()
	var wait sync.WaitGroup
	for p := range processes {
		wait.Go(func() {
			cmd := exec.Command(os.Args[0], "-test.run", "^TestUpdateManifestFromSeveralProcesses$")
			cmd.Env = append(os.Environ(), fmt.Sprintf("%s=p%d", variable, p), variable+"_DIR="+dir)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
	wait.Wait()
	m, err := ReadManifest(dir)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(m.Entries()); n != processes*entries {
		t.Errorf("%d entries of %d are left", n, processes*entries)
	}
}

// wantInputs wants entries of these inputs, in their order.
func wantInputs(t *testing.T, dir string, inputs ...string) *Manifest {
	t.Helper()
	m, err := ReadManifest(dir)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range m.Entries() {
		got = append(got, e.Input.Path)
	}
	if !reflect.DeepEqual(got, inputs) {
		t.Fatalf("entries of %q, want %q", got, inputs)
	}
	return m
}

// TestJournal: entries are found as soon as they are added, later ones in the
// place of earlier ones, and compacting changes nothing but the files.
func TestJournal(t *testing.T) {
	dir := t.TempDir()
	if err := CompactManifest(dir); err != nil {
		t.Fatal(err)
	}
	old := new(Manifest)
	old.Put(testEntry(dir, "b.fa"))
	if err := old.Write(dir); err != nil {
		t.Fatal(err)
	}
	changed := testEntry(dir, "b.fa")
	changed.Records = 77
	for _, e := range []Entry{testEntry(dir, "c.fa"), testEntry(dir, "a.fa"), changed, testEntry(dir, "c.fa")} {
		if err := UpdateManifest(dir, e); err != nil {
			t.Fatal(err)
		}
	}
	before := wantInputs(t, dir, "a.fa", "b.fa", "c.fa")
	if e, _ := before.Find("b.fa", testEntry(dir, "b.fa").Model); e.Records != 77 {
		t.Errorf("%d records in the entry that was replaced", e.Records)
	}
	if n := strings.Count(string(readFile(t, filepath.Join(dir, ManifestName))), `"sha256"`); n != strings.Count(mustMarshal(t, old, dir), `"sha256"`) {
		t.Error("the manifest was rewritten for an entry")
	}
	if err := CompactManifest(dir); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, JournalName)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the journal is still there: %v", err)
	}
	if after := wantInputs(t, dir, "a.fa", "b.fa", "c.fa"); !reflect.DeepEqual(after, before) {
		t.Errorf("%+v became %+v", before, after)
	}
}

func mustMarshal(t *testing.T, m *Manifest, dir string) string {
	t.Helper()
	text, err := m.marshal(dir)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestKilledWhileWriting: wherever a line breaks off, the entries before it
// stand, and the next one is added in its place.
func TestKilledWhileWriting(t *testing.T) {
	whole := t.TempDir()
	for _, input := range []string{"a.fa", "b.fa"} {
		if err := UpdateManifest(whole, testEntry(whole, input)); err != nil {
			t.Fatal(err)
		}
	}
	journal := readFile(t, filepath.Join(whole, JournalName))
	first := strings.IndexByte(string(journal), '\n') + 1
	for cut := 1; cut < len(journal); cut += 37 {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, JournalName), journal[:cut], 0o666); err != nil {
			t.Fatal(err)
		}
		want := []string{"a.fa"}
		if cut < first {
			want = nil
		}
		wantInputs(t, dir, want...)
		if err := UpdateManifest(dir, testEntry(dir, "c.fa")); err != nil {
			t.Fatal(err)
		}
		wantInputs(t, dir, append(want, "c.fa")...)
	}
}

func TestDamagedJournal(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, JournalName)
	if err := UpdateManifest(dir, testEntry(dir, "a.fa")); err != nil {
		t.Fatal(err)
	}
	good := string(readFile(t, path))
	for what, c := range map[string]struct{ content, mention string }{
		"not JSON":      {good + "hello\n" + good, "line 2: invalid character"},
		"later version": {strings.Replace(good, `"manifest_version":1`, `"manifest_version":2`, 1), "line 1: manifest_version is 2"},
		"unknown field": {strings.Replace(good, `"device"`, `"devices"`, 1), `"devices"`},
		"path outside":  {strings.Replace(good, "sub/a", "../a", 1), "leaves the folder"},
		"two in a line": {strings.TrimSpace(good) + good, "more text"},
		"empty line":    {"\n" + good, "line 1"},
	} {
		if c.content == good {
			t.Errorf("%s: the test changes nothing", what)
		}
		if err := os.WriteFile(path, []byte(c.content), 0o666); err != nil {
			t.Fatal(err)
		}
		_, err := ReadManifest(dir)
		wantError(t, err, path, c.mention)
		if !errors.Is(err, ErrManifest) {
			t.Errorf("%s: %v is not ErrManifest", what, err)
		}
		if err := CompactManifest(dir); !errors.Is(err, ErrManifest) || string(readFile(t, path)) != c.content {
			t.Errorf("%s: compacting: %v", what, err)
		}
	}
}

func FuzzJournal(f *testing.F) {
	dir := f.TempDir()
	for _, input := range []string{"a.fa", "b.fa"} {
		if err := UpdateManifest(dir, testEntry(dir, input)); err != nil {
			f.Fatal(err)
		}
	}
	content, err := os.ReadFile(filepath.Join(dir, JournalName))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(content)
	f.Add(content[:len(content)-5])
	f.Fuzz(func(t *testing.T, content []byte) {
		m := new(Manifest)
		if m.addJournal(content, "out") != nil {
			return
		}
		text, err := m.marshal("out")
		if err != nil {
			t.Fatalf("what was read cannot be written: %v", err)
		}
		read, err := parseManifest(text, "out")
		if err != nil || !reflect.DeepEqual(read, m) && len(m.entries) > 0 {
			t.Errorf("%+v became %+v, %v", m, read, err)
		}
	})
}
