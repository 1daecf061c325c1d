package tokenizer

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// ErrVocabulary is wrapped by the error for a file in the folder of a checkpoint if the file contradicts the vocabulary
// of the tokenizer.
var ErrVocabulary = errors.New("another vocabulary")

// VocabularyFiles are the names of the files in a checkpoint's folder that describe its vocabulary. Compare can read
// each of them.
var VocabularyFiles = [...]string{"vocab.txt", "tokenizer.json", "tokenizer_config.json", "added_tokens.json"}

// Compare compares the vocabulary of t with the content of a vocabulary file. name is the name of the file and one of
// VocabularyFiles. Every entry in the file must have the same id in t. The files vocab.txt and tokenizer.json must also
// contain all entries of t. If the vocabularies differ, the error wraps ErrVocabulary.
func Compare(t Tokenizer, name string, content []byte) error {
	ids, complete, err := listEntries(name, content)
	if err != nil {
		return err
	}
	if complete && len(ids) != t.VocabSize() {
		return fmt.Errorf("%d entries, where the tokenizer has %d: %w", len(ids), t.VocabSize(), ErrVocabulary)
	}
	for _, entry := range slices.SortedFunc(maps.Keys(ids), func(a, b string) int {
		return cmp.Or(cmp.Compare(ids[a], ids[b]), strings.Compare(a, b))
	}) {
		switch got, found := t.ID(entry); {
		case !found:
			return fmt.Errorf("id %d is %.80q, which the tokenizer does not have: %w", ids[entry], entry, ErrVocabulary)
		case int64(got) != ids[entry]:
			return fmt.Errorf("id %d is %.80q, which has id %d in the tokenizer: %w", ids[entry], entry, got, ErrVocabulary)
		}
	}
	return nil
}

// listEntries returns the ids of the entries that a vocabulary file lists. complete reports whether a file of this name
// lists all entries of a vocabulary.
func listEntries(name string, content []byte) (ids map[string]int64, complete bool, err error) {
	ids = map[string]int64{}
	switch name {
	case "vocab.txt":
		for id, entry := range strings.Fields(string(content)) {
			if first, found := ids[entry]; found {
				return nil, false, fmt.Errorf("ids %d and %d are both %.80q: %w", first, id, entry, ErrVocabulary)
			}
			ids[entry] = int64(id)
		}
		return ids, true, nil
	case "added_tokens.json":
		return ids, false, readJSON(content, name, &ids)
	case "tokenizer_config.json":
		var file struct {
			Added map[string]struct {
				Content string `json:"content"`
			} `json:"added_tokens_decoder"`
		}
		if err := readJSON(content, name, &file); err != nil {
			return nil, false, err
		}
		for text, token := range file.Added {
			if ids[token.Content], err = strconv.ParseInt(text, 10, 64); err != nil {
				return nil, false, fmt.Errorf("added_tokens_decoder: %.80q is not an id", text)
			}
		}
		return ids, false, nil
	}
	var file struct {
		Model struct {
			Vocab map[string]int64 `json:"vocab"`
		} `json:"model"`
		Added []addedToken `json:"added_tokens"`
	}
	if err := readJSON(content, name, &file); err != nil {
		return nil, false, err
	}
	maps.Copy(ids, file.Model.Vocab)
	for _, token := range file.Added {
		ids[token.Content] = token.ID
	}
	return ids, true, nil
}
