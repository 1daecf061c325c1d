package transformer_test

import (
	"flag"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var breakModels = flag.Bool("mutations", false, "break the models in one place at a time, see TestMutations")

// mutation is a mistake in a source file. It replaces the text old, which occurs exactly once in the file, by the text
// new.
type mutation struct {
	name, file, old, new string
}

const (
	esm2      = "transformer/esm2.go"
	dnabert   = "transformer/dnabert.go"
	encoder   = "transformer/encoder.go"
	config    = "transformer/config.go"
	modelLoad = "transformer/transformer.go"
)

var mutations = []mutation{
	{"ESM-2: no attention residual", esm2, "b.attention), b.output, x)", "b.attention), b.output, kernels.None)"},
	{"ESM-2: no feed-forward residual", esm2, "b.down, x)", "b.down, kernels.None)"},
	{"ESM-2: key and query exchanged", esm2,
		`self+"query", self+"key", self+"value"`, `self+"key", self+"query", self+"value"`},
	{"ESM-2: value first", esm2, `self+"query", self+"key", self+"value"`, `self+"value", self+"query", self+"key"`},
	{"ESM-2: no query scale", esm2, "qScale := float32(1 / math.Sqrt(float64(c.HeadDim())))", "qScale := float32(1)"},
	{"ESM-2: scores scaled twice", esm2, "Heads: c.Heads, Scale: 1,", "Heads: c.Heads, Scale: qScale,"},
	{"ESM-2: no last LayerNorm", esm2, "x = p.Norm(x, m.norm)", "_ = m.norm"},
	{"ESM-2: last LayerNorm after every block", esm2, "if i+1 == m.layers {", "if m.layers > 0 {"},
	{"ESM-2: attention LayerNorm's weights used twice", esm2,
		"p.Norm(x, b.norm)", "p.Norm(x, b.attentionNorm)"},
	{"ESM-2: feed-forward LayerNorm's weights used twice", esm2,
		"p.Norm(x, b.attentionNorm)", "p.Norm(x, b.norm)"},
	{"ESM-2: attention LayerNorm's weights loaded twice", esm2,
		`l.normalization(block+"LayerNorm", c.Eps)`, `l.normalization(block+"attention.LayerNorm", c.Eps)`},
	{"ESM-2: a GELU of queries, keys and values", esm2, "b.up.Then = kernels.GELU",
		"b.up.Then, b.qkv.Then = kernels.GELU, kernels.GELU"},
	{"ESM-2: no GELU", esm2, "b.up.Then = kernels.GELU", ""},
	{"ESM-2: rotary base 1,000", esm2, "math.Pow(10000,", "math.Pow(1000,"},
	{"ESM-2: no rotary positions", esm2, "InvFreq: l.invFreq(block, c.HeadDim())}", "InvFreq: make([]float32, c.HeadDim()/2)}"},
	{"ESM-2: no token-dropout scale", esm2,
		"m.embed.Scale, m.embed.Mask = 1-maskedInTraining, dropout.MaskID",
		"m.embed.Scale, m.embed.Mask = 1, dropout.MaskID"},
	{"ESM-2: every block has the first one's weights", esm2,
		"block := fmt.Sprintf(\"encoder.layer.%d.\", i)\n\t\tself :=",
		"block := fmt.Sprintf(\"encoder.layer.%d.\", i*0)\n\t\tself :="},
	{"ESM-2: eps 1e-3", esm2, "loadESM2(c Config, l *loader) network {\n", "loadESM2(c Config, l *loader) network {\n\tc.Eps = 1e-3\n"},
	{"ESM-2: eps 1e-3 in the published shapes", esm2, `"layer_norm_eps":0.00001`, `"layer_norm_eps":0.001`},
	{"eps 1e-3 for a config.json without it", config, "defaultEps = 1e-12", "defaultEps = 1e-3"},
	{"ESM-2: special tokens in the mean", encoder, "case f.MeanOfSpecial:", "case true:"},
	{"ESM-2: <eos> in the mean", encoder, "Trim: f.After}", "Trim: 0}"},

	{"DNABERT-S: no attention residual", dnabert, "b.output, x)", "b.output, kernels.None)"},
	{"DNABERT-S: no feed-forward residual", dnabert, "b.down, x)", "b.down, kernels.None)"},
	{"DNABERT-S: no 1/√d", dnabert,
		"scale := float32(1 / math.Sqrt(float64(c.HeadDim())))", "scale := float32(1)"},
	{"DNABERT-S: no token-type row", dnabert,
		"m.embed.Type = l.loadFrom(kernels.Vector, firstRow{l.tensor(tokenTypeEmbeddings)})", ""},
	{"DNABERT-S: attention LayerNorm's weights used twice", dnabert,
		"b.down, x), b.norm)", "b.down, x), b.attentionNorm)"},
	{"DNABERT-S: feed-forward LayerNorm's weights used twice", dnabert,
		"b.output, x), b.attentionNorm)", "b.output, x), b.norm)"},
	{"DNABERT-S: attention LayerNorm's weights loaded twice", dnabert, `l.normalization(block+"mlp.layernorm", c.Eps)`,
		`l.normalization(block+"attention.output.LayerNorm", c.Eps)`},
	{"DNABERT-S: a GELU of queries, keys and values", dnabert, "for i, b := range m.blocks[:last] {\n",
		"for i, b := range m.blocks[:last] {\n\t\tb.qkv.Then = kernels.GELU\n"},
	{"DNABERT-S: ALiBi doubled", dnabert,
		"return slopes\n", "for i := range slopes {\n\t\tslopes[i] *= 2\n\t}\n\treturn slopes\n"},
	{"DNABERT-S: no ALiBi", dnabert, "Scale: scale, Slopes: alibiSlopes(c.Heads)}", "Scale: scale}"},
	{"DNABERT-S: slopes of one series", dnabert,
		"for i := 1; i <= m; i++ {", "m = heads\n\tfor i := 1; i <= m; i++ {"},
	{"DNABERT-S: every block has the first one's weights", dnabert,
		"block := fmt.Sprintf(\"encoder.layer.%d.\", i)\n\t\tm.blocks",
		"block := fmt.Sprintf(\"encoder.layer.%d.\", i*0)\n\t\tm.blocks"},
	{"DNABERT-S: eps 1e-3", dnabert, "loadDNABERT(c Config, l *loader) network {\n",
		"loadDNABERT(c Config, l *loader) network {\n\tc.Eps = 1e-3\n"},
	{"DNABERT-S: eps 1e-3 in the published shapes", dnabert, `"layer_norm_eps":1e-12`, `"layer_norm_eps":1e-3`},
	{"DNABERT-S: special tokens left out of the mean", dnabert, "MeanOfSpecial: true,", "MeanOfSpecial: false,"},

	{"no biases", modelLoad,
		"return kernels.Linear{W: l.matrix(w...), Bias: l.vector(bias...)}",
		"_ = bias\n\treturn kernels.Linear{W: l.matrix(w...)}"},
	{"LayerNorm without its bias", modelLoad,
		`Bias: l.vector(name + ".bias"), Eps: eps}`, `Bias: l.vector(name + ".weight"), Eps: eps}`},
}

// TestMutationsApply checks that each mutation can be applied: its source file contains the text to replace exactly
// once.
func TestMutationsApply(t *testing.T) {
	for _, m := range mutations {
		m.source(t)
	}
}

// source returns the content of the mutation's file. It fails the test unless the file contains the text old exactly
// once.
func (m mutation) source(t *testing.T) string {
	t.Helper()
	source, err := os.ReadFile(filepath.Join("..", filepath.FromSlash(m.file)))
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(source), m.old); n != 1 {
		t.Fatalf("%s: %s has the text to replace %d times, not once: %q", m.name, m.file, n, m.old)
	}
	return string(source)
}

