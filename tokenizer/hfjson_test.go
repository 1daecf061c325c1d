package tokenizer

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math/bits"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

// smallFile is a complete tokenizer.json in the form that the Hugging Face library writes.
const smallFile = `{
  "version": "1.0",
  "truncation": {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0},
  "padding": {"strategy": {"Fixed": 512}, "direction": "Right", "pad_to_multiple_of": null, "pad_id": 3, "pad_type_id": 0, "pad_token": "[PAD]"},
  "added_tokens": [
    {"id": 0, "special": true, "content": "[UNK]", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false}
  ],
  "normalizer": null,
  "pre_tokenizer": {"type": "Whitespace"},
  "post_processor": {
    "type": "TemplateProcessing",
    "single": [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "[SEP]", "type_id": 0}}],
    "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
    "special_tokens": {
      "[CLS]": {"id": "[CLS]", "ids": [1], "tokens": ["[CLS]"]},
      "[SEP]": {"id": "[SEP]", "ids": [2], "tokens": ["[SEP]"]}
    }
  },
  "decoder": null,
  "model": {
    "type": "BPE", "dropout": null, "unk_token": "[UNK]", "continuing_subword_prefix": null, "end_of_word_suffix": null, "fuse_unk": false,
    "vocab": {"[UNK]": 0, "[CLS]": 1, "[SEP]": 2, "A": 3, "C": 4, "AC": 5, "ACAC": 6},
    "merges": ["A C", "AC AC"]
  }
}`

// edited returns smallFile with the text old replaced by replacement.
func edited(tb testing.TB, old, replacement string) []byte {
	tb.Helper()
	if !strings.Contains(smallFile, old) {
		tb.Fatalf("smallFile does not contain %q", old)
	}
	return []byte(strings.Replace(smallFile, old, replacement, 1))
}

func TestParseBPE(t *testing.T) {
	for name, file := range map[string][]byte{
		"as it is":           []byte(smallFile),
		"merges as pairs":    edited(t, `["A C", "AC AC"]`, `[["A", "C"], ["AC", "AC"]]`),
		"newer settings off": edited(t, `"fuse_unk": false`, `"fuse_unk": false, "byte_fallback": false, "ignore_merges": false`),
		"neutral settings":   edited(t, `"dropout": null, "unk_token": "[UNK]", "continuing_subword_prefix": null`, `"dropout": 0.0, "unk_token": "[UNK]", "continuing_subword_prefix": ""`),
		"no truncation":      edited(t, `"truncation": {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0},`, ``),
	} {
		bpe, err := ParseBPE(file)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		ids, unknown := bpe.Append(nil, []byte("ACACACTA"))
		if want := []int32{1, 6, 5, 0, 3, 2}; !slices.Equal(ids, want) || unknown != 1 {
			t.Errorf("%s: %v, %d unknown, want %v, 1", name, ids, unknown, want)
		}
		digest := sha256.Sum256(file)
		if bpe.VocabSize() != 7 || bpe.SHA256() != hex.EncodeToString(digest[:]) {
			t.Errorf("%s: %d entries, digest %s", name, bpe.VocabSize(), bpe.SHA256())
		}
	}
}

func TestSeveralSpecialTokens(t *testing.T) {
	file := edited(t, `{"SpecialToken": {"id": "[SEP]", "type_id": 0}}]`, `{"SpecialToken": {"id": "[SEP]", "type_id": 0}}, {"SpecialToken": {"id": "[CLS]", "type_id": 0}}]`)
	bpe, err := ParseBPE(file)
	if err != nil {
		t.Fatal(err)
	}
	if ids, _ := bpe.Append(nil, []byte("C")); !slices.Equal(ids, []int32{1, 4, 2, 1}) {
		t.Errorf("ids %v, want [1 4 2 1]", ids)
	}
}

