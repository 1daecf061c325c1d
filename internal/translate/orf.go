package translate

import "bytes"

// ORF is an open reading frame: codons of one frame without a stop between them.
type ORF struct {
	Start, End int    // its first and last letter in the sequence, counting from 1; a stop codon is not included
	Frame      string // see Frame
	Protein    []byte
}

// ORFs returns the open reading frames of a sequence that have at least the number of amino acids that the argument
// least gives. They are in the order of the frames F1, F2, F3, R1, R2 and R3, and of their place on the strand. An open
// reading frame extends to a stop codon or to the end of the sequence. It begins after the previous stop codon or at
// the beginning of the sequence. With fromStart it begins with the first start codon after that, which becomes
// methionine.
func (c *Code) ORFs(seq []byte, least int, fromStart bool) (list []ORF) {
	for _, f := range c.SixFrames(seq) {
		codon := 0 // number of codons of the frame before the stretch
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
