package seqio

import (
	"bytes"
	"errors"
	"strings"
	"testing"
)

// TestEveryByteIsCleanedOrRefused checks for every byte, in DNA and in proteins, whether clean keeps it, replaces it,
// removes it or refuses it. The byte stands between two letters that are legal in both alphabets.
func TestEveryByteIsCleanedOrRefused(t *testing.T) {
	for _, a := range []Alphabet{DNA, Protein} {
		for _, keep := range []bool{false, true} {
			c := newCleaner(a, Options{KeepCase: keep}, false)
			for b := range 256 {
				read := string([]byte{byte(b)})
				want, legal := read, true
				switch {
				case strings.Contains(" \t\n\v\f\r", read):
					want = ""
				case a == DNA && strings.Contains("ACGTURYSWKMBDHVNX", strings.ToUpper(read)):
					want = strings.NewReplacer("U", "T", "u", "t", "X", "N", "x", "n").Replace(read)
				case a == Protein && (b >= 'A' && b <= 'Z' || b >= 'a' && b <= 'z'):
				default:
					legal = false
				}
				if !keep {
					want = strings.ToUpper(want)
				}
				seq := []byte("A" + read + "C")
				got, err := c.clean(bytes.Clone(seq))
				if legal && (err != nil || string(got) != "A"+want+"C") {
					t.Errorf("%s, case kept %t: %q became %q, %v; want %q", a, keep, seq, got, err, "A"+want+"C")
				}
				var bad illegalLetter
				if !legal && (!errors.As(err, &bad) || bad.position != 2 || int(bad.letter) != b) {
					t.Errorf("%s, case kept %t: %q became %q, %v; want letter 2 refused", a, keep, seq, got, err)
				}
			}
		}
	}
}

func TestPositionsCountLettersNotWhiteSpace(t *testing.T) {
	_, err := newCleaner(DNA, Options{}, false).clean([]byte("AC GT\n\nAC?"))
	var bad illegalLetter
	if !errors.As(err, &bad) || bad.position != 7 {
		t.Errorf("the error is %v, want one at letter 7", err)
	}
}

// TestGapsAndStops checks that gaps are removed or refused as the options say, that one stop at the end of a protein is
// removed and any other is refused, and that '.' in FASTQ becomes N.
func TestGapsAndStops(t *testing.T) {
	for _, tt := range []struct {
		read     string
		alphabet Alphabet
		gaps     GapPolicy
		fastq    bool
		want     string // the cleaned letters; empty if the letter at position is refused
		position int
	}{
		{"MKV*", Protein, GapsError, false, "MKV", 0},
		{"MKV.", Protein, GapsError, false, "MKV", 0},
		{"MKV .\n\n", Protein, GapsError, false, "MKV", 0},
		{"MKV**", Protein, GapsError, false, "", 4},
		{"MKV*.", Protein, GapsError, false, "", 4},
		{"MK.V", Protein, GapsError, false, "", 3},
		{"-MKV", Protein, GapsError, false, "", 1},
		{"M*KV", Protein, GapsError, false, "", 2},
		{"MKV-", Protein, GapsError, false, "", 4},
		{"-M.K--V.*", Protein, GapsRemove, false, "MKV", 0},
		{"MKV*--", Protein, GapsRemove, false, "MKV", 0},
		{"M*KV", Protein, GapsRemove, false, "", 2},
		{"----", Protein, GapsRemove, false, "", 0},
		{"AC-GT", DNA, GapsError, false, "", 3},
		{"ACGT.", DNA, GapsError, false, "", 5},
		{"ACGT*", DNA, GapsError, false, "", 5},
		{"A-C..GT--", DNA, GapsRemove, false, "ACGT", 0},
		{"ACGT*", DNA, GapsRemove, false, "", 5},
		{"AC.T", DNA, GapsError, true, "ACNT", 0},
		{"A-.T", DNA, GapsRemove, true, "ANT", 0},
		{"A-.T", DNA, GapsError, true, "", 2},
	} {
		got, err := newCleaner(tt.alphabet, Options{Gaps: tt.gaps}, tt.fastq).clean([]byte(tt.read))
		var bad illegalLetter
		errors.As(err, &bad)
		if string(got) != tt.want || bad.position != tt.position {
			t.Errorf("%s, gaps %d, FASTQ %t: %q became %q, %v; want %q or letter %d refused",
				tt.alphabet, tt.gaps, tt.fastq, tt.read, got, err, tt.want, tt.position)
		}
	}
}
