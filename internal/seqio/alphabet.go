package seqio

import (
	"fmt"
	"path/filepath"
	"strings"
)

// Alphabet tells whether a sequence is DNA or a protein.
type Alphabet uint8

const (
	Unknown Alphabet = iota // the alphabet has to be detected, or the records do not reveal it
	DNA                     // nucleotides, RNA included
	Protein                 // amino acids
)

// String returns the name of the alphabet for messages.
func (a Alphabet) String() string {
	switch a {
	case DNA:
		return "DNA"
	case Protein:
		return "protein"
	}
	return "unknown"
}

// Finding is the alphabet of an input and the reason why this alphabet was chosen.
type Finding struct {
	Alphabet    Alphabet // never Unknown in a Finding that a Reader returns
	Why         string   // one of the Because constants; empty if the user gave the alphabet
	Contradicts string   // extension of the input's name, if the letters clearly contradict it; otherwise empty
}

// The values of Finding.Why: the reasons for which an alphabet was chosen.
const (
	BecauseFASTQ     = "FASTQ"
	BecauseLetters   = "letters"
	BecauseExtension = "extension"
)

// detectRecords, detectLetters and maxAhead limit the records from which the alphabet is detected, and so the time and
// memory that it takes. Detection ends after detectRecords records, after records with detectLetters letters other than
// X, or after records of maxAhead bytes: X, gaps and stops count, too.
const (
	detectRecords = 100
	detectLetters = 4 << 20
	maxAhead      = 16 << 20
)

const (
	plainNucleotides = "ACGTUN"
	nucleotides      = plainNucleotides + "RYSWKMBDHV" // the IUPAC nucleotide codes, bases included
)

// extensionAlphabet maps file extensions to the alphabet of their files. It leaves out extensions that are used for
// both alphabets.
var extensionAlphabet = map[string]Alphabet{
	".fna": DNA, ".ffn": DNA, ".frn": DNA,
	".faa": Protein, ".pep": Protein, ".aa": Protein,
}

// Classes of bytes. A composition counts the bytes of each class, and its method judge tells the alphabet from the
// counts. Bytes that are not letters, such as gaps, stops and digits, are no evidence for an alphabet. So an alignment
// of DNA, which has gaps, counts as DNA.
const (
	classA = iota
	classC
	classG
	classT // T or U
	classN // any base, or asparagine
	code   // the other IUPAC nucleotide codes, and I for inosine; all of them are amino acids, too
	amino  // amino acids whose letters are no nucleotide codes
	masked // X: a masked base, or any amino acid
	noLetter
	classes
)

// classOf maps each byte to its class. Upper-case and lower-case letters have the same class.
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

// plain returns the number of A, C, G, T, U and N. Nearly all letters of DNA are of this kind, but only about a quarter
// of the letters of a protein.
func (c *composition) plain() int64 { return c[classA] + c[classC] + c[classG] + c[classT] + c[classN] }

// letters returns the number of letters that are evidence for an alphabet, which is all letters except X.
func (c *composition) letters() int64 { return c.plain() + c[code] + c[amino] }

// different returns the number n of bases among A, C, G and T that occur; U counts as T. mixed reports whether no base
// makes up more than three quarters of these letters.
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

// sureDNA and sureProtein are the smallest numbers of letters with which judge can be sure of DNA and of protein. In a
// measurement, judge took two of 200,000 stretches of 20 residues of real proteins for DNA, and none of the stretches
// of 30 residues. It took none of 500,000 stretches of 8 real bases for protein.
const (
	sureDNA     = 20
	sureProtein = 8
)

// judge returns the alphabet that the letters look like, or Unknown. sure reports whether the letters are certain
// evidence for this alphabet. Too few letters are only a hint.
func (c *composition) judge() (a Alphabet, sure bool) {
	plain, letters := c.plain(), c.letters()
	bases, mixed := c.different()
	switch {
	case letters == 0:
	case 100*plain >= 95*letters: // genes and genomes; the few other letters are codes or mistakes
		if bases >= 3 && mixed {
			return DNA, letters >= sureDNA && bases == 4
		}
	case c[amino] > 0 && 100*plain < 80*letters:
		return Protein, c[amino] >= 2 && letters >= sureProtein
	case c[amino] > 0:
	case 100*plain < 50*letters: // DNA has fewer ambiguity codes, so these letters are amino acids
		return Protein, letters >= sureProtein
	case bases == 4 && mixed && 100*plain >= 60*letters: // degenerate primers
		return DNA, letters >= sureDNA && 100*plain >= 80*letters
	case bases <= 2 && 100*plain < 85*letters: // repeats in proteins, such as GGGGS in linkers and GAGAGS in silk
		return Protein, letters >= sureDNA
	}
	return Unknown, false
}

// fits reports whether a few letters of a sequence are those of an alphabet: for DNA, the first 16 letters and 16 from
// the middle are all A, C, G, T, U, N or X; for proteins, two of the first 16 are no nucleotide codes. Gaps do not
// count. It saves time: contradicted counts all letters of a record only if they do not fit.
func fits(a Alphabet, seq []byte) bool {
	var c composition
	sample(&c, seq)
	if a == Protein {
		return c[amino] >= 2
	}
	sample(&c, seq[len(seq)/2:])
	return c[code]+c[amino] == 0
}

// sample adds the first 16 letters of a sequence to the counts. Gaps do not count.
func sample(c *composition, seq []byte) {
	const most = 16
	letters := 0
	for _, b := range seq {
		if classOf[b] == noLetter {
			continue
		}
		c[classOf[b]]++
		if letters++; letters == most {
			return
		}
	}
}

// ballot collects the evidence of the first records of an input.
type ballot struct {
	total   composition
	records int
	sure    [Protein + 1]int // number of records that are certain evidence, by alphabet
}

// add adds the letters of a record to the evidence. It returns the alphabet for which this record alone is certain
// evidence, or Unknown.
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

// decide returns the alphabet of the input called name, or Unknown. It uses the first of these that gives an answer:
// records that are certain evidence, the letters of all records together if they are certain evidence, the extension of
// the name, and the alphabet that the letters look like. If none of these gives an answer and the records have no
// letters, it returns DNA, because records without letters are bad in either alphabet.
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

// decision is the alphabet of an input, which was given or detected, and the number of records from which it was
// detected.
type decision struct {
	Finding
	records int
}

// contradicted compares a record with the alphabet of the input. It returns the other alphabet if the record is certain
// evidence for that alphabet; if not, it returns Unknown. It misses records that seem to fit the alphabet of the input
// (see fits). It always returns Unknown if the user gave the alphabet or the input is FASTQ.
func (d *decision) contradicted(seq []byte) Alphabet {
	if d.Why == "" || d.Why == BecauseFASTQ || fits(d.Alphabet, seq) {
		return Unknown
	}
	var c composition
	c.add(seq)
	if a, sure := c.judge(); sure && a != d.Alphabet {
		return a
	}
	return Unknown
}

// reminder returns a clause for an error about letters. The clause says how the alphabet was detected. It is empty if
// the user gave the alphabet.
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

// evidence returns words for the records from which the alphabet was decided, such as "the first 100 records".
func (d *decision) evidence() string {
	if d.records == 1 {
		return "the first record"
	}
	return fmt.Sprintf("the first %d records", d.records)
}
