package store

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

const digest = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

// testEntry returns an entry for the two files of an output called name. Almost all fields of the entry are set.
func testEntry(dir, name string) Entry {
	return Entry{
		Input: Source{Path: name + ".fa", Absolute: "/data/" + name + ".fa", Size: 123, SHA256: digest,
			Modified: time.Date(2026, 1, 1, 0, 0, 0, 7, time.UTC)},
		Model: "esm2-8m", Revision: "main", CheckpointSHA256: digest, TokenizerSHA256: digest,
		Parameters: map[string]string{"pool": "mean", "layers": "-1", "max_length": "1022"},
		Device:     "cpu", DType: "fp32", Backend: "cpu avx2", ProgramVersion: "0.1.0", NumericsVersion: 7,
		LibraryVersions: map[string]string{"go": "go1.26"},
		Records:         10, Tokens: 1000, Truncated: 1,
		Skipped: map[string]int64{"too short": 2},
		Outputs: []File{{Path: filepath.Join(dir, "sub", name+".npy"), Size: 5, SHA256: digest},
			{Path: filepath.Join(dir, "sub", name+".ids.txt"), Size: 6, SHA256: digest}},
		Started:  time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
		Finished: time.Date(2026, 1, 2, 3, 4, 6, 500, time.UTC),
	}
}

// noClash is a clash function for Append that accepts every entry.
func noClash(Entry) error { return nil }

func mustAppend(t testing.TB, dir string, entries ...Entry) {
	t.Helper()
	m := mustRead(t, dir)
	for _, e := range entries {
		if err := m.Append(t.Context(), e, noClash); err != nil {
			t.Fatal(err)
		}
	}
}

