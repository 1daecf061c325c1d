package seqio

import (
	"bytes"
	"fmt"
)

// Marks in a cleaner's table; every other entry is the letter that replaces the one read.
const (
	illegal = 0
	blank   = ' '

	letterBit = 0x40 // set in every letter, but not in a mark, '.' or '-'
)

// asciiSpace is the white space that is removed from sequences.
const asciiSpace = " \t\n\v\f\r"

// cleaner checks and normalises the letters of one alphabet.
type cleaner struct {
	alphabet Alphabet
	table    [256]byte
}

func newCleaner(a Alphabet, keepCase bool) *cleaner {
	c := &cleaner{alphabet: a}
	legal := "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
	if a == DNA {
		legal = nucleotides
	}
	for _, letter := range []byte(legal) {
		read := letter
		if a == DNA && letter == 'U' {
			read = 'T'
		}
		c.table[letter] = read
		if keepCase {
			read |= 0x20
		}
		c.table[letter|0x20] = read
	}
	if a == Protein {
		c.table['.'] = '.'
		c.table['-'] = '-'
	}
	for _, s := range []byte(asciiSpace) {
		c.table[s] = blank
	}
	return c
}

// clean rewrites seq in place and returns the part of it that holds its letters, or an illegalLetter.
func (c *cleaner) clean(seq []byte) ([]byte, error) {
	if c.alphabet == Protein {
		for len(seq) > 0 && c.table[seq[len(seq)-1]] == blank {
			seq = seq[:len(seq)-1]
		}
		seq = bytes.TrimSuffix(seq, []byte("*"))
	}
	table := &c.table
	// Nearly every sequence holds letters only, so the first loop takes several at a time.
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

// illegalLetter says which letter is illegal, and where: position counts the record's letters from 1.
type illegalLetter struct {
	letter   byte
	position int
	alphabet Alphabet
}

func (e illegalLetter) Error() string {
	what := fmt.Sprintf("%q is not a letter of the %s alphabet", []byte{e.letter}, e.alphabet)
	switch {
	case e.alphabet == DNA && (e.letter == '-' || e.letter == '.'):
		what = fmt.Sprintf("%q is a gap, and DNA must come without gaps", []byte{e.letter})
	case e.alphabet == Protein && e.letter == '*':
		what = `"*" is a stop inside the protein; only one at its end is dropped`
	}
	return fmt.Sprintf("letter %d: %s", e.position, what)
}
