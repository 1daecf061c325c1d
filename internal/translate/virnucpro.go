package translate

import "bytes"

// Chunk is the part [From, To) of a sequence.
type Chunk struct{ From, To int }

// Chunks divides a sequence of n letters into the fewest chunks of at most size letters, as VirNucPro does
// (split_fasta_chunk of its units.py). All chunks have size letters, except that the last one, or the only one, may be
// shorter. Let missing be the number of letters that would fill the last chunk if the chunks did not overlap. Each
// chunk overlaps the next one by missing/count letters, rounded down, where count is the number of chunks. If these
// overlaps are less than missing in total, the first overlaps have one letter more, as many of them as letters are
// left.
func Chunks(n, size int) []Chunk {
	count := (n + size - 1) / size
	if count == 0 {
		return nil
	}
	missing := count*size - n
	shared := missing / count
	more := missing - shared*(count-1) // number of chunks that share one letter more
	list := make([]Chunk, count)
	from := 0
	for i := range list {
		list[i] = Chunk{from, min(from+size, n)}
		if from += size - shared; i < more {
			from--
		}
	}
	return list
}

// plainAmino contains, for the standard genetic code, the amino acid of each codon of the letters A, C, G and T, and 0
// for codons with other letters. It is indexed by codonIndex.
var plainAmino = func() (t [16 * 16 * 16]byte) {
	const letters = "ACGT"
	standard, _ := ByNumber(1) // number 1, the standard code, exists
	for i := range 64 {
		codon := codonIndex([]byte{letters[i>>4], letters[i>>2&3], letters[i&3]})
		t[codon] = standard.amino[codon]
	}
	return t
}()

var plainComplements = pairs("ATCG", "TAGC")

// VirNucPro returns those of a sequence's six frames that VirNucPro embeds (identify_seq of its units.py): frames of
// the standard genetic code without a stop and with at least one amino acid. It differs from SixFrames in the cases in
// which VirNucPro does: a codon with another letter than A, C, G and T has no amino acid, such letters are their own
// complement, and the DNA of a frame has three letters for each amino acid and one letter more, unless the sequence
// ends before.
func VirNucPro(seq []byte) (kept []Frame) {
	for _, f := range sixFrames(seq, reverse(seq, &plainComplements)) {
		f.Protein = make([]byte, 0, len(f.DNA)/3)
		for codon := f.DNA; len(codon) >= 3; codon = codon[3:] {
			if amino := plainAmino[codonIndex(codon)]; amino != 0 {
				f.Protein = append(f.Protein, amino)
			}
		}
		f.DNA = f.DNA[:min(3*len(f.Protein)+1, len(f.DNA))]
		if len(f.Protein) > 0 && bytes.IndexByte(f.Protein, Stop) < 0 {
			kept = append(kept, f)
		}
	}
	return kept
}
