package bench

import (
	"bufio"
	"cmp"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"text/tabwriter"

	"seqembed/kernels"
	"seqembed/tokenizer"
	"seqembed/transformer"
	"seqembed/transformer/goldentest"
)

// shared is the folder of test files that are too large for the repository, such as golden files. It is beside the
// repository, or where the variable EMBED_SHARED says.
var shared = cmp.Or(os.Getenv("EMBED_SHARED"), "../../shared")

var full = flag.Bool("parity.full", false, "compare every golden of every model, and fail if one is missing")

// goldens lists the golden files, which contain the results of the models' original PyTorch code, and their models.
// quick is the maximum length of the records that are compared without the flag -parity.full; 0 means that none are.
var goldens = []struct {
	file, model string
	quick       int // maximum number of tokens of a record
}{
	{"esm2_tiny", "esm2-tiny", 2000},
	{"esm2_hd128", "esm2-hd128", 200},
	{"esm2_t6_8M", "esm2-8m", 300},
	{"esm2_t12_35M", "esm2-35m", 70},
	{"esm2_t30_150M", "esm2-150m", 0},
	{"esm2_t33_650M", "esm2-650m", 0},
	{"esm2_t36_3B", "esm2-3b", 0},
	{"dnabert_s_2layers", "dnabert-s-2l", 200},
	{"dnabert_s", "dnabert-s", 0},
}

