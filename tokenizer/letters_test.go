package tokenizer

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

const testEntries = "<begin> <pad> <end> <unk> L A G V S E R T I D P K Q N F Y M H W C X B U Z O . - <mask>"

func newTestLetters() *Letters {
	return NewLetters(strings.Fields(testEntries), "<begin>", "<end>", "<unk>")
}

func TestLetters(t *testing.T) {
	letters := newTestLetters()
	ids, unknown := letters.Append(nil, []byte("LAGVSERTIDPKQNFYMHWCXBUZO.-"))
	want := []int32{0}
	for id := int32(4); id <= 30; id++ {
		want = append(want, id)
	}
	if want = append(want, 2); !slices.Equal(ids, want) || unknown != 0 {
		t.Errorf("the whole alphabet: %v, %d unknown, want %v", ids, unknown, want)
	}
	ids, unknown = letters.Append(nil, []byte("MJk*<\x00\xffK"))
	if want := []int32{0, 20, 3, 3, 3, 3, 3, 3, 15, 2}; !slices.Equal(ids, want) || unknown != 6 {
		t.Errorf("letters outside the alphabet: %v, %d unknown, want %v, 6", ids, unknown, want)
	}
	if ids, _ := letters.Append(nil, nil); !slices.Equal(ids, []int32{0, 2}) {
		t.Errorf("an empty sequence: %v", ids)
	}
	if letters.VocabSize() != 32 {
		t.Errorf("%d entries, want 32", letters.VocabSize())
	}
}

func TestLettersCheck(t *testing.T) {
	right := strings.ReplaceAll(testEntries, " ", "\n")
	for name, vocab := range map[string]string{
		"as published": right, "newline at the end": right + "\n", "carriage returns": strings.ReplaceAll(right, "\n", "\r\n"),
	} {
		if err := newTestLetters().check(strings.NewReader(vocab)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, c := range []struct{ name, vocab, want string }{
		{"empty", "", "0 of 32 entries"},
		{"cut", strings.TrimSuffix(right, "\n<mask>"), "31 of 32 entries"},
		{"two residues exchanged", strings.Replace(right, "L\nA", "A\nL", 1), `line 5: "A" where "L" is expected`},
		{"one more", right + "\nJ", "line 33: an entry after the last of 32"},
	} {
		err := newTestLetters().check(strings.NewReader(c.vocab))
		if !errors.Is(err, ErrVocabulary) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
	if err := newTestLetters().check(strings.NewReader(strings.Repeat("x", 1<<20))); err == nil {
		t.Error("a line of a megabyte was accepted")
	}
}

func FuzzLettersCheck(f *testing.F) {
	f.Add([]byte(strings.ReplaceAll(testEntries, " ", "\n")))
	f.Add([]byte("<cls>\r\n<pad>\r\n"))
	f.Fuzz(func(t *testing.T, vocab []byte) {
		err := newTestLetters().check(strings.NewReader(string(vocab)))
		same := slices.Equal(strings.Fields(string(vocab)), strings.Fields(testEntries))
		if err == nil && !same {
			t.Errorf("accepted %q", vocab)
		}
	})
}
