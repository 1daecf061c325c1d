package tokenizer

import (
	"fmt"
	"math/bits"
	"strings"
)

const (
	// wordEdge stands before the first and after the last token of a word; no vocabulary has so large an id.
	wordEdge = maxVocab
	// noRank is the rank of a pair that does not merge.
	noRank = -1
)

// rules are the merges of a vocabulary, ready for use.
type rules struct {
	results []uint16 // id of the merged token, by rank
	doubled []bool   // whether the two halves are the same token, by rank
	slots   []slot   // open-addressed by a hash of the pair; a power of two, at most a quarter full
	shift   uint
}

// A slot holds the rank of one pair of tokens.
type slot struct {
	pair uint32 // left id in the high half, right id in the low half
	rank int32
}

// emptyPair marks a free slot: no merge has an edge of a word as its halves.
const emptyPair = wordEdge<<16 | wordEdge

// newRules checks the merges of v, whose ids are known to be sound, and indexes them. It refuses a merge that comes
// before one that makes a half of it: no trained vocabulary has any.
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
			return nil, fmt.Errorf("model.merges[%d] comes before merge %d, which makes a half of it: %w", s.rank, made, ErrUnsupported)
		}
	}
	return r, nil
}

// find returns the slot that holds pair, or else the free one where it belongs.
func (r *rules) find(pair uint32) uint32 {
	at := pair * 0x9E3779B1 >> (r.shift & 31)
	for r.slots[at].pair != pair && r.slots[at].pair != emptyPair {
		at = (at + 1) & uint32(len(r.slots)-1)
	}
	return at
}

// rank is that of merging left and right, or noRank.
func (r *rules) rank(left, right uint16) int32 {
	return r.slots[r.find(uint32(left)<<16|uint32(right))].rank
}

// A symbol is one token of the word being merged, in a doubly linked list; the index of a symbol never changes, that
// of the first letter for a merged one, so that the order of indexes is that of the word.
type symbol struct {
	prev, next int32
	rank       int32 // of merging it with the next symbol; noRank for one that a merge swallowed, too
	id         uint16
}

// A candidate is a pair that could be merged when it was entered: stale unless its left symbol still has that rank.
type candidate struct {
	left int32 // index of the left symbol
	next int32 // index of the next candidate of the same rank, 0 for none
}

// A merger holds the memory in which words are merged, one at a time. Between words all its queues are empty.
type merger struct {
	rules   *rules
	symbols []symbol
	// The candidates wait in one list for each rank, because ranks are few and a rank's candidates do not compete.
	queued  []candidate
	heads   []int32  // index into queued of a rank's first candidate, 0 for none
	waiting []uint64 // one bit for each rank whose list is not empty
	joint   []int32
}

// newMerger returns a merger with empty queues for all ranks.
func newMerger(r *rules) *merger {
	return &merger{
		rules:   r,
		heads:   make([]int32, len(r.results)),
		waiting: make([]uint64, (len(r.results)+63)/64),
		queued:  make([]candidate, 1, 3*windowLetters),
	}
}

// merge appends the tokens of word, all of whose letters have an id in letters, to dst.
func (m *merger) merge(dst []int32, letters *[256]uint16, word []byte) []int32 {
	m.start(letters, word)
	m.mergeByRank()
	for at := m.symbols[0].next; m.symbols[at].id != wordEdge; at = m.symbols[at].next {
		dst = append(dst, int32(m.symbols[at].id))
	}
	return dst
}

// start lays out the letters between two edges and enters their pairs.
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

// enter notes the rank of the pair whose left symbol is at index at, and queues the pair if it merges.
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

// mergeByRank merges all pairs of the lowest rank, then of the next, and so on. A merge enters pairs of higher ranks
// only, because the rules are ordered; and pairs of one rank cannot share a symbol, so that they may be merged in any
// order, unless their halves are the same token: then a run of that token is merged from its left end.
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

// mergeRun merges the run of equal tokens to which the one at index at belongs, two by two from the left.
func (m *merger) mergeRun(at, rank int32, result uint16) {
	for m.symbols[m.symbols[at].prev].rank == rank {
		at = m.symbols[at].prev
	}
	for m.symbols[at].rank == rank {
		m.mergePair(at, result)
		at = m.symbols[at].next
	}
}

// mergePair merges the symbol at index left with the next one and enters the pairs that the result forms.
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
