package tokenizer

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
)

// agree checks that t gives the same ids for seq as ref, the plain implementation, and that t counts as many unknown
// letters as ref has unknown tokens.
func agree(tb testing.TB, t *BPE, ref *reference, seq []byte) {
	tb.Helper()
	got, unknown := t.Append(nil, seq)
	want := ref.encode(seq)
	if !slices.Equal(got, want) {
		at := 0
		for at < min(len(got), len(want)) && got[at] == want[at] {
			at++
		}
		tb.Fatalf("%.200q of %d letters, window %d, overlap %d: token %d differs: %v, want %v",
			seq, len(seq), t.window, t.overlap, at, got[at:min(at+5, len(got))], want[at:min(at+5, len(want))])
	}
	wantUnknown := 0
	for _, id := range want {
		if id == ref.ids["[UNK]"] {
			wantUnknown++
		}
	}
	if unknown != wantUnknown {
		tb.Fatalf("%.200q: %d unknown letters, want %d", seq, unknown, wantUnknown)
	}
}

func TestHuggingFaceCases(t *testing.T) {
	bpe := dnabert2(t)
	text, err := os.ReadFile(sharedFile(t, "tokenizer", "dnabert2_tokens_ref.json"))
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		SHA256 string `json:"tokenizer_sha256"`
		Cases  []struct {
			ID, Seq string
			IDs     []int32
		}
	}
	// The fields ID, Seq and IDs need no tags, because package json ignores the case of field names.
	if err := json.Unmarshal(text, &file); err != nil {
		t.Fatal(err)
	}
	if len(file.Cases) != 343 {
		t.Errorf("%d cases, want 343", len(file.Cases))
	}
	if bpe.SHA256() != file.SHA256 {
		t.Errorf("digest %s, want %s", bpe.SHA256(), file.SHA256)
	}
	for i, c := range file.Cases {
		if got, _ := bpe.Append(nil, []byte(c.Seq)); !slices.Equal(got, c.IDs) {
			t.Errorf("case %d, %s: %v, want %v", i, c.ID, got, c.IDs)
		}
	}
}

// TestLargeVocabulariesMatchReference checks that BPE gives the same ids as the plain implementation in the type
// reference, with the synthetic vocabulary and with that of DNABERT-2. The sequences are random or repetitive; some
// have letters that are not in the vocabulary, and some are so long that BPE merges them in several windows.
func TestLargeVocabulariesMatchReference(t *testing.T) {
	if testing.Short() {
		t.Skip("one goroutine, and slow under the race detector and on emulators")
	}
	for _, vocabulary := range []struct {
		name string
		file func(t *testing.T) []byte
	}{
		{"synthetic", func(*testing.T) []byte { return SyntheticDNAFile() }},
		{"dnabert2", func(t *testing.T) []byte {
			file, err := os.ReadFile(sharedFile(t, "tokenizer", "dnabert2_tokenizer.json"))
			if err != nil {
				t.Fatal(err)
			}
			return file
		}},
	} {
		t.Run(vocabulary.name, func(t *testing.T) {
			file := vocabulary.file(t)
			bpe, err := ParseBPE(file)
			if err != nil {
				t.Fatal(err)
			}
			ref := referenceOf(t, file)
			rng := rand.New(rand.NewPCG(1, 2))
			for range 150 {
				agree(t, bpe, ref, randomSequence(rng, "ACGT", rng.IntN(200)))
				agree(t, bpe, ref, randomSequence(rng, "ACGTACGTACGTN", rng.IntN(400)))
			}
			for range 5 {
				agree(t, bpe, ref, randomSequence(rng, "ACGT", 2*windowLetters+rng.IntN(2*windowLetters)))
			}
			for _, unit := range []string{"A", "C", "T", "AT", "CA", "AAT", "ACG", "CAG", "TTTTA", "GATTACA"} {
				agree(t, bpe, ref, bytes.Repeat([]byte(unit), (2*windowLetters+rng.IntN(100))/len(unit)))
			}
			for bpe.window = 1; bpe.window < 100; bpe.window += 7 {
				bpe.overlap = 1
				agree(t, bpe, ref, randomSequence(rng, "ACGT", rng.IntN(1000)))
			}
		})
	}
}

// TestRandomVocabulariesMatchReference checks BPE with random vocabularies. If a merge comes before a merge that
// produces one of its halves, the vocabulary must be refused. With any other vocabulary, BPE must give the same ids as
// the plain implementation in the type reference, even if it merges in windows of a few letters.
func TestRandomVocabulariesMatchReference(t *testing.T) {
	if testing.Short() {
		t.Skip("one goroutine, and slow under the race detector and on emulators")
	}
	inOrder, outOfOrder := 0, 0
	for seed := range uint64(600) {
		rng := rand.New(rand.NewPCG(seed, 3))
		alphabet := []string{"A", "AB", "ABC", "ACGT", "AB-*"}[rng.IntN(5)]
		size := 1 + rng.IntN(60)
		if seed%10 == 0 {
			size += 200 // more ranks than one 64-bit word of merger.waiting can hold
		}
		file, ordered := randomVocabulary(rng, alphabet, size)
		bpe, err := ParseBPE(file)
		if !ordered {
			if outOfOrder++; !errors.Is(err, ErrUnsupported) || !strings.Contains(err.Error(), "model.merges[") {
				t.Fatalf("seed %d: unordered merges return %v", seed, err)
			}
			continue
		}
		if inOrder++; err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		ref := referenceOf(t, file)
		for range 10 {
			if rng.IntN(2) == 0 {
				bpe.window, bpe.overlap = 1+rng.IntN(40), 1+rng.IntN(3)
			} else {
				bpe.window, bpe.overlap = windowLetters, overlapTokens
			}
			agree(t, bpe, ref, randomSequence(rng, alphabet+alphabet+alphabet+"N ", rng.IntN(150)))
			agree(t, bpe, ref, randomSequence(rng, alphabet, rng.IntN(300)))
		}
	}
	if inOrder < 50 || outOfOrder < 50 {
		t.Errorf("%d vocabularies are ordered and %d are not: one case is hardly tested", inOrder, outOfOrder)
	}
}

