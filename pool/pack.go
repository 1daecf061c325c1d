package pool

import (
	"cmp"
	"slices"
)

// minTokens is the minimum number of tokens in a sequence: one letter between two special tokens.
const minTokens = 3

// MaxSequences returns the maximum number of sequences in a batch with the given budget.
func MaxSequences(budget int) int { return budget/minTokens + 1 }

// pack groups windows into batches of at most budget tokens, in descending order of length, so that windows in a batch
// have similar lengths. A window over the budget has a batch of its own.
func pack(windows []*window, budget int) [][]*window {
	sorted := slices.Clone(windows)
	slices.SortStableFunc(sorted, func(a, b *window) int { return cmp.Compare(b.tokens(), a.tokens()) })
	var batches [][]*window
	tokens := 0
	for i, w := range sorted {
		if i == 0 || tokens+w.tokens() > budget {
			batches = append(batches, nil)
			tokens = 0
		}
		last := len(batches) - 1
		batches[last] = append(batches[last], w)
		tokens += w.tokens()
	}
	return batches
}
