package seqio

import (
	"bytes"
	"fmt"
)

const (
	// illegal and blank are values in cleaner.table. Every other value there is the letter that replaces the byte.
	illegal = 0   // the byte is refused
	blank   = ' ' // the byte is removed: white space, and gaps under GapsRemove

	letterBit = 0x40 // bit that is set in every letter, but neither in illegal nor in blank
)

// asciiSpace is the white space that is removed from sequences. gaps are the characters that mark a gap.
const (
	asciiSpace = " \t\n\v\f\r"
	gaps       = "-."
)

// cleaner checks and normalises the letters of one alphabet.
type cleaner struct {
	alphabet Alphabet
	table    [256]byte
}

// newCleaner returns a cleaner for an alphabet, with the rules that the comment of Options describes. fastq tells
// whether the input is FASTQ, where '.' in DNA stands for N.
func newCleaner(a Alphabet, o Options, fastq bool) *cleaner {
	c := &cleaner{alphabet: a}
	legal := "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
	if a == DNA {
		legal = nucleotides + "X"
	}
	for _, letter := range []byte(legal) {
		read := letter
		switch {
		case a == DNA && letter == 'U':
			read = 'T'
		case a == DNA && letter == 'X':
			read = 'N'
		}
		c.table[letter] = read
		if o.KeepCase {
			read |= 0x20
		}
		c.table[letter|0x20] = read
	}
	for _, s := range []byte(asciiSpace) {
		c.table[s] = blank
	}
	if o.Gaps == GapsRemove {
		for _, g := range []byte(gaps) {
			c.table[g] = blank
		}
	}
	if fastq && a == DNA {
		c.table['.'] = c.table['N']
	}
	return c
}

// clean rewrites seq in place and returns the part of it that contains the cleaned letters. For a byte that is not
// allowed the error is an illegalLetter.
func (c *cleaner) clean(seq []byte) ([]byte, error) {
	if c.alphabet == Protein {
		seq = c.withoutStop(seq)
	}
	table := &c.table
	// Nearly all sequences contain only letters, so the first loop processes four bytes at a time, until one of the
	// four is not a letter.
	n := 0
	for n+4 <= len(seq) {
		s := (*[4]byte)(seq[n:])
		l0, l1, l2, l3 := table[s[0]], table[s[1]], table[s[2]], table[s[3]]
		if l0&l1&l2&l3&letterBit == 0 {
			break
		}
		s[0], s[1], s[2], s[3] = l0, l1, l2, l3
		n += 4
	}
	for _, b := range seq[n:] {
		switch letter := table[b]; letter {
		case blank:
		case illegal:
			return nil, illegalLetter{letter: b, position: n + 1, alphabet: c.alphabet}
		default:
			seq[n] = letter
			n++
		}
	}
	return seq[:n], nil
}

// withoutStop removes from the end of a protein one '*' or '.', which stands for the stop codon, and any bytes after it
// that clean would remove anyway.
func (c *cleaner) withoutStop(seq []byte) []byte {
	for len(seq) > 0 && c.table[seq[len(seq)-1]] == blank {
		seq = seq[:len(seq)-1]
	}
	if n := len(seq) - 1; n >= 0 && (seq[n] == '*' || seq[n] == '.') {
		return seq[:n]
	}
	return seq
}

// onlyGaps reports whether a sequence consists of gaps and white space.
func onlyGaps(seq []byte) bool { return len(bytes.Trim(seq, gaps+asciiSpace)) == 0 }

// illegalLetter is an error that names the letter and its position, counted from 1 in the letters of the record.
type illegalLetter struct {
	letter   byte
	position int
	alphabet Alphabet
}

func (e illegalLetter) gap() bool { return e.letter == '-' || e.letter == '.' }

func (e illegalLetter) Error() string {
	found := fmt.Sprintf("%q is not a letter of the %s alphabet", []byte{e.letter}, e.alphabet)
	switch {
	case e.gap():
		found = fmt.Sprintf("%q is a gap", []byte{e.letter})
	case e.alphabet == Protein && e.letter == '*':
		found = `"*" is a stop inside the protein; only one at its end is dropped`
	}
	return fmt.Sprintf("letter %d: %s", e.position, found)
}
