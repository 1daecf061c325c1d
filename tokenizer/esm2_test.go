package tokenizer

import (
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
	file, err := os.ReadFile(sharedFile(t, "tokenizer", "esm2_vocab.txt"))
	if err != nil {
		t.Fatal(err)
	}
	if published := strings.Fields(string(file)); !slices.Equal(published, strings.Fields(esm2Alphabet)) {
		t.Errorf("the published entries are %q", published)
	}
	// The digest of the published file, which has no newline at its end.
	if got, want := NewESM2().SHA256(), "0b82cc0a7c7cf9e567b1e5892d793285b9fbae822c964ca48696f7db44598e03"; got != want {
		t.Errorf("digest %s, want %s", got, want)
	}
}
