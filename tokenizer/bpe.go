package tokenizer

import (
	"errors"
	"fmt"
	"sync"
	"unicode"
	"unicode/utf8"
)

const (
	// maxVocab is the maximum number of entries in a vocabulary. Ids have 16 bits, and the largest number of 16 bits is
	// not an id but marks the ends of a word (wordEdge).
	maxVocab = 1<<16 - 1
	// windowLetters is the number of letters of a long word that are merged at a time, so that the data being merged
	// stays in the cache of the CPU.
	windowLetters = 2048
	// overlapTokens is the number of tokens, directly before a window, that appendWord splits into letters and merges
	// again together with the window. If the result does not fit the tokens before them, appendWord doubles this
	// number.
	overlapTokens = 8
)

// ErrTooLarge is wrapped by the error for a tokenizer.json that exceeds a limit.
var ErrTooLarge = errors.New("too large")

// A vocabulary is the unchecked content of a tokenizer.json.
type vocabulary struct {
	ids            map[string]int64 // id of each entry; the ids must be 0, 1, … without gaps
	merges         [][2]string      // pairs of entries that are merged; the index is the rank
	unknown        string           // the entry that replaces a letter outside the vocabulary
	prefix, suffix []int32          // special tokens before and after a sequence
}

// A letterKind is the kind of a byte in a sequence.
type letterKind uint8

const (
	unknownLetter letterKind = iota // ASCII outside the vocabulary: the unknown token; outside ASCII: Append decodes it
	wordLetter                      // in the vocabulary and matched by \w; merges only with letters of this kind
	otherLetter                     // in the vocabulary, but not matched by \w; merges only with letters of this kind
	spaceLetter                     // white space: separates words and produces no token
)

// BPE is a byte-pair encoding over ASCII letters that produces the same ids as the Hugging Face tokenizers. It splits a
// sequence into words: runs of letters, digits and underscores, or runs of other characters except white space. Each
// letter of a word becomes a token. Then it merges the adjacent pair with the lowest merge rank (the leftmost, if there
// are several), until no pair can be merged. A letter that is not in the vocabulary becomes a separate unknown token
// and merges with nothing.
type BPE struct {
	digest         string
	ids            map[string]int64
	prefix, suffix []int32
	unknown        int32
	kinds          [256]letterKind
	letters        [256]uint16 // ids of the bytes of kind wordLetter or otherLetter
	widths         []int       // number of letters of each entry, by id
	rules          *rules
	window         int       // windowLetters, except in tests
	overlap        int       // overlapTokens, except in tests
	mergers        sync.Pool // contains *merger
}

// newBPE checks a vocabulary and returns its tokenizer.
func newBPE(v *vocabulary, digest string) (*BPE, error) {
	if len(v.ids) > maxVocab {
		return nil, fmt.Errorf("model.vocab has %d entries, more than %d: %w", len(v.ids), maxVocab, ErrTooLarge)
	}
	t := &BPE{
		digest: digest, ids: v.ids, prefix: v.prefix, suffix: v.suffix, widths: make([]int, len(v.ids)),
		window: windowLetters, overlap: overlapTokens,
	}
	entries := make([]string, len(v.ids))
	for entry, id := range v.ids {
		if id < 0 || id >= int64(len(entries)) {
			return nil, fmt.Errorf("model.vocab: id %d of %.80q is outside 0 to %d", id, entry, len(entries)-1)
		}
		if entry == "" {
			return nil, fmt.Errorf("model.vocab: the entry with id %d is empty", id)
		}
		if len(entry) > maxWidth {
			return nil, fmt.Errorf("model.vocab: the entry with id %d has %d letters, more than %d: %w", id, len(entry), maxWidth, ErrTooLarge)
		}
		if entries[id] != "" {
			return nil, fmt.Errorf("model.vocab: id %d is both %.80q and %.80q", id, min(entry, entries[id]), max(entry, entries[id]))
		}
		entries[id] = entry
		t.widths[id] = len(entry)
	}
	unknown, found := v.ids[v.unknown]
	if !found {
		return nil, fmt.Errorf("model.unk_token %.80q is not in model.vocab", v.unknown)
	}
	t.unknown = int32(unknown)
	if err := t.setLetters(entries); err != nil {
		return nil, err
	}
	var err error
	if t.rules, err = newRules(v); err != nil {
		return nil, err
	}
	t.mergers.New = func() any { return newMerger(t.rules) }
	return t, nil
}

