package seqio

import (
	"hash/maphash"
	"strconv"
)

// IDs applies a DuplicatePolicy to the ids of several parts of an input. If it gets the ids of all parts in order, the
// result is the same as if one Reader had read the whole input.
type IDs struct {
	policy DuplicatePolicy
	set    *idSet
}

// NewIDs returns an IDs to which no id has been given yet.
func NewIDs(policy DuplicatePolicy) *IDs { return &IDs{policy, newIDSet()} }

// Name returns the id under which a record is written. It returns false if the policy is DuplicateError and the id was
// given to Name before.
func (s *IDs) Name(id string) (string, bool) {
	switch s.policy {
	case DuplicateSuffix:
		return s.set.unique(id), true
	case DuplicateError:
		_, ok := s.set.claim(id, 0)
		return id, ok
	}
	return id, true
}

// idSet is a set of ids of records. Instead of an id it stores two hashes of the id with independent seeds, 128 bits
// together. That takes 35 to 56 bytes per record for ids of any length (measured; a map of 17-letter strings takes up
// to 80), without pointers for the garbage collector. Among a thousand million different ids, the probability that any
// two have the same hashes is about 10^-21.
type idSet struct {
	seeds [2]maphash.Seed
	seen  map[idHash]int64 // by id: line of the record (DuplicateError), or last suffix number (DuplicateSuffix)
}

type idHash [2]uint64

func newIDSet() *idSet {
	return &idSet{
		seeds: [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()},
		seen:  make(map[idHash]int64),
	}
}

func (s *idSet) hash(id string) idHash {
	return idHash{maphash.String(s.seeds[0], id), maphash.String(s.seeds[1], id)}
}

// claim adds the id of the record on the given line to the set. If an earlier record has the same id, claim returns the
// line of that record and false.
func (s *idSet) claim(id string, line int64) (earlier int64, ok bool) {
	h := s.hash(id)
	if earlier, taken := s.seen[h]; taken {
		return earlier, false
	}
	s.seen[h] = line
	return 0, true
}

// unique returns the first of id, id_2, id_3, … that it has not returned yet. If the input itself contains an id such
// as a_2, that id may get a suffix, too: a, a, a_2 become a, a_2, a_2_2. So no id is returned twice. The input is read
// only once, so unique cannot know the ids of later records.
func (s *idSet) unique(id string) string {
	h := s.hash(id)
	number, taken := s.seen[h]
	if !taken {
		s.seen[h] = 1
		return id
	}
	for {
		number++
		candidate := id + "_" + strconv.FormatInt(number, 10)
		c := s.hash(candidate)
		if _, taken := s.seen[c]; !taken {
			s.seen[h] = number
			s.seen[c] = 1
			return candidate
		}
	}
}
