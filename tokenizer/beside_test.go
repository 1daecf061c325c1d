package tokenizer

import (
	"errors"
	"strings"
	"testing"
)

// TestCompare checks which vocabulary files of a checkpoint Compare accepts for a given tokenizer. Files of another
// vocabulary must give an ErrVocabulary, and files that cannot be parsed another error.
func TestCompare(t *testing.T) {
	lines := strings.ReplaceAll(testEntries, " ", "\n")
	for _, c := range []struct {
		name, what, content string
		want                string // part of an error that wraps ErrVocabulary; empty if there must be no error
	}{
		{"vocab.txt", "as published", lines, ""},
		{"vocab.txt", "newline at the end", lines + "\n", ""},
		{"vocab.txt", "carriage returns", strings.ReplaceAll(lines, "\n", "\r\n"), ""},
		{"vocab.txt", "empty", "", "0 entries"},
		{"vocab.txt", "truncated", strings.TrimSuffix(lines, "\n<mask>"), "31 entries"},
		{"vocab.txt", "two letters exchanged", strings.Replace(lines, "L\nA", "A\nL", 1), `id 4 is "A", which has id 5`},
		{"vocab.txt", "an additional entry", lines + "\nJ", "33 entries"},
		{"vocab.txt", "another entry", strings.Replace(lines, "\nL\n", "\nLp\n", 1), `id 4 is "Lp"`},
		{"vocab.txt", "an entry twice", strings.Replace(lines, "\nL\nA", "\nL\nL", 1), `ids 4 and 5 are both "L"`},
		{"added_tokens.json", "none", "{}", ""},
		{"added_tokens.json", "known", `{"<cls>": 0, "L": 4}`, ""},
		{"added_tokens.json", "new", `{"[structure]": 32}`, `"[structure]"`},
		{"tokenizer_config.json", "without tokens", `{"tokenizer_class": "EsmTokenizer"}`, ""},
		{"tokenizer_config.json", "known", `{"added_tokens_decoder": {"0": {"content": "<cls>"}, "31": {"content": "<mask>"}}}`, ""},
		{"tokenizer_config.json", "moved", `{"added_tokens_decoder": {"4": {"content": "<mask>"}}}`, `id 4 is "<mask>", which has id 31`},
		{"tokenizer.json", "part", `{"model": {"vocab": {"<cls>": 0}}}`, "1 entries"},
	} {
		err := Compare(newTestLetters(), c.name, []byte(c.content))
		if c.want == "" && err != nil || c.want != "" && (!errors.Is(err, ErrVocabulary) || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s, %s: %v, want %q", c.name, c.what, err, c.want)
		}
	}
	for _, c := range [][2]string{
		{"tokenizer.json", "Entry not found"}, {"added_tokens.json", `{"a": "b"}`}, {"tokenizer_config.json", `{"added_tokens_decoder": {"x": {}}}`},
	} {
		if err := Compare(newTestLetters(), c[0], []byte(c[1])); err == nil || errors.Is(err, ErrVocabulary) {
			t.Errorf("%s: %v", c[1], err)
		}
	}
	// Compare accepts the tokenizer.json from which the tokenizer was made, but not one in which two entries of the
	// vocabulary are exchanged.
	bpe, err := ParseBPE([]byte(smallFile))
	if err != nil {
		t.Fatal(err)
	}
	if err := Compare(bpe, "tokenizer.json", []byte(smallFile)); err != nil {
		t.Error(err)
	}
	other := edited(t, `"A": 3, "C": 4`, `"A": 4, "C": 3`)
	if err := Compare(bpe, "tokenizer.json", other); !errors.Is(err, ErrVocabulary) {
		t.Errorf("two letters exchanged: %v", err)
	}
}

// FuzzCompare checks that no file makes Compare panic, and that a file with an entry of another id is an error.
func FuzzCompare(f *testing.F) {
	f.Add(byte(0), []byte("<cls>\n<pad>"))
	f.Add(byte(1), []byte(`{"model": {"vocab": {"L": 4}}, "added_tokens": [{"id": 0, "content": "<cls>"}]}`))
	f.Add(byte(2), []byte(`{"added_tokens_decoder": {"4": {"content": "L"}, "-1": {"content": ""}}}`))
	f.Add(byte(3), []byte(`{"L": 4, "x": 9223372036854775807}`))
	f.Fuzz(func(t *testing.T, file byte, content []byte) {
		name, letters := VocabularyFiles[int(file)%len(VocabularyFiles)], newTestLetters()
		if Compare(letters, name, content) != nil {
			return
		}
		ids, complete, err := listEntries(name, content)
		if err != nil || complete && len(ids) != letters.VocabSize() {
			t.Errorf("%d entries, %v", len(ids), err)
		}
		for entry, id := range ids {
			if got, found := letters.ID(entry); !found || int64(got) != id {
				t.Errorf("%q has id %d, not %d", entry, got, id)
			}
		}
	})
}
