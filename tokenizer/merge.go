package tokenizer

import (
	"fmt"
	"math/bits"
	"strings"
)

const (
	// wordEdge is the id of a sentinel before the first and after the last token of a word. It is larger than every id
	// of a vocabulary.
	wordEdge = maxVocab
	// maxProbes is the maximum distance, in the hash table of merges, between the slot of a merge and the slot at which
	// the search for it begins. It bounds the time of a look-up. The greatest distance measured, with 65,435 random
	// merges, was 11.
	maxProbes = 256
	// noRank is the rank of a pair that cannot be merged.
	noRank = -1
)

// rules are the merges of a vocabulary, with a hash table that finds a merge by its two tokens.
type rules struct {
	results []uint16 // id of the merged token, by rank
	doubled []bool   // whether both halves are the same token, by rank
	slots   []slot   // open-addressed hash table of pairs; its length is a power of two, at most a quarter is used
	shift   uint     // 32 − log2(len(slots)), which home uses to reduce a hash to an index
}

// A slot of the hash table contains a pair of tokens and the rank of its merge.
type slot struct {
	pair uint32 // left id in the upper half, right id in the lower half
	rank int32
}

// emptyPair marks a free slot of the hash table. It is no pair that can be merged, because wordEdge is not a token.
const emptyPair = wordEdge<<16 | wordEdge

// newRules checks the merges of v and builds their hash table. The ids of v must be valid. newRules refuses a merge
// that comes before a merge that produces one of its halves; no trained vocabulary has such a merge.
func newRules(v *vocabulary) (*rules, error) {
	r := &rules{shift: 32 - uint(bits.Len(uint(len(v.merges)*4|15)))}
	r.slots = make([]slot, 1<<(32-r.shift))
	for i := range r.slots {
		r.slots[i] = slot{emptyPair, noRank}
	}
	lastMade := make([]int, len(v.ids))
	for i := range lastMade {
		lastMade[i] = noRank
	}
	for rank, merge := range v.merges {
		var halves [2]uint16
		for i, half := range merge {
			id, found := v.ids[half]
			switch {
			case !found || half == "":
				return nil, fmt.Errorf("model.merges[%d]: %.80q is not in model.vocab", rank, half)
			case half == v.unknown:
				return nil, fmt.Errorf("model.merges[%d] merges the unknown token: %w", rank, ErrUnsupported)
			}
			halves[i] = uint16(id)
		}
		whole := merge[0] + merge[1]
		result, found := v.ids[whole]
		if !found {
			return nil, fmt.Errorf("model.merges[%d]: its result %.80q is not in model.vocab", rank, whole)
		}
		pair := uint32(halves[0])<<16 | uint32(halves[1])
		at := r.find(pair)
		if tried := (at - r.home(pair)) & uint32(len(r.slots)-1); tried > maxProbes {
			return nil, fmt.Errorf("model.merges[%d]: too many merges have the same hash: %w", rank, ErrTooLarge)
		}
		if r.slots[at].pair == pair {
			return nil, fmt.Errorf("model.merges[%d] repeats merge %d, %.80q", rank, r.slots[at].rank, strings.Join(merge[:], " "))
		}
		r.slots[at] = slot{pair, int32(rank)}
		r.results = append(r.results, uint16(result))
		r.doubled = append(r.doubled, halves[0] == halves[1])
		lastMade[result] = rank
	}
	for _, s := range r.slots {
		if s.pair == emptyPair {
			continue
		}
		if made := max(lastMade[s.pair>>16], lastMade[s.pair&0xffff]); made > int(s.rank) {
			return nil, fmt.Errorf("model.merges[%d] comes before merge %d, which produces one of its halves: %w", s.rank, made, ErrUnsupported)
		}
	}
	return r, nil
}

// home returns the index of the slot at which the search for pair begins.
func (r *rules) home(pair uint32) uint32 { return pair * 0x9E3779B1 >> (r.shift & 31) }

// find returns the index of the slot that contains pair, or of the free slot where pair would be inserted.
func (r *rules) find(pair uint32) uint32 {
	at := r.home(pair)
	for r.slots[at].pair != pair && r.slots[at].pair != emptyPair {
		at = (at + 1) & uint32(len(r.slots)-1)
	}
	return at
}

// rank returns the rank of the merge of left and right, or noRank.
func (r *rules) rank(left, right uint16) int32 {
	return r.slots[r.find(uint32(left)<<16|uint32(right))].rank
}

// A symbol is one token of the word being merged, in a doubly linked list. Its index is one more than that of its first
// letter in the word and never changes, so that the order of indexes is the order in the word.
type symbol struct {
	prev, next int32
	rank       int32 // rank of the merge with the next symbol; noRank if there is none or this symbol was merged away
	id         uint16
}

