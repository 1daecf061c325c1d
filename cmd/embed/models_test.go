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

// addTensor adds a tensor of count zeros to a safetensors file. It returns an error if the file system does not allow a
// file of that size.
func addTensor(t *testing.T, path, name string, count int) error {
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
	header[name] = map[string]any{"dtype": "F32", "shape": []int{count}, "data_offsets": []int{len(body), len(body) + 4*count}}
	text, err := json.Marshal(header)
	if err != nil {
		t.Fatal(err)
	}
	file := append(binary.LittleEndian.AppendUint64(nil, uint64(len(text))), text...)
	write(t, path, string(file)+string(body))
	return os.Truncate(path, int64(len(file)+len(body)+4*count))
}

// TestFineTunedModels checks that the log names a tensor of the head of a fine-tuned model, because the program does
// not use the head. The log must not name the language-model head of pretraining.
func TestFineTunedModels(t *testing.T) {
	workspace(t)
	write(t, "p.faa", ">a\nMKV\n")
	writeCheckpoint(t, "net", tiny, nil)
	if err := addTensor(t, "net/model.safetensors", "lm_head.bias", 1); err != nil {
		t.Fatal(err)
	}
	r := embed(t, "--esm-model", "net", "-o", "plain", "p.faa").wantCode(0)
	if strings.Contains(r.stderr, "head") {
		t.Errorf("stderr of a pretrained model: %q", r.stderr)
	}
	if err := addTensor(t, "net/model.safetensors", "classifier.out_proj.bias", 1); err != nil {
		t.Fatal(err)
	}
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

// TestWrongCheckpoints checks that damaged checkpoints and checkpoints with another vocabulary are refused. The error
// must name the flag, the folder and the fault.
func TestWrongCheckpoints(t *testing.T) {
	workspace(t)
	write(t, "p.faa", ">a\nMKV\n")
	for name, c := range map[string]struct {
		spoil func(folder string) // damages a correct checkpoint in the folder
		want  string
	}{
		"another vocabulary": {func(folder string) {
			config, err := os.ReadFile(folder + "/config.json")
			if err != nil {
				t.Fatal(err)
			}
			write(t, folder+"/config.json", strings.Replace(string(config), `"vocab_size":33`, `"vocab_size":446`, 1))
		}, "vocab_size"},
		"another order of letters": {func(folder string) { write(t, folder+"/vocab.txt", "<cls>\n<pad>\n<eos>\n<unk>\nA\nL\n") }, "vocab.txt"},
		"zeros": {func(folder string) {
			content, err := os.ReadFile(folder + "/model.safetensors")
			if err != nil {
				t.Fatal(err)
			}
			clear(content[len(content)/2:])
			write(t, folder+"/model.safetensors", string(content))
		}, "the file is damaged"},
		"another digest": {func(folder string) {
			blob := "blobs/" + strings.Repeat("0123456789abcdef", 4)
			if err := errors.Join(os.Mkdir("blobs", 0o755), os.Rename(folder+"/model.safetensors", blob),
				os.Symlink("../"+blob, folder+"/model.safetensors")); err != nil {
				t.Skip(err)
			}
		}, "SHA-256"},
	} {
		t.Run(name, func(t *testing.T) {
			folder := strings.ReplaceAll(name, " ", "_")
			writeCheckpoint(t, folder, tiny, nil)
			embed(t, "--esm-model", folder, "-o", folder+"/out", "p.faa").wantCode(0)
			c.spoil(folder)
			r := embed(t, "--esm-model", folder, "-o", folder+"/new", "p.faa").wantCode(1)
			for _, part := range []string{"--esm-model", folder, c.want} {
				if !strings.Contains(r.stderr, part) {
					t.Errorf("stderr does not mention %q: %s", part, r.stderr)
				}
			}
		})
	}
}

// TestOneFamilyForAnAlphabet checks the choice between two families of models for one alphabet: the family whose model
// flag is set, or the first family if no such flag is set. Both flags together must be a usage error.
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
