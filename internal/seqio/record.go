// Package seqio turns FASTA and FASTQ input into clean records: one reader for both formats, plain or compressed, file
// or standard input, that detects the alphabet, checks and normalises the letters, keeps ids unique and gives every
// error a file, a record and a line. It also expands the command line's inputs into a list of files.
//
// It must not know of models, tokens, output formats or the command line's flags.
package seqio

// Record is one sequence as it will be embedded. It belongs to the caller: the reader never touches it again. Short
// sequences lie side by side in blocks of memory, which stay as long as one of them is in use.
type Record struct {
	ID          string // first word of the header, made unique under DuplicateSuffix; valid UTF-8, no white space
	Description string // the header after the id, trimmed; valid UTF-8
	Seq         []byte // at least one letter; cleaned as described at Options
	Line        int64  // 1-based line of its header in the decompressed input
	Index       int64  // 0-based position among all records of the input, skipped ones counted
}

// Policy says whether a bad record ends the reading: one without an id, without letters, or with an illegal letter.
type Policy uint8

const (
	BadError Policy = iota // the first bad record ends the reading with a FormatError
	BadSkip                // bad records are left out and counted
)

// DuplicatePolicy says whether a record whose id was returned before ends the reading.
type DuplicatePolicy uint8

const (
	DuplicateError  DuplicatePolicy = iota // it ends the reading with a FormatError that names both lines
	DuplicateSuffix                        // it is renamed: id_2, id_3, …
)

// GapPolicy says how '-' and '.' inside a sequence are read.
type GapPolicy uint8

const (
	GapsError  GapPolicy = iota // they are illegal letters
	GapsRemove                  // they are left out, like white space
)

// Options steers a Reader. The zero value detects the alphabet, upper-cases, and stops at the first bad or duplicate
// record.
//
// Cleaning removes white space, upper-cases (unless KeepCase), reads U as T and X as N in DNA and '.' as N in FASTQ,
// and drops one '*' or '.' at the end of a protein. Legal letters are then the IUPAC nucleotide codes in DNA and A–Z in
// proteins.
type Options struct {
	Alphabet   Alphabet        // Unknown: detect it
	KeepCase   bool            // leave lower-case letters as they are
	MinLength  int             // records with fewer letters are left out and counted
	Gaps       GapPolicy       // '-' and '.' inside a sequence
	OnBad      Policy          // records without id or letters, or with illegal letters
	Duplicates DuplicatePolicy // records whose id was returned before; those left out do not count
}

// Reasons for leaving a record out.
const (
	ReasonTooShort      = "too short"
	ReasonEmpty         = "empty"
	ReasonIllegalLetter = "illegal letter"
	ReasonGap           = "gap"
	ReasonNoID          = "no id"
)

// Skip describes a record that was left out.
type Skip struct {
	ID     string // empty under ReasonNoID
	Line   int64  // 1-based line of its header
	Reason string // one of the Reason constants
	Detail string // one sentence for people
}

// maxSkipExamples bounds the memory that skipped records take, for each reason.
const maxSkipExamples = 20

// skipLog counts the records that were left out and keeps the first few for each reason.
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
