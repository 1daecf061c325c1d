package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"seqembed/internal/seqio"
	"seqembed/transformer"
)

// windowRow is a row of an output with the flag --windows.
type windowRow struct {
	ID           string    `parquet:"id"`
	Length       int64     `parquet:"length"`
	Tokens       int64     `parquet:"tokens"`
	RecordLength int64     `parquet:"record_length"`
	Start        int64     `parquet:"start"`
	End          int64     `parquet:"end"`
	Embedding    []float32 `parquet:"embedding,list"`
}

// TestWindowsOfEveryLength checks the windows of records of every length up to 72 letters, with several overlaps. The
// windows must cover the record. Each window must have a letter that the window before it lacks, and only the last
// window may be shorter than --max-length.
func TestWindowsOfEveryLength(t *testing.T) {
	workspace(t)
	var text strings.Builder
	letters := strings.Repeat("MKVLAGTW", 9)
	for n := 1; n <= len(letters); n++ {
		fmt.Fprintf(&text, ">%d\n%s\n", n, letters[:n])
	}
	write(t, "p.faa", text.String())
	for _, overlap := range []int{0, 1, 9, 10} {
		out := fmt.Sprint("out", overlap)
		embed(t, "--esm-model", tiny, "--long", "window", "--max-length", "20", "--overlap", fmt.Sprint(overlap), "--windows", "-o", out, "p.faa").wantCode(0)
		end := map[int64]int64{} // last letter of the last window so far, by length of the record
		for _, r := range readParquet[windowRow](t, out+"/p.esm2-tiny.parquet") {
			n := r.RecordLength
			first := max(1, end[n]-int64(overlap)+1)
			if last := min(n, first+19); r.Start != first || r.End != last || last <= end[n] {
				t.Fatalf("overlap %d, %d letters: a window from %d to %d after one to %d", overlap, n, r.Start, r.End, end[n])
			}
			end[n] = r.End
		}
		for n := int64(1); n <= int64(len(letters)); n++ {
			if end[n] != n {
				t.Errorf("overlap %d: the windows of %d letters end at %d", overlap, n, end[n])
			}
		}
	}
	embed(t, "--esm-model", tiny, "--long", "window", "--max-length", "20", "--overlap", "11", "-o", "out", "p.faa").
		wantCode(exitUsage).wantProblem("--overlap", "half", "20")
}

// TestWindows checks that with --windows each window has a row, with the embedding of its letters alone. Without
// --windows each record has one row: the mean over the tokens of all its windows. A letter in two windows then counts
// twice.
func TestWindows(t *testing.T) {
	workspace(t)
	long := proteins[2].seq // 113 letters
	write(t, "p.faa", ">three\n"+long+"\n>short\nMKV\n")
	args := []string{"--esm-model", tiny, "--long", "window", "--max-length", "50", "--overlap", "10"}
	pieces := []string{long[:50], long[40:90], long[80:]}

	embed(t, append(args, "--windows", "-o", "rows", "p.faa")...).wantCode(0)
	rows := readParquet[windowRow](t, "rows/p.esm2-tiny.parquet")
	var got []string
	for _, r := range rows {
		got = append(got, fmt.Sprint(r.ID, " ", r.Start, " ", r.End, " ", r.Length, " ", r.Tokens, " ", r.RecordLength))
	}
	if want := "three 1 50 50 52 113, three 41 90 50 52 113, three 81 113 33 35 113, short 1 3 3 5 3"; strings.Join(got, ", ") != want {
		t.Fatalf("rows %q, want %s", got, want)
	}
	sums, letters := make([]float64, len(rows[0].Embedding)), 0
	for i, piece := range pieces {
		want := reference(t, tiny, piece, transformer.Mean, 3)[0]
		if !slices.Equal(rows[i].Embedding, want) {
			t.Errorf("window %d is not the embedding of its letters", i)
		}
		letters += len(piece)
		for c, v := range want {
			sums[c] += float64(len(piece)) * float64(v)
		}
	}

	embed(t, append(args, "-o", "one", "p.faa")...).wantCode(0)
	joined := readParquet[parquetRow](t, "one/p.esm2-tiny.parquet")
	if len(joined) != 2 || joined[0].Length != 113 || joined[0].Tokens != 52+52+35 {
		t.Fatalf("one row a record: %d rows, %d letters, %d tokens", len(joined), joined[0].Length, joined[0].Tokens)
	}
	for c, v := range sums {
		if want := float32(v / float64(letters)); joined[0].Embedding[c] != want {
			t.Fatalf("value %d is %v, the mean over all windows %v", c, joined[0].Embedding[c], want)
		}
	}

	// In formats other than Parquet the id contains the position of the window.
	embed(t, append(args, "--windows", "--format", "npy", "-o", "rows", "p.faa")...).wantCode(0)
	ids, values := readNpy(t, "rows/p.esm2-tiny.npy", "rows/p.esm2-tiny.ids.txt")
	if want := []string{"three:1-50", "three:41-90", "three:81-113", "short:1-3"}; !slices.Equal(ids, want) || !slices.Equal(values[1], rows[1].Embedding) {
		t.Errorf("npy: ids %q", ids)
	}
	embed(t, append(args, "--windows", "--format", "safetensors", "--pool", "none", "-o", "tokens", "p.faa")...).wantCode(0)
	tensors, metadata := readSafetensors(t, "tokens/p.esm2-tiny.safetensors")
	var listed []string
	if err := json.Unmarshal([]byte(metadata["ids"]), &listed); err != nil || !slices.Equal(listed, ids) || len(tensors["three:41-90"]) != 52 {
		t.Errorf("safetensors: ids %q, %d tokens, %v", listed, len(tensors["three:41-90"]), err)
	}

	// Outputs with and without --windows are of different settings and must not be mixed.
	embed(t, append(args, "-o", "rows", "p.faa")...).wantCode(exitNothing).wantProblem(`long "window, overlap 10, one row a window", now "window, overlap 10"`)
}

// TestDefaultWindows checks the default maximum length of records and windows. With --long window, DNA must be divided
// too, although DNA records have no maximum length by default.
func TestDefaultWindows(t *testing.T) {
	for line, want := range map[string]string{
		"": "0 1022", "--long window": "10000 1022", "--long window --max-length 500": "500 500", "--long error": "0 1022",
	} {
		s, _, err := parse(strings.Fields(line), nil)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, a := range []seqio.Alphabet{seqio.DNA, seqio.Protein} {
			f, err := s.family(a)
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, fmt.Sprint((&model{familyFlags: f}).maxLength(s)))
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%q: %q, want %s", line, got, want)
		}
	}
}
