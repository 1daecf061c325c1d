package seqio

import (
	"bytes"
	"slices"
)

// foreign returns the error for an input that begins neither like FASTA nor like FASTQ.
func (p *parser) foreign(start []byte) error {
	hint := ""
	switch {
	case bytes.HasPrefix(start, []byte("\xff\xfe")), bytes.HasPrefix(start, []byte("\xfe\xff")),
		bytes.HasPrefix(start, []byte("\x00>")), bytes.HasPrefix(start, []byte("\x00@")):
		hint = "; " + utf16
	case start[0] == ';' || start[0] == '#':
		hint = "; comments have to be removed"
	}
	for magic, format := range otherFormats {
		if bytes.HasPrefix(start, []byte(magic)) {
			hint = "; this is " + format
		}
	}
	return p.fault("", p.line, ErrNotSequences, "this is not FASTA or FASTQ: it starts with %q%s",
		start, hint)
}

// utf16 is the text of the error for UTF-16.
const utf16 = "this is text in UTF-16, and has to be saved as UTF-8"

// isUTF16 reports whether a header, without its '>' or '@', begins with the second byte of a character in UTF-16.
func isUTF16(header []byte) bool { return len(header) > 0 && header[0] == 0 }

// otherFormats maps the beginnings of files to the names of their formats.
var otherFormats = map[string]string{"# STOCKHOLM": "an alignment in Stockholm format", "#NEXUS": "NEXUS", "##fileformat=VCF": "VCF",
	"##gff-version": "GFF", "LOCUS ": "GenBank", "ID   ": "EMBL or UniProt text"}

// pirCodes lists the codes for the type of a sequence with which a PIR header begins.
var pirCodes = []string{"P1", "F1", "DL", "DC", "RL", "RC", "N1", "N3", "XX"}

// isPIR reports whether a header, without its '>', belongs to a file of the PIR (NBRF) format. Records of PIR look like
// those of FASTA, except that a line of text precedes the letters.
func isPIR(header []byte) bool {
	return len(header) > 3 && header[2] == ';' && slices.Contains(pirCodes, string(header[:2]))
}

// isSAM reports whether a line, without its '@', belongs to the header section of a SAM file (section 1.3 of the SAM
// specification).
func isSAM(line []byte) bool {
	return len(line) > 2 && line[2] == '\t' && slices.Contains([]string{"HD", "SQ", "RG", "PG", "CO"}, string(line[:2]))
}
