package store

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

const digest = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

// testEntry returns an entry with something in every field.
func testEntry(dir, input string) Entry {
	return Entry{
		Input: Source{Path: input, Size: 123, SHA256: digest},
		Model: "esm2-8m", Revision: "main", CheckpointSHA256: digest, TokenizerSHA256: digest,
		Parameters: map[string]string{"pooling": "mean", "layers": "-1", "max-length": "1022"},
		Device:     "cpu", DType: "fp32", Backend: "cpu avx2", ProgramVersion: "0.1.0",
		LibraryVersions: map[string]string{"parquet-go": "0.32.0"},
		Records:         10, Tokens: 1000, Truncated: 1,
		Skipped:  map[string]int64{"shorter than --min-length": 2},
		Outputs:  []File{{Path: filepath.Join(dir, "sub", "a.esm2-8m.parquet"), Size: 5, SHA256: digest}},
		Started:  time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
		Finished: time.Date(2026, 1, 2, 3, 4, 6, 500, time.UTC),
	}
}

func TestManifestRoundTrip(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new")
	m := new(Manifest)
	for _, input := range []string{"b.fa", "a <&> \"ü\".fa", "dir/a.fa"} {
		m.Put(testEntry(dir, input))
	}
	bare := Entry{Input: Source{Path: "b.fa"}, Model: "dnabert-s"}
	m.Put(bare)
	if err := m.Write(dir); err != nil {
		t.Fatal(err)
	}
	read, err := ReadManifest(dir)
	if err != nil {
		t.Fatal(err)
	}
	if got, ok := read.Find("dir/a.fa", "esm2-8m"); !ok || !reflect.DeepEqual(got, testEntry(dir, "dir/a.fa")) {
		t.Errorf("read %+v, %v", got, ok)
	}
	var order []string
	for _, e := range read.Entries() {
		order = append(order, e.Input.Path+" "+e.Model)
	}
	if want := []string{"a <&> \"ü\".fa esm2-8m", "b.fa dnabert-s", "b.fa esm2-8m", "dir/a.fa esm2-8m"}; !reflect.DeepEqual(order, want) {
		t.Errorf("order %q, want %q", order, want)
	}
	first := readFile(t, filepath.Join(dir, ManifestName))
	if err := read.Write(dir); err != nil {
		t.Fatal(err)
	}
	if second := readFile(t, filepath.Join(dir, ManifestName)); string(first) != string(second) {
		t.Error("writing what was read gave another file")
	}
}

// The file is read by other programs too.
func TestManifestAsOthersReadIt(t *testing.T) {
	dir := t.TempDir()
	m := new(Manifest)
	e := testEntry(dir, "a.fa")
	e.Started = time.Date(2026, 1, 2, 5, 4, 5, 0, time.FixedZone("", 2*3600))
	m.Put(e)
	if err := m.Write(dir); err != nil {
		t.Fatal(err)
	}
	var file struct {
		Version int `json:"manifest_version"`
		Entries []map[string]any
	}
	if err := json.Unmarshal(readFile(t, filepath.Join(dir, ManifestName)), &file); err != nil {
		t.Fatal(err)
	}
	entry := file.Entries[0]
	output := entry["outputs"].([]any)[0].(map[string]any)
	if file.Version != 1 || entry["started"] != "2026-01-02T03:04:05Z" || output["path"] != "sub/a.esm2-8m.parquet" {
		t.Errorf("version %d, started %v, output %v", file.Version, entry["started"], output)
	}
	for _, field := range []string{
		"input", "model", "revision", "checkpoint_sha256", "tokenizer_sha256", "parameters", "device", "dtype", "backend",
		"program_version", "library_versions", "records", "tokens", "truncated", "skipped", "outputs", "started", "finished",
	} {
		if _, ok := entry[field]; !ok {
			t.Errorf("no field %q", field)
		}
	}
}

// A folder that was moved takes its manifest along.
func TestManifestPathsFollowTheFolder(t *testing.T) {
	old := filepath.Join(t.TempDir(), "old")
	m := new(Manifest)
	m.Put(testEntry(old, "a.fa"))
	if err := m.Write(old); err != nil {
		t.Fatal(err)
	}
	moved := filepath.Join(t.TempDir(), "moved")
	if err := os.Rename(old, moved); err != nil {
		t.Fatal(err)
	}
	read, err := ReadManifest(moved)
	if err != nil {
		t.Fatal(err)
	}
	e, _ := read.Find("a.fa", "esm2-8m")
	if want := filepath.Join(moved, "sub", "a.esm2-8m.parquet"); e.Outputs[0].Path != want {
		t.Errorf("output %q, want %q", e.Outputs[0].Path, want)
	}
}

