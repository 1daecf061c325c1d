package translate

import (
	"math/rand/v2"
	"testing"
)

// BenchmarkVirNucPro translates 500 random letters, which is a chunk length of the program VirNucPro.
func BenchmarkVirNucPro(b *testing.B) {
	seq := make([]byte, 500)
	r := rand.New(rand.NewPCG(1, 2))
	for i := range seq {
		seq[i] = "ACGT"[r.IntN(4)]
	}
	b.SetBytes(int64(len(seq)))
	for b.Loop() {
		VirNucPro(seq)
	}
}
