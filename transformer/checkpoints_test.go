package transformer_test

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"seqembed/kernels/cpu"
	"seqembed/tokenizer"
	"seqembed/transformer"
	"seqembed/weights"
)

// tinyFolder writes the synthetic model esm2-tiny to a folder, as models on the hub are stored: model.safetensors and
// config.json. Before that, the function change may change the tensors and the configuration. tinyFolder returns the
// folder.
func tinyFolder(t *testing.T, change func(tensors map[string][]float32, shapes map[string][]int, config map[string]any)) string {
	t.Helper()
	c, err := transformer.Families.Open("synthetic:esm2-tiny")
	if err != nil {
		t.Fatal(err)
	}
	tensors, shapes := stored(t, c, func(name string) string { return "esm." + name })
	var config map[string]any
	if err := json.Unmarshal(c.ConfigJSON, &config); err != nil {
		t.Fatal(err)
	}
	change(tensors, shapes, config)
	folder := t.TempDir()
	writeSafetensors(t, filepath.Join(folder, "model.safetensors"), tensors, shapes)
	text, err := json.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	writeText(t, folder, "config.json", string(text))
	return folder
}

func writeText(t *testing.T, folder, name, content string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(folder, name), []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

// openAll opens a checkpoint and its tokenizer and hashes its file, as a run of the program does.
func openAll(folder string) error {
	c, err := transformer.Families.Open(folder)
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := c.Tokenizer(""); err != nil {
		return err
	}
	_, err = c.SHA256(context.Background())
	return err
}

// TestOtherVocabularies checks that a checkpoint with another vocabulary than that of ESM-2 is refused, whichever file
// shows that the vocabulary is another.
func TestOtherVocabularies(t *testing.T) {
	const esm2 = "<cls> <pad> <eos> <unk> L A G V S E R T I D P K Q N F Y M H W C X B U Z O . - <null_1> <mask>"
	word := "esm.embeddings.word_embeddings.weight"
	lines := func(entries string) string { return strings.ReplaceAll(entries, " ", "\n") }
	for name, c := range map[string]struct {
		config map[string]any
		files  map[string]string
		want   string // part of the error; "" for a checkpoint that is accepted
	}{
		"published": {map[string]any{"mask_token_id": 32, "pad_token_id": 1}, map[string]string{
			"vocab.txt": lines(esm2), "special_tokens_map.json": `{"mask_token": "<mask>"}`, "added_tokens.json": `{"<cls>": 0}`,
			"tokenizer_config.json": `{"tokenizer_class": "EsmTokenizer", "added_tokens_decoder": {"32": {"content": "<mask>"}}}`}, ""},
		"without token ids":         {map[string]any{"mask_token_id": nil}, nil, ""},
		"SaProt":                    {map[string]any{"vocab_size": 446, "mask_token_id": 4}, nil, "config.json: vocab_size, the number of embeddings, is 446, and the tokenizer of ESM-2 has 33"},
		"Nucleotide Transformer":    {map[string]any{"vocab_size": 4105}, nil, "is 4105"},
		"a smaller one":             {map[string]any{"vocab_size": 32}, nil, "is 32"},
		"another mask":              {map[string]any{"mask_token_id": 4}, nil, "mask_token_id 4"},
		"another padding":           {map[string]any{"pad_token_id": 0}, nil, "pad_token_id 0"},
		"another order":             {nil, map[string]string{"vocab.txt": lines(strings.Replace(esm2, "L A", "A L", 1))}, `vocab.txt is not of the tokenizer that ESM-2 uses: id 4 is "A"`},
		"structure letters":         {nil, map[string]string{"vocab.txt": lines(strings.Replace(esm2, "L A", "Lp Ap", 1))}, `"Lp"`},
		"another order in JSON":     {nil, map[string]string{"tokenizer.json": `{"model": {"vocab": {"L": 5, "A": 4}}}`}, "tokenizer.json"},
		"an added token":            {nil, map[string]string{"added_tokens.json": `{"<fold>": 31}`}, "added_tokens.json"},
		"an error page for a vocab": {nil, map[string]string{"vocab.txt": "<html>"}, "web page"},
	} {
		folder := tinyFolder(t, func(tensors map[string][]float32, shapes map[string][]int, config map[string]any) {
			maps.Copy(config, c.config)
			if n, ok := c.config["vocab_size"].(int); ok {
				tensors[word] = slices.Repeat(tensors[word], n/33+1)[:n*64]
				shapes[word] = []int{n, 64}
			}
		})
		for file, content := range c.files {
			writeText(t, folder, file, content)
		}
		err := openAll(folder)
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%s: %v", name, err)
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%s: %v, want %q", name, err, c.want)
		case c.want != "" && c.want != "web page" && !errors.Is(err, tokenizer.ErrVocabulary):
			t.Errorf("%s: %v does not match ErrVocabulary", name, err)
		}
	}
}