// TestParity checks that the errors of the mean embeddings, and of the hidden states after every block, are within the
// limits of barsOf. It compares them with golden files: results of the models' original PyTorch code in float64, or in
// float32 for ESM-2 3B, for the same synthetic weights.
func TestParity(t *testing.T) {
	dir := filepath.Join(shared, "goldens/synthetic")
	files, err := filepath.Glob(filepath.Join(dir, "*.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	if len(files) == 0 {
		if *full {
			t.Fatalf("no goldens in %s: nothing was compared", dir)
		}
		t.Skipf("no goldens in %s: nothing is compared", dir)
	}
	for _, f := range files {
		name := strings.TrimSuffix(filepath.Base(f), ".safetensors")
		if !slices.ContainsFunc(goldens, func(g struct {
			file, model string
			quick       int
		}) bool {
			return g.file == name
		}) {
			t.Errorf("no model is listed for %s", f)
		}
	}

	backend := openDevice(t)
	defer backend.Close()
	table := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintf(table, "model\tworst relative L2\tbar\tworst cosine\tworst states\tbar\trecords compared\tleft out\n")
	for _, g := range goldens {
		t.Run(g.model, func(t *testing.T) {
			limit := g.quick
			if *full {
				limit = math.MaxInt
			}
			path := filepath.Join(dir, g.file+".safetensors")
			if limit == 0 {
				fmt.Fprintf(table, "%s\t-\t-\t-\t-\t-\t0\tall\n", g.model)
				t.Skipf("%s is only compared in the full run: make parity", g.model)
			}
			r := compareGolden(t, backend, g.model, path, limit)
			states := "-"
			if r.statesCompared > 0 {
				states = fmt.Sprintf("%.2e", r.worstStates)
			}
			fmt.Fprintf(table, "%s\t%.2e\t%.3g\t%.9f\t%s\t%.3g\t%d\t%d\n",
				g.model, r.worst, r.pooled, r.cosine, states, r.states, r.compared, r.leftOut)
		})
	}
	table.Flush()
}

// result is the comparison of one model with its golden file, which TestParity prints as a row of a table.
type result struct {
	bars
	worst, worstStates, cosine float64
	compared, leftOut          int // number of records
	statesCompared             int // number of records whose goldens contain hidden states
}

// compareGolden computes the records of a golden file that have at most limit tokens, and compares the results with
// those in the file. It also checks the token ids of all records. name is the model.
func compareGolden(t *testing.T, backend kernels.Backend, name, path string, limit int) result {
	golden := readGolden(t, path)
	checkpoint, err := transformer.Families.Open("synthetic:" + name)
	if err != nil {
		t.Fatal(err)
	}
	defer checkpoint.Close()
	config := checkpoint.Config
	model, err := transformer.Load(checkpoint, backend)
	if err != nil {
		t.Fatal(err)
	}

	r := result{bars: barsOf(*dtypeFlag, name, config), cosine: 1}
	records := goldenRecords(t, config.Family)
	var ids []string
	var batch kernels.Batch
	for _, id := range golden.Records() {
		tokens := golden.Int32s(id + "/ids")
		if got := records[id]; !slices.Equal(got, tokens) {
			t.Errorf("%s: the tokenizer gives %v, the golden has %v", id, got, tokens)
		}
		if len(tokens) > limit {
			r.leftOut++
			continue
		}
		ids = append(ids, id)
		batch.Append(tokens)
	}
	if r.compared = len(ids); r.compared == 0 {
		t.Fatalf("%s has no record of at most %d tokens", path, limit)
	}

	check := func(what string, got, want []float32, bar float64, worst *float64) {
		e := relativeL2(got, want)
		*worst = max(*worst, e)
		if !(e <= bar) {
			t.Errorf("%s errs by %.3g (relative L2), the bar is %.3g", what, e, bar)
		}
	}
	pooled := encode(t, model, backend, batch, transformer.Mean, []int{config.Layers})[0]
	for i, id := range ids {
		got, want := pooled[i*config.Hidden:(i+1)*config.Hidden], golden.Float32s(id+"/mean")
		check(id, got, want, r.pooled, &r.worst)
		r.cosine = min(r.cosine, cosine(got, want))
	}
	for i, id := range ids {
		wantTokens, wantLayers := golden.Float32s(id+"/tokens"), golden.Float32s(id+"/layers")
		if wantTokens == nil && wantLayers == nil {
			continue
		}
		r.statesCompared++
		var single kernels.Batch
		single.Append(batch.IDs[batch.CuSeqlens[i]:batch.CuSeqlens[i+1]])
		layers := make([]int, config.Layers)
		for l := range layers {
			layers[l] = l + 1
		}
		states := encode(t, model, backend, single, transformer.Tokens, layers)
		if wantTokens != nil {
			check(id+"/tokens", states[config.Layers-1], wantTokens, r.states, &r.worstStates)
		}
		if wantLayers != nil {
			size := len(wantLayers) / config.Layers
			last := config.Layers
			if config.Family == transformer.ESM2 {
				last-- // the golden contains the output of the last block before the final LayerNorm
			}
			for l := range last {
				check(fmt.Sprintf("%s/layers %d", id, l+1), states[l], wantLayers[l*size:(l+1)*size], r.states, &r.worstStates)
			}
		}
	}
	return r
}

// encode runs one batch and returns a matrix of embeddings for each layer.
func encode(t testing.TB, m *transformer.Model, b kernels.Backend, batch kernels.Batch, p transformer.Pooling, layers []int) [][]float32 {
	e, err := transformer.NewEncoder(m, b, kernels.Limits{Tokens: len(batch.IDs), Sequences: batch.Sequences()}, transformer.Columns(layers, p))
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	got, err := e.Encode(batch)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// goldenRecords returns the token ids of the sequences that the golden files of a family are about, by record id. DNA
// is tokenized with the published tokenizer of DNABERT-2.
func goldenRecords(t *testing.T, family *transformer.Family) map[string][]int32 {
	name := "proteins.faa"
	var tok tokenizer.Tokenizer = transformer.ESM2.NewTokenizer()
	if family == transformer.DNABERT {
		name = "dna.fna"
		text, err := os.ReadFile(filepath.Join(shared, "tokenizer/dnabert2_tokenizer.json"))
		if err == nil {
			tok, err = tokenizer.ParseBPE(text)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	f, err := os.Open(filepath.Join(shared, "goldens/synthetic", name))
	if errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("goldens without their sequences: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	sequences, id := map[string][]byte{}, ""
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if header, ok := strings.CutPrefix(lines.Text(), ">"); ok {
			id, _, _ = strings.Cut(header, " ")
			continue
		}
		sequences[id] = append(sequences[id], lines.Bytes()...)
	}
	records := map[string][]int32{}
	for id, seq := range sequences {
		records[id], _ = tok.Append(nil, seq)
	}
	return records
}

// readGolden reads a golden file.
func readGolden(t *testing.T, path string) goldentest.File {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return goldentest.Read(data)
}

// relativeL2 returns |a−b| / |b|.
func relativeL2(a, b []float32) float64 {
	if len(a) != len(b) {
		return math.Inf(1)
	}
	diff, norm := 0.0, 0.0
	for i := range b {
		d := float64(a[i]) - float64(b[i])
		diff += d * d
		norm += float64(b[i]) * float64(b[i])
	}
	return math.Sqrt(diff / norm)
}

func cosine(a, b []float32) float64 {
	ab, aa, bb := 0.0, 0.0, 0.0
	for i := range b {
		x, y := float64(a[i]), float64(b[i])
		ab, aa, bb = ab+x*y, aa+x*x, bb+y*y
	}
	return ab / math.Sqrt(aa*bb)
}
