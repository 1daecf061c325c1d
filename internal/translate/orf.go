package translate

import "bytes"

// ORF is an open reading frame: consecutive codons of one frame, none of which is a stop codon.
type ORF struct {
	Start, End int    // 1-based positions of its leftmost and rightmost letter in the sequence, on either strand
	Frame      string // name of its frame, as in Frame.Name
	Protein    []byte
}

// ORFs returns the open reading frames of a sequence that have at least one amino acid, and at least as many as the
// argument least. They are in the order of the frames F1, F2, F3, R1, R2, R3 and, within a frame, of their position on
// the strand. An open reading frame extends from the start of the frame, or from the end of a stop codon, to the next
// stop codon or the end of the frame. If fromStart is true, it begins at the first start codon in this range instead,
// and its first amino acid is methionine; a range without a start codon has no open reading frame.
func (c *Code) ORFs(seq []byte, least int, fromStart bool) (list []ORF) {
	for _, f := range c.SixFrames(seq) {
		codon := 0 // index in the frame of the first codon of stretch
		for stretch := range bytes.SplitSeq(f.Protein, []byte{Stop}) {
			from, to := codon, codon+len(stretch)
			codon = to + 1
			for fromStart && from < to && !c.starts[codonIndex(f.DNA[3*from:])] {
				from++
			}
			if to-from < max(least, 1) {
				continue
			}
			protein := bytes.Clone(f.Protein[from:to])
			if fromStart {
				protein[0] = 'M'
			}
			first, last := 3*from+int(f.Name[1]-'0'), 3*to+int(f.Name[1]-'1')
			if f.Name[0] == 'R' {
				first, last = len(seq)+1-last, len(seq)+1-first
			}
			list = append(list, ORF{Start: first, End: last, Frame: f.Name, Protein: protein})
		}
	}
	return list
}