// TestUnsupportedSettings checks that ParseBPE refuses settings that it does not implement and that would change the
// ids. The error must name the setting.
func TestUnsupportedSettings(t *testing.T) {
	for _, c := range []struct{ old, replacement, want string }{
		{`"version": "1.0"`, `"version": "2.0"`, "version"},
		{`"normalizer": null`, `"normalizer": {"type": "Lowercase"}`, "normalizer"},
		{`{"type": "Whitespace"}`, `{"type": "ByteLevel", "add_prefix_space": true}`, "pre_tokenizer.type"},
		{`{"type": "Whitespace"}`, `{"type": "Whitespace", "invert": true}`, "pre_tokenizer.invert"},
		{`"TemplateProcessing"`, `"RobertaProcessing"`, "post_processor.type"},
		{`"type": "TemplateProcessing"`, `"type": "TemplateProcessing", "trim_offsets": true`, "post_processor.trim_offsets"},
		{`{"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken"`, `{"SpecialToken"`, "post_processor.single has 0"},
		{`{"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken"`, `{"Sequence": {"id": "B", "type_id": 0}}, {"SpecialToken"`, "post_processor.single[1]"},
		{`{"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken"`, `{"Sequence": {"id": "A", "type_id": 1}}, {"SpecialToken"`, "post_processor.single[1]"},
		{`{"id": "[SEP]", "type_id": 0}`, `{"id": "[SEP]", "type_id": 1}`, "post_processor.single[2]"},
		{`"single": [{"SpecialToken"`, `"single": [{"Other"`, "post_processor.single[0]"},
		{`"type": "BPE"`, `"type": "WordPiece"`, "model.type"},
		{`"type": "BPE", `, ``, "model.type"},
		{`"dropout": null`, `"dropout": 0.1`, "model.dropout"},
		{`"continuing_subword_prefix": null`, `"continuing_subword_prefix": "##"`, "model.continuing_subword_prefix"},
		{`"end_of_word_suffix": null`, `"end_of_word_suffix": "</w>"`, "model.end_of_word_suffix"},
		{`"fuse_unk": false`, `"fuse_unk": true`, "model.fuse_unk"},
		{`"fuse_unk": false`, `"byte_fallback": true`, "model.byte_fallback"},
		{`"fuse_unk": false`, `"ignore_merges": true`, "model.ignore_merges"},
		{`"fuse_unk": false`, `"novelty": 1`, "model.novelty"},
		{`"decoder": null`, `"novelty": 1`, "novelty"},
		{`"id": 0, "special": true`, `"id": 1, "special": true`, `added token "[UNK]" with id 1`},
		{`"content": "[UNK]"`, `"content": "[NEW]"`, `added token "[NEW]"`},
		{`"id": 0, "special": true, "content": "[UNK]"`, `"id": 5, "special": true, "content": "AC"`, `added token "AC"`},
		{`"A C", "AC AC"`, `"A C", "AC AC", "[UNK] A"`, "model.merges[2]"},
		{`"ACAC": 6`, `"ACAC": 6, "é": 7`, `"é"`},
	} {
		_, err := ParseBPE(edited(t, c.old, c.replacement))
		if !errors.Is(err, ErrUnsupported) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s instead of %s: %v, want one that names %s", c.replacement, c.old, err, c.want)
		}
	}
}

