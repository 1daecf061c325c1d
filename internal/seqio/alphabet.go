package seqio

import (
	"path/filepath"
	"strings"
)

// Alphabet is the kind of letters that a sequence is written in.
type Alphabet uint8

const (
	Unknown Alphabet = iota // not known: to be detected, or it cannot be told
	DNA                     // nucleotides, RNA included
	Protein                 // amino acids
)

// String returns the alphabet's name as people write it.
func (a Alphabet) String() string {
	switch a {
	case DNA:
		return "DNA"
	case Protein:
		return "protein"
	}
	return "unknown"
}

// Finding says which alphabet an input has, and why.
type Finding struct {
	Alphabet    Alphabet // never Unknown
	Why         string   // one of the Because constants; empty where the alphabet was given
	Contradicts string   // the extension of an input with clear letters that stands for the other alphabet; or empty
}

// Reasons for an alphabet.
const (
	BecauseFASTQ     = "FASTQ"
	BecauseLetters   = "letters"
	BecauseExtension = "extension"
)

// The alphabet is decided from the beginning of an input: up to whichever limit is met first.
const (
	detectRecords = 100
	detectLetters = 4 << 20
)

const (
	plainNucleotides = "ACGTUN"
	nucleotides      = plainNucleotides + "RYSWKMBDHV" // the IUPAC codes
)

// extensionAlphabet holds the extensions that stand for one alphabet.
var extensionAlphabet = map[string]Alphabet{
	".fna": DNA, ".ffn": DNA, ".frn": DNA,
	".faa": Protein, ".pep": Protein, ".aa": Protein,
}

// composition counts the letters of records, in either case, to tell DNA from protein. Gaps, stops, digits and other
// bytes that are no letters prove nothing: an alignment of DNA is DNA, and its gaps are then refused as gaps.
type composition struct {
	bases  [4]int64 // A, C, G, and T or U
	n      int64    // any base, or asparagine
	codes  int64    // the other IUPAC nucleotide codes, and I for inosine, which are amino acids as well
	amino  int64    // letters that DNA never has
	masked int64    // X: a masked base, or any amino acid
}

// add counts the letters of seq.
func (c *composition) add(seq []byte) {
	var counts [256]int64
	for _, b := range seq {
		counts[b]++
	}
	for letter := byte('A'); letter <= 'Z'; letter++ {
		n := counts[letter] + counts[letter|0x20]
		switch letter {
		case 'A':
			c.bases[0] += n
		case 'C':
			c.bases[1] += n
		case 'G':
			c.bases[2] += n
		case 'T', 'U':
			c.bases[3] += n
		case 'N':
			c.n += n
		case 'R', 'Y', 'S', 'W', 'K', 'M', 'B', 'D', 'H', 'V', 'I':
			c.codes += n
		case 'X':
			c.masked += n
		default:
			c.amino += n
		}
	}
}

// merge adds the counts of other.
func (c *composition) merge(other *composition) {
	for i, n := range other.bases {
		c.bases[i] += n
	}
	c.n += other.n
	c.codes += other.codes
	c.amino += other.amino
	c.masked += other.masked
}

// plain counts A, C, G, T, U and N, of which nearly all of a DNA sequence consists, and a quarter of a protein.
func (c *composition) plain() int64 { return c.bases[0] + c.bases[1] + c.bases[2] + c.bases[3] + c.n }

// letters counts the letters that tell something: X does not.
func (c *composition) letters() int64 { return c.plain() + c.codes + c.amino }

// different counts the bases that occur, and reports whether none of them makes up more than three quarters.
func (c *composition) different() (n int, mixed bool) {
	var most, sum int64
	for _, count := range c.bases {
		if count > 0 {
			n++
		}
		most, sum = max(most, count), sum+count
	}
	return n, 4*most <= 3*sum
}

// From so many letters on, a composition is hardly that of the other alphabet by chance. Of 200,000 stretches of 20
// residues of real proteins two are taken for DNA, none of 30, and none of 500,000 stretches of 8 bases for protein.
const (
	sureDNA     = 20
	sureProtein = 8
)

// judge returns the alphabet that the letters look like, or Unknown, and whether that is beyond doubt: a few letters
// can only hint at it.
func (c *composition) judge() (a Alphabet, sure bool) {
	plain, letters := c.plain(), c.letters()
	bases, mixed := c.different()
	switch {
	case letters == 0:
	case 100*plain >= 95*letters: // genes and genomes, in which the few other letters are codes or mistakes
		if bases >= 3 && mixed {
			return DNA, letters >= sureDNA && bases == 4
		}
	case c.amino > 0 && 100*plain < 80*letters:
		return Protein, c.amino >= 2 && letters >= sureProtein
	case c.amino > 0:
	case 100*plain < 50*letters: // the codes are amino acids
		return Protein, letters >= sureProtein
	case bases == 4 && mixed && 100*plain >= 60*letters: // primers
		return DNA, letters >= sureDNA && 100*plain >= 80*letters
	case bases <= 2 && 100*plain < 85*letters: // (GGGGS)n, (GA)nGS
		return Protein, letters >= sureDNA
	}
	return Unknown, false
}

// glanceLetters is how many letters of a record are looked at to see whether it deserves to be judged.
const glanceLetters = 16

// plainLetter is 1 for the letters that masked DNA consists of: A, C, G, T, U, N and X, in either case.
var plainLetter = func() (table [256]uint8) {
	for _, letter := range []byte(plainNucleotides + "X") {
		table[letter], table[letter|0x20] = 1, 1
	}
	return table
}()

// glance returns DNA or Protein by the first letters of a sequence, which may deceive.
func glance(seq []byte) Alphabet {
	seq = seq[:min(len(seq), glanceLetters)]
	plain := 0
	for _, b := range seq {
		plain += int(plainLetter[b])
	}
	if 100*plain >= 60*len(seq) {
		return DNA
	}
	return Protein
}

// ballot collects the evidence of the first records of an input.
type ballot struct {
	total composition
	sure  [Protein + 1]int // records that are beyond doubt of one alphabet
}

// add counts a record and returns the alphabet that it is beyond doubt, or Unknown.
func (v *ballot) add(seq []byte) Alphabet {
	var c composition
	c.add(seq)
	v.total.merge(&c)
	a, sure := c.judge()
	if !sure {
		return Unknown
	}
	v.sure[a]++
	return a
}

// find decides the alphabet of the input of that name; it is Unknown where nothing tells. Where no single record is
// beyond doubt, all letters together may be; where they are not either, the extension decides, and without one the hint
// of the letters. An input without any letters counts as DNA: each record of it is refused as empty.
func (v *ballot) find(name string) Finding {
	extension := filepath.Ext(trimExtension(filepath.Base(name), compressionExtensions))
	byName := extensionAlphabet[strings.ToLower(extension)]
	looks, sure := v.total.judge()
	switch {
	case v.sure[DNA] > 0:
		looks, sure = DNA, true
	case v.sure[Protein] > 0:
		looks, sure = Protein, true
	}
	switch {
	case sure && byName != Unknown && byName != looks:
		return Finding{looks, BecauseLetters, extension}
	case !sure && byName != Unknown:
		return Finding{byName, BecauseExtension, ""}
	case looks == Unknown && v.total == composition{}:
		return Finding{DNA, BecauseLetters, ""}
	}
	return Finding{looks, BecauseLetters, ""}
}
