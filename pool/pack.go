package pool

import (
	"cmp"
	"slices"
)

// minTokens is the minimum number of tokens in a sequence: one letter between two special tokens.
const minTokens = 3

// MaxSequences returns an upper bound for the number of sequences in a batch of at most budget tokens.
func MaxSequences(budget int) int { return budget/minTokens + 1 }

// pack groups sequences into batches of at most budget tokens, in descending order of length, so that sequences in a
// batch have similar lengths. A sequence over the budget has a batch of its own.
func pack(sequences []*sequence, budget int) [][]*sequence {
	sorted := slices.Clone(sequences)
	slices.SortStableFunc(sorted, func(a, b *sequence) int { return cmp.Compare(b.tokens(), a.tokens()) })
	var batches [][]*sequence
	tokens := 0
	for i, s := range sorted {
		if i == 0 || tokens+s.tokens() > budget {
			batches = append(batches, nil)
			tokens = 0
		}
		last := len(batches) - 1
		batches[last] = append(batches[last], s)
		tokens += s.tokens()
	}
	return batches
}