func TestBrokenFiles(t *testing.T) {
	for _, c := range []struct{ old, replacement, want string }{
		{"]\n  }\n}", "]\n  }\n", "cut short"},
		{`"model": {`, `"modell": {`, "not a tokenizer.json"},
		{`"pre_tokenizer": {"type": "Whitespace"}`, `"pre_tokenizer": null`, "pre_tokenizer is missing"},
		{`"post_processor"`, `"post"`, "post_processor is missing"},
		{`"vocab"`, `"decoder_vocab"`, "model.decoder_vocab"},
		{`"unk_token": "[UNK]"`, `"unk_token": null`, "model.unk_token is missing"},
		{`"unk_token": "[UNK]"`, `"unk_token": "[unk]"`, `model.unk_token "[unk]" is not in`},
		{`"ids": [1]`, `"ids": []`, "no id for"},
		{`"ids": [1]`, `"ids": [7]`, "id 7 of"},
		{`"ids": [1]`, `"ids": [-1]`, "id -1 of"},
		{`"single": [{"SpecialToken": {"id": "[CLS]"`, `"single": [{"SpecialToken": {"id": "[BOS]"`, `no id for "[BOS]"`},
		{`"AC": 5`, `"AC": 7`, `id 7 of "AC" is outside`},
		{`"AC": 5`, `"AC": -1`, `id -1 of "AC" is outside`},
		{`"AC": 5`, `"AC": 4`, `id 4 is both "AC" and "C"`},
		{`"AC": 5`, `"": 5`, "the entry with id 5 is empty"},
		{`"AC": 5`, `"AC": 5.5`, "model.vocab: json:"},
		{`"AC": 5`, `"AC": 99999999999999999999`, "model.vocab: json:"},
		{`"A C", "AC AC"`, `"A C", "AC"`, "model.merges: merge \"AC\" does not consist of two parts"},
		{`"A C", "AC AC"`, `"A C", "A C A"`, "model.merges: merge \"A C A\" does not consist of two parts"},
		{`"A C", "AC AC"`, `["A", "C", "A"]`, "model.merges: a merge has 3 parts"},
		{`"A C", "AC AC"`, `"A C", 3`, "model.merges: json:"},
		{`"A C", "AC AC"`, `"A C", "G AC"`, `model.merges[1]: "G" is not in model.vocab`},
		{`"A C", "AC AC"`, `"A C", "A A"`, `model.merges[1]: its result "AA" is not in model.vocab`},
		{`"A C", "AC AC"`, `"A C", "A "`, `model.merges[1]: "" is not in model.vocab`},
		{`"A C", "AC AC"`, `"A C", "AC AC", "A C"`, `model.merges[2] repeats merge 0, "A C"`},
	} {
		_, err := ParseBPE(edited(t, c.old, c.replacement))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%.60q instead of %.60q: %v, want %q", c.replacement, c.old, err, c.want)
		}
	}
}

// TestTooLarge checks that ParseBPE refuses files that would take too much time or memory, and does so quickly.
func TestTooLarge(t *testing.T) {
	if testing.Short() {
		t.Skip("one goroutine, and slow under the race detector and on emulators")
	}
	var entries strings.Builder
	for id := 7; id <= maxVocab; id++ {
		fmt.Fprintf(&entries, `, "x%d": %d`, id, id)
	}
	special := `{"SpecialToken": {"id": "[CLS]", "type_id": 0}}, `
	for name, file := range map[string][]byte{
		"entries":        edited(t, `"ACAC": 6`, `"ACAC": 6`+entries.String()),
		"letters":        edited(t, `"ACAC": 6`, `"ACAC": 6, "`+strings.Repeat("A", maxWidth+1)+`": 7`),
		"special tokens": edited(t, special, strings.Repeat(special, 100_000)),
		"equal hashes":   colliding(t),
		"bytes":          append([]byte(smallFile), bytes.Repeat([]byte(" "), maxFileBytes)...),
	} {
		start := time.Now()
		if _, err := ParseBPE(file); !errors.Is(err, ErrTooLarge) {
			t.Errorf("too many %s: %v, want ErrTooLarge", name, err)
		}
		if d := time.Since(start); d > 20*time.Second {
			t.Errorf("too many %s: refused after %v", name, d)
		}
	}
}

// colliding returns a tokenizer.json with many merges that all have one of only two hashes. Searching for the last of
// them in the hash table would take more than maxProbes steps.
func colliding(t *testing.T) []byte {
	const halves, want = 4000, 2 * maxProbes
	entries := []string{}
	for i := range halves {
		entries = append(entries, fmt.Sprintf("h%dx", i))
	}
	r := &rules{shift: 32 - uint(bits.Len(want*4|15)), slots: make([]slot, 1<<bits.Len(want*4|15))}
	var merges []string
	for left := range halves {
		for right := range halves {
			if len(merges) < want && r.home(uint32(7+left)<<16|uint32(7+right)) < 2 {
				merges = append(merges, entries[left]+" "+entries[right])
			}
		}
	}
	if len(merges) < want {
		t.Fatalf("%d merges", len(merges))
	}
	for _, m := range merges {
		entries = append(entries, strings.Replace(m, " ", "", 1))
	}
	var vocab strings.Builder
	for i, entry := range entries {
		fmt.Fprintf(&vocab, `, "%s": %d`, entry, 7+i)
	}
	text, err := json.Marshal(merges)
	if err != nil {
		t.Fatal(err)
	}
	file := strings.Replace(smallFile, `"ACAC": 6`, `"ACAC": 6`+vocab.String(), 1)
	return []byte(strings.Replace(file, `["A C", "AC AC"]`, string(text), 1))
}

