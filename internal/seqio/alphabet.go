package seqio

import (
	"fmt"
	"path/filepath"
	"strings"
)

// Alphabet tells whether a sequence is DNA or a protein.
type Alphabet uint8

const (
	Unknown Alphabet = iota // to be detected, or impossible to tell
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

// Finding is the alphabet of an input and the reason for it.
type Finding struct {
	Alphabet    Alphabet // never Unknown
	Why         string   // one of the Because constants; empty where the alphabet was given
	Contradicts string   // the input's extension, if the letters clearly contradict it; or empty
}

// The values of Finding.Why: the reasons for which an alphabet was chosen.
const (
	BecauseFASTQ     = "FASTQ"
	BecauseLetters   = "letters"
	BecauseExtension = "extension"
)

// The alphabet is decided from the first records of an input, up to any of these limits.
const (
	detectRecords = 100
	detectLetters = 4 << 20
)

const (
	plainNucleotides = "ACGTUN"
	nucleotides      = plainNucleotides + "RYSWKMBDHV" // all letters of DNA: the bases and the IUPAC codes
)

// extensionAlphabet maps the extensions that stand for one alphabet.
var extensionAlphabet = map[string]Alphabet{
	".fna": DNA, ".ffn": DNA, ".frn": DNA,
	".faa": Protein, ".pep": Protein, ".aa": Protein,
}

// Classes of bytes, by the alphabet for which a byte is evidence. Bytes that are not letters, such as gaps, stops and
// digits, are no evidence. So an alignment of DNA counts as DNA, and is then refused because of its gaps.
const (
	classA = iota
	classC
	classG
	classT // T or U
	classN // any base, or asparagine
	code   // the other IUPAC nucleotide codes, and I for inosine; also amino acids
	amino  // letters that never occur in DNA
	masked // X: a masked base, or any amino acid
	noLetter
	classes
)

// classOf maps each byte, a letter in upper or lower case or another byte, to its class.
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

// different returns how many of the bases A, C, G and T occur. mixed reports that none of the four makes up more than
// three quarters of them all.
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

// Numbers of letters above which a composition is hardly ever mistaken for one of the other alphabet. Of 200,000
// stretches of real proteins two are mistaken for DNA if they have 20 residues, and none if they have 30. Of 500,000
// stretches of 8 bases none is mistaken for protein.
const (
	sureDNA     = 20
	sureProtein = 8
)

// judge returns the alphabet that the letters look like, or Unknown. sure reports whether the letters are certain
// evidence. A few letters are only a hint.
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
	case 100*plain < 50*letters: // DNA has fewer codes: these are amino acids
		return Protein, letters >= sureProtein
	case bases == 4 && mixed && 100*plain >= 60*letters: // degenerate primers
		return DNA, letters >= sureDNA && 100*plain >= 80*letters
	case bases <= 2 && 100*plain < 85*letters: // linkers such as (GGGGS)n and (GA)nGS
		return Protein, letters >= sureDNA
	}
	return Unknown, false
}

// glance guesses DNA or Protein from the first 16 letters of a sequence. contradicted calls it for every record, and
// counts all letters only of a record for which the guess is not the alphabet of the input.
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
// the name, and the alphabet that the letters look like. If none does and there are no letters, it returns DNA; each
// record is then refused, because it has no letters.
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

// decision is the alphabet of an input, given or decided, and the number of records from which it was decided.
type decision struct {
	Finding
	records int
}

// contradicted returns the alphabet for which a record is certain evidence, if that is not the alphabet of the input
// and the first letters of the record look different, too (see glance). It returns Unknown otherwise, and always if the
// user gave the alphabet or the input is FASTQ.
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

// reminder returns a clause for an error about letters. It says that the alphabet was detected, not given by the user.
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