// A candidate is a pair that could be merged when it was queued. It is outdated if the rank of its left symbol has
// changed since then.
type candidate struct {
	left int32 // index of the left symbol
	next int32 // index of the next candidate of the same rank, 0 for none
}

// A merger is the workspace for merging words, one at a time. Its queues are empty between words.
type merger struct {
	rules   *rules
	symbols []symbol
	// The merges that can be applied are queued in one linked list for each rank. The order within a list does not
	// matter (see mergeByRank).
	queued  []candidate
	heads   []int32  // index into queued of each rank's first candidate, 0 for none
	waiting []uint64 // bit set of the ranks whose lists are not empty
	joint   []int32  // result of the merge in BPE.joins
}

// newMerger returns a merger for r with empty queues.
func newMerger(r *rules) *merger {
	return &merger{
		rules:   r,
		heads:   make([]int32, len(r.results)),
		waiting: make([]uint64, (len(r.results)+63)/64),
		queued:  make([]candidate, 1, 3*windowLetters),
	}
}

// merge appends the tokens of word to dst. letters maps each letter to its id. All letters of word must have an id.
func (m *merger) merge(dst []int32, letters *[256]uint16, word []byte) []int32 {
	m.start(letters, word)
	m.mergeByRank()
	for at := m.symbols[0].next; m.symbols[at].id != wordEdge; at = m.symbols[at].next {
		dst = append(dst, int32(m.symbols[at].id))
	}
	return dst
}

// start initializes the list with the letters of word between two edges and queues their pairs.
func (m *merger) start(letters *[256]uint16, word []byte) {
	if cap(m.symbols) < len(word)+2 {
		m.symbols = make([]symbol, max(len(word)+2, windowLetters+windowLetters/4))
	}
	m.symbols = m.symbols[:len(word)+2]
	m.queued = m.queued[:1]
	end := int32(len(word) + 1)
	m.symbols[0] = symbol{prev: 0, next: 1, rank: noRank, id: wordEdge}
	m.symbols[end] = symbol{prev: end - 1, next: end, rank: noRank, id: wordEdge}
	right := uint16(wordEdge)
	for at := end - 1; at > 0; at-- {
		left := letters[word[at-1]]
		m.symbols[at] = symbol{prev: at - 1, next: at + 1, id: left}
		m.enter(at, left, right)
		right = left
	}
}

// enter stores the rank of the pair of the tokens left and right. The symbol of the left token has the index at. If the
// pair can be merged, enter queues it.
func (m *merger) enter(at int32, left, right uint16) {
	rank := m.rules.rank(left, right)
	m.symbols[at].rank = rank
	if rank == noRank {
		return
	}
	m.queued = append(m.queued, candidate{left: at, next: m.heads[rank]})
	m.heads[rank] = int32(len(m.queued) - 1)
	m.waiting[rank/64] |= 1 << (rank % 64)
}

// mergeByRank merges all pairs of the lowest rank, then those of the next rank, and so on. A merge creates only pairs
// of higher rank, because newRules refuses any other list of merges. Two pairs of the same rank share a token only if
// both tokens of the pair are equal, as in AAA. mergeRun merges such a run of equal tokens from its left end. Without
// such a run, the order of the pairs of a rank does not matter.
func (m *merger) mergeByRank() {
	for word := range m.waiting {
		for m.waiting[word] != 0 {
			bit := bits.TrailingZeros64(m.waiting[word])
			m.waiting[word] &^= 1 << bit
			rank := int32(word*64 + bit)
			at := m.heads[rank]
			m.heads[rank] = 0
			result, doubled := m.rules.results[rank], m.rules.doubled[rank]
			for at != 0 {
				left := m.queued[at].left
				at = m.queued[at].next
				if m.symbols[left].rank != rank {
					continue
				}
				if doubled {
					m.mergeRun(left, rank, result)
				} else {
					m.mergePair(left, result)
				}
			}
		}
	}
}

// mergeRun merges the run of equal tokens that contains the symbol with index at, pair by pair from the left.
func (m *merger) mergeRun(at, rank int32, result uint16) {
	for m.symbols[m.symbols[at].prev].rank == rank {
		at = m.symbols[at].prev
	}
	for m.symbols[at].rank == rank {
		m.mergePair(at, result)
		at = m.symbols[at].next
	}
}

// mergePair merges the symbol at index left with the next symbol and queues the pairs that the result forms.
func (m *merger) mergePair(left int32, result uint16) {
	s := &m.symbols[left]
	swallowed := &m.symbols[s.next]
	swallowed.rank = noRank
	s.next = swallowed.next
	s.id = result
	m.symbols[s.next].prev = left
	m.enter(left, result, m.symbols[s.next].id)
	if s.prev != 0 {
		m.enter(s.prev, m.symbols[s.prev].id, result)
	}
}
