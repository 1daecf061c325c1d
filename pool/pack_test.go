package pool

import (
	"slices"
	"testing"
)

// sequencesOf returns sequences with the given numbers of tokens.
func sequencesOf(lengths []int) []*sequence {
	var list []*sequence
	for _, n := range lengths {
		list = append(list, &sequence{ids: make([]int32, n)})
	}
	return list
}

// checkPacking checks that pack returns every sequence once and in descending order of length, that a batch over the
// budget is a single sequence, and that no batch within the budget has more than MaxSequences.
func checkPacking(t *testing.T, lengths []int, budget int) {
	t.Helper()
	sequences := sequencesOf(lengths)
	before := slices.Clone(sequences)
	batches := pack(sequences, budget)
	if !slices.Equal(sequences, before) {
		t.Fatalf("pack changed the order of its argument")
	}
	seen := make(map[*sequence]bool)
	last := 1 << 30
	for _, batch := range batches {
		tokens := 0
		for _, w := range batch {
			if seen[w] {
				t.Fatalf("lengths %v, budget %d: a sequence of %d tokens twice", lengths, budget, w.tokens())
			}
			seen[w] = true
			if w.tokens() > last {
				t.Fatalf("lengths %v, budget %d: %d tokens after %d", lengths, budget, w.tokens(), last)
			}
			last = w.tokens()
			tokens += w.tokens()
		}
		if len(batch) == 0 || tokens > budget && len(batch) > 1 {
			t.Fatalf("lengths %v, budget %d: a batch of %d sequences and %d tokens", lengths, budget, len(batch), tokens)
		}
		if tokens <= budget && len(batch) > MaxSequences(budget) {
			t.Fatalf("lengths %v, budget %d: %d sequences, MaxSequences says %d", lengths, budget, len(batch), MaxSequences(budget))
		}
	}
	if len(seen) != len(sequences) {
		t.Fatalf("lengths %v, budget %d: %d sequences of %d are in a batch", lengths, budget, len(seen), len(sequences))
	}
}

func TestPack(t *testing.T) {
	for _, lengths := range [][]int{nil, {3}, {3, 3, 3}, {100}, {100, 3, 99, 4}, {5, 5, 5, 5, 5, 5}, {64, 32, 32, 16, 16, 16, 16}} {
		for _, budget := range []int{1, 3, 10, 64, 1000} {
			checkPacking(t, lengths, budget)
		}
	}
}

// TestPackFillsBatches checks that with equal lengths all batches except the last are full.
func TestPackFillsBatches(t *testing.T) {
	batches := pack(sequencesOf(slices.Repeat([]int{10}, 25)), 64)
	var sizes []int
	for _, b := range batches {
		sizes = append(sizes, len(b))
	}
	if want := []int{6, 6, 6, 6, 1}; !slices.Equal(sizes, want) {
		t.Errorf("batches of %v sequences, want %v", sizes, want)
	}
}

func FuzzPack(f *testing.F) {
	f.Add([]byte{}, 8192)
	f.Add([]byte{3, 200, 7, 7, 90}, 100)
	f.Add([]byte{255, 254, 1, 1, 1, 1}, 1)
	f.Fuzz(func(t *testing.T, data []byte, budget int) {
		if budget < 1 || budget > 1<<20 {
			t.Skip("the command line does not allow this budget")
		}
		var lengths []int
		for _, b := range data {
			lengths = append(lengths, minTokens+int(b)*int(b)/8)
		}
		checkPacking(t, lengths, budget)
	})
}
