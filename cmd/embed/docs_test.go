package main

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"seqembed/internal/readback"
	"seqembed/weights/hub/hubtest"
)

// root is the path of the module's folder, relative to this package.
const root = "../.."

// codeBlock matches a block of code in a Markdown page. Its submatches are the language, the word after the language,
// and the content. The tests do not run a block with the word "untested".
var codeBlock = regexp.MustCompile("(?ms)^```(\\w+) ?(\\w*)\n(.*?)^```$")

// page returns the text of a page of the documentation, in which synthetic:esm2-8m is replaced by the smallest
// synthetic model, and numbers of layers by numbers that this model has. It also changes to a new folder, and sets
// HF_HUB_CACHE to a cache in which the smallest model has the names of ESM-2 650M and 3B.
func page(t *testing.T, path string) string {
	t.Helper()
	text := read(t, filepath.Join(root, path))
	workspace(t)
	cache := t.TempDir()
	t.Setenv("HF_HUB_CACHE", cache)
	for _, name := range []string{"esm2_t33_650M_UR50D", "esm2_t36_3B_UR50D"} {
		model := filepath.Join(cache, "models--facebook--"+name)
		writeCheckpoint(t, filepath.Join(model, "snapshots", hubtest.Commit), tiny, nil)
		write(t, filepath.Join(model, "refs", "main"), hubtest.Commit)
	}
	return strings.NewReplacer("synthetic:esm2-8m", tiny, "families.esm2-8m.", "families.esm2-tiny.", "--repr_layers 0 32 33", "--repr_layers 0 2 3",
		"[33]", "[3]", "--layers 36", "--layers 3").Replace(text)
}

// follow runs the code blocks of a page. It skips blocks with a word after the language, such as pull in "```sh pull",
// unless this word is the given word. It runs each line of a block of sh as a command, and runs the blocks of Python
// that come before the first command. It returns the later blocks of Python for the caller to run.
func follow(t *testing.T, text, word string) (python []string) {
	t.Helper()
	commands := 0
	for _, block := range codeBlock.FindAllStringSubmatch(text, -1) {
		switch language, given, code := block[1], block[2], block[3]; {
		case given != "" && given != word:
		case language == "python" && commands == 0:
			readback.Python(t, "sys", code)
		case language == "python":
			python = append(python, code)
		case language == "sh":
			for line := range strings.Lines(code) {
				shellLine(t, strings.TrimSpace(line))
				commands++
			}
		}
	}
	if commands == 0 {
		t.Fatal("the page has no command to run")
	}
	return python
}

// shellLine runs one line of a shell. It runs embed and export in this process, and any other command with sh.
func shellLine(t *testing.T, line string) {
	t.Helper()
	words := strings.Fields(line)
	switch words[0] {
	case "embed":
		environ := []string{"EMBED_DNABERT_MODEL=" + tinyDNA}
		if slices.Contains(words, "--preset") {
			environ = append(environ, "EMBED_ESM_MODEL="+tiny)
		}
		m := noGPU
		m.virNucPro.models = map[string]string{"dnabert-model": "dnabert-tiny", "esm-model": "esm2-tiny"}
		var stdout, stderr strings.Builder
		if code := runOn(t.Context(), m, words[1:], environ, &stdout, &stderr); code != exitDone {
			t.Fatalf("%s: exit code %d\n%s%s", line, code, &stdout, &stderr)
		}
	case "export":
		name, value, _ := strings.Cut(words[1], "=")
		t.Setenv(name, value)
	default:
		if out, err := exec.Command("sh", "-c", line).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", line, err, out)
		}
	}
}

// someProteins returns FASTA with a number of records. Only ten sequences are different, so that a run is quick: equal
// sequences are computed once.
func someProteins(count int) string {
	var b strings.Builder
	for i := range count {
		fmt.Fprintf(&b, ">p%d\nMKV%sAGTW\n", i, strings.Repeat("LE", 1+i%10))
	}
	return b.String()
}

