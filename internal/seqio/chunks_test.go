package seqio

import (
	"bytes"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
)

func TestChunksReturnWhatWasAdded(t *testing.T) {
	const size = len(chunk{})
	rng := rand.New(rand.NewPCG(1, 1))
	var c chunks
	for _, lengths := range [][]int{
		nil, {0}, {1}, {size - 1, 1}, {size}, {size, 0}, {size, 1}, {1, size}, {size - 1, 2}, {3 * size},
		{5, 3*size - 5, 7}, {2},
	} {
		var want []byte
		for _, n := range lengths {
			piece := randomLetters(rng, "ACGT", n)
			want = append(want, piece...)
			c.add(piece)
		}
		if c.len != len(want) {
			t.Errorf("%v: %d bytes counted, want %d", lengths, c.len, len(want))
		}
		got := c.take()
		if !bytes.Equal(got, want) || cap(got) != len(got) {
			t.Errorf("%v: %d bytes came back with room for %d, want %d", lengths, len(got), cap(got), len(want))
		}
		if c.len != 0 || len(c.parts) > 1 {
			t.Errorf("%v: %d bytes and %d chunks are left", lengths, c.len, len(c.parts))
		}
	}
}

// TestSequencesCanBeAppendedTo checks that appending to a sequence does not change another sequence in the same memory
// block.
func TestSequencesCanBeAppendedTo(t *testing.T) {
	records, _, err := readAll(strings.NewReader(">a\nAC\n>b\nGG\n>c\nTTT\n"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	for i := range records {
		records[i].Seq = append(records[i].Seq, "NNNN"...)
	}
	want := []string{"1 0 a||ACNNNN", "3 1 b||GGNNNN", "5 2 c||TTTNNNN"}
	if got := summary(records); !reflect.DeepEqual(got, want) {
		t.Errorf("they became %q, want %q", got, want)
	}
}

// TestLargeRecordsAllocateTwiceTheirSizeAtMost checks that reading a large record allocates at most 2.25 times its
// size. A buffer that is copied when it grows would take more.
func TestLargeRecordsAllocateTwiceTheirSizeAtMost(t *testing.T) {
	if testing.Short() {
		t.Skip("one goroutine, and slow under the race detector and on emulators")
	}
	const size = 8 << 20
	text := ">a\n" + strings.Repeat(strings.Repeat("ACGT", 15)+"\n", size/60)
	result := testing.Benchmark(func(b *testing.B) {
		for b.Loop() {
			if _, _, err := readAll(strings.NewReader(text), Options{}); err != nil {
				b.Fatal(err)
			}
		}
	})
	if got := result.AllocedBytesPerOp(); got > 2*size+size/4 {
		t.Errorf("a record of %d letters took %d bytes", size, got)
	}
	t.Logf("%d bytes for %d letters", result.AllocedBytesPerOp(), size)
}