// setLetters fills kinds and letters from the single-letter entries. entries is indexed by id.
func (t *BPE) setLetters(entries []string) error {
	for c := range t.kinds {
		if c < utf8.RuneSelf && unicode.IsSpace(rune(c)) {
			t.kinds[c] = spaceLetter
		}
	}
	for id, entry := range entries {
		if utf8.RuneCountInString(entry) > 1 || t.unknown == int32(id) {
			continue
		}
		c := entry[0]
		switch {
		case c >= utf8.RuneSelf:
			return fmt.Errorf("model.vocab: letter %.80q outside ASCII: %w", entry, ErrUnsupported)
		case t.kinds[c] == spaceLetter:
			continue
		case isWordLetter(rune(c)):
			t.kinds[c] = wordLetter
		default:
			t.kinds[c] = otherLetter
		}
		t.letters[c] = uint16(id)
	}
	return nil
}

// isWordLetter reports whether r is an ASCII character that the regular expression \w matches.
func isWordLetter(r rune) bool {
	return r == '_' || '0' <= r && r <= '9' || 'A' <= r && r <= 'Z' || 'a' <= r && r <= 'z'
}

// VocabSize returns the number of entries in the vocabulary.
func (t *BPE) VocabSize() int { return len(t.widths) }

// ID returns the id of an entry.
func (t *BPE) ID(entry string) (id int, found bool) {
	n, found := t.ids[entry]
	return int(n), found
}

// Letters returns the number of letters of a sequence that the token with this id stands for. For the unknown token it
// is 1.
func (t *BPE) Letters(id int32) int {
	if id == t.unknown {
		return 1
	}
	return t.widths[id]
}

// SHA256 returns the digest, in hexadecimal, of the tokenizer.json.
func (t *BPE) SHA256() string { return t.digest }

// Append appends the special tokens and the tokens of seq to dst and returns the extended slice. unknown is the number
// of letters that became the unknown token. Bytes outside ASCII are decoded as UTF-8.
func (t *BPE) Append(dst []int32, seq []byte) (ids []int32, unknown int) {
	m := t.mergers.Get().(*merger)
	defer t.mergers.Put(m)
	ids = append(dst, t.prefix...)
	for i := 0; i < len(seq); {
		kind := t.kinds[seq[i]]
		switch {
		case kind == wordLetter || kind == otherLetter:
			end := i + 1
			for end < len(seq) && t.kinds[seq[end]] == kind {
				end++
			}
			ids = t.appendWord(m, ids, seq[i:end])
			i = end
		case kind == spaceLetter:
			i++
		case seq[i] < utf8.RuneSelf:
			ids = append(ids, t.unknown)
			unknown++
			i++
		default:
			r, size := utf8.DecodeRune(seq[i:])
			if !unicode.IsSpace(r) {
				ids = append(ids, t.unknown)
				unknown++
			}
			i += size
		}
	}
	return append(ids, t.suffix...), unknown
}

// appendWord appends the tokens of a word whose letters are all in the vocabulary.
//
// A long word is merged in windows. Each window is merged together with the last tokens before it. The number of these
// tokens is doubled until joins confirms that the result fits the tokens that are kept. The tokens of the word are then
// the same as if the whole word were merged at once. This follows from two facts that hold for every list of merges:
//
//  1. Every run of tokens in an encoded word is the encoding of its own letters. No merge crossed an end of the run, so
//     its letters alone undergo the same merges in the same order.
//  2. Let x be the last token in the encoding of a string X, and y the first token in the encoding of a string Y. If
//     the encoding of xy is x, y, then the encoding of XY is that of X followed by that of Y. For suppose that the
//     encoding of XY has a merge across the border between X and Y, and consider the first such merge. Until then the
//     letters of x and y have undergone the same merges as in the word xy. So the encoding of xy has this merge, too,
//     and is not x, y.
func (t *BPE) appendWord(m *merger, dst []int32, word []byte) []int32 {
	first := len(dst)
	end := min(len(word), t.window)
	dst = m.merge(dst, &t.letters, word[:end])
	for end < len(word) {
		next := min(len(word), end+t.window)
		kept, cut := len(dst), end
		for overlap := t.overlap; ; overlap *= 2 {
			for back := max(first, kept-overlap); kept > back; kept-- {
				cut -= t.widths[dst[kept-1]]
			}
			dst = m.merge(dst[:kept], &t.letters, word[cut:next])
			if kept == first || t.joins(m, dst[kept-1], dst[kept], word, cut) {
				break
			}
		}
		end = next
	}
	return dst
}

// joins reports whether two tokens in a row stay separate if their letters are encoded together. left and right are the
// ids of the tokens, and cut is the index in word of the first letter of right.
func (t *BPE) joins(m *merger, left, right int32, word []byte, cut int) bool {
	m.joint = m.merge(m.joint[:0], &t.letters, word[cut-t.widths[left]:cut+t.widths[right]])
	return len(m.joint) == 2 && m.joint[0] == left && m.joint[1] == right
}
