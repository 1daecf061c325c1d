package transformer_test

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"seqembed/kernels"
	"seqembed/kernels/cpu"
	"seqembed/kernels/ref"
	"seqembed/tokenizer"
	"seqembed/transformer"
	"seqembed/weights"
	"seqembed/weights/hub"
)

// layout is a way to store a checkpoint in a file: the names of its tensors, and what else the file contains.
type layout struct {
	class    string // name of the subtest: the Python class or package that stores checkpoints in this way
	model    string // the synthetic model whose tensors the file contains
	prefix   string
	rename   *strings.Replacer
	beside   map[string][]int // shapes of other tensors in the file
	tuned    []string         // names in beside that TunedHead returns
	noConfig bool
}

// fairNames replaces canonical names by the names in fair-esm.
var fairNames = strings.NewReplacer(
	"embeddings.word_embeddings", "embed_tokens", "encoder.emb_layer_norm_after", "emb_layer_norm_after",
	"encoder.layer.", "layers.", "attention.self.query", "self_attn.q_proj", "attention.self.key", "self_attn.k_proj",
	"attention.self.value", "self_attn.v_proj", "attention.output.dense", "self_attn.out_proj",
	"attention.LayerNorm", "self_attn_layer_norm", "intermediate.dense", "fc1", "output.dense", "fc2",
	"LayerNorm", "final_layer_norm")

var layouts = []layout{
	{class: "EsmModel", model: "esm2-tiny"},
	{class: "EsmForMaskedLM", model: "esm2-tiny", prefix: "esm.", beside: map[string][]int{
		"lm_head.bias": {33}, "lm_head.dense.weight": {64, 64}, "esm.contact_head.regression.weight": {1, 12},
		"esm.embeddings.position_embeddings.weight": {1026, 64}, "esm.embeddings.position_ids": {1, 1026}}},
	{class: "EsmForSequenceClassification", model: "esm2-tiny", prefix: "esm.", beside: map[string][]int{
		"esm.contact_head.regression.weight": {1, 12}, "classifier.dense.weight": {64, 64}, "classifier.dense.bias": {64},
		"classifier.out_proj.weight": {2, 64}, "classifier.out_proj.bias": {2}},
		tuned: []string{"classifier.dense.bias", "classifier.dense.weight", "classifier.out_proj.bias",
			"classifier.out_proj.weight"}},
	{class: "fair-esm", model: "esm2-tiny", noConfig: true, prefix: "encoder.sentence_encoder.", rename: fairNames,
		beside: map[string][]int{"encoder.lm_head.weight": {33, 64}}},
	{class: "DNABERT-S's BertModel", model: "dnabert-s-2l", beside: map[string][]int{
		"pooler.dense.weight": {768, 768}, "pooler.dense.bias": {768}}},
	{class: "DNABERT-2's BertForMaskedLM", model: "dnabert-s-2l", prefix: "bert.", beside: map[string][]int{
		"cls.predictions.transform.dense.weight": {768, 768}, "cls.predictions.transform.LayerNorm.weight": {768},
		"cls.predictions.decoder.weight": {4096, 768}, "cls.predictions.decoder.bias": {4096},
		"bert.pooler.dense.bias": {768}}},
	{class: "BertForSequenceClassification", model: "dnabert-s-2l", prefix: "bert.", beside: map[string][]int{
		"bert.pooler.dense.weight": {768, 768}, "classifier.weight": {3, 768}, "classifier.bias": {3}},
		tuned: []string{"classifier.bias", "classifier.weight"}},
}

// TestLayouts checks that a checkpoint in each layout gives exactly the same embedding as the synthetic checkpoint with
// the same weights.
func TestLayouts(t *testing.T) {
	if testing.Short() {
		t.Skip("one goroutine, and slow under the race detector and on emulators")
	}
	backend := cpu.New(2)
	defer backend.Close()
	plain := map[string][]float32{}
	for _, l := range layouts {
		t.Run(l.class, func(t *testing.T) {
			if plain[l.model] == nil {
				plain[l.model] = embed(t, l.model, backend)
			}
			folder := l.write(t)
			c, err := transformer.Families.Open(folder)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if want, _ := transformer.Families.Config(l.model); c.Config != want {
				t.Errorf("the configuration is %+v, want %+v", c.Config, want)
			}
			if got := c.TunedHead(); !slices.Equal(got, l.tuned) {
				t.Errorf("tensors of a fine-tuned head: %q, want %q", got, l.tuned)
			}
			if len(c.LeftOut) != len(l.beside) {
				t.Errorf("left out: %q", c.LeftOut)
			}
			model, err := transformer.Load(c, backend)
			if err != nil {
				t.Fatal(err)
			}
			defer model.Close()
			if got := encode(t, model, backend, sample(l.model)); !slices.Equal(got, plain[l.model]) {
				t.Error("the embedding differs from that of the plain checkpoint")
			}
		})
	}
}

