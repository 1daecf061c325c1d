package tokenizer

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
)

// Letters is a tokenizer with one token per letter, between a first and a last special token. The single-letter entries
// of its vocabulary are its alphabet. All other entries are special tokens. Each byte outside the alphabet becomes one
// unknown token.
type Letters struct {
	entries              []string
	letters              [256]int32
	first, last, unknown int32
}

// NewLetters returns the tokenizer for a vocabulary. entries lists the vocabulary in the order of the ids. It must
// include first, last and unknown, or else NewLetters panics.
func NewLetters(entries []string, first, last, unknown string) *Letters {
	id := func(entry string) int32 {
		at := slices.Index(entries, entry)
		if at < 0 {
			panic(fmt.Sprintf("tokenizer: the vocabulary has no %q", entry))
		}
		return int32(at)
	}
	t := &Letters{entries: entries, first: id(first), last: id(last), unknown: id(unknown)}
	for i := range t.letters {
		t.letters[i] = t.unknown
	}
	for id, entry := range entries {
		if len(entry) == 1 {
			t.letters[entry[0]] = int32(id)
		}
	}
	return t
}

// Append appends the first token, the ids of seq's letters and the last token to dst and returns the extended slice.
// unknown is the number of letters that became the unknown token.
func (t *Letters) Append(dst []int32, seq []byte) (ids []int32, unknown int) {
	dst = append(dst, t.first)
	for _, letter := range seq {
		id := t.letters[letter]
		if id == t.unknown {
			unknown++
		}
		dst = append(dst, id)
	}
	return append(dst, t.last), unknown
}

// Letters returns 1, because every token stands for one letter.
func (t *Letters) Letters(int32) int { return 1 }

// VocabSize returns the number of entries in the vocabulary.
func (t *Letters) VocabSize() int { return len(t.entries) }

// ID returns the id of an entry.
func (t *Letters) ID(entry string) (id int, found bool) {
	id = slices.Index(t.entries, entry)
	return id, id >= 0
}

// SHA256 returns the digest, in hexadecimal, of the entries joined by newlines.
func (t *Letters) SHA256() string {
	digest := sha256.Sum256([]byte(strings.Join(t.entries, "\n")))
	return hex.EncodeToString(digest[:])
}
