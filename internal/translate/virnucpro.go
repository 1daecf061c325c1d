package translate

import "bytes"

// Chunk is the part of a sequence that begins at index From and ends before index To.
type Chunk struct{ From, To int }

// Chunks divides a sequence of n letters into the fewest chunks of at most size letters, as VirNucPro does
// (split_fasta_chunk in its units.py). Let count be the number of chunks, and missing = count·size − n. Each chunk
// overlaps the next one by missing/count letters, rounded down. If these overlaps together are less than missing, the
// first of them become one letter longer, until the sum is missing or all of them are longer. Each chunk has size
// letters, except that the last one may be shorter.
func Chunks(n, size int) []Chunk {
	count := (n + size - 1) / size
	if count == 0 {
		return nil
	}
	missing := count*size - n
	shared := missing / count
	// more is the number of overlaps of shared+1 letters. If there are fewer overlaps, all of them have this length.
	more := missing - shared*(count-1)
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

// plainAmino contains the amino acid of each codon of the letters A, C, G and T in the standard genetic code, and 0 for
// codons with other letters. It is indexed by codonIndex.
var plainAmino = func() (t [16 * 16 * 16]byte) {
	const letters = "ACGT"
	standard, _ := ByNumber(1) // cannot fail: number 1, the standard code, exists
	for i := range 64 {
		codon := codonIndex([]byte{letters[i>>4], letters[i>>2&3], letters[i&3]})
		t[codon] = standard.amino[codon]
	}
	return t
}()

var plainComplements = pairs("ATCG", "TAGC")

// VirNucPro returns the frames of a sequence that the program VirNucPro embeds (identify_seq in its units.py): frames
// that have at least one amino acid and no stop codon in the standard genetic code. It copies three properties of the
// program that SixFrames does not have. A codon with a letter other than A, C, G and T has no amino acid. Such a letter
// is its own complement. A frame with n amino acids has as its DNA the first 3n+1 letters, or all if there are fewer.
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
