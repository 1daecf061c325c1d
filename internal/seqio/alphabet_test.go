package seqio

import (
	"errors"
	"strings"
	"testing"
)

func TestAlphabetIsDetected(t *testing.T) {
	plain := strings.Repeat("A", 90)
	for _, tt := range []struct {
		name, letters string
		want          Alphabet
	}{
		{"plain", "ACGTUNacgtun", DNA},
		{"at 90% plain letters", plain + strings.Repeat("R", 10), DNA},
		{"below 90% plain letters", plain + strings.Repeat("R", 11), Protein},
		{"one amino acid", plain + "L", Protein},
		{"gaps in an alignment", "AC--GT..AC", DNA},
		{"numbered lines", "1 ACGT 5 ACGT", DNA},
		{"stop", "ACG*", Protein},
		{"nothing", "", DNA},
	} {
		var c composition
		c.add([]byte(tt.letters))
		if got := c.alphabet(); got != tt.want {
			t.Errorf("%s: %q is %s, want %s", tt.name, tt.letters, got, tt.want)
		}
	}
}

func TestAlphabetComesFromTheFirstHundredRecords(t *testing.T) {
	reads := func(n int, letters string) string {
		var b strings.Builder
		for i := range n {
			b.WriteString(">" + letters + string(rune('a'+i%26)) + strings.Repeat("x", i/26) + "\n" + letters + "\n")
		}
		return b.String()
	}
	records, r, err := readAll(strings.NewReader(reads(100, "ACGT")+reads(1, "MKL")), Options{})
	if r.Alphabet() != DNA || len(records) != 100 || !errors.Is(err, ErrBadRecord) {
		t.Errorf("a protein as record 101: %s, %d records, error %v", r.Alphabet(), len(records), err)
	}
	records, r, err = readAll(strings.NewReader(reads(99, "ACGT")+reads(1, "MKL")), Options{})
	if r.Alphabet() != Protein || len(records) != 100 || err != nil {
		t.Errorf("a protein as record 100: %s, %d records, error %v", r.Alphabet(), len(records), err)
	}
}

// A record without a header is left out or ends the reading; either way its letters say nothing of the others.
func TestRecordsWithoutAHeaderDoNotDecide(t *testing.T) {
	records, r, err := readAll(strings.NewReader(">\nMKL\n>b\nACGT\n"), Options{OnBad: BadSkip})
	if err != nil || len(records) != 1 || r.Alphabet() != DNA {
		t.Errorf("%s, %d records, error %v", r.Alphabet(), len(records), err)
	}
}

func TestDetectionReadsABoundedNumberOfLetters(t *testing.T) {
	long := strings.Repeat("ACGT", detectLetters/4)
	r, err := NewReader(strings.NewReader(">a\n"+long+"\n>b\nMKL\n"), "in", Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if r.Alphabet() != DNA || len(r.pending) != 1 {
		t.Errorf("%s from %d records, want DNA from 1", r.Alphabet(), len(r.pending))
	}
}

func TestAlphabetNames(t *testing.T) {
	for a, want := range map[Alphabet]string{Unknown: "unknown", DNA: "DNA", Protein: "protein"} {
		if a.String() != want {
			t.Errorf("%d is %q, want %q", a, a, want)
		}
	}
}