func mustRead(t testing.TB, dir string) *Manifest {
	t.Helper()
	m, err := ReadManifest(dir)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// wantOutputs checks that the manifest has entries for exactly the outputs with these names.
func wantOutputs(t testing.TB, dir string, names ...string) {
	t.Helper()
	var got []string
	for path := range mustRead(t, dir).last {
		if name, ok := strings.CutSuffix(filepath.Base(path), ".npy"); ok {
			got = append(got, name)
		}
	}
	slices.Sort(got)
	if !slices.Equal(got, names) {
		t.Fatalf("entries of %q, want %q", got, names)
	}
}

func manifestPath(dir string) string { return filepath.Join(dir, ManifestName) }

func TestManifestRoundTrip(t *testing.T) {
	dir := t.TempDir()
	names := []string{"b", "a <&> \"ü\"", "c"}
	for _, name := range names {
		mustAppend(t, dir, testEntry(dir, name))
	}
	m := mustRead(t, dir)
	for _, name := range names {
		want := testEntry(dir, name)
		for _, o := range want.Outputs {
			if e, file, ok := m.Find(o.Path); !ok || !reflect.DeepEqual(e, want) || file != o {
				t.Errorf("%s: %+v, %+v, %v", o.Path, e, file, ok)
			}
		}
	}
	if _, _, ok := m.Find(filepath.Join(dir, "b.npy")); ok {
		t.Error("Find returns an output that no entry names")
	}
}

// TestManifestAsOthersReadIt parses manifest lines as other programs do. Every line must have the documented fields
// that the test lists, with times in UTC and relative paths, and "finished" only if the output has its final name.
func TestManifestAsOthersReadIt(t *testing.T) {
	dir := t.TempDir()
	e := testEntry(dir, "a")
	e.Started = time.Date(2026, 1, 2, 5, 4, 5, 0, time.FixedZone("", 2*3600))
	bare := Entry{Input: Source{Path: "-"}, Model: "m", Outputs: []File{{Path: filepath.Join(dir, "stdin.npy")}}}
	mustAppend(t, dir, e, bare)
	lines := strings.Split(string(readFile(t, manifestPath(dir))), "\n")
	if len(lines) != 3 || lines[2] != "" {
		t.Fatalf("%d lines: %q", len(lines), lines)
	}
	var entries [2]map[string]any
	for i := range entries {
		if err := json.Unmarshal([]byte(lines[i]), &entries[i]); err != nil {
			t.Fatal(err)
		}
	}
	output := entries[0]["outputs"].([]any)[0].(map[string]any)
	if entries[0]["started"] != "2026-01-02T03:04:05Z" || output["path"] != "sub/a.npy" {
		t.Errorf("started %v, output %v", entries[0]["started"], output)
	}
	for _, field := range []string{
		"manifest_version", "input", "model", "revision", "checkpoint_sha256", "tokenizer_sha256", "parameters", "device",
		"dtype", "backend", "program_version", "numerics_version", "library_versions", "records", "tokens", "truncated", "skipped", "outputs",
		"started",
	} {
		for i, entry := range entries {
			if entry[field] == nil {
				t.Errorf("line %d has no %q", i+1, field)
			}
		}
	}
	if _, ok := entries[1]["finished"]; ok || entries[0]["finished"] == nil {
		t.Error("finished is present although the output has no final name")
	}
}

// TestManifestPathsFollowTheFolder checks that the manifest stays valid when its folder is moved.
func TestManifestPathsFollowTheFolder(t *testing.T) {
	old := t.TempDir()
	mustAppend(t, old, testEntry(old, "a"))
	moved := filepath.Join(t.TempDir(), "moved")
	if err := os.Rename(old, moved); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(moved, "sub", "a.npy")
	if e, _, ok := mustRead(t, moved).Find(path); !ok || e.Outputs[0].Path != path {
		t.Errorf("output %q, want %q", e.Outputs[0].Path, path)
	}
}

// TestLaterLinesWin checks that for each output file the last entry that names it is found. The entries of the test
// share only some of their files, and the names of the files are not UTF-8.
func TestLaterLinesWin(t *testing.T) {
	dir := t.TempDir()
	name := "caf\xe9"
	first, second, third := testEntry(dir, name), testEntry(dir, name), testEntry(dir, name)
	second.Records, third.Records = 2, 3
	third.Outputs[0].Path = filepath.Join(dir, "sub", name+".npz")
	mustAppend(t, dir, first, second, third)
	m := mustRead(t, dir)
	for suffix, want := range map[string]int64{".npy": 2, ".npz": 3, ".ids.txt": 3} {
		if e, _, ok := m.Find(filepath.Join(dir, "sub", name+suffix)); !ok || e.Records != want {
			t.Errorf("%s: %d records, %v, want those of entry %d", suffix, e.Records, ok, want)
		}
	}
	if n := bytes.Count(readFile(t, manifestPath(dir)), []byte("\n")); n != 3 {
		t.Errorf("%d lines: a line was rewritten", n)
	}
}

// TestUpdate checks that Manifest.Update reads the lines that were appended. If another file has taken the place of the
// manifest, Update must read all of it, and if the manifest is gone, there must be no entries.
func TestUpdate(t *testing.T) {
	dir := t.TempDir()
	m := mustRead(t, dir)
	found := func(name string) bool {
		_, _, ok := m.Find(testEntry(dir, name).Outputs[0].Path)
		return ok
	}
	for _, name := range []string{"a", "b"} {
		mustAppend(t, dir, testEntry(dir, name))
		if err := m.Update(); err != nil || !found(name) {
			t.Fatalf("%s is missing: %v", name, err)
		}
	}
	if err := os.Remove(manifestPath(dir)); err != nil {
		t.Fatal(err)
	}
	mustAppend(t, dir, testEntry(dir, "c"))
	if err := m.Update(); err != nil || found("a") || found("b") || !found("c") {
		t.Errorf("another manifest: %v, %v, %v, %v", found("a"), found("b"), found("c"), err)
	}
	if err := os.Remove(manifestPath(dir)); err != nil {
		t.Fatal(err)
	}
	if err := m.Update(); err != nil || found("c") {
		t.Errorf("no manifest: %v, %v", found("c"), err)
	}
}

// TestClash checks that Append calls its argument clash only if an entry for the same output file was written after the
// manifest was read, and that Append then returns the error of clash.
func TestClash(t *testing.T) {
	dir := t.TempDir()
	mustAppend(t, dir, testEntry(dir, "before"))
	m := mustRead(t, dir)
	since := testEntry(dir, "since")
	since.Records = 77
	mustAppend(t, dir, since)
	var asked []int64
	refuse := func(later Entry) error {
		asked = append(asked, later.Records)
		return errors.New("refused")
	}
	if err := m.Append(t.Context(), testEntry(dir, "before"), refuse); err != nil {
		t.Errorf("an entry from before: %v", err)
	}
	half := testEntry(dir, "since")
	half.Outputs[0].Path = filepath.Join(dir, "other.npy") // the second output file is that of since
	if err := m.Append(t.Context(), half, refuse); err == nil || !slices.Equal(asked, []int64{77}) {
		t.Errorf("clash is called for %v: %v", asked, err)
	}
	if e, _, ok := mustRead(t, dir).Find(half.Outputs[1].Path); !ok || e.Records != 77 {
		t.Errorf("the refused entry was written: %+v", e)
	}
	if err := m.Append(t.Context(), half, noClash); err != nil {
		t.Error(err)
	}
}

func TestManifestRefusesToWrite(t *testing.T) {
	dir := t.TempDir()
	for what, change := range map[string]func(e *Entry){
		"output elsewhere": func(e *Entry) { e.Outputs[0].Path = filepath.Join(dir, "..", "x.parquet") },
		"the folder":       func(e *Entry) { e.Outputs[0].Path = dir },
		"short digest":     func(e *Entry) { e.Outputs[0].SHA256 = "ab" },
		"negative count":   func(e *Entry) { e.Skipped["x"] = -1 },
		"no model":         func(e *Entry) { e.Model = "" },
		"no output":        func(e *Entry) { e.Outputs = nil },
		"year 10000":       func(e *Entry) { e.Started = time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC) },
	} {
		e := testEntry(dir, "a")
		change(&e)
		err := mustRead(t, dir).Append(t.Context(), e, noClash)
		if err == nil {
			t.Errorf("%s: no error", what)
			continue
		}
		wantError(t, err, manifestPath(dir))
		if left := filesIn(t, dir); left != nil {
			t.Errorf("%s: left %q", what, left)
		}
	}
}

