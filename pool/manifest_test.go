package pool

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"seqembed/internal/seqio"
	"seqembed/internal/store"
)

// manifestLine is a line of the manifest as other programs read it.
type manifestLine struct {
	Input struct {
		Path, Absolute string
		Size           int
		SHA256         string `json:"sha256"`
		Modified       time.Time
	}
	Model, Revision  string
	CheckpointSHA256 string `json:"checkpoint_sha256"`
	TokenizerSHA256  string `json:"tokenizer_sha256"`
	Parameters       map[string]string
	Device           string
	DType            string `json:"dtype"`
	Backend          string
	ProgramVersion   string            `json:"program_version"`
	LibraryVersions  map[string]string `json:"library_versions"`
	Records          int
	Tokens           int
	Truncated        int
	Skipped          map[string]int
	Outputs          []struct {
		Path   string
		Size   int
		SHA256 string `json:"sha256"`
	}
	Started  time.Time
	Finished *time.Time
}

// manifestLines reads the manifest of the output folder.
func (b *bench) manifestLines() []manifestLine {
	b.Helper()
	content, err := os.ReadFile(filepath.Join(b.out, store.ManifestName))
	if err != nil {
		b.Fatal(err)
	}
	var lines []manifestLine
	for text := range strings.Lines(string(content)) {
		var line manifestLine
		if err := json.Unmarshal([]byte(text), &line); err != nil {
			b.Fatal(err)
		}
		lines = append(lines, line)
	}
	return lines
}

func sha256Of(content string) string {
	sum := sha256.Sum256([]byte(content))
	return hex.EncodeToString(sum[:])
}

// TestManifest parses the manifest of a run as any other program would, as lines of JSON, and checks the values of the
// documented fields.
func TestManifest(t *testing.T) {
	b := newBench(t)
	b.job.Reading = seqio.Options{MinLength: 2}
	b.job.MaxLength = 40
	b.job.Output.Template = store.Entry{Model: "fake-model", Revision: "r1", CheckpointSHA256: sha256Of("c"), TokenizerSHA256: sha256Of("t"),
		Parameters: map[string]string{"pool": "mean", "layers": "7"}, DType: "fp32", Backend: "fake backend", ProgramVersion: "9.9",
		LibraryVersions: map[string]string{"go": "go1"}}
	records := randomRecords(1, 1, 10, 20, 50)
	content := fasta(records)
	first := b.add("a.faa", content)
	b.add("b.faa", fasta(randomRecords(2, 5)))
	info, err := os.Stat(first)
	if err != nil {
		t.Fatal(err)
	}
	before := time.Now().Add(-time.Second)

	// When an output is finished, the manifest on disk must already describe it.
	b.seen.onFinish = func() {
		complete := 0
		for _, line := range b.manifestLines() {
			if line.Finished != nil {
				complete++
			}
		}
		if want := len(b.seen.finished) + 1; complete < want {
			t.Errorf("%d complete entries after output %d", complete, want)
		}
	}
	b.run()

	outputs := b.outputs()
	lines := b.manifestLines()
	if len(lines) != 4 {
		t.Fatalf("%d lines for two outputs", len(lines))
	}
	lines = slices.DeleteFunc(lines, func(line manifestLine) bool { return line.Input.Path != first })
	if len(lines) != 2 {
		t.Fatalf("%d lines for one output", len(lines))
	}
	announced, e := lines[0], lines[1]
	if announced.Finished != nil || len(announced.Outputs) != 2 || announced.Outputs[0].Path != "a.fake.npy" || announced.Outputs[0].SHA256 != "" {
		t.Errorf("before the output was renamed the manifest had %+v", announced)
	}
	if !e.Input.Modified.Equal(info.ModTime()) || e.Input.Absolute != first {
		t.Errorf("input %+v, last modified %v", e.Input, info.ModTime())
	}
	if e.Input.Path != first || e.Input.Size != len(content) || e.Input.SHA256 != sha256Of(content) {
		t.Errorf("input %+v", e.Input)
	}
	if e.Model != "fake-model" || e.Revision != "r1" || e.CheckpointSHA256 != sha256Of("c") || e.TokenizerSHA256 != sha256Of("t") ||
		e.Parameters["layers"] != "7" || e.Device != "fake0" || e.DType != "fp32" || e.Backend != "fake backend" ||
		e.ProgramVersion != "9.9" || e.LibraryVersions["go"] != "go1" {
		t.Errorf("settings %+v", e)
	}
	if e.Records != 3 || e.Tokens != 10+20+40+3*2 || e.Truncated != 1 || len(e.Skipped) != 1 || e.Skipped["too short"] != 1 {
		t.Errorf("%d records, %d tokens, %d truncated, skipped %v", e.Records, e.Tokens, e.Truncated, e.Skipped)
	}
	if len(e.Outputs) != 2 || e.Outputs[0].Path != "a.fake.npy" || e.Outputs[1].Path != "a.fake.ids.txt" {
		t.Fatalf("outputs %+v", e.Outputs)
	}
	for _, o := range e.Outputs {
		if o.Size != len(outputs[o.Path]) || o.SHA256 != sha256Of(outputs[o.Path]) {
			t.Errorf("%s: %d bytes, %s", o.Path, o.Size, o.SHA256)
		}
	}
	if e.Started.Before(before) || e.Finished.Before(e.Started) || e.Finished.After(time.Now().Add(time.Second)) {
		t.Errorf("from %v to %v", e.Started, e.Finished)
	}
}

// TestManifestsGrow checks that a second run into the same folder appends its entries to the manifest and keeps those
// of the first run.
func TestManifestsGrow(t *testing.T) {
	b := newBench(t)
	b.addFiles(2)
	b.run()
	second := b.again()
	second.job.Files = nil
	second.job.Output.Label, second.job.Output.Template.Model = "other", "other-model"
	second.add("f0.faa", ">a\nMKV\n")
	second.run()
	outputs := map[string]bool{}
	for _, line := range b.manifestLines() {
		outputs[line.Outputs[0].Path] = line.Finished != nil
	}
	if want := map[string]bool{"f0.fake.npy": true, "f1.fake.npy": true, "f0.other.npy": true}; !maps.Equal(outputs, want) {
		t.Errorf("entries of %v", outputs)
	}
}

// TestFolderTreeIsKept checks that outputs keep the folder tree of inputs found in a folder argument.
func TestFolderTreeIsKept(t *testing.T) {
	b := newBench(t)
	if err := os.Mkdir(filepath.Join(b.in, "deep"), 0o777); err != nil {
		t.Fatal(err)
	}
	b.add("x.faa", ">a\nMKV\n")
	b.add("deep/x.faa", ">b\nMKVL\n")
	b.job.Files[1].Dir = "deep"
	b.run()
	b.wantNames("deep/x.fake.ids.txt", "deep/x.fake.npy", store.ManifestName, "x.fake.ids.txt", "x.fake.npy")
	b.check("x", []entryOf{{"a", "MKV"}})
	b.check("deep/x", []entryOf{{"b", "MKVL"}})
	if s := b.again().run(); len(s.Resumed) != 2 {
		t.Errorf("second run: %+v", s)
	}
}
