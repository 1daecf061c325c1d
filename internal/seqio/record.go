// Package seqio reads FASTA and FASTQ input as clean records. One reader supports both formats, plain or compressed,
// from a file or from standard input. It detects the alphabet, checks and normalises the letters, detects duplicate
// ids, and names file, record and line in its errors. The package also expands arguments of the command line into a
// list of files.
//
// It must not depend on models, tokens, output formats or the flags of the command line.
package seqio

import "fmt"

// Record is a sequence, checked and normalised. It belongs to the caller: the reader does not use it again. Short
// sequences share blocks of memory; a block is freed when none of its sequences is in use.
type Record struct {
	ID          string // first word of the header, made unique under DuplicateSuffix; valid UTF-8, no white space
	Description string // the header after the id, trimmed; valid UTF-8
	Seq         []byte // at least one letter; cleaned as described at Options
	Line        int64  // 1-based line of the header, from the start of the input or of a Part that is not interleaved
	Index       int64  // 0-based number in the input, or in a Part that is not interleaved; records left out count, too
}

// Policy determines the treatment of a bad record: a record without an id, without letters, with an illegal letter, or
// with too many letters.
type Policy uint8

const (
	BadError Policy = iota // the first bad record ends the reading with a FormatError
	BadSkip                // bad records are left out and counted
)

// DuplicatePolicy determines the treatment of a record whose id was returned before.
type DuplicatePolicy uint8

const (
	DuplicateError  DuplicatePolicy = iota // the record ends the reading with a FormatError that names both lines
	DuplicateSuffix                        // the record gets another id: id_2, id_3, …
	DuplicateKeep                          // the record keeps its id: used for parts of a file, see IDs
)

// GapPolicy determines the meaning of '-' and '.' inside a sequence. It has no effect on '.' in DNA of a FASTQ file,
// which is read as N.
type GapPolicy uint8

const (
	GapsError  GapPolicy = iota // gaps are illegal letters
	GapsRemove                  // gaps are left out, like white space
)

// Options configures a Reader. The zero value detects the alphabet, converts letters to upper case, and stops at the
// first bad or duplicate record.
//
// Cleaning removes white space and, unless KeepCase is set, converts letters to upper case. In DNA it replaces U by T
// and X by N, and in FASTQ also '.' by N. From the end of a protein it removes one '*' or '.'. Legal letters are then
// the IUPAC nucleotide codes in DNA and A–Z in proteins.
type Options struct {
	Alphabet   Alphabet        // Unknown means that it is detected
	KeepCase   bool            // leave lower-case letters as they are
	MinLength  int             // records with fewer letters are left out and counted
	Gaps       GapPolicy       // meaning of '-' and '.' inside a sequence
	OnBad      Policy          // treatment of bad records
	Duplicates DuplicatePolicy // treatment of records whose id was returned before
	Longest    Limit           // records with more letters are bad; the zero value is a limit of MaxLetters
	Part       Part            // the part of the file to read; its alphabet is used instead of Alphabet
}

// Limit is the maximum number of letters in a record. It bounds memory, because a record takes up to 8 bytes a letter
// before it is embedded.
type Limit struct {
	Letters int
	By      string // reason for a limit below MaxLetters, such as "the free memory of the machine"
}

// String returns the text of the error for a record with more letters.
func (l Limit) String() string {
	text := fmt.Sprintf("more than %d letters, which is the limit", l.Letters)
	if l.By != "" {
		text += " for " + l.By
	}
	return text
}

// Reasons for leaving a record out.
const (
	ReasonTooShort      = "too short"
	ReasonEmpty         = "empty"
	ReasonIllegalLetter = "illegal letter"
	ReasonGap           = "gap"
	ReasonNoID          = "no id"
	ReasonTooLong       = "too long"
)

// Skip describes a record that was left out.
type Skip struct {
	ID     string // empty under ReasonNoID
	Line   int64  // 1-based line of the record's header
	Reason string // one of the Reason constants
	Detail string // explanation for messages
}

// maxSkipExamples is the number of skipped records that skipLog keeps for each reason.
const maxSkipExamples = 20

// skipLog counts the records left out, by reason, and keeps the first few for each reason.
type skipLog struct {
	counts   map[string]int64
	examples []Skip
}

func (l *skipLog) add(s Skip) {
	if l.counts == nil {
		l.counts = make(map[string]int64)
	}
	l.counts[s.Reason]++
	if l.counts[s.Reason] <= maxSkipExamples {
		l.examples = append(l.examples, s)
	}
}
