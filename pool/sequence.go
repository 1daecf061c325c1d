package pool

import (
	"encoding/binary"
)

// sequence is a list of tokens. Windows of a file with the same tokens may refer to the same sequence. It is computed
// once, in the span of records that contains the first of these windows. The writer processes spans in the order of the
// file, so the result exists when the writer reaches the other windows.
type sequence struct {
	ids     []int32
	first   string      // id of the first record with the sequence
	line    int64       // line of the first record with the sequence
	kept    bool        // whether later windows may refer to the sequence
	result  [][]float32 // one slice per column; set when the sequence is computed
	stored  bool        // whether result or failure comes from the log of an earlier run (see parts)
	failure error       // reason why the sequence has no result, or nil
}

func (s *sequence) tokens() int { return len(s.ids) }

// DefaultKeptBytes is the value, in bytes, that the command line gives Job.KeptBytes. With one mean of 320 values for
// each record it is enough for the latest 30,000 sequences of 80 letters.
const DefaultKeptBytes = 64 << 20

// appendIDs appends the token ids to b as bytes. Equal sequences have equal bytes.
func (s *sequence) appendIDs(b []byte) []byte {
	for _, id := range s.ids {
		b = binary.LittleEndian.AppendUint32(b, uint32(id))
	}
	return b
}

// latest contains the latest different sequences of a file, within a limit of memory. If a sequence is repeated in the
// file after it has been removed from the latest ones, it is computed again. Only the file's reader uses a latest.
type latest struct {
	limit int                  // maximum of bytes; see Job.KeptBytes
	known map[string]*sequence // sequences by the bytes of their token ids
	order []string             // keys of known, the oldest first
	bytes int                  // size in bytes of all sequences, their results and their keys
	key   []byte               // buffer for a key
}

// unify compares the sequences of a record's windows with the known ones. A window with the tokens of a known sequence
// gets a reference to that sequence. Any other sequence becomes known, unless it is larger than the limit.
func (l *latest) unify(j *Job, rec *record) {
	for _, w := range rec.windows {
		l.key = w.seq.appendIDs(l.key[:0])
		if earlier, ok := l.known[string(l.key)]; ok {
			w.seq, w.repeated = earlier, true
		} else if size := j.keptSize(w.seq); size <= l.limit {
			l.add(j, w.seq, size)
		}
	}
}

// add adds a sequence, which takes size bytes, under l.key. It removes the oldest sequences until all fit the limit.
func (l *latest) add(j *Job, s *sequence, size int) {
	for l.bytes += size; l.bytes > l.limit; l.order = l.order[1:] {
		oldest := l.order[0]
		l.bytes -= j.keptSize(l.known[oldest])
		delete(l.known, oldest)
	}
	if l.known == nil {
		l.known = map[string]*sequence{}
	}
	s.kept = true
	key := string(l.key)
	l.known[key], l.order = s, append(l.order, key)
}

// keptSize estimates the memory, in bytes, that a sequence, its result and its key take in latest.
func (j *Job) keptSize(s *sequence) int {
	const overhead = 256 // bytes of the map, the list and the slices for each sequence
	values := 0
	for _, n := range j.sizes(s) {
		values += n
	}
	return overhead + 4*(2*len(s.ids)+values)
}
