package seqio

import (
	"bytes"
	"errors"
	"reflect"
	"strings"
	"testing"
)

// borders maps each length at which a FASTQ text may end to the number of records in the text up to there. A text may
// end after a record, with or without the record's last newline.
func borders(records []string) map[int]int {
	lengths := map[int]int{0: 0}
	n := 0
	for i, record := range records {
		n += len(record)
		lengths[n] = i + 1
		if trimmed := strings.TrimRight(record, "\r\n"); len(trimmed) < len(record) {
			for cut := len(trimmed); cut < len(record); cut++ {
				lengths[n-len(record)+cut] = i + 1
			}
		}
	}
	return lengths
}

func TestFASTQCutAnywhereInsideARecordIsAnError(t *testing.T) {
	for name, records := range map[string][]string{
		"plain":         {"@a x\nACGT\n+\nIIII\n", "@b\nGGC\n+b\n@@@\n", "@c\nACGTACGT\n+\n>>>>>>>>\n"},
		"windows":       {"@a x\r\nACGT\r\n+\r\nIIII\r\n", "@b\r\nGGC\r\n+b\r\n@@@\r\n"},
		"several lines": {"@a\nAC\nGT\n+\n@I\n@@\n", "@b\nA\nC\n+\n@\n@\n"},
	} {
		t.Run(name, func(t *testing.T) {
			text := strings.Join(records, "")
			good := borders(records)
			for cut := range len(text) + 1 {
				got, _, err := readAll(strings.NewReader(text[:cut]), Options{})
				want, isBorder := good[cut]
				switch {
				case cut == 0:
					if !errors.Is(err, ErrNoRecords) {
						t.Errorf("nothing: %v", err)
					}
				case isBorder && (err != nil || len(got) != want):
					t.Errorf("%q: %d records and error %v, want %d", text[:cut], len(got), err, want)
				case !isBorder && !errors.Is(err, ErrTruncated):
					t.Errorf("%q: %d records and error %v, want %v", text[:cut], len(got), err, ErrTruncated)
				}
			}
		})
	}
}

// TestFASTACutAnywhereLosesOnlyItsEnd checks a FASTA text that is truncated at any byte, which cannot be detected. All
// records except the last one must be unchanged, and the last one must have a beginning of its letters.
func TestFASTACutAnywhereLosesOnlyItsEnd(t *testing.T) {
	text := ">a x\nACGT\nAC\n>b\nGGC\n>c\nACGT\n"
	whole, _, err := readAll(strings.NewReader(text), Options{Alphabet: DNA})
	if err != nil {
		t.Fatal(err)
	}
	for cut := 1; cut <= len(text); cut++ {
		got, _, err := readAll(strings.NewReader(text[:cut]), Options{Alphabet: DNA})
		if err != nil && !errors.Is(err, ErrBadRecord) {
			t.Errorf("%q: %v", text[:cut], err)
		}
		if begun := strings.Count(text[:cut], ">"); err == nil && len(got) != begun || err != nil && len(got) != begun-1 {
			t.Errorf("%q: %d records and error %v", text[:cut], len(got), err)
		}
		for i, record := range got {
			if i < len(got)-1 && !reflect.DeepEqual(record, whole[i]) || !bytes.HasPrefix(whole[i].Seq, record.Seq) {
				t.Errorf("%q: record %d is %+v", text[:cut], i, record)
			}
		}
	}
}
