package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestCutKeepsEveryLetter(t *testing.T) {
	seq := []byte(strings.Repeat("ACGTTGCA", 40))
	for _, size := range []int{0, 1, 7, 160, 319, 320, 321} {
		pieces := cut(seq, size)
		if got := bytes.Join(pieces, nil); !bytes.Equal(got, seq) {
			t.Errorf("pieces of %d join to %d letters, not %d", size, len(got), len(seq))
		}
		for _, p := range pieces {
			if len(p) == 0 || size > 0 && len(p) > size {
				t.Errorf("a piece of %d letters, asked for %d", len(p), size)
			}
		}
	}
}

func TestPackHoldsEveryRecordOnceWithinTheBudget(t *testing.T) {
	var records [][]int32
	for n := range 40 {
		records = append(records, make([]int32, 1+n*13%57))
	}
	const budget = 50
	var seen []int
	batches, _ := pack(records, budget)
	for _, b := range batches {
		if len(b.IDs) > budget && b.Sequences() > 1 {
			t.Errorf("%d records of %d tokens together, the budget is %d", b.Sequences(), len(b.IDs), budget)
		}
		for i, record := range b.records {
			if b.Len(i) != len(records[record]) {
				t.Errorf("record %d has %d tokens in its batch, not %d", record, b.Len(i), len(records[record]))
			}
		}
		seen = append(seen, b.records...)
	}
	slices.Sort(seen)
	for i := range records {
		if i >= len(seen) || seen[i] != i {
			t.Fatalf("the batches hold the records %v", seen)
		}
	}
}

func TestFarthest(t *testing.T) {
	want := []float32{3, 4, 0, 5}
	nan := float32(math.NaN())
	for _, c := range []struct {
		got      []float32
		distance float64
	}{
		{[]float32{3, 4, 0, 5}, 0},
		{[]float32{3, 4, 3, 1}, 1},
		{[]float32{3, 3, 0, 5}, 0.2},
		{[]float32{nan, 4, 0, 5}, math.Inf(1)},
		{[]float32{3, 4}, math.Inf(1)},
	} {
		if got := farthest(c.got, want, 2); got != c.distance {
			t.Errorf("farthest(%v) = %v, not %v", c.got, got, c.distance)
		}
	}
}

// TestComparison checks the subcommands tokens, run and table with a small model. Results for the same records must
// agree, and results for other records must give an errDiffers.
func TestComparison(t *testing.T) {
	dir := t.TempDir()
	file := func(name string) string { return filepath.Join(dir, name) }
	ours := func(in string, args ...string) (string, error) {
		var out strings.Builder
		err := run(args, strings.NewReader(in), &out)
		return out.String(), err
	}
	kind, err := ours("", "tokens", "-model", "synthetic:esm2-tiny", "-input", "../../../testdata/proteins.faa", "-out", file("ids"), "-records", "4")
	if err != nil || kind != "esm2\n" {
		t.Fatalf("tokens: %q, %v", kind, err)
	}
	measure := func(ids, name, in string, args ...string) {
		t.Helper()
		args = append([]string{"run", "-model", "synthetic:esm2-tiny", "-input", ids, "-out", file(name + ".f32")}, args...)
		out, err := ours(in, args...)
		if err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(strings.TrimSpace(out), "\n")
		if in != "" && (len(lines) != 4 || lines[0] != "ready") {
			t.Fatalf("two steps print\n%s", out)
		}
		if err := os.WriteFile(file(name+".json"), []byte(lines[len(lines)-1]), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	measure(file("ids"), "a", "\n\n", "-step")
	measure(file("ids"), "b", "", "-rounds", "1", "-tokens", "100")
	out, err := ours("", "table", file("a.json"), file("b.json"))
	if err != nil || !strings.Contains(out, "4 records") {
		t.Errorf("the same records compared: %v\n%s", err, out)
	}

	records, err := os.ReadFile(file("ids"))
	if err != nil {
		t.Fatal(err)
	}
	changed := bytes.Replace(records, []byte("0 "), []byte("0 31 "), 1)
	if err := os.WriteFile(file("others"), changed, 0o644); err != nil {
		t.Fatal(err)
	}
	measure(file("others"), "c", "", "-rounds", "1")
	if _, err := ours("", "table", file("a.json"), file("c.json")); !errors.Is(err, errDiffers) {
		t.Errorf("other records compared: %v", err)
	}
}

// TestPrecisionIsNotADifference checks that table prints the distances of embeddings in bfloat16, and that these may
// exceed the limit for float32.
func TestPrecisionIsNotADifference(t *testing.T) {
	dir := t.TempDir()
	write := func(name, dtype string, rows []float32) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := writeFloats(path+".f32", rows); err != nil {
			t.Fatal(err)
		}
		line, err := json.Marshal(summary{Runner: name, DType: dtype, Records: 2, Tokens: 4, Padded: 4, Dim: 2, Median: 1, Embeddings: path + ".f32"})
		if err == nil {
			err = os.WriteFile(path, line, 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
		return path
	}
	ours := write("ours", "fp32", []float32{3, 4, 5, 4})
	var out strings.Builder
	if err := table(&out, []string{ours, write("half", "bf16", []float32{3, 4.5, 5, 4})}, 2e-5); err != nil {
		t.Error(err)
	}
	// The mean is (4, 4): both records lie at a distance of 1 from it.
	if text := out.String(); !strings.Contains(text, "| 1.0e-01 | 5.0e-01 |") {
		t.Errorf("the distances 0.1 and 0.5 are missing in\n%s", text)
	}
	if err := table(&out, []string{ours, write("single", "fp32", []float32{3, 4.5, 5, 4})}, 2e-5); !errors.Is(err, errDiffers) {
		t.Errorf("a difference in float32: %v", err)
	}
}

func FuzzReadTokens(f *testing.F) {
	f.Add("0 4 5 2\n0 2\n")
	f.Add("0 33\n")
	f.Add("\n1")
	f.Fuzz(func(t *testing.T, text string) {
		const vocabulary = 33
		records, err := readTokens(strings.NewReader(text), vocabulary)
		if err != nil {
			return
		}
		var again bytes.Buffer
		w := bufio.NewWriter(&again)
		for _, ids := range records {
			for _, id := range ids {
				if id < 0 || id >= vocabulary {
					t.Fatalf("%q gives id %d", text, id)
				}
			}
			writeLine(w, ids)
		}
		w.Flush()
		back, err := readTokens(&again, vocabulary)
		if err != nil || !slices.EqualFunc(back, records, slices.Equal) {
			t.Fatalf("%q: %v written and read again: %v, %v", text, records, back, err)
		}
	})
}