// TestDamagedManifest checks that a damaged line causes an error that names the line. Repair must remove the line, keep
// the whole old file under another name, and make the manifest usable.
func TestDamagedManifest(t *testing.T) {
	dir := t.TempDir()
	path := manifestPath(dir)
	mustAppend(t, dir, testEntry(dir, "a"))
	good := string(readFile(t, path))
	for what, c := range map[string]struct{ content, mention string }{
		"not JSON":       {good + "hello\n" + good, ":2: "},
		"torn and glued": {good + good[:500] + good, ":2: "},
		"zeros":          {good + strings.Repeat("\x00", 100) + "\n", ":2: "},
		"HTML":           {"<html></html>\n", ":1: "},
		"other JSON":     {"{}\n", "manifest_version is 0"},
		"path outside":   {strings.Replace(good, "sub/a", "../a", 1), "not in the folder"},
		"absolute path":  {strings.Replace(good, "sub/a", "/sub/a", 1), "not in the folder"},
		"short digest":   {strings.Replace(good, digest, digest[:10], 1), digest[:10]},
		"negative count": {strings.Replace(good, `"records":10`, `"records":-10`, 1), "records"},
		"text as count":  {strings.Replace(good, `"records":10`, `"records":"10"`, 1), "records"},
		"no outputs":     {strings.Replace(good, `"outputs"`, `"output"`, 1), "0 outputs"},
		"two in a line":  {strings.TrimSpace(good) + good, "after top-level value"},
	} {
		if c.content == good {
			t.Errorf("%s: the test changes nothing", what)
		}
		if err := os.WriteFile(path, []byte(c.content), 0o666); err != nil {
			t.Fatal(err)
		}
		_, err := ReadManifest(dir)
		wantError(t, err, path+":", c.mention)
		if !errors.Is(err, ErrManifest) {
			t.Errorf("%s: %v is not ErrManifest", what, err)
		}
		aside, err := Repair(t.Context(), dir, ThisProcess(""))
		if err != nil || len(aside) != 1 || string(readFile(t, aside[0])) != c.content {
			t.Fatalf("%s: set aside %q: %v", what, aside, err)
		}
		kept := ""
		for line := range strings.Lines(c.content) {
			if line == good {
				kept += line
			}
		}
		if got := string(readFile(t, path)); got != kept {
			t.Errorf("%s: repaired to %q", what, got)
		}
		if aside, err := Repair(t.Context(), dir, ThisProcess("")); err != nil || aside != nil {
			t.Errorf("%s: set aside %q again: %v", what, aside, err)
		}
		mustAppend(t, dir, testEntry(dir, "b"))
	}
}