// TestMutations checks that the tests of this package detect wrong models. It copies the module to another folder and
// makes one mistake at a time in the copy. Each time the tests must fail.
//
//	go test ./transformer -v -timeout 60m -run TestMutations -mutations
func TestMutations(t *testing.T) {
	if !*breakModels {
		t.Skip("takes minutes: make mutations")
	}
	clone := filepath.Join(t.TempDir(), "clone")
	copyModule(t, clone)
	if failed, output := testClone(clone); len(failed) > 0 {
		t.Fatalf("the tests fail without a mutation:\n%s", output)
	}
	for _, m := range mutations {
		t.Run(m.name, func(t *testing.T) {
			path := filepath.Join(clone, filepath.FromSlash(m.file))
			source := m.source(t)
			write(t, path, strings.Replace(source, m.old, m.new, 1))
			defer write(t, path, source)
			if output, err := command(clone, "build", "./...").CombinedOutput(); err != nil {
				t.Fatalf("the mutated source does not compile: %s", output)
			}
			if failed, _ := testClone(clone); len(failed) == 0 {
				t.Error("the mutation survived")
			} else {
				t.Logf("killed by %s", strings.Join(failed, ", "))
			}
		})
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

var failure = regexp.MustCompile(`(?m)^--- FAIL: (\S+)`)

// testClone runs the tests of ./transformer/... in short mode in clone, a copy of the module. It returns the names of
// the tests that failed. If the tests do not compile, so that no failed test has a name, it returns ./transformer/...
// instead.
func testClone(clone string) (failed []string, output string) {
	const packages = "./transformer/..."
	out, err := command(clone, "test", "-short", "-count=1", "-skip", "^TestMutationsApply$", packages).CombinedOutput()
	if err == nil {
		return nil, ""
	}
	for _, m := range failure.FindAllStringSubmatch(string(out), -1) {
		failed = append(failed, m[1])
	}
	if len(failed) == 0 {
		failed = []string{packages}
	}
	return failed, string(out)
}

// command returns a go command that runs in clone, a copy of the module, without the environment variables EMBED_…,
// which could change what the tests do.
func command(clone string, args ...string) *exec.Cmd {
	c := exec.Command("go", args...)
	c.Dir = clone
	c.Env = append(slices.DeleteFunc(os.Environ(), func(v string) bool {
		return strings.HasPrefix(v, "EMBED_")
	}), "PWD="+clone)
	return c
}

// copyModule copies the regular files of the module, except the files in folders that contain no source: build, and
// folders whose names begin with a dot.
func copyModule(t *testing.T, to string) {
	t.Helper()
	const from = ".."
	err := filepath.WalkDir(from, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		relative, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		target := filepath.Join(to, relative)
		switch {
		case entry.IsDir() && (relative == "build" || strings.HasPrefix(entry.Name(), ".") && path != from):
			return filepath.SkipDir
		case entry.IsDir():
			return os.MkdirAll(target, 0o755)
		case !entry.Type().IsRegular():
			return nil
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(target, data, 0o644)
	})
	if err != nil {
		t.Fatal(err)
	}
}
