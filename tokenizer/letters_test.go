package tokenizer

import (
	"slices"
	"strings"
	"testing"
)

const testEntries = "<cls> <pad> <eos> <unk> L A G V S E R T I D P K Q N F Y M H W C X B U Z O . - <mask>"

func newTestLetters() *Letters {
	return NewLetters(strings.Fields(testEntries), "<cls>", "<eos>", "<unk>")
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