// TestLaterManifest checks that lines written by a later version of the program do not count as damaged.
func TestLaterManifest(t *testing.T) {
	dir := t.TempDir()
	mustAppend(t, dir, testEntry(dir, "a"))
	later := strings.Replace(string(readFile(t, manifestPath(dir))), `"manifest_version":2`, `"manifest_version":3`, 1)
	if err := os.WriteFile(manifestPath(dir), []byte("damaged\n"+later), 0o666); err != nil {
		t.Fatal(err)
	}
	_, err := Repair(t.Context(), dir, ThisProcess(""))
	wantError(t, err, manifestPath(dir)+":2:", "a later version")
	if err := os.WriteFile(manifestPath(dir), []byte(later), 0o666); err != nil {
		t.Fatal(err)
	}
	_, err = ReadManifest(dir)
	wantError(t, err, manifestPath(dir)+":1:", "a later version")
	if errors.Is(err, ErrManifest) || len(filesIn(t, dir)) != 1 {
		t.Errorf("%v, and the folder holds %q", err, filesIn(t, dir))
	}
}

// TestHandwrittenLines checks that a manifest line gives the same entry if it is formatted differently as JSON: with
// other spaces, another order of keys, or unknown keys.
func TestHandwrittenLines(t *testing.T) {
	dir := t.TempDir()
	want := testEntry(dir, "a")
	mustAppend(t, dir, want)
	good := strings.TrimSpace(string(readFile(t, manifestPath(dir))))
	var object map[string]any
	if err := json.Unmarshal([]byte(good), &object); err != nil {
		t.Fatal(err)
	}
	sorted, err := json.Marshal(object)
	if err != nil {
		t.Fatal(err)
	}
	inputFirst := strings.Replace(good, `"manifest_version":2,`, "", 1)
	inputFirst = `{"note":{"a":1,"input":2},"manifest_version":2,` + inputFirst[1:]
	for what, content := range map[string]string{
		"as written":   good + "\n",
		"keys sorted":  string(sorted) + "\n",
		"blank lines":  "\n  \n" + good + "\n\n",
		"DOS":          good + "\r\n",
		"spaces":       strings.ReplaceAll(good, `,"`, ` , "`) + "\n",
		"unknown keys": inputFirst + "\n",
	} {
		if err := os.WriteFile(manifestPath(dir), []byte(content), 0o666); err != nil {
			t.Fatal(err)
		}
		if e, _, ok := mustRead(t, dir).Find(want.Outputs[0].Path); !ok || !reflect.DeepEqual(e, want) {
			t.Errorf("%s: %+v", what, e)
		}
	}
}

