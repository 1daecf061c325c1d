package seqio

import (
	"hash/maphash"
	"strconv"
)

// idSet remembers the ids that were returned. It keeps 128 bits of two independently seeded hashes instead of the id:
// 35 to 56 bytes a record for ids of any length (measured; a map of 17-letter strings takes up to 80), and nothing for
// the garbage collector to follow. Two different ids among a thousand million would be taken for one with a probability
// of about 10^-21.
type idSet struct {
	seeds [2]maphash.Seed
	seen  map[idHash]int64 // under DuplicateError the line of the record, under DuplicateSuffix the last number tried
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

// claim remembers that id is on this line. Where the id was claimed before, it returns the line of that and false.
func (s *idSet) claim(id string, line int64) (earlier int64, ok bool) {
	h := s.hash(id)
	if earlier, taken := s.seen[h]; taken {
		return earlier, false
	}
	s.seen[h] = line
	return 0, true
}

// unique returns id, or id_2, id_3, … : the first of them that it has not returned yet. An input whose own ids look
// like that gets suffixes of suffixes (a, a, a_2 become a, a_2, a_2_2): no id is returned twice, and since the input is
// read once, an id can only give way to those before it.
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