// TestOtherFiles checks that the error for a file that is not a tokenizer.json shows how the file begins, or says that
// it is cut short.
func TestOtherFiles(t *testing.T) {
	for content, want := range map[string]string{
		`{"error":"Invalid username or password."}`: `begins with "{\"error\":\"Invalid username`,
		"Entry not found": `begins with "Entry not found"`,
		smallFile[:300]:   "cut short",
		"[]":              `begins with "[]"`,
		"":                `begins with ""`,
	} {
		if _, err := ParseBPE([]byte(content)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.20q: %v, want %s", content, err, want)
		}
	}
}

// FuzzParseBPE checks that no input makes ParseBPE panic or take too much memory or time. A tokenizer that ParseBPE
// returns must give ids of its vocabulary, and the same ids if it merges in windows of two letters.
func FuzzParseBPE(f *testing.F) {
	f.Add([]byte(smallFile), []byte("ACACNAC-A C"))
	f.Add(edited(f, `["A C", "AC AC"]`, `[["A", "C"], ["AC", "AC"]]`), []byte("ACACAC"))
	f.Add(edited(f, `"A C", "AC AC"`, `"AC AC", "A C"`), []byte("ACACAC"))
	doubling := []string{"A"}
	var merges [][2]string
	for n := 1; n < maxWidth; n *= 2 {
		half := strings.Repeat("A", n)
		doubling, merges = append(doubling, half+half), append(merges, [2]string{half, half})
	}
	if !testing.Short() { // takes five seconds under the race detector
		f.Add(tokenizerFile(rand.New(rand.NewPCG(1, 2)), doubling, merges), bytes.Repeat([]byte("A"), 100_001))
	}
	f.Add([]byte(`{"model": {"type": "BPE", "vocab": {}, "merges": [""]}}`), []byte("A"))
	f.Fuzz(func(t *testing.T, file, seq []byte) {
		// A small file must not take much memory: at most 1 MiB plus 1 KiB for each byte of the file.
		var before, after runtime.MemStats
		start := time.Now()
		runtime.ReadMemStats(&before)
		bpe, err := ParseBPE(file)
		runtime.ReadMemStats(&after)
		if got := after.TotalAlloc - before.TotalAlloc; got > 1<<20+1<<10*uint64(len(file)) {
			t.Errorf("%d bytes are allocated for a file of %d", got, len(file))
		}
		if err != nil {
			return
		}
		ids, unknown := bpe.Append(nil, seq)
		if d := time.Since(start); d > 20*time.Second {
			t.Errorf("a file of %d bytes and a sequence of %d take %v", len(file), len(seq), d)
		}
		if unknown < 0 || unknown > len(seq) {
			t.Errorf("%d unknown of %d letters", unknown, len(seq))
		}
		for _, id := range ids {
			if id < 0 || int(id) >= bpe.VocabSize() {
				t.Errorf("id %d of %d", id, bpe.VocabSize())
			}
		}
		bpe.window, bpe.overlap = 2, 1
		if again, _ := bpe.Append(nil, seq); !slices.Equal(again, ids) {
			t.Errorf("%v in windows of two letters, %v at once", again, ids)
		}
	})
}

func BenchmarkParseBPE(b *testing.B) {
	file := dnabert2File(b)
	for b.Loop() {
		if _, err := ParseBPE(file); err != nil {
			b.Fatal(err)
		}
	}
}
