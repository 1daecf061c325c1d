package main

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"seqembed/internal/seqio"
	"seqembed/transformer"
)

// addTensor adds a tensor to a safetensors file.
func addTensor(t *testing.T, path, name string) {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	size := binary.LittleEndian.Uint64(content)
	header, body := map[string]any{}, content[8+size:]
	if err := json.Unmarshal(content[8:8+size], &header); err != nil {
		t.Fatal(err)
	}
	header[name] = map[string]any{"dtype": "F32", "shape": []int{1}, "data_offsets": []int{len(body), len(body) + 4}}
	text, err := json.Marshal(header)
	if err != nil {
		t.Fatal(err)
	}
	file := append(binary.LittleEndian.AppendUint64(nil, uint64(len(text))), text...)
	write(t, path, string(file)+string(body)+"\x00\x00\x00\x00")
}

// TestFineTunedModels checks that a line names the head of a fine-tuned model, which is not used, but not the tensors
// left over from pretraining.
func TestFineTunedModels(t *testing.T) {
	workspace(t)
	write(t, "p.faa", ">a\nMKV\n")
	writeCheckpoint(t, "net", tiny, nil)
	addTensor(t, "net/model.safetensors", "lm_head.bias")
	r := embed(t, "--esm-model", "net", "-o", "plain", "p.faa").wantCode(0)
	if strings.Contains(r.stderr, "head") {
		t.Errorf("stderr of a pretrained model: %q", r.stderr)
	}
	addTensor(t, "net/model.safetensors", "classifier.out_proj.bias")
	r = embed(t, "--esm-model", "net", "-o", "tuned", "p.faa").wantCode(0)
	if !strings.Contains(r.stderr, "fine-tuned") || !strings.Contains(r.stderr, "classifier.out_proj.bias") ||
		strings.Contains(r.stderr, "lm_head") {
		t.Errorf("stderr of a fine-tuned model: %q", r.stderr)
	}
	plain, tuned := readParquet[parquetRow](t, "plain/p.net.parquet"), readParquet[parquetRow](t, "tuned/p.net.parquet")
	if len(plain) != 1 || !slices.Equal(tuned[0].Embedding, plain[0].Embedding) {
		t.Error("the embedding depends on the head")
	}
}

// TestOneFamilyForAnAlphabet checks that the family whose model flag is set is used for its alphabet, and else the
// first.
func TestOneFamilyForAnAlphabet(t *testing.T) {
	s := &settings{}
	for _, f := range []transformer.Family{
		{Flag: "a", Alphabet: seqio.DNA}, {Flag: "b", Alphabet: seqio.Protein}, {Flag: "c", Alphabet: seqio.DNA},
	} {
		s.families = append(s.families, familyFlags{Family: &f})
	}
	for _, c := range []struct {
		given    string
		alphabet seqio.Alphabet
		want     string
	}{
		{"", seqio.DNA, "a"}, {"", seqio.Protein, "b"}, {"a-model", seqio.DNA, "a"}, {"c-model", seqio.DNA, "c"},
		{"c-model", seqio.Protein, "b"}, {"c-batch-size", seqio.DNA, "a"}, {"a-model c-model b-model", seqio.Protein, "b"},
		{"a-model c-model", seqio.DNA, ""},
	} {
		s.given = func(flag string) bool { return strings.Contains(c.given, flag) }
		f, err := s.family(c.alphabet)
		if c.want == "" {
			var usage *usageError
			if !errors.As(err, &usage) || !strings.Contains(err.Error(), "--a-model") || !strings.Contains(err.Error(), "--c-model") {
				t.Errorf("%s: %v", c.given, err)
			}
			continue
		}
		if err != nil || f.Flag != c.want {
			t.Errorf("%s, %s: %+v, %v; want %s", c.given, c.alphabet, f, err, c.want)
		}
	}
}