// TestOtherVocabularyWithoutConfig checks that a checkpoint without config.json is refused if its embedding table has
// another number of rows than the vocabulary of ESM-2 has entries.
func TestOtherVocabularyWithoutConfig(t *testing.T) {
	folder := tinyFolder(t, func(tensors map[string][]float32, shapes map[string][]int, _ map[string]any) {
		word := "esm.embeddings.word_embeddings.weight"
		tensors[word], shapes[word] = slices.Repeat(tensors[word], 2), []int{66, 64}
	})
	if err := os.Remove(filepath.Join(folder, "config.json")); err != nil {
		t.Fatal(err)
	}
	if err := openAll(folder); !errors.Is(err, tokenizer.ErrVocabulary) {
		t.Errorf("%v, want ErrVocabulary", err)
	}
}

// TestDNABERTVocabulary checks that a tokenizer, from the checkpoint's folder or named by the caller, is accepted only
// if the checkpoint's embedding table fits: its number of rows must be the tokenizer's number of entries, or that
// number rounded up to a multiple of 8. A vocab.txt with other entries, and a template with another number of special
// tokens, are refused, too.
func TestDNABERTVocabulary(t *testing.T) {
	folder := layouts[slices.IndexFunc(layouts, func(l layout) bool { return l.model == "dnabert-s-2l" })].write(t)
	c, err := transformer.Families.Open(folder)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	whole := string(tokenizer.SyntheticDNAFile())
	// cut returns the tokenizer without its last n merges and the n entries that result from them.
	cut := func(n int) string {
		var file map[string]any
		if err := json.Unmarshal([]byte(whole), &file); err != nil {
			t.Fatal(err)
		}
		model := file["model"].(map[string]any)
		merges, vocab := model["merges"].([]any), model["vocab"].(map[string]any)
		maps.DeleteFunc(vocab, func(_ string, id any) bool { return id.(float64) >= float64(4096-n) })
		model["merges"] = merges[:len(merges)-n]
		text, err := json.Marshal(file)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	for name, step := range map[string]struct {
		content string
		want    error
	}{"the whole": {whole, nil}, "padded": {cut(1), nil}, "smaller": {cut(8), tokenizer.ErrVocabulary}} {
		writeText(t, folder, "tokenizer.json", step.content)
		if _, err := c.Tokenizer(""); !errors.Is(err, step.want) {
			t.Errorf("%s: %v, want %v", name, err, step.want)
		}
		writeText(t, folder, "other.json", step.content)
		if _, err := c.Tokenizer(filepath.Join(folder, "other.json")); !errors.Is(err, step.want) {
			t.Errorf("%s, named: %v, want %v", name, err, step.want)
		}
	}
	writeText(t, folder, "tokenizer.json", whole)
	writeText(t, folder, "vocab.txt", "[PAD]\n[UNK]\nAAA\n")
	if _, err := c.Tokenizer(""); !errors.Is(err, tokenizer.ErrVocabulary) {
		t.Errorf("a vocab.txt of k-mers: %v", err)
	}
	twice := strings.Replace(whole, `"single":[`, `"single":[{"SpecialToken":{"id":"[CLS]","type_id":0}},`, 1)
	writeText(t, folder, "other.json", twice)
	if _, err := c.Tokenizer(filepath.Join(folder, "other.json")); twice == whole || !errors.Is(err, transformer.ErrUnsupported) {
		t.Errorf("a template with two [CLS]: %v", err)
	}
}

// TestTransformers5 checks that a checkpoint in the form of transformers 5 gives exactly the same embedding as one in
// the older form. In the new form, the weights of LayerNorms are called gamma and beta, and all blocks share one table
// of rotary frequencies.
func TestTransformers5(t *testing.T) {
	backend := cpu.New(2)
	defer backend.Close()
	// frequencies is the table. The program would compute different ones for a checkpoint without a table.
	frequencies := []float32{1, 0.4, 0.125, 0.05, 0.02, 0.007, 0.002, 0.0008}
	const invFreq = ".attention.self.rotary_embeddings.inv_freq"
	embedding := func(rename func(string) string, blocks ...string) []float32 {
		folder := tinyFolder(t, func(tensors map[string][]float32, shapes map[string][]int, _ map[string]any) {
			for _, name := range slices.Collect(maps.Keys(tensors)) {
				if other := rename(name); other != name {
					tensors[other], shapes[other] = tensors[name], shapes[name]
					delete(tensors, name)
				}
			}
			for _, b := range blocks {
				tensors["esm.encoder.layer."+b+invFreq], shapes["esm.encoder.layer."+b+invFreq] = frequencies, []int{8}
			}
		})
		c, err := transformer.Families.Open(folder)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		model, err := transformer.Load(c, backend)
		if err != nil {
			t.Fatal(err)
		}
		defer model.Close()
		return encode(t, model, backend, sample("esm2-tiny"))
	}
	same := func(name string) string { return name }
	newer := strings.NewReplacer("LayerNorm.weight", "LayerNorm.gamma", "LayerNorm.bias", "LayerNorm.beta").Replace
	old := embedding(same, "0", "1", "2")
	if !slices.Equal(embedding(newer, "*"), old) {
		t.Error("the embedding differs from that of the older names")
	}
	if slices.Equal(embedding(newer), old) {
		t.Error("the table of frequencies is not used")
	}
	if !slices.Equal(embedding(newer), embedding(same)) {
		t.Error("the LayerNorms are not the same")
	}
}

// TestDamagedWeights checks that a checkpoint with a tensor of zeros, as a failed download leaves it, is refused. Zeros
// in a bias must be accepted. A file whose second half is zeros must be refused, too.
func TestDamagedWeights(t *testing.T) {
	for name, damaged := range map[string]bool{
		"embeddings.word_embeddings.weight": true, "encoder.layer.2.attention.LayerNorm.weight": true,
		"encoder.layer.1.output.dense.weight": true, "encoder.emb_layer_norm_after.weight": true,
		"encoder.layer.1.output.dense.bias": false, "encoder.emb_layer_norm_after.bias": false,
	} {
		folder := tinyFolder(t, func(tensors map[string][]float32, _ map[string][]int, _ map[string]any) {
			clear(tensors["esm."+name])
		})
		err := openAll(folder)
		if damaged != errors.Is(err, weights.ErrDamaged) || damaged && !strings.Contains(err.Error(), name) {
			t.Errorf("zeros in %s: %v", name, err)
		}
	}
	folder := tinyFolder(t, func(map[string][]float32, map[string][]int, map[string]any) {})
	path := filepath.Join(folder, "model.safetensors")
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	clear(content[len(content)/2:])
	if binary.LittleEndian.Uint64(content) > uint64(len(content)/2) {
		t.Fatal("the header is damaged, too")
	}
	writeText(t, folder, "model.safetensors", string(content))
	if err := openAll(folder); !errors.Is(err, weights.ErrDamaged) {
		t.Errorf("zeros in the second half: %v", err)
	}
}