// write writes the synthetic checkpoint of l.model in the layout and returns its folder.
func (l layout) write(t *testing.T) string {
	t.Helper()
	c, err := transformer.Families.Open("synthetic:" + l.model)
	if err != nil {
		t.Fatal(err)
	}
	tensors, shapes := stored(t, c, func(name string) string {
		if l.rename != nil {
			name = l.rename.Replace(name)
		}
		return l.prefix + name
	})
	required := slices.DeleteFunc(c.Config.Tensors(), func(s weights.Spec) bool { return s.Optional })
	if len(tensors) != len(required) {
		t.Fatalf("%d tensors are written", len(tensors))
	}
	for name, shape := range l.beside {
		n := 1
		for _, d := range shape {
			n *= d
		}
		tensors[name], shapes[name] = make([]float32, n), shape
	}
	folder := t.TempDir()
	writeSafetensors(t, filepath.Join(folder, "model.safetensors"), tensors, shapes)
	if !l.noConfig {
		if err := os.WriteFile(filepath.Join(folder, "config.json"), c.ConfigJSON, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return folder
}

// stored returns the values and the shapes of a checkpoint's tensors. The function rename determines their names.
func stored(t *testing.T, c *transformer.Checkpoint, rename func(string) string) (map[string][]float32, map[string][]int) {
	t.Helper()
	tensors, shapes := map[string][]float32{}, map[string][]int{}
	for _, name := range c.Names() {
		tensor, _ := c.Tensor(name)
		values, err := tensor.Float32s()
		if err != nil {
			t.Fatal(err)
		}
		tensors[rename(name)], shapes[rename(name)] = values, tensor.Shape()
	}
	return tensors, shapes
}

// encode returns the mean embeddings of a batch after the last block.
func encode(t *testing.T, model *transformer.Model, b kernels.Backend, batch kernels.Batch) []float32 {
	t.Helper()
	limits := kernels.Limits{Tokens: len(batch.IDs), Sequences: batch.Sequences()}
	e, err := transformer.NewEncoder(model, b, limits, transformer.Columns([]int{model.Config().Layers}, transformer.Mean))
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	result, err := e.Encode(batch)
	if err != nil {
		t.Fatal(err)
	}
	return result[0]
}

// TestUnknownCheckpoints checks the errors for checkpoints of no known family. The error for unknown tensors must name
// the families, and the error for an unknown config.json must name the fault in the file.
func TestUnknownCheckpoints(t *testing.T) {
	folder := t.TempDir()
	path := filepath.Join(folder, "model.safetensors")
	writeSafetensors(t, path, map[string][]float32{"w": {1}}, map[string][]int{"w": {1}})
	_, err := transformer.Families.Open(path)
	if !errors.Is(err, transformer.ErrUnsupported) || !strings.Contains(err.Error(), "DNABERT") || !strings.Contains(err.Error(), "ESM-2") {
		t.Errorf("a file of other tensors gives %v", err)
	}
	for text, want := range map[string]string{`{"model_type":"llama"}`: `"llama"`, `{"model_type":3}`: "model_type", `[]`: "config.json"} {
		if err := os.WriteFile(filepath.Join(folder, "config.json"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := transformer.Families.Open(folder); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s gives %v", text, err)
		}
	}
}

// TestDNABERT2 checks that DNABERT-2 and DNABERT-S have the same shape, and that the digests of their synthetic
// checkpoints differ.
func TestDNABERT2(t *testing.T) {
	s, _ := transformer.Families.Config("dnabert-s")
	two, ok := transformer.Families.Config("dnabert-2")
	if !ok || two != s {
		t.Errorf("dnabert-2 is %+v, %t; want %+v", two, ok, s)
	}
	c, err := transformer.Families.Open("synthetic:dnabert-2")
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Check(c.Config.Tensors()); err != nil {
		t.Error(err)
	}
	other, err := transformer.Families.Open("synthetic:dnabert-s")
	if err != nil {
		t.Fatal(err)
	}
	a, _ := c.SHA256(t.Context())
	if b, _ := other.SHA256(t.Context()); a == b {
		t.Error("two models have one digest")
	}
}

// TestFamilies checks that no two families have the same flags and that no two published models have the same name. It
// also checks the default model, the hub ids, the vocabulary and the number of special tokens of every family.
func TestFamilies(t *testing.T) {
	flags, names := map[string]bool{}, map[string]bool{}
	for _, f := range append(transformer.List{transformer.Toy}, transformer.Families...) {
		if flags[f.Flag] {
			t.Errorf("two families have the flags --%s-…", f.Flag)
		}
		flags[f.Flag] = true
		isDefault := func(p transformer.Published) bool {
			return f.Default == "synthetic:"+p.Name || f.Default == p.Name && p.Hub != ""
		}
		if !slices.ContainsFunc(f.Published, isDefault) {
			t.Errorf("%s: the default %q is neither on the hub nor synthetic", f.Name, f.Default)
		}
		for _, p := range f.Published {
			for _, name := range []string{p.Name, p.Hub, p.Alias} {
				if names[name] && name != "" {
					t.Errorf("two models are called %s", name)
				}
				names[name] = true
			}
			if p.Hub != "" && !hub.IsID(p.Hub) {
				t.Errorf("%s: %q is no hub id", p.Name, p.Hub)
			}
			config, ok := transformer.List{f}.Config(p.Name)
			if !ok {
				t.Fatalf("%s is not found", p.Name)
			}
			if got := f.NewTokenizer().VocabSize(); got > config.Vocabulary {
				t.Errorf("%s: the tokenizer has %d entries, and the table %d rows", p.Name, got, config.Vocabulary)
			}
		}
		special, _ := f.NewTokenizer().Append(nil, nil)
		if len(special) != f.Before+f.After {
			t.Errorf("%s: %d special tokens around a sequence, and the family says %d and %d",
				f.Name, len(special), f.Before, f.After)
		}
	}
}

// TestESM2Vocabulary checks that the vocabulary of ESM-2 has the digest of the published vocab.txt, and that a
// checkpoint with another vocab.txt is refused.
func TestESM2Vocabulary(t *testing.T) {
	// published is the digest of vocab.txt on the hub.
	const published = "0b82cc0a7c7cf9e567b1e5892d793285b9fbae822c964ca48696f7db44598e03"
	tok := transformer.ESM2.NewTokenizer()
	if tok.SHA256() != published || tok.VocabSize() != 33 {
		t.Errorf("digest %s of %d entries, want %s", tok.SHA256(), tok.VocabSize(), published)
	}
	ids, unknown := tok.Append(nil, []byte("LMXJ"))
	if !slices.Equal(ids, []int32{0, 4, 20, 24, 3, 2}) || unknown != 1 {
		t.Errorf("ids %v, %d unknown", ids, unknown)
	}
	// The vocab.txt of a checkpoint must have the vocabulary of ESM-2.
	folder := layouts[0].write(t)
	c, err := transformer.Families.Open(folder)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	entries := strings.Fields("<cls> <pad> <eos> <unk> L A G V S E R T I D P K Q N F Y M H W C X B U Z O . - <null_1> <mask>")
	for _, step := range []struct {
		change func()
		want   error
	}{{func() {}, nil}, {func() { entries[4], entries[5] = "A", "L" }, tokenizer.ErrVocabulary}} {
		step.change()
		text := strings.Join(entries, "\n")
		if sum := sha256.Sum256([]byte(text)); step.want == nil && hex.EncodeToString(sum[:]) != published {
			t.Fatal("the test's vocabulary is not the published one")
		}
		if err := os.WriteFile(filepath.Join(folder, "vocab.txt"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Tokenizer(""); !errors.Is(err, step.want) {
			t.Errorf("%v, want %v", err, step.want)
		}
	}
}

// TestDNABERTTokenizer checks that the tokenizer of a DNABERT checkpoint is read from the named file or, if none is
// named, from the checkpoint's folder. If the folder has none, the error must name the flag with which the user can
// name a file.
func TestDNABERTTokenizer(t *testing.T) {
	folder := layouts[slices.IndexFunc(layouts, func(l layout) bool { return l.model == "dnabert-s-2l" })].write(t)
	c, err := transformer.Families.Open(folder)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Tokenizer(""); err == nil || !strings.Contains(err.Error(), "--dnabert-tokenizer") {
		t.Errorf("without a tokenizer.json: %v", err)
	}
	path := filepath.Join(t.TempDir(), "other.json")
	if err := os.WriteFile(path, tokenizer.SyntheticDNAFile(), 0o644); err != nil {
		t.Fatal(err)
	}
	if tok, err := c.Tokenizer(path); err != nil || tok.VocabSize() != 4096 {
		t.Errorf("a tokenizer.json that is named: %v", err)
	}
	sequence, sep := `{"Sequence":{"id":"A","type_id":0}}`, `{"SpecialToken":{"id":"[SEP]","type_id":0}}`
	for _, order := range []string{sep + "," + sequence, sequence, sep + "," + sequence + "," + sep} {
		text := strings.Replace(string(tokenizer.SyntheticDNAFile()), sequence+","+sep, order, 1)
		special := filepath.Join(t.TempDir(), "special.json")
		if err := os.WriteFile(special, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Tokenizer(special); !errors.Is(err, transformer.ErrUnsupported) || !strings.Contains(err.Error(), "special token") {
			t.Errorf("a tokenizer.json that puts %s after [CLS]: %v", order, err)
		}
	}
	if err := os.Rename(path, filepath.Join(folder, "tokenizer.json")); err != nil {
		t.Fatal(err)
	}
	if tok, err := c.Tokenizer(""); err != nil || tok.VocabSize() != 4096 {
		t.Errorf("a tokenizer.json beside the checkpoint: %v", err)
	}
}

// toy opens a synthetic model of Toy, the family in toy_test.go, and returns it with a list of families that contains
// Toy.
func toy(t *testing.T) (transformer.List, *transformer.Checkpoint) {
	t.Helper()
	list := append(transformer.List{transformer.Toy}, transformer.Families...)
	c, err := list.Open("synthetic:toy-s@3")
	if err != nil {
		t.Fatal(err)
	}
	if c.Config.Family != transformer.Toy || c.Config.Eps != 1e-12 || c.Label != "toy-s" || !c.Synthetic {
		t.Errorf("%+v", c)
	}
	return list, c
}

// TestToyFamily checks that two backends compute the same results, apart from rounding, for the family Toy, which is an
// example of a new family.
func TestToyFamily(t *testing.T) {
	_, c := toy(t)
	if got, want := c.Config.FLOPs(1), 2*2*(4*16*16+2*16*32)+2*4*16.0; got != want {
		t.Errorf("%v FLOPs for a token, want %v", got, want)
	}
	ids, _ := c.Config.Family.NewTokenizer().Append(nil, []byte("GATTACANA"))
	var batch kernels.Batch
	batch.Append(ids)
	var results [][]float32
	for _, b := range []kernels.Backend{ref.New(), cpu.New(1)} {
		model, err := transformer.Load(c, b)
		if err != nil {
			t.Fatal(err)
		}
		results = append(results, encode(t, model, b, batch))
		if err := errors.Join(model.Close(), b.Close()); err != nil {
			t.Error(err)
		}
	}
	var diff, norm float64
	for i, want := range results[0] {
		d := float64(results[1][i] - want)
		diff, norm = diff+d*d, norm+float64(want)*float64(want)
	}
	// The bound allows, in each of the two blocks, 32 rounding errors in sums of at most 32 products, and 32 more in
	// the LayerNorms.
	if e := math.Sqrt(diff / norm); !(e < 2*2*32*math.Exp2(-24)) {
		t.Errorf("the backends differ by %.3g", e)
	}
}

// TestToyFiles checks that a checkpoint of the family Toy is recognised with and without a config.json, but only if the
// list of families contains Toy.
func TestToyFiles(t *testing.T) {
	list, c := toy(t)
	folder := t.TempDir()
	path := filepath.Join(folder, "toy.safetensors")
	tensors, shapes := stored(t, c, func(name string) string { return "toy." + name })
	writeSafetensors(t, path, tensors, shapes)
	for _, text := range []string{"", string(c.ConfigJSON)} {
		if text != "" {
			if err := os.WriteFile(filepath.Join(folder, "config.json"), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		file, err := list.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		if file.Config != c.Config {
			t.Errorf("the file says %+v, want %+v", file.Config, c.Config)
		}
		if err := file.Close(); err != nil {
			t.Error(err)
		}
	}
	if _, err := transformer.Families.Open(path); !errors.Is(err, transformer.ErrUnsupported) {
		t.Errorf("without its line in the list: %v", err)
	}
}
