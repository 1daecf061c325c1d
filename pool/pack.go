package pool

import (
	"cmp"
	"slices"
)

// minTokens is the fewest tokens that a sequence has: one letter between two
// special tokens.
const minTokens = 3

// MaxSequences is how many sequences a batch of that budget can hold.
func MaxSequences(budget int) int { return budget/minTokens + 1 }

// pack groups sequences of those lengths, in tokens, into batches of at most
// budget tokens: neighbours in length share a batch, the longest come first.
// A sequence over the budget has a batch of its own. The result is the
// indices of the sequences of each batch.
func pack(lengths []int, budget int) [][]int {
	order := make([]int, len(lengths))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(lengths[b], lengths[a]) })
	var batches [][]int
	tokens := 0
	for k, i := range order {
		if k == 0 || tokens+lengths[i] > budget {
			batches = append(batches, nil)
			tokens = 0
		}
		last := len(batches) - 1
		batches[last] = append(batches[last], i)
		tokens += lengths[i]
	}
	return batches
}
