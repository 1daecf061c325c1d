package tokenizer

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// A reference is a plain implementation of byte-pair encoding, with which tests compare the type BPE. It takes
// quadratic time.
type reference struct {
	ids   map[string]int32
	ranks map[[2]string]int
}

// referenceOf returns the reference for a tokenizer.json. The special tokens of the file must be [CLS] and [SEP], and
// its unknown token [UNK].
func referenceOf(tb testing.TB, file []byte) *reference {
	tb.Helper()
	var text struct {
		Model struct {
			Vocab  map[string]int32
			Merges []any
		}
	}
	if err := json.Unmarshal(file, &text); err != nil {
		tb.Fatal(err)
	}
	ref := &reference{ids: text.Model.Vocab, ranks: map[[2]string]int{}}
	for rank, merge := range text.Model.Merges {
		switch merge := merge.(type) {
		case string:
			ref.ranks[[2]string(strings.Split(merge, " "))] = rank
		case []any:
			ref.ranks[[2]string{merge[0].(string), merge[1].(string)}] = rank
		}
	}
	return ref
}

// encode tokenizes a sequence of ASCII characters.
func (ref *reference) encode(seq []byte) []int32 {
	ids := []int32{ref.ids["[CLS]"]}
	for len(seq) > 0 {
		end := 1
		for end < len(seq) && wordClass(seq[end]) == wordClass(seq[0]) {
			end++
		}
		if wordClass(seq[0]) != ' ' {
			ids = append(ids, ref.encodeWord(seq[:end])...)
		}
		seq = seq[end:]
	}
	return append(ids, ref.ids["[SEP]"])
}

// wordClass returns equal values for letters that belong to one word when they are adjacent.
func wordClass(letter byte) byte {
	switch {
	case strings.IndexByte(" \t\n\v\f\r", letter) >= 0:
		return ' '
	case strings.IndexByte("_0123456789", letter) >= 0 || strings.ToUpper(string(rune(letter))) != strings.ToLower(string(rune(letter))):
		return 'w'
	}
	return '-'
}

// encodeWord merges the leftmost pair of the lowest rank until no pair can be merged.
func (ref *reference) encodeWord(word []byte) []int32 {
	const never = 1 << 40
	rank := func(left, right string) int {
		if rank, found := ref.ranks[[2]string{left, right}]; found {
			return rank
		}
		return never
	}
	var tokens []string
	for _, letter := range word {
		if _, found := ref.ids[string(rune(letter))]; found {
			tokens = append(tokens, string(rune(letter)))
		} else {
			tokens = append(tokens, "[UNK]")
		}
	}
	ranks := make([]int, max(len(tokens)-1, 0))
	for i := range ranks {
		ranks[i] = rank(tokens[i], tokens[i+1])
	}
	for len(ranks) > 0 {
		best := 0
		for i, r := range ranks {
			if r < ranks[best] {
				best = i
			}
		}
		if ranks[best] == never {
			break
		}
		tokens[best] += tokens[best+1]
		tokens = slices.Delete(tokens, best+1, best+2)
		ranks = slices.Delete(ranks, best, best+1)
		if best > 0 {
			ranks[best-1] = rank(tokens[best-1], tokens[best])
		}
		if best < len(ranks) {
			ranks[best] = rank(tokens[best], tokens[best+1])
		}
	}
	ids := make([]int32, len(tokens))
	for i, token := range tokens {
		ids[i] = ref.ids[token]
	}
	return ids
}

// tokenizerFile returns a tokenizer.json with the entries [UNK], [CLS] and [SEP] and the given entries. The ids are in
// random order. The form of the merges is random, too: "A B" as in older files, or ["A", "B"] as in newer files.
func tokenizerFile(rng *rand.Rand, entries []string, merges [][2]string) []byte {
	entries = append([]string{"[UNK]", "[CLS]", "[SEP]"}, entries...)
	ids := map[string]int{}
	for i, id := range rng.Perm(len(entries)) {
		ids[entries[i]] = id
	}
	list := make([]any, len(merges))
	pairs := rng.IntN(2) == 0
	for i, merge := range merges {
		if list[i] = merge; !pairs {
			list[i] = merge[0] + " " + merge[1]
		}
	}
	vocab, _ := json.Marshal(ids)
	mergeList, _ := json.Marshal(list)
	return fmt.Appendf(nil, `{"version": "1.0", "pre_tokenizer": {"type": "Whitespace"}, "post_processor": {
		"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "[CLS]", "type_id": 0}},
		{"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "[SEP]", "type_id": 0}}],
		"pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
		"special_tokens": {"[CLS]": {"id": "[CLS]", "ids": [%d], "tokens": ["[CLS]"]},
		"[SEP]": {"id": "[SEP]", "ids": [%d], "tokens": ["[SEP]"]}}},
		"model": {"type": "BPE", "unk_token": "[UNK]", "vocab": %s, "merges": %s}}`,
		ids["[CLS]"], ids["[SEP]"], vocab, mergeList)
}

// randomVocabulary returns a tokenizer.json with a random vocabulary over alphabet and at most size merges. ordered
// reports whether every merge comes after the merges that produce its halves, as in trained vocabularies. In about half
// of the random vocabularies several merges may produce the same entry, which does not occur in trained vocabularies.
func randomVocabulary(rng *rand.Rand, alphabet string, size int) (file []byte, ordered bool) {
	entries := strings.Split(alphabet, "")
	known := map[string]bool{}
	for _, letter := range entries {
		known[letter] = true
	}
	merges := map[[2]string]bool{}
	var list [][2]string
	severalWays := rng.IntN(2) == 0
	for range size {
		merge := [2]string{entries[rng.IntN(len(entries))], entries[rng.IntN(len(entries))]}
		whole := merge[0] + merge[1]
		if merges[merge] || len(whole) > 12 || known[whole] && !severalWays {
			continue
		}
		if !known[whole] {
			entries = append(entries, whole)
			known[whole] = true
		}
		merges[merge] = true
		list = append(list, merge)
	}
	if rng.IntN(2) == 0 {
		rng.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	}
	used := map[string]bool{} // entries that are a half of an earlier merge in list
	ordered = true
	for _, merge := range list {
		used[merge[0]], used[merge[1]] = true, true
		ordered = ordered && !used[merge[0]+merge[1]]
	}
	return tokenizerFile(rng, slices.Sorted(maps.Keys(known)), list), ordered
}

// randomSequence returns a random sequence: independent letters, a repeat of a short unit, a repeat with some letters
// changed, or runs of one letter.
func randomSequence(rng *rand.Rand, alphabet string, length int) []byte {
	seq := randomLetters(rng, alphabet, length)
	kind := rng.IntN(4)
	unit := 1 + rng.IntN(7)
	for i := range seq {
		switch {
		case kind == 1 && i >= unit, kind == 2 && i >= unit && rng.IntN(30) != 0:
			seq[i] = seq[i-unit]
		case kind == 3 && i > 0 && rng.IntN(12) != 0:
			seq[i] = seq[i-1]
		}
	}
	return seq
}