// TestREADME checks that the commands and the Python of the README work. The Python must not make a second copy of the
// embeddings in memory.
func TestREADME(t *testing.T) {
	text := page(t, "README.md")
	write(t, "proteins.faa", someProteins(3000))
	write(t, "contigs.fna", contigs)
	if err := os.Mkdir("samples", 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, "samples/a.faa", someProteins(1))
	python := strings.Join(follow(t, text, ""), "\n")
	out := readback.Python(t, "numpy", "import numpy, tracemalloc, sys\ntracemalloc.start()\n"+python+`
peak = tracemalloc.get_traced_memory()[1]
own = sum(map(sys.getsizeof, ids)) + sys.getsizeof(ids) + 3 * len(ids) * 20 + 2**16    # the list, its file and Python's own
assert x.shape == (3000, 64) and len(ids) == 3000 and peak > x.nbytes, (x.shape, len(ids), peak)
print("allocated more than the size of the array:", peak > x.nbytes + own, peak, x.nbytes, own)
`)
	if !strings.Contains(out, "array: False") || !strings.HasPrefix(out, "p0 1.0\n") && !strings.HasPrefix(out, "p0 0.99") {
		t.Errorf("the README's Python prints\n%s", out)
	}
}

// TestTutorial checks that the commands and the Python of docs/tutorial.md work. Most neighbours of a record must be of
// its protein family, and so must most records of its cluster. If sklearn or DuckDB is installed, the test also runs
// the code for it.
func TestTutorial(t *testing.T) {
	text := page(t, "docs/tutorial.md")
	python := strings.Join(follow(t, text, ""), "\n")
	const clustered = `
found = sum(max(list(cluster[start:start + 15]).count(c) for c in set(cluster)) for start in range(0, 60, 15))
assert len(set(cluster) - {-1}) == 4 and found > 50, cluster
`
	t.Run("numpy", func(t *testing.T) {
		readback.Python(t, "numpy", python+clustered+`
pairs = [line.split("\t") for line in open("neighbours.tsv")]
own = sum(a[0] == b[0] and a != b for a, b, _ in pairs)
assert len(pairs) == 300 and own > 270 and all(a != b for a, b, _ in pairs), (len(pairs), own)
import xml.dom.minidom
assert len(xml.dom.minidom.parse("map.svg").getElementsByTagName("circle")) == 60
`)
	})
	others := make(map[string]string)
	for _, block := range codeBlock.FindAllStringSubmatch(text, -1) {
		others[block[2]] = block[3]
	}
	t.Run("sklearn", func(t *testing.T) {
		readback.Python(t, "sklearn", python+others["sklearn"]+"\nassert xy.shape == (60, 2) and len(cluster) == 60\n")
	})
	t.Run("duckdb", func(t *testing.T) {
		out := readback.Node(t, []string{"@duckdb/node-api"}, `
import { DuckDBInstance } from "@duckdb/node-api";
const connection = await (await DuckDBInstance.create(":memory:")).connect();
for (const [id] of (await connection.runAndReadAll(process.argv[2])).getRows()) console.log(id);
`, others["duckdb"])
		if len(strings.Fields(out)) != 5 || strings.Count(out, "a") < 3 {
			t.Errorf("the neighbours of a0 are\n%s", out)
		}
	})
}

