package bench

import (
	"math/rand/v2"
	"slices"
	"testing"

	"seqembed/kernels"
	"seqembed/transformer"
)

// TestRows tries batches of all sizes from 3 to everyRows tokens, and about drawnRows random larger sizes.
const (
	everyRows = 256
	drawnRows = 200
)

// TestRows checks that a record's embedding has the same bits in batches of different sizes. The sizes are all numbers
// of tokens from 3 to 256, and about 200 random larger numbers up to -bench.tokens, by default up to 300. A model other
// than the smallest runs only if the flag -run contains its name.
func TestRows(t *testing.T) {
	for _, m := range models {
		if m.name != "esm2-tiny" && !named("run", m.name) {
			continue
		}
		t.Run(m.name, func(t *testing.T) {
			budget := *forwardTokens
			if budget == 0 {
				budget = 300
			}
			sameBits(t, m.name, budget)
		})
	}
}

func sameBits(t *testing.T, name string, budget int) {
	backend := openDevice(t)
	defer backend.Close()
	model, config := loadModel(t, name, backend)
	limits := kernels.Limits{Tokens: budget, Sequences: budget}
	e, err := transformer.NewEncoder(model, backend, limits, transformer.Columns([]int{config.Layers}, transformer.Mean))
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	embeddings := func(records [][]int32) []float32 {
		var b kernels.Batch
		for _, r := range records {
			b.Append(r)
		}
		got, err := e.Encode(b)
		if err != nil {
			t.Fatalf("%d tokens: %v", len(b.IDs), err)
		}
		return got[0]
	}

	// The first record has only three tokens, so that even the smallest batch contains a complete record.
	records := append([][]int32{{5, 6, 7}}, randomRecords(config, budget-3)...)
	want := embeddings(records)
	sizes := upTo(min(everyRows, budget))
	rng := rand.New(rand.NewPCG(7, 8))
	for budget > everyRows && len(sizes) < everyRows+drawnRows {
		sizes = append(sizes, everyRows+1+rng.IntN(budget-everyRows))
	}
	for _, size := range sizes {
		batch, whole := cutTo(records, size)
		got := embeddings(batch)
		for i := range whole {
			first, last := i*config.Hidden, (i+1)*config.Hidden
			if !slices.Equal(got[first:last], want[first:last]) {
				t.Fatalf("record %d of a batch of %d tokens has other bits than in one of %d", i, size, budget)
			}
		}
	}
}

// upTo returns the numbers from 3, the length of the first record, to n.
func upTo(n int) (list []int) {
	for i := 3; i <= n; i++ {
		list = append(list, i)
	}
	return list
}

// cutTo returns the first records, cut so that they have the given number of tokens together, and the number of records
// that are complete. The last record may be truncated. If fewer than three tokens of it would be left, these are
// appended to the record before, which then does not count as complete.
func cutTo(records [][]int32, tokens int) (batch [][]int32, whole int) {
	for _, r := range records {
		switch {
		case tokens >= len(r):
			batch, tokens, whole = append(batch, r), tokens-len(r), whole+1
			continue
		case tokens >= 3:
			batch = append(batch, r[:tokens])
		case tokens > 0:
			whole--
			batch[whole] = append(slices.Clone(batch[whole]), r[:tokens]...)
		}
		return batch, whole
	}
	return batch, whole
}
