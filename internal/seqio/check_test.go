package seqio

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestCheckNamesAllBadRecords(t *testing.T) {
	errLong := errors.New("too long")
	visit := func(r Record) error {
		if len(r.Seq) > 8 {
			return &FormatError{File: "in", Record: r.ID, Line: r.Line, Msg: "too long", Err: errLong}
		}
		return nil
	}
	var many strings.Builder
	for i := range 30 {
		fmt.Fprintf(&many, ">r%d\nM1\n", i)
	}
	protein := Options{Alphabet: Protein}
	for _, tt := range []struct {
		name, text string
		options    Options
		want       string
		kinds      []error
	}{
		{"nothing bad", ">a\nMKV\n>b\nMKL\n", protein, "", nil},
		{"one", ">a\nMKV\n>b\nM1\n", protein, `PATH:3: record "b": letter 2: "1" is not a letter of the protein alphabet`, []error{ErrBadRecord}},
		{"several", ">a\nMKV\n>b\nM-\n>\nMKL\n>c\n\n>a\nM\n>d\nMKVLAAGWQ\n>e\nM\n", protein, "PATH: 5 bad records: " +
			`line 3: record "b": letter 2: "-" is a gap; line 5: a header without an id; line 7: record "c": no sequence; ` +
			`line 9: record "a": the record on line 1 has the same id; in:11: record "d": too long`, []error{ErrGap, ErrBadRecord, ErrDuplicateID, errLong}},
		{"cut short as well", "@a\nA1\n+\nII\n@b\nAC\n+\nI", Options{}, "PATH: 2 bad records: " +
			`line 1: record "a": letter 2: "1" is not a letter of the DNA alphabet; ` +
			`line 5: record "b": the input ends inside this record, after 1 quality values for 2 letters`, []error{ErrBadRecord, ErrTruncated}},
		{"skipped ones are not named", ">a\nMKV\n>b\nM1\n>a\nM\n", Options{Alphabet: Protein, OnBad: BadSkip},
			`PATH:5: record "a": the record on line 1 has the same id`, []error{ErrDuplicateID}},
		{"no sequences", "<html>", Options{}, `PATH:1: this is not FASTA or FASTQ: it starts with "<html>"`, []error{ErrNotSequences}},
	} {
		path := filepath.Join(t.TempDir(), "in")
		if err := os.WriteFile(path, []byte(tt.text), 0o666); err != nil {
			t.Fatal(err)
		}
		err := Check(t.Context(), path, tt.options, visit)
		if tt.want == "" {
			if err != nil {
				t.Errorf("%s: %v", tt.name, err)
			}
			continue
		}
		if err == nil || strings.ReplaceAll(err.Error(), path, "PATH") != tt.want {
			t.Errorf("%s: the error is\n%v\nwant\n%s", tt.name, err, tt.want)
		}
		for _, kind := range tt.kinds {
			if !errors.Is(err, kind) {
				t.Errorf("%s: %v is no %v", tt.name, err, kind)
			}
		}
	}

	path := filepath.Join(t.TempDir(), "many")
	if err := os.WriteFile(path, []byte(many.String()), 0o666); err != nil {
		t.Fatal(err)
	}
	err := Check(t.Context(), path, protein, visit)
	if err == nil || !strings.HasPrefix(err.Error(), path+": 30 bad records: line 1: ") || !strings.HasSuffix(err.Error(), "; and 20 more") {
		t.Errorf("the error is %v", err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := Check(ended, path, protein, visit); err != nil {
		t.Errorf("when the context has ended: %v", err)
	}
}
