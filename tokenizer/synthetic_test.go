package tokenizer

import (
	"math/rand/v2"
	"testing"
)

// TestSyntheticDNAStaysTheSame checks that the synthetic vocabulary has the same digest as in earlier releases, and
// that its tokenizer gives the ids of the plain implementation in the type reference. If the ids changed, the
// embeddings of synthetic checkpoints could not be compared between releases.
func TestSyntheticDNAStaysTheSame(t *testing.T) {
	const digest = "70aebe512a9b7a565f4f0082254b6685faa6e5f6c6a1ed58a65ee200be658050"
	bpe := SyntheticDNA()
	if bpe.SHA256() != digest {
		t.Errorf("digest %s, want %s", bpe.SHA256(), digest)
	}
	if bpe.VocabSize() != 4096 {
		t.Errorf("%d entries, want 4096", bpe.VocabSize())
	}
	ref := referenceOf(t, SyntheticDNAFile())
	for _, seq := range []string{"", "A", "N", "ACGT", "GATTACA", "AAAAAAAAAAAAA", "ACGTNNRYKMACGT", "acgt",
		"TGACCTTGCAACGGATCTTAGCCATATATATATCGCGCGGGATCC"} {
		agree(t, bpe, ref, []byte(seq))
	}
	for entry, id := range map[string]int32{"[UNK]": 0, "[CLS]": 1, "[SEP]": 2, "[PAD]": 3, "[MASK]": 4, "A": 5, "C": 6, "G": 7, "T": 8} {
		if got, found := ref.ids[entry]; !found || got != id {
			t.Errorf("%s has id %d, want %d", entry, got, id)
		}
	}
}

func TestSyntheticDNACompresses(t *testing.T) {
	rng := rand.New(rand.NewPCG(11, 0))
	const letters = 100_000
	ids, unknown := SyntheticDNA().Append(nil, randomLetters(rng, "ACGT", letters))
	if mean := letters / float64(len(ids)); mean < 3 || unknown != 0 {
		t.Errorf("%.2f letters a token and %d unknown ones, want at least 3 and none", mean, unknown)
	}
}

func BenchmarkSyntheticDNA(b *testing.B) {
	for b.Loop() {
		if _, err := ParseBPE(SyntheticDNAFile()); err != nil {
			b.Fatal(err)
		}
	}
}
