package tokenizer

import (
	"math/rand/v2"
	"strconv"
	"testing"
)

// benchmarkRecords tokenizes seqs and reports the letters per second, as MB/s, and the letters per token.
func benchmarkRecords(b *testing.B, t Tokenizer, seqs [][]byte) {
	letters := 0
	for _, seq := range seqs {
		letters += len(seq)
	}
	var ids []int32
	tokens := 0
	b.SetBytes(int64(letters))
	b.ReportAllocs()
	for b.Loop() {
		tokens = 0
		for _, seq := range seqs {
			ids, _ = t.Append(ids[:0], seq)
			tokens += len(ids)
		}
	}
	b.ReportMetric(float64(letters)/float64(tokens), "letters/token")
}

// BenchmarkBPE tokenizes random DNA of several lengths, and the genome of E. coli, on one core, with the synthetic
// vocabulary and with that of DNABERT-2.
func BenchmarkBPE(b *testing.B) {
	b.Run("synthetic", func(b *testing.B) { benchmarkLengths(b, SyntheticDNA()) })
	b.Run("dnabert2", func(b *testing.B) { benchmarkLengths(b, dnabert2(b)) })
}

func benchmarkLengths(b *testing.B, t Tokenizer) {
	for _, length := range []int{72, 150, 500, 10_000, 1_000_000} {
		b.Run(strconv.Itoa(length), func(b *testing.B) {
			rng := rand.New(rand.NewPCG(1, uint64(length)))
			seqs := make([][]byte, max(1, 100_000/length))
			for i := range seqs {
				seqs[i] = randomLetters(rng, "ACGT", length)
			}
			benchmarkRecords(b, t, seqs)
		})
	}
	b.Run("ecoli", func(b *testing.B) {
		benchmarkRecords(b, t, [][]byte{ecoli(b)})
	})
}

// BenchmarkESM2 tokenizes a random protein of 300 residues with one token per letter, as for the model ESM-2.
func BenchmarkESM2(b *testing.B) {
	rng := rand.New(rand.NewPCG(1, 1))
	benchmarkRecords(b, newTestLetters(), [][]byte{randomLetters(rng, "ACDEFGHIKLMNPQRSTVWY", 300)})
}
