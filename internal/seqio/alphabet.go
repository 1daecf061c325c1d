package seqio

// Alphabet is the kind of letters that a sequence is written in.
type Alphabet uint8

const (
	Unknown Alphabet = iota // not known: to be detected
	DNA                     // nucleotides, RNA included
	Protein                 // amino acids
)

// String is the alphabet's name as people write it.
func (a Alphabet) String() string {
	switch a {
	case DNA:
		return "DNA"
	case Protein:
		return "protein"
	}
	return "unknown"
}

// The alphabet is decided from this much of an input: whichever limit is met first.
const (
	detectRecords = 100
	detectLetters = 4 << 20
)

const (
	plainNucleotides = "ACGTUN"
	nucleotides      = plainNucleotides + "RYSWKMBDHV" // the IUPAC codes
)

// composition counts the letters of the records from which an alphabet is detected.
type composition struct {
	plain     int64 // A C G T U N
	ambiguous int64 // the other IUPAC nucleotide codes
	other     int64 // letters that no nucleotide code has, and '*', which only proteins have
}

// add counts seq, in either case. Gaps, digits and whatever else is no letter prove nothing: an alignment of DNA is DNA,
// and its gaps are then refused for what they are.
func (c *composition) add(seq []byte) {
	var counts [256]int64
	for _, b := range seq {
		counts[b]++
	}
	c.other += counts['*']
	for letter := byte('A'); letter <= 'Z'; letter++ {
		n := counts[letter] + counts[letter|0x20]
		switch {
		case contains(plainNucleotides, letter):
			c.plain += n
		case contains(nucleotides, letter):
			c.ambiguous += n
		default:
			c.other += n
		}
	}
}

func (c *composition) letters() int64 { return c.plain + c.ambiguous + c.other }

// alphabet is DNA when every letter is a nucleotide code and at least 90% of them are A, C, G, T, U or N. No letters at
// all count as DNA, because a protein that follows is then refused, while DNA read as protein would pass unnoticed.
func (c *composition) alphabet() Alphabet {
	if c.other == 0 && 10*c.plain >= 9*c.letters() {
		return DNA
	}
	return Protein
}

func contains(letters string, c byte) bool {
	for i := range len(letters) {
		if letters[i] == c {
			return true
		}
	}
	return false
}
