// Package goldentest compares a backend with goldens: the embeddings and hidden states that the models' original
// PyTorch code computed in float64 for synthetic checkpoints. The goldens in testdata are small and embedded, so every
// test that imports this package has them.
//
// Only tests may import the package. It must not know which backend it compares.
package goldentest

import (
	"cmp"
	"embed"
	"fmt"
	"math"
	"slices"
	"testing"

	"seqembed/kernels"
	"seqembed/transformer"
)

//go:embed testdata/*.safetensors
var files embed.FS

// Bars are the largest relative L2 errors that a backend may have.
type Bars struct {
	Pooled float64 // for the mean embedding of a record
	States float64 // for a record's hidden states after one block
}

// Golden describes the expected results for one model and, for each precision of a backend, the largest permitted
// errors. docs/numerics.md derives these limits.
type Golden struct {
	Model string // short name of the synthetic checkpoint
	file  string

	FP32        Bars
	BF16Weights Bars // weights of products in bfloat16, the rest in float32
	BF16        Bars // weights and operands of products in bfloat16
	FP16        Bars // weights and operands of products in float16
}

// Goldens returns a Golden for one small model of each family.
func Goldens() []Golden {
	return []Golden{
		{
			Model: "esm2-tiny", file: "testdata/esm2-tiny.safetensors",
			FP32:        Bars{Pooled: 3e-6, States: 3e-6},
			BF16Weights: Bars{Pooled: 5.0e-3, States: 1.5 * 5.0e-3},
			BF16:        Bars{Pooled: 1.05e-2, States: 1.5 * 1.05e-2},
			FP16:        Bars{Pooled: 2.1e-3, States: 1.5 * 2.1e-3},
		},
		{
			Model: "dnabert-s-2l", file: "testdata/dnabert-s-2l.safetensors",
			FP32:        Bars{Pooled: 1e-5, States: 1e-5},
			BF16Weights: Bars{Pooled: 5.1e-3, States: 1.5 * 5.1e-3},
			BF16:        Bars{Pooled: 5.6e-2, States: 1.5 * 5.6e-2},
			FP16:        Bars{Pooled: 1.13e-2, States: 1.5 * 1.13e-2},
		},
	}
}

// record is a sequence with its expected results, as a golden file contains it.
type record struct {
	id     string
	ids    []int32   // token ids, special tokens included
	mean   []float32 // [h] the embedding
	rows   []int32   // tokens whose states the file contains, in ascending order; nil if it contains none
	layers []float32 // [layers, rows, h] states of these tokens after blocks 1, 2, …
}

// Compare runs the records on the backend b, which it does not close. It leaves out records with more tokens than the
// limit longest, which slow backends need; 0 means no limit. Compare fails t if the error of an embedding, or of the
// states after a block, exceeds its limit in bars. For the embeddings all records run in one batch. For the states,
// each record that has states in the golden file runs in a batch of two records, after the shortest record.
func (g Golden) Compare(t *testing.T, b kernels.Backend, bars Bars, longest int) {
	t.Helper()
	model := load(t, g.Model, b)
	defer model.Close()
	config := model.Config()
	records := g.records(t, config, longest)

	worst := Bars{}
	check := func(id, what string, got, want []float32, bar float64, worst *float64) {
		t.Helper()
		e := relativeL2(got, want)
		*worst = max(*worst, e)
		if !(e <= bar) { // true for NaN, too
			t.Errorf("%s: the %s of %s errs by %.3g (relative L2), the bar is %.3g", g.Model, what, id, e, bar)
		}
	}

	var all kernels.Batch
	for _, r := range records {
		all.Append(r.ids)
	}
	pooled := encode(t, model, b, all, transformer.Mean, []int{config.Layers})[0]
	for i, r := range records {
		check(r.id, "embedding", pooled[i*config.Hidden:][:config.Hidden], r.mean, bars.Pooled, &worst.Pooled)
	}

	layers := make([]int, config.Layers)
	for l := range layers {
		layers[l] = l + 1
	}
	for _, r := range records {
		if r.rows == nil {
			continue
		}
		var pair kernels.Batch
		pair.Append(records[0].ids)
		pair.Append(r.ids)
		states := encode(t, model, b, pair, transformer.Tokens, layers)
		for l, state := range states {
			state = state[int(pair.CuSeqlens[1])*config.Hidden:]
			var got []float32
			for _, row := range r.rows {
				got = append(got, state[int(row)*config.Hidden:][:config.Hidden]...)
			}
			want := r.layers[l*len(got):][:len(got)]
			check(r.id, fmt.Sprintf("states after block %d", l+1), got, want, bars.States, &worst.States)
		}
	}
	t.Logf("%s, %d records: embeddings err by at most %.2g (bar %.2g), states by %.2g (bar %.2g)",
		b.Name(), len(records), worst.Pooled, bars.Pooled, worst.States, bars.States)
}

