package seqio

import (
	"fmt"
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

// The classes of bytes, by their evidence for an alphabet. Gaps, stops, digits and other bytes that are no letters tell
// nothing: an alignment of DNA is DNA, and its gaps are then refused as gaps.
const (
	classA = iota
	classC
	classG
	classT // or U
	classN // any base, or asparagine
	code   // the other IUPAC nucleotide codes, and I for inosine, which are amino acids as well
	amino  // letters that DNA never has
	masked // X: a masked base, or any amino acid
	noLetter
	classes
)

// classOf holds the class of each byte; case does not matter.
var classOf = func() (table [256]uint8) {
	for i := range table {
		table[i] = noLetter
	}
	for class, letters := range []string{"A", "C", "G", "TU", "N", "RYSWKMBDHVI", "EFJLOPQZ", "X"} {
		for _, letter := range []byte(letters) {
			table[letter], table[letter|0x20] = uint8(class), uint8(class)
		}
	}
	return table
}()

// composition counts the bytes of records by their class.
type composition [classes]int64

func (c *composition) add(seq []byte) {
	for _, b := range seq {
		c[classOf[b]]++
	}
}

// plain counts A, C, G, T, U and N, of which nearly all of a DNA sequence consists, and a quarter of a protein.
func (c *composition) plain() int64 { return c[classA] + c[classC] + c[classG] + c[classT] + c[classN] }

// letters counts the letters that tell something: X does not.
func (c *composition) letters() int64 { return c.plain() + c[code] + c[amino] }

// different counts the bases that occur, and reports whether none of them makes up more than three quarters.
func (c *composition) different() (n int, mixed bool) {
	var most, sum int64
	for _, count := range c[:classN] {
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
	case c[amino] > 0 && 100*plain < 80*letters:
		return Protein, c[amino] >= 2 && letters >= sureProtein
	case c[amino] > 0:
	case 100*plain < 50*letters: // the codes are amino acids
		return Protein, letters >= sureProtein
	case bases == 4 && mixed && 100*plain >= 60*letters: // primers
		return DNA, letters >= sureDNA && 100*plain >= 80*letters
	case bases <= 2 && 100*plain < 85*letters: // (GGGGS)n, (GA)nGS
		return Protein, letters >= sureDNA
	}
	return Unknown, false
}

// glance returns DNA or Protein by the first letters of a sequence, which may deceive.
func glance(seq []byte) Alphabet {
	const most = 16
	seq = seq[:min(len(seq), most)]
	plain := 0
	for _, b := range seq {
		if class := classOf[b]; class <= classN || class == masked {
			plain++
		}
	}
	if 100*plain >= 60*len(seq) {
		return DNA
	}
	return Protein
}

// ballot collects the evidence of the first records of an input.
type ballot struct {
	total   composition
	records int
	sure    [Protein + 1]int // of them, those that are beyond doubt of one alphabet
}

// add counts a record and returns the alphabet that it is beyond doubt, or Unknown.
func (v *ballot) add(seq []byte) Alphabet {
	var c composition
	c.add(seq)
	for class, n := range c {
		v.total[class] += n
	}
	v.records++
	a, sure := c.judge()
	if !sure {
		return Unknown
	}
	v.sure[a]++
	return a
}

// decide finds the alphabet of the input of that name; it is Unknown where nothing tells. Where no single record is
// beyond doubt, all letters together may be; where they are not either, the extension decides, and without one the hint
// of the letters. An input without any letters counts as DNA: each record of it is refused as empty.
func (v *ballot) decide(name string) decision {
	extension := filepath.Ext(trimExtension(filepath.Base(name), compressionExtensions))
	byName := extensionAlphabet[strings.ToLower(extension)]
	looks, sure := v.total.judge()
	switch {
	case v.sure[DNA] > 0:
		looks, sure = DNA, true
	case v.sure[Protein] > 0:
		looks, sure = Protein, true
	}
	d := decision{Finding{Alphabet: looks, Why: BecauseLetters}, v.records}
	switch {
	case sure && byName != Unknown && byName != looks:
		d.Contradicts = extension
	case !sure && byName != Unknown:
		d.Finding = Finding{Alphabet: byName, Why: BecauseExtension}
	case looks == Unknown && v.total.letters()+v.total[masked] == 0:
		d.Alphabet = DNA
	}
	return d
}

// decision is the alphabet of an input as it was given or decided, after so many records.
type decision struct {
	Finding
	records int
}

// contradicted returns the other alphabet where a record is of that beyond doubt and the alphabet was not given, and
// otherwise Unknown.
func (d *decision) contradicted(seq []byte) Alphabet {
	if d.Why == "" || d.Why == BecauseFASTQ || glance(seq) == d.Alphabet {
		return Unknown
	}
	var c composition
	c.add(seq)
	if a, sure := c.judge(); sure && a != d.Alphabet {
		return a
	}
	return Unknown
}

// reminder says in an error about letters that the alphabet was a conclusion.
func (d *decision) reminder() string {
	switch d.Why {
	case BecauseLetters:
		return fmt.Sprintf(" (%s made the input %s)", d.evidence(), d.Alphabet)
	case BecauseExtension:
		return fmt.Sprintf(" (the extension made the input %s)", d.Alphabet)
	case BecauseFASTQ:
		return " (FASTQ is DNA)"
	}
	return ""
}

// evidence names the records that were judged.
func (d *decision) evidence() string {
	if d.records == 1 {
		return "the first record"
	}
	return fmt.Sprintf("the first %d records", d.records)
}
