package main

import (
	"fmt"
	"strings"

	"seqembed/pool"
)

// showAlphabet logs the alphabet of an input and the reason for it, such as a flag or the letters.
func (c *command) showAlphabet(f pool.File) {
	found := f.Finding
	switch {
	case found.Contradicts != "":
		c.log.Warn(fmt.Sprintf("the letters are those of %s, whatever the extension %s says; --dna or --protein decides",
			found.Alphabet, found.Contradicts), "input", f.Path)
	case found.Why == "":
		c.log.Info("read as "+found.Alphabet.String(), "input", f.Path, "by", "--"+strings.ToLower(found.Alphabet.String()))
	default:
		c.log.Info("read as "+found.Alphabet.String(), "input", f.Path, "by", found.Why)
	}
}
