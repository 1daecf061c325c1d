package seqio

import (
	"bytes"
	"errors"
	"strings"
	"testing"
)

// Every byte, in every alphabet and case, between two letters that are legal everywhere.
func TestEveryByteIsCleanedOrRefused(t *testing.T) {
	for _, a := range []Alphabet{DNA, Protein} {
		for _, keep := range []bool{false, true} {
			c := newCleaner(a, keep)
			for b := range 256 {
				read := string([]byte{byte(b)})
				want, legal := read, true
				switch {
				case strings.Contains(" \t\n\v\f\r", read):
					want = ""
				case a == DNA && strings.Contains("ACGTURYSWKMBDHVN", strings.ToUpper(read)):
					want = strings.NewReplacer("U", "T", "u", "t").Replace(read)
				case a == Protein && (b >= 'A' && b <= 'Z' || b >= 'a' && b <= 'z' || b == '.' || b == '-'):
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
	_, err := newCleaner(DNA, false).clean([]byte("AC GT\n\nAC?"))
	var bad illegalLetter
	if !errors.As(err, &bad) || bad.position != 7 {
		t.Errorf("the error is %v, want one at letter 7", err)
	}
}