// TestWrittenLinesAreDecodedFast checks that the fast decoder, decodeWritten, decodes the lines that encodeLine writes.
// The settings in all lines are equal, so decodeWritten must cache them only once.
func TestWrittenLinesAreDecodedFast(t *testing.T) {
	d := lineDecoder{"out", map[string]manifestLine{}}
	for line := range bytes.Lines(manifestOf(t, "out", 2)) {
		if !d.decodeWritten(line, new(manifestLine)) {
			t.Errorf("not decoded by decodeWritten: %s", line)
		}
	}
	if len(d.settings) != 1 {
		t.Errorf("%d cached settings, want 1", len(d.settings))
	}
}

// TestEarlierManifests checks that a manifest of version 1 causes an error, and that Repair renames it.
func TestEarlierManifests(t *testing.T) {
	for _, name := range olderManifests {
		dir := t.TempDir()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte("{}"), 0o666); err != nil {
			t.Fatal(err)
		}
		_, err := ReadManifest(dir)
		wantError(t, err, path, "an earlier version")
		if !errors.Is(err, ErrManifest) {
			t.Errorf("%v is not ErrManifest", err)
		}
		aside, err := Repair(t.Context(), dir, ThisProcess(""))
		if err != nil || len(aside) != 1 || string(readFile(t, aside[0])) != "{}" {
			t.Errorf("set aside %q: %v", aside, err)
		}
		mustAppend(t, dir, testEntry(dir, "a"))
		wantOutputs(t, dir, "a")
	}
}

// TestTornLine truncates a manifest of two lines at many positions. The complete lines must be read, and the next entry
// must replace the incomplete line.
func TestTornLine(t *testing.T) {
	whole := t.TempDir()
	mustAppend(t, whole, testEntry(whole, "a"), testEntry(whole, "b"))
	content := readFile(t, manifestPath(whole))
	first := bytes.IndexByte(content, '\n') + 1
	for cut := 1; cut < len(content); cut += 37 {
		dir := t.TempDir()
		if err := os.WriteFile(manifestPath(dir), content[:cut], 0o666); err != nil {
			t.Fatal(err)
		}
		want := []string{"a"}
		if cut < first {
			want = nil
		}
		wantOutputs(t, dir, want...)
		mustAppend(t, dir, testEntry(dir, "c"))
		wantOutputs(t, dir, append(want, "c")...)
	}
	// The newline of the last line is replaced by zeros, which may be left after a power failure.
	dir := t.TempDir()
	zeros := append(content[:len(content)-1:len(content)-1], make([]byte, 5000)...)
	if err := os.WriteFile(manifestPath(dir), zeros, 0o666); err != nil {
		t.Fatal(err)
	}
	wantOutputs(t, dir, "a")
	mustAppend(t, dir, testEntry(dir, "c"))
	wantOutputs(t, dir, "a", "c")
}

// manifestOf returns the content of a manifest with the given number of finished outputs. Each output has two lines:
// one from before it got its final name, and one from after.
func manifestOf(t testing.TB, dir string, outputs int) []byte {
	var lines bytes.Buffer
	for i := range outputs {
		e := testEntry(dir, fmt.Sprintf("in/%07d", i))
		e.Revision = "08e4846e537177426273712802403f7ba8261b6c"
		e.Parameters = map[string]string{"pool": "mean", "layers": "33", "format": "parquet", "long": "truncate",
			"max_length": "1022", "min_length": "0", "on_bad_record": "error", "duplicates": "error", "keep_case": "false"}
		e.Skipped, e.Outputs = nil, e.Outputs[:1]
		announced := e
		announced.Finished, announced.Outputs = time.Time{}, []File{{Path: e.Outputs[0].Path}}
		for _, e := range []Entry{announced, e} {
			line, err := encodeLine(dir, e)
			if err != nil {
				t.Fatal(err)
			}
			lines.Write(line)
		}
	}
	return lines.Bytes()
}