func FuzzBPE(f *testing.F) {
	f.Add(uint64(1), []byte("ABABABBA"), byte(3))
	f.Add(uint64(7), []byte("AAAAAAAAAAAAAAAAAAAAAAAAAAA"), byte(1))
	f.Add(uint64(42), []byte("AB-A*B N\xc2\xa0B\xff\xe2\x82"), byte(100))
	f.Fuzz(func(t *testing.T, seed uint64, seq []byte, window byte) {
		rng := rand.New(rand.NewPCG(seed, 5))
		file, ordered := randomVocabulary(rng, []string{"AB", "ABC", "AB-"}[rng.IntN(3)], 1+rng.IntN(40))
		bpe, err := ParseBPE(file)
		if !ordered && errors.Is(err, ErrUnsupported) {
			return
		}
		if err != nil || !ordered {
			t.Fatalf("in order: %t, error: %v", ordered, err)
		}
		bpe.window, bpe.overlap = 1+int(window), 1
		for i, letter := range seq {
			if letter >= 0x80 {
				seq[i] = 'A' + letter%2
			}
		}
		agree(t, bpe, referenceOf(t, file), seq)
	})
}

// TestBeyondLetters checks how BPE tokenizes characters that do not occur in DNA. White space separates words.
// Punctuation forms words of its own. A character outside the vocabulary is one unknown token, however many bytes it
// has in UTF-8.
func TestBeyondLetters(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	bpe, err := ParseBPE(tokenizerFile(rng, []string{"A", "-", "AA", "A-", "--"}, [][2]string{{"A", "-"}, {"A", "A"}, {"-", "-"}}))
	if err != nil {
		t.Fatal(err)
	}
	name := map[int32]string{}
	for _, entry := range []string{"A", "-", "AA", "--"} {
		ids, _ := bpe.Append(nil, []byte(entry))
		name[ids[1]] = entry
	}
	name[bpe.unknown] = "?"
	for _, c := range []struct {
		seq, want string
		unknown   int
	}{
		{"", "", 0},
		{"AAA", "AA A", 0},
		{"A A", "A A", 0},
		{"A\t\n\v\f\rA", "A A", 0},
		{"A-A", "A - A", 0},
		{"AA--A", "AA -- A", 0},
		{"ANNA", "A ? ? A", 2},
		{"aA", "? A", 1},
		{"A.A", "A ? A", 1},
		{"AéA", "A ? A", 1},
		{"A€😀A", "A ? ? A", 2},
		{"A\u00a0\u3000A", "A A", 0},
		{"A\xff\xfeA", "A ? ? A", 2},
		{"\xe2\x82", "? ?", 2},
		{"A\x00A", "A ? A", 1},
		{"[CLS]", "? ? ? ? ?", 5},
	} {
		ids, unknown := bpe.Append(nil, []byte(c.seq))
		var got []string
		for _, id := range ids[1 : len(ids)-1] {
			got = append(got, name[id])
		}
		if strings.Join(got, " ") != c.want || unknown != c.unknown {
			t.Errorf("%q: %v, %d unknown, want %s, %d", c.seq, got, unknown, c.want, c.unknown)
		}
	}
}

func TestAppendKeepsWhatIsThere(t *testing.T) {
	for _, tokenizer := range []Tokenizer{SyntheticDNA(), newTestLetters()} {
		alone, _ := tokenizer.Append(nil, []byte("ACGTNACGT"))
		after, _ := tokenizer.Append([]int32{-7, -8}, []byte("ACGTNACGT"))
		if !slices.Equal(after, append([]int32{-7, -8}, alone...)) {
			t.Errorf("%T: %v after two ids, %v alone", tokenizer, after, alone)
		}
	}
}

func TestConcurrentUse(t *testing.T) {
	bpe := SyntheticDNA()
	rng := rand.New(rand.NewPCG(9, 9))
	seqs := make([][]byte, 20)
	want := make([][]int32, len(seqs))
	for i := range seqs {
		seqs[i] = randomLetters(rng, "ACGTN", 1+rng.IntN(3*windowLetters))
		want[i], _ = bpe.Append(nil, seqs[i])
	}
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			for i, seq := range seqs {
				if got, _ := bpe.Append(nil, seq); !slices.Equal(got, want[i]) {
					t.Errorf("sequence %d: ids differ from those of a separate encoding", i)
				}
			}
		})
	}
	group.Wait()
}

// TestNoAllocation checks that merging allocates nothing. It uses a merger of its own, because a sync.Pool may drop its
// content at any time.
func TestNoAllocation(t *testing.T) {
	bpe := SyntheticDNA()
	m := newMerger(bpe.rules)
	rng := rand.New(rand.NewPCG(4, 4))
	for _, length := range []int{1, 150, 10 * windowLetters} {
		seq := randomLetters(rng, "ACGT", length)
		ids := bpe.appendWord(m, nil, seq)
		if n := testing.AllocsPerRun(5, func() { ids = bpe.appendWord(m, ids[:0], seq) }); n != 0 {
			t.Errorf("%d letters: %v allocations", length, n)
		}
	}
}

func ExampleBPE() {
	ids, unknown := SyntheticDNA().Append(nil, []byte("GATTACANNGATTACA"))
	fmt.Println(len(ids), unknown)
	// Output: 8 2
}
