package tokenizer

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
)

// ErrVocabulary is wrapped by the error for a vocabulary file that differs from the one that the model was trained
// with.
var ErrVocabulary = errors.New("not the vocabulary of the model")

// Letters tokenizes letter by letter, between two special tokens. Its vocabulary is fixed: the entries of one letter
// are the alphabet, the others are special. Any byte outside the alphabet is one unknown token of its own.
type Letters struct {
	entries              []string
	letters              [256]int32
	first, last, unknown int32
}

// NewLetters returns the tokenizer of a vocabulary in the order of its ids; first, last and unknown are entries of it.
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

// CheckFile compares the file at path, the vocab.txt of a checkpoint, with the entries: the same in the same order, one
// a line.
func (t *Letters) CheckFile(path string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if got := strings.Fields(string(text)); !slices.Equal(got, t.entries) {
		return fmt.Errorf("%s: its %d entries are not the %d that the model reads: %w", path, len(got), len(t.entries), ErrVocabulary)
	}
	return nil
}

// Append appends the first token, the ids of seq's letters and the last token to dst; unknown is the number of letters
// that became the unknown token.
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

// VocabSize is the number of entries.
func (t *Letters) VocabSize() int { return len(t.entries) }

// SHA256 is the digest of the entries joined by newlines.
func (t *Letters) SHA256() string {
	digest := sha256.Sum256([]byte(strings.Join(t.entries, "\n")))
	return hex.EncodeToString(digest[:])
}