// BenchmarkReadManifest reads a manifest of 40,000 lines, and one of 80,000 lines. Each output has two lines.
func BenchmarkReadManifest(b *testing.B) {
	for _, outputs := range []int{20_000, 40_000} {
		b.Run(fmt.Sprint(2*outputs), func(b *testing.B) {
			dir := b.TempDir()
			content := manifestOf(b, dir, outputs)
			if err := os.WriteFile(manifestPath(dir), content, 0o666); err != nil {
				b.Fatal(err)
			}
			b.SetBytes(int64(len(content)))
			for b.Loop() {
				if m := mustRead(b, dir); len(m.last) != outputs {
					b.Fatal(len(m.last))
				}
			}
		})
	}
}

// BenchmarkAppend appends an entry to a manifest of 2 lines, and to one of 80,000 lines.
func BenchmarkAppend(b *testing.B) {
	for _, outputs := range []int{1, 40_000} {
		b.Run(fmt.Sprint(2*outputs), func(b *testing.B) {
			dir := b.TempDir()
			if err := os.WriteFile(manifestPath(dir), manifestOf(b, dir, outputs), 0o666); err != nil {
				b.Fatal(err)
			}
			m := mustRead(b, dir)
			for b.Loop() {
				if err := m.Append(b.Context(), testEntry(dir, "in/new"), func(Entry) error { return nil }); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func FuzzManifest(f *testing.F) {
	dir := "out"
	lines := manifestOf(f, dir, 2)
	f.Add(lines)
	f.Add(lines[:len(lines)-5])
	f.Add([]byte("\n{}\n"))
	f.Add([]byte(`{"manifest_version":2,"model":"m","skipped":{"x":1},"input":{"path":"x"},"skipped":{"y":2},` +
		`"outputs":[{"path":"a"}],"parameters":{"a":"b"}}` + "\n"))
	f.Fuzz(func(t *testing.T, content []byte) {
		if whole := bytes.LastIndexByte(content, '\n') + 1; whole < len(content) {
			content = content[:whole]
		}
		m := &Manifest{dir: dir, last: map[string]outputEntry{}}
		before := bytes.Clone(content)
		err := m.addLines(content)
		if !bytes.Equal(content, before) {
			t.Fatalf("decoding changes the content: %q", content)
		}
		d := lineDecoder{dir, map[string]manifestLine{}}
		for line := range bytes.Lines(content) {
			e, lineErr := d.decode(line)
			if lineErr != nil {
				if err == nil {
					t.Errorf("%q: decode returns %v, but the manifest is read", line, lineErr)
				}
				return
			}
			if e == nil {
				continue
			}
			// Decode the line with package json, as any other program does.
			var plain manifestLine
			if err := json.Unmarshal(line, &plain); err != nil {
				t.Fatalf("%q is read but is not JSON: %v", line, err)
			}
			for i, o := range plain.Outputs {
				plain.Outputs[i].Path = filepath.Join(dir, filepath.FromSlash(o.Path))
			}
			if !reflect.DeepEqual(*e, plain.Entry) {
				t.Fatalf("%q\nis read as %+v\nand by package json as %+v", line, *e, plain.Entry)
			}
			for _, o := range e.Outputs {
				if rel, err := filepath.Rel(dir, o.Path); err != nil || !filepath.IsLocal(rel) {
					t.Errorf("output %q", o.Path)
				}
			}
			again, err := encodeLine(dir, *e)
			if err != nil {
				continue // in UTC a time is in the year 10000 or before the year 0, which RFC 3339 cannot represent
			}
			if read, err := d.decode(again); err != nil {
				t.Errorf("%q became %q: %v", line, again, err)
			} else if third, err := encodeLine(dir, *read); err != nil || !bytes.Equal(again, third) {
				t.Errorf("%q became %q, then %q: %v", line, again, third, err)
			}
		}
		if err != nil {
			t.Errorf("every line is read, but not the manifest: %v", err)
		}
	})
}