// TestPages checks that the commands work on four pages of the documentation: the pages about fair-esm's extract.py,
// VirNucPro, computing clusters, and machines without a network.
func TestPages(t *testing.T) {
	t.Run("from-extract", func(t *testing.T) {
		text := page(t, "docs/from-extract.md")
		write(t, "some_proteins.fasta", someProteins(3))
		python := follow(t, text, "")
		if testing.Short() {
			t.Skip("torch takes seconds to load")
		}
		out := readback.Python(t, "torch", strings.Join(python, "\n"))
		if want := "p0 torch.Size([64])\np1 torch.Size([64])\np2 torch.Size([64])\n"; out != want {
			t.Errorf("its Python prints %q, want %q", out, want)
		}
	})
	t.Run("from-virnucpro", func(t *testing.T) {
		text := page(t, "docs/from-virnucpro.md")
		write(t, "sample.fa", contigs)
		write(t, "frames.faa", someProteins(2))
		follow(t, text, "preset")
		wantFiles(t, "out", "manifest.jsonl", "sample_DNABERT_S.pt", "sample_ESM.pt", "sample_chunked500.fa", "sample_identified_nucleotide.fa",
			"sample_identified_protein.faa", "sample_merged.pt")
		wantFiles(t, "apart", "frames_ESM.pt", "manifest.jsonl")
	})
	t.Run("cluster", func(t *testing.T) {
		text := page(t, "docs/cluster.md")
		write(t, "proteins/p.faa", someProteins(40))
		follow(t, text, "")
		wantFiles(t, "out", "manifest.jsonl", "p.esm2-650m.parquet")
	})
	t.Run("offline", func(t *testing.T) {
		text := read(t, filepath.Join(root, "docs/offline.md"))
		h, _ := localHub(t)
		t.Setenv("HF_HUB_CACHE", "")
		write(t, "proteins.faa", someProteins(2))
		before, after, _ := strings.Cut(text, "On the cluster, name the folder.")
		follow(t, before, "pull")
		h.Close()
		follow(t, after, "pull")
		wantFiles(t, "out", "manifest.jsonl", "proteins.esm2-8m.parquet")
	})
}

// TestFaultsAreInjected checks that the tests named in docs/faults.md, the page about faults, exist.
func TestFaultsAreInjected(t *testing.T) {
	named := map[string]bool{}
	for _, name := range regexp.MustCompile("`(Test[A-Za-z0-9]+)`").FindAllStringSubmatch(read(t, filepath.Join(root, "docs/faults.md")), -1) {
		named[name[1]] = true
	}
	if len(named) < 20 {
		t.Errorf("the page names %d tests", len(named))
	}
	for _, folder := range []string{"cmd/embed", "pool", "internal/store", "internal/monitor"} {
		tests, err := filepath.Glob(filepath.Join(root, folder, "*_test.go"))
		if err != nil || len(tests) == 0 {
			t.Fatal(tests, err)
		}
		for _, path := range tests {
			for _, name := range regexp.MustCompile(`(?m)^func (Test\w+)\(`).FindAllStringSubmatch(read(t, path), -1) {
				delete(named, name[1])
			}
		}
	}
	for name := range named {
		t.Errorf("there is no test %s", name)
	}
}

// TestLinks checks that every link between the pages of the project leads to a file that exists. If the link names a
// heading, the file must have the heading.
func TestLinks(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)\s]+)\)`)
	pages, links := 0, 0
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		switch name := entry.Name(); {
		case err != nil:
			return err
		case entry.IsDir() && path != root && (strings.HasPrefix(name, ".") && name != ".." || name == "build" || name == "node_modules" ||
			name == "dist" && filepath.Dir(path) == root):
			return filepath.SkipDir
		case filepath.Ext(path) != ".md":
			return nil
		}
		pages++
		for _, m := range link.FindAllStringSubmatch(codeBlock.ReplaceAllString(read(t, path), ""), -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			links++
			target, heading, _ := strings.Cut(m[1], "#")
			file := path
			if target != "" {
				file = filepath.Join(filepath.Dir(path), target)
			}
			if _, err := os.Stat(file); err != nil {
				t.Errorf("%s: no file for the link %s", path, m[1])
			} else if heading != "" && !headings(t, file)[heading] {
				t.Errorf("%s: no heading for the link %s", path, m[1])
			}
		}
		return nil
	})
	if err != nil || pages < 10 || links < 40 {
		t.Errorf("%d pages with %d links, error %v", pages, links, err)
	}
}

// headings returns the anchors of a page's headings, as GitHub names them.
func headings(t *testing.T, path string) map[string]bool {
	anchors := map[string]bool{}
	for line := range strings.Lines(read(t, path)) {
		if text, ok := strings.CutPrefix(strings.TrimLeft(line, "#"), " "); ok && strings.HasPrefix(line, "#") {
			text = regexp.MustCompile(`[^\w\- ]`).ReplaceAllString(strings.ToLower(strings.TrimSpace(text)), "")
			anchors[strings.ReplaceAll(text, " ", "-")] = true
		}
	}
	return anchors
}