// Embeddings runs the records on the backend b, which it does not close. It leaves out records with more tokens than
// the limit longest; 0 means no limit. It returns the embeddings of all records one after the other, the shortest
// record first. If alone is true, each record runs in a batch of its own, otherwise all run in one batch.
func (g Golden) Embeddings(t *testing.T, b kernels.Backend, longest int, alone bool) (embeddings []float32) {
	t.Helper()
	model := load(t, g.Model, b)
	defer model.Close()
	batches := make([]kernels.Batch, 1)
	for i, r := range g.records(t, model.Config(), longest) {
		if alone && i > 0 {
			batches = append(batches, kernels.Batch{})
		}
		batches[len(batches)-1].Append(r.ids)
	}
	for _, batch := range batches {
		embeddings = append(embeddings, encode(t, model, b, batch, transformer.Mean, []int{model.Config().Layers})[0]...)
	}
	return embeddings
}

// records returns the records in the golden file, the shortest first. It leaves out records with more tokens than the
// limit longest; 0 means no limit. It fails t if fewer than three records are left, or if the file contains hidden
// states for none of them.
func (g Golden) records(t *testing.T, config transformer.Config, longest int) []record {
	t.Helper()
	data, err := files.ReadFile(g.file)
	if err != nil {
		t.Fatal(err)
	}
	f := Read(data)
	if longest == 0 {
		longest = math.MaxInt
	}
	var records []record
	withStates := 0
	for _, id := range f.Records() {
		r := record{id, f.Int32s(id + "/ids"), f.Float32s(id + "/mean"), f.Int32s(id + "/rows"), f.Float32s(id + "/layers")}
		if len(r.ids) > longest {
			continue
		}
		if len(r.mean) != config.Hidden || len(r.layers) != config.Layers*len(r.rows)*config.Hidden {
			t.Fatalf("%s: %s has an embedding of %d values and %d values for the states of %d tokens",
				g.file, id, len(r.mean), len(r.layers), len(r.rows))
		}
		if r.rows != nil {
			withStates++
		}
		records = append(records, r)
	}
	if len(records) < 3 || withStates == 0 {
		t.Fatalf("%s: %d records of at most %d tokens, %d with states: too few to compare",
			g.file, len(records), longest, withStates)
	}
	slices.SortStableFunc(records, func(a, b record) int { return cmp.Compare(len(a.ids), len(b.ids)) })
	return records
}

// load loads the synthetic checkpoint called name onto the backend b.
func load(t *testing.T, name string, b kernels.Backend) *transformer.Model {
	t.Helper()
	checkpoint, err := transformer.Families.Open("synthetic:" + name)
	if err != nil {
		t.Fatal(err)
	}
	defer checkpoint.Close()
	model, err := transformer.Load(checkpoint, b)
	if err != nil {
		t.Fatal(err)
	}
	return model
}

// encode runs one batch and returns its embeddings, one matrix per layer.
func encode(t *testing.T, m *transformer.Model, b kernels.Backend, batch kernels.Batch,
	p transformer.Pooling, layers []int) [][]float32 {
	t.Helper()
	limits := kernels.Limits{Tokens: len(batch.IDs), Sequences: batch.Sequences()}
	e, err := transformer.NewEncoder(m, b, limits, transformer.Columns(layers, p))
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

// relativeL2 returns |got−want| / |want|.
func relativeL2(got, want []float32) float64 {
	if len(got) != len(want) {
		return math.Inf(1)
	}
	diff, norm := 0.0, 0.0
	for i, w := range want {
		d := float64(got[i]) - float64(w)
		diff += d * d
		norm += float64(w) * float64(w)
	}
	return math.Sqrt(diff / norm)
}
