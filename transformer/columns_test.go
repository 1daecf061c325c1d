package transformer_test

import (
	"slices"
	"testing"

	"seqembed/kernels"
	"seqembed/kernels/ref"
	"seqembed/transformer"
)

// TestColumnsTogether checks an Encoder that computes all poolings of two layers in one run. Each result must be
// exactly the same as that of an Encoder for this pooling and layer alone. The pooling Max must be the maximum over the
// tokens that it covers in the family.
func TestColumnsTogether(t *testing.T) {
	if testing.Short() {
		t.Skip("one goroutine, and slow under the race detector and on emulators")
	}
	for name, covered := range map[string]func(n int) (from, to int){
		"esm2-tiny":    func(n int) (int, int) { return 1, n - 1 },
		"dnabert-s-2l": func(n int) (int, int) { return 0, n },
	} {
		backend := ref.New()
		model := load(t, name, backend)
		var batch kernels.Batch
		batch.Append([]int32{0, 5, 6, 7, 8, 2})
		batch.Append([]int32{0, 9, 2})
		encode := func(columns ...transformer.Column) [][]float32 {
			e, err := transformer.NewEncoder(model, backend, kernels.Limits{Tokens: 9, Sequences: 2}, columns)
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
		columns := transformer.Columns([]int{2, 0}, transformer.Tokens, transformer.Max, transformer.CLS, transformer.Residues, transformer.Mean)
		together := encode(columns...)
		for i, c := range columns {
			if !slices.Equal(together[i], encode(c)[0]) {
				t.Errorf("%s: %s of layer %d differs from the same alone", name, c.Pooling, c.Layer)
			}
		}
		if !slices.Equal(together[0], together[6]) {
			t.Errorf("%s: the states of residues and of tokens differ", name)
		}
		dim := model.Config().Hidden
		for s := range batch.Sequences() {
			first := int(batch.CuSeqlens[s])
			from, to := covered(batch.Len(s))
			for c := range dim {
				top := together[0][(first+from)*dim+c]
				for token := first + from; token < first+to; token++ {
					top = max(top, together[0][token*dim+c])
				}
				if got := together[2][s*dim+c]; got != top {
					t.Fatalf("%s: sequence %d, column %d: the maximum is %v, want %v", name, s, c, got, top)
				}
			}
		}
	}
}

func TestCovered(t *testing.T) {
	for _, c := range []struct {
		family   *transformer.Family
		pooling  transformer.Pooling
		from, to int
	}{
		{transformer.ESM2, transformer.Mean, 1, 9}, {transformer.ESM2, transformer.Max, 1, 9}, {transformer.ESM2, transformer.CLS, 0, 1},
		{transformer.ESM2, transformer.Residues, 1, 9}, {transformer.ESM2, transformer.Tokens, 0, 10},
		{transformer.DNABERT, transformer.Mean, 0, 10}, {transformer.DNABERT, transformer.Max, 0, 10}, {transformer.DNABERT, transformer.CLS, 0, 1},
		{transformer.DNABERT, transformer.Residues, 1, 9}, {transformer.DNABERT, transformer.Tokens, 0, 10},
	} {
		if from, to := c.family.Covered(c.pooling, 10); from != c.from || to != c.to {
			t.Errorf("%s, %s covers %d to %d, want %d to %d", c.family.Name, c.pooling, from, to, c.from, c.to)
		}
	}
}
