package tokenizer

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
)

func TestESM2(t *testing.T) {
	esm2 := NewESM2()
	ids, unknown := esm2.Append(nil, []byte("LAGVSERTIDPKQNFYMHWCXBUZO.-"))
	want := []int32{0}
	for id := int32(4); id <= 30; id++ {
		want = append(want, id)
	}
	if want = append(want, 2); !slices.Equal(ids, want) || unknown != 0 {
		t.Errorf("the whole alphabet: %v, %d unknown, want %v", ids, unknown, want)
	}
	ids, unknown = esm2.Append(nil, []byte("MJk*<\x00\xffK"))
	if want := []int32{0, 20, 3, 3, 3, 3, 3, 3, 15, 2}; !slices.Equal(ids, want) || unknown != 6 {
		t.Errorf("letters outside the alphabet: %v, %d unknown, want %v, 6", ids, unknown, want)
	}
	if ids, _ := esm2.Append(nil, nil); !slices.Equal(ids, []int32{0, 2}) {
		t.Errorf("an empty sequence: %v", ids)
	}
	if esm2.VocabSize() != 33 {
		t.Errorf("%d entries, want 33", esm2.VocabSize())
	}
}

func TestESM2EqualsPublishedVocabulary(t *testing.T) {
	file, err := os.Open(sharedFile(t, "tokenizer", "esm2_vocab.txt"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	esm2, err := NewESM2FromVocab(file)
	if err != nil {
		t.Fatal(err)
	}
	// The digest of the file as it is published, without a newline at its end.
	if want := "0b82cc0a7c7cf9e567b1e5892d793285b9fbae822c964ca48696f7db44598e03"; esm2.SHA256() != want {
		t.Errorf("digest %s, want %s", esm2.SHA256(), want)
	}
}

func TestNewESM2FromVocab(t *testing.T) {
	right := strings.ReplaceAll(esm2Alphabet, " ", "\n")
	for name, vocab := range map[string]string{
		"as published": right, "newline at the end": right + "\n", "carriage returns": strings.ReplaceAll(right, "\n", "\r\n"),
	} {
		if _, err := NewESM2FromVocab(strings.NewReader(vocab)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, c := range []struct{ name, vocab, want string }{
		{"empty", "", "0 of 33 entries"},
		{"cut", strings.TrimSuffix(right, "\n<mask>"), "32 of 33 entries"},
		{"two residues exchanged", strings.Replace(right, "L\nA", "A\nL", 1), `line 5: "A" where "L" is expected`},
		{"one more", right + "\nJ", "line 34: an entry after the last of 33"},
	} {
		_, err := NewESM2FromVocab(strings.NewReader(c.vocab))
		if !errors.Is(err, ErrVocabulary) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
	if _, err := NewESM2FromVocab(strings.NewReader(strings.Repeat("x", 1<<20))); err == nil {
		t.Error("a line of a megabyte was accepted")
	}
}

func FuzzESM2FromVocab(f *testing.F) {
	f.Add([]byte(strings.ReplaceAll(esm2Alphabet, " ", "\n")))
	f.Add([]byte("<cls>\r\n<pad>\r\n"))
	f.Fuzz(func(t *testing.T, vocab []byte) {
		_, err := NewESM2FromVocab(strings.NewReader(string(vocab)))
		same := slices.Equal(strings.Fields(string(vocab)), strings.Fields(esm2Alphabet))
		if err == nil && !same {
			t.Errorf("accepted %q", vocab)
		}
	})
}