func TestManifestPutReplaces(t *testing.T) {
	m := new(Manifest)
	for _, records := range []int64{1, 2} {
		// A path that is not UTF-8 is one that JSON changes: it must still be one entry.
		e := testEntry("out", "caf\xe9.fa")
		e.Records = records
		m.Put(e)
	}
	e, ok := m.Find("caf\xe9.fa", "esm2-8m")
	if len(m.Entries()) != 1 || !ok || e.Records != 2 {
		t.Errorf("%d entries, the one found: %+v, %v", len(m.Entries()), e, ok)
	}
	if _, ok := m.Find("caf\xe9.fa", "esm2-35m"); ok {
		t.Error("found an entry of another model")
	}
}

func TestManifestRefusesToWrite(t *testing.T) {
	dir := t.TempDir()
	for what, change := range map[string]func(e *Entry){
		"output elsewhere": func(e *Entry) { e.Outputs[0].Path = filepath.Join(dir, "..", "x.parquet") },
		"the folder":       func(e *Entry) { e.Outputs[0].Path = dir },
		"no digest":        func(e *Entry) { e.Outputs[0].SHA256 = "" },
		"negative count":   func(e *Entry) { e.Skipped["x"] = -1 },
		"no model":         func(e *Entry) { e.Model = "" },
	} {
		m := new(Manifest)
		e := testEntry(dir, "a.fa")
		change(&e)
		m.Put(e)
		err := m.Write(dir)
		if err == nil {
			t.Errorf("%s: no error", what)
			continue
		}
		wantError(t, err, filepath.Join(dir, ManifestName))
		if left := filesIn(t, dir); left != nil {
			t.Errorf("%s: left %q", what, left)
		}
	}
}

func TestReadManifestErrors(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, ManifestName)
	_, err := ReadManifest(dir)
	wantError(t, err, path)
	if !errors.Is(err, fs.ErrNotExist) || errors.Is(err, ErrManifest) {
		t.Errorf("no manifest: %v", err)
	}

	m := new(Manifest)
	m.Put(testEntry(dir, "a.fa"))
	if err := m.Write(dir); err != nil {
		t.Fatal(err)
	}
	good := string(readFile(t, path))
	twice := new(Manifest)
	twice.entries = []Entry{testEntry(dir, "a.fa"), testEntry(dir, "a.fa")}
	double, err := twice.marshal(dir)
	if err != nil {
		t.Fatal(err)
	}
	for what, c := range map[string]struct{ content, mention string }{
		"empty":          {"", "unexpected end"},
		"HTML":           {"<html></html>", "invalid character"},
		"cut in half":    {good[:len(good)/2], "unexpected end"},
		"other JSON":     {"{}", "manifest_version is 0"},
		"later version":  {strings.Replace(good, `"manifest_version": 1`, `"manifest_version": 2`, 1), "manifest_version is 2"},
		"unknown field":  {strings.Replace(good, `"device"`, `"devices"`, 1), `"devices"`},
		"more after it":  {good + "{}", "after"},
		"two alike":      {string(double), "two entries"},
		"path outside":   {strings.Replace(good, "sub/a", "../a", 1), "leaves the folder"},
		"absolute path":  {strings.Replace(good, "sub/a", "/sub/a", 1), "leaves the folder"},
		"short digest":   {strings.Replace(good, digest, digest[:10], 1), digest[:10]},
		"negative count": {strings.Replace(good, `"records": 10`, `"records": -10`, 1), "records"},
		"text as count":  {strings.Replace(good, `"records": 10`, `"records": "10"`, 1), "records"},
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
	}
}

func FuzzReadManifest(f *testing.F) {
	m := new(Manifest)
	f.Add([]byte(`{"manifest_version": 1, "entries": [{"input": {"path": "x"}, "model": "m", "outputs": null}]}`))
	for _, input := range []string{"a.fa", "b.fa"} {
		m.Put(testEntry("out", input))
		content, err := m.marshal("out")
		if err != nil {
			f.Fatal(err)
		}
		f.Add(content)
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		m, err := parseManifest(content, "out")
		if err != nil {
			return
		}
		for _, e := range m.Entries() {
			for _, output := range e.Outputs {
				if rel, err := filepath.Rel("out", output.Path); err != nil || !filepath.IsLocal(rel) {
					t.Errorf("output %q", output.Path)
				}
			}
		}
		again, err := m.marshal("out")
		if err != nil {
			t.Fatalf("what was read cannot be written: %v", err)
		}
		read, err := parseManifest(again, "out")
		if err != nil || !reflect.DeepEqual(read, m) {
			t.Errorf("%+v became %+v, %v", m, read, err)
		}
	})
}
