package seqio

import (
	"bytes"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
)

// fastx parses a FASTQ record anew at every line that begins with '@', which takes quadratic time in a long record. So
// no line but a header may reach it with that letter, and nothing else may change.
func TestOnlyHeadersReachTheParserWithAnAt(t *testing.T) {
	for seed := range uint64(200) {
		text, records, _ := writeRecords(rand.New(rand.NewPCG(seed, 2)), true)
		passed, err := io.ReadAll(newWatcher(strings.NewReader(text), "in"))
		if err != nil {
			t.Fatal(err)
		}
		if n := bytes.Count(append([]byte("\n"), passed...), []byte("\n@")); n != len(records) {
			t.Errorf("%d lines begin with @ in %q, want %d", n, passed, len(records))
		}
		unix := strings.ReplaceAll(text, "\r\n", "\n")
		if len(passed) != len(unix) {
			t.Fatalf("%d bytes passed of %d", len(passed), len(unix))
		}
		for i := range passed {
			if passed[i] != unix[i] && (unix[i] != '@' || unix[i-1] != '\n') {
				t.Errorf("byte %d of %q became %q", i, unix, passed[i])
			}
		}
	}
}

func TestWatcherKeepsNoMarksOfRecordsTaken(t *testing.T) {
	w := newWatcher(strings.NewReader(strings.Repeat(">a\nA\n", 100_000)), "in")
	buf := make([]byte, 50)
	for most := 0; ; {
		_, err := w.Read(buf)
		most = max(most, len(w.done))
		for ok := true; ok; {
			_, ok = w.take()
		}
		if most > len(buf) {
			t.Fatalf("%d marks for %d bytes", most, len(buf))
		}
		if err == io.EOF {
			return
		}
	}
}
