// Package translate turns DNA into the proteins that it may code for: in six frames, in open reading frames, or in the
// same way as the program VirNucPro, which first divides sequences into chunks.
//
// Sequences consist of the upper-case IUPAC codes of DNA. The package must not depend on models, files or the flags of
// the command line.
package translate

import (
	"fmt"
	"slices"
	"strings"
)

// Stop is the letter for a stop codon, and Unknown the letter for a codon whose amino acid is not known.
const (
	Stop    = '*'
	Unknown = 'X'
)

// Code is a genetic code, which maps codons to amino acids.
type Code struct {
	Number int
	Name   string
	// amino contains the amino acid of each codon, and starts tells whether the codon is a start codon. Both are
	// indexed by codonIndex. A codon with ambiguous letters stands for several codons of A, C, G and T. If all of these
	// have the same amino acid, the ambiguous codon has it, too; if not, it has Unknown. The ambiguous codon is a start
	// codon if all codons that it stands for are start codons.
	amino  [16 * 16 * 16]byte
	starts [16 * 16 * 16]bool
}

// ByNumber returns the genetic code with NCBI's number, such as 1 (standard) or 11 (bacteria, archaea, plastids).
func ByNumber(number int) (*Code, error) {
	var known []string
	for _, c := range codes {
		if c.number == number {
			return newCode(c.number, c.name, c.amino, c.starts), nil
		}
		known = append(known, fmt.Sprint(c.number))
	}
	return nil, fmt.Errorf("there is no genetic code %d; NCBI's numbers are %s", number, strings.Join(known, ", "))
}

func newCode(number int, name, amino, starts string) *Code {
	c := &Code{Number: number, Name: name}
	for index := range c.amino {
		c.amino[index], c.starts[index] = Unknown, true
		seen := 0
		for i := range len(amino) {
			first, second, third := 1<<(i>>4), 1<<(i>>2&3), 1<<(i&3)
			if index>>8&first == 0 || index>>4&second == 0 || index&third == 0 {
				continue
			}
			if seen++; seen == 1 {
				c.amino[index] = amino[i]
			} else if c.amino[index] != amino[i] {
				c.amino[index] = Unknown
			}
			c.starts[index] = c.starts[index] && starts[i] == 'M'
		}
		c.starts[index] = c.starts[index] && seen > 0
	}
	return c
}

// bases maps each letter to the set of bases that it stands for, as a sum of 1 for T, 2 for C, 4 for A and 8 for G. A
// letter that is not an IUPAC code of DNA has the empty set, 0.
var bases = func() (t [256]uint8) {
	for letter, set := range map[byte]string{'T': "T", 'C': "C", 'A': "A", 'G': "G", 'R': "AG", 'Y': "CT", 'S': "CG",
		'W': "AT", 'K': "GT", 'M': "AC", 'B': "CGT", 'D': "AGT", 'H': "ACT", 'V': "ACG", 'N': "ACGT"} {
		for _, base := range []byte(set) {
			t[letter] |= 1 << strings.IndexByte("TCAG", base)
		}
	}
	return t
}()

// codonIndex returns the index, in the tables amino and starts of a Code, of the first three letters of seq.
func codonIndex(seq []byte) int {
	return int(bases[seq[0]])<<8 | int(bases[seq[1]])<<4 | int(bases[seq[2]])
}

// Translate returns the amino acids of the codons of seq, of which the first begins with the first letter. One or two
// letters that remain at the end are ignored.
func (c *Code) Translate(seq []byte) []byte {
	protein := make([]byte, 0, len(seq)/3)
	for ; len(seq) >= 3; seq = seq[3:] {
		protein = append(protein, c.amino[codonIndex(seq)])
	}
	return protein
}

// complements maps each IUPAC code to the code of the complementary bases, and every other byte to itself.
var complements = pairs("ATCGRYMKBVDH", "TAGCYRKMVBHD")

// pairs returns a table that maps each letter of from to the letter with the same index in to, and every other letter
// to itself.
func pairs(from, to string) (t [256]byte) {
	for i := range t {
		t[i] = byte(i)
	}
	for i := range len(from) {
		t[from[i]] = to[i]
	}
	return t
}

// ReverseComplement returns the reverse complement of a sequence, which is the other strand of the DNA.
func ReverseComplement(seq []byte) []byte { return reverse(seq, &complements) }

func reverse(seq []byte, complement *[256]byte) []byte {
	other := make([]byte, len(seq))
	for i, letter := range seq {
		other[len(seq)-1-i] = complement[letter]
	}
	return other
}

// Frame is a sequence read in one of its six frames.
type Frame struct {
	Name    string // F1 to F3 begin at letters 1 to 3 of the sequence, R1 to R3 at letters 1 to 3 of the other strand
	DNA     []byte // letters of the frame; for R1, R2 and R3 they are on the other strand
	Protein []byte // amino acids that the frame codes for; Stop for a stop codon
}

// SixFrames returns the frames F1, F2, F3, R1, R2 and R3 of a sequence. A frame of fewer than three letters is left
// out.
func (c *Code) SixFrames(seq []byte) []Frame {
	frames := sixFrames(seq, ReverseComplement(seq))
	for i := range frames {
		f := &frames[i]
		f.DNA = f.DNA[:len(f.DNA)/3*3]
		f.Protein = c.Translate(f.DNA)
	}
	return slices.DeleteFunc(frames, func(f Frame) bool { return len(f.Protein) == 0 })
}

// sixFrames returns the frames of a sequence and of its other strand. Each frame extends to the end of its strand, and
// its Protein is nil.
func sixFrames(seq, other []byte) (frames []Frame) {
	for i, strand := range [][]byte{seq, other} {
		for offset := range 3 {
			name := fmt.Sprintf("%c%d", "FR"[i], offset+1)
			frames = append(frames, Frame{Name: name, DNA: strand[min(offset, len(strand)):]})
		}
	}
	return frames
}
