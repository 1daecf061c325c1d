package transformer_test

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"seqembed/kernels"
	"seqembed/kernels/ref"
	"seqembed/transformer"
)

func TestParseConfig(t *testing.T) {
	const esm = `{"model_type":"esm","num_hidden_layers":6,"hidden_size":320,"num_attention_heads":20,"intermediate_size":1280,
		"vocab_size":33,"position_embedding_type":"rotary","hidden_act":"gelu","token_dropout":true,"layer_norm_eps":1e-5,"mask_token_id":32}`
	c, err := transformer.ESM2.ParseConfig([]byte(esm))
	if err != nil {
		t.Fatal(err)
	}
	if want, _ := transformer.Families.Config("esm2-8m"); c != want {
		t.Errorf("got %+v, want %+v", c, want)
	}
	for _, change := range [][2]string{
		{`"esm"`, `"llama"`}, {`"rotary"`, `"absolute"`}, {`"gelu"`, `"relu"`}, {`:320`, `:0`}, {`:320`, `:-320`}, {`:320`, `:99999999`},
		{`:20,`, `:7,`}, {`:20,`, `:320,`}, {`1e-5`, `0`}, {`:6`, `:0`}, {`:33`, `:0`}, {`"token_dropout"`, `"is_decoder":true,"token_dropout"`},
	} {
		bad := strings.Replace(esm, change[0], change[1], 1)
		if _, err := transformer.ESM2.ParseConfig([]byte(bad)); !errors.Is(err, transformer.ErrUnsupported) {
			t.Errorf("%s in place of %s gives %v", change[1], change[0], err)
		}
	}
	for _, model := range []struct {
		family *transformer.Family
		text   string
	}{
		{transformer.ESM2, `"esm","position_embedding_type":"rotary"`}, {transformer.DNABERT, `"bert","type_vocab_size":2`},
	} {
		c, err := model.family.ParseConfig([]byte(`{"model_type":` + model.text + `,"num_hidden_layers":2,"hidden_size":64,"num_attention_heads":4,
			"intermediate_size":256,"vocab_size":33}`))
		if err != nil {
			t.Fatal(err)
		}
		if c.Eps != 1e-12 { // the default of the library transformers
			t.Errorf("without layer_norm_eps, %s has %v", model.family.Name, c.Eps)
		}
	}
	if _, err := transformer.ESM2.ParseConfig([]byte("<html>")); err == nil {
		t.Error("HTML was read as a config")
	}
}

func FuzzParseConfig(f *testing.F) {
	f.Add([]byte(`{"model_type":"bert","num_hidden_layers":2,"hidden_size":768,"num_attention_heads":12,"intermediate_size":3072,"vocab_size":4096,"type_vocab_size":2}`))
	f.Add([]byte(`{"model_type":"esm"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, family := range transformer.Families {
			c, err := family.ParseConfig(data)
			if err == nil && (c.Heads < 1 || c.Hidden%c.Heads != 0 || c.HeadDim()%2 != 0 || c.Layers < 1) {
				t.Errorf("accepted %+v", c)
			}
		}
	})
}

func TestResolveLayers(t *testing.T) {
	got, err := transformer.ResolveLayers([]int{-1, 0, 3, -7}, 8)
	if err != nil || !slices.Equal(got, []int{8, 0, 3, 2}) {
		t.Errorf("got %v, %v", got, err)
	}
	for _, bad := range [][]int{{9}, {-10}, {8, -1}, {}} {
		if _, err := transformer.ResolveLayers(bad, 8); err == nil {
			t.Errorf("%v was accepted", bad)
		}
	}
}

// TestEncoderGrows checks that an Encoder computes a batch that exceeds its limits, with the same results as if the
// limits were larger. It also compares the mean and the first token with the states of all tokens.
func TestEncoderGrows(t *testing.T) {
	backend := ref.New()
	model := load(t, "esm2-tiny", backend)
	var batch kernels.Batch
	batch.Append([]int32{0, 5, 6, 7, 2})
	batch.Append([]int32{0, 9, 2})
	encode := func(limits kernels.Limits, p transformer.Pooling, layers []int) [][]float32 {
		e, err := transformer.NewEncoder(model, backend, limits, transformer.Columns(layers, p))
		if err != nil {
			t.Fatal(err)
		}
		defer e.Close()
		got, err := e.Encode(batch)
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	roomy := encode(kernels.Limits{Tokens: 100, Sequences: 10}, transformer.Mean, []int{3})
	tight := encode(kernels.Limits{Tokens: 2, Sequences: 1}, transformer.Mean, []int{3})
	if !slices.Equal(roomy[0], tight[0]) {
		t.Error("the embeddings depend on the limits")
	}

	// The mean is taken over the tokens of residues, without special tokens. cls is the state of the first token.
	tokens := encode(kernels.Limits{Tokens: 8, Sequences: 2}, transformer.Tokens, []int{1, 3})
	cls := encode(kernels.Limits{Tokens: 8, Sequences: 2}, transformer.CLS, []int{1, 3})
	if h := 64; len(tokens[1]) != 8*h || len(cls[1]) != 2*h {
		t.Fatalf("%d values per token and %d for cls", len(tokens[1]), len(cls[1]))
	}
	for c := range 64 {
		if cls[1][c] != tokens[1][c] || cls[0][64+c] != tokens[0][5*64+c] {
			t.Fatalf("column %d of cls is not the first token's", c)
		}
		mean := (float64(tokens[1][64+c]) + float64(tokens[1][128+c]) + float64(tokens[1][192+c])) / 3
		if math.Abs(mean-float64(roomy[0][c])) > 1e-6 {
			t.Fatalf("column %d: mean of the residues %v, pooled %v", c, mean, roomy[0][c])
		}
		if math.Abs(float64(tokens[1][6*64+c]-roomy[0][64+c])) > 1e-6 {
			t.Fatalf("column %d: a single residue is not its own mean", c)
		}
	}
}

// TestEarlierLayer checks that the blocks after the last requested layer do not matter: the states after block 1 are
// the same whether the other blocks run or not.
func TestEarlierLayer(t *testing.T) {
	backend := ref.New()
	model := load(t, "esm2-tiny", backend)
	var batch kernels.Batch
	batch.Append([]int32{0, 5, 6, 7, 2})
	results := map[string][][]float32{}
	for name, layers := range map[string][]int{"alone": {1}, "on the way": {3, 1}} {
		e, err := transformer.NewEncoder(model, backend, kernels.Limits{Tokens: 5, Sequences: 1}, transformer.Columns(layers, transformer.Mean))
		if err != nil {
			t.Fatal(err)
		}
		if results[name], err = e.Encode(batch); err != nil {
			t.Fatal(err)
		}
		e.Close()
	}
	if !slices.Equal(results["alone"][0], results["on the way"][1]) {
		t.Error("block 1 differs")
	}
}

// TestCheckpointFiles checks a checkpoint that is a file of tensors without config.json. The file must give the shape
// of the model and the same embeddings as the synthetic checkpoint with these weights. Rotary frequencies (inv_freq) in
// the file must be used, and a missing tensor must be named in the error.
func TestCheckpointFiles(t *testing.T) {
	config, _ := transformer.Families.Config("esm2-tiny")
	synthetic, err := transformer.Families.Open("synthetic:esm2-tiny")
	if err != nil {
		t.Fatal(err)
	}
	tensors, shapes := stored(t, synthetic, func(name string) string { return name })
	embedFile := func() []float32 {
		t.Helper()
		path := filepath.Join(t.TempDir(), "model.safetensors")
		writeSafetensors(t, path, tensors, shapes)
		c, err := transformer.Families.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if c.Config != config {
			t.Fatalf("the tensors say %+v, want %+v", c.Config, config)
		}
		b := ref.New()
		model, err := transformer.Load(c, b)
		if err != nil {
			t.Fatal(err)
		}
		e, err := transformer.NewEncoder(model, b, kernels.Limits{Tokens: 40, Sequences: 1}, transformer.Columns([]int{config.Layers}, transformer.Mean))
		if err != nil {
			t.Fatal(err)
		}
		result, err := e.Encode(sample("esm2-tiny"))
		if err != nil {
			t.Fatal(err)
		}
		return result[0]
	}
	plain := embedFile()
	if want := embed(t, "esm2-tiny", ref.New()); !slices.Equal(plain, want) {
		t.Error("the same weights from a file give other embeddings")
	}
	const table = "embeddings.position_embeddings.weight"
	tensors[table], shapes[table] = make([]float32, 64), []int{1, 64}
	absolute := filepath.Join(t.TempDir(), "model.safetensors")
	writeSafetensors(t, absolute, tensors, shapes)
	if _, err := transformer.Families.Open(absolute); !errors.Is(err, transformer.ErrUnsupported) {
		t.Errorf("absolute positions without rotary frequencies: error %v", err)
	}
	for i := range config.Layers {
		name := "encoder.layer." + string(rune('0'+i)) + ".attention.self.rotary_embeddings.inv_freq"
		tensors[name], shapes[name] = make([]float32, config.HeadDim()/2), []int{config.HeadDim() / 2}
	}
	if slices.Equal(plain, embedFile()) {
		t.Error("the checkpoint's inv_freq is not obeyed")
	}

	delete(tensors, "encoder.layer.1.LayerNorm.bias")
	path := filepath.Join(t.TempDir(), "model.safetensors")
	writeSafetensors(t, path, tensors, shapes)
	if _, err := transformer.Families.Open(path); err == nil || !strings.HasSuffix(err.Error(), "tensors: 1 missing (encoder.layer.1.LayerNorm.bias)") {
		t.Errorf("a checkpoint without a tensor gives %v", err)
	}
}

// writeSafetensors writes a safetensors file with float32 tensors.
func writeSafetensors(t *testing.T, path string, tensors map[string][]float32, shapes map[string][]int) {
	t.Helper()
	type entry struct {
		DType   string `json:"dtype"`
		Shape   []int  `json:"shape"`
		Offsets [2]int `json:"data_offsets"`
	}
	header, data := map[string]entry{}, []byte{}
	for name, values := range tensors {
		from := len(data)
		for _, v := range values {
			data = binary.LittleEndian.AppendUint32(data, math.Float32bits(v))
		}
		header[name] = entry{"F32", shapes[name], [2]int{from, len(data)}}
	}
	text, err := json.Marshal(header)
	if err != nil {
		t.Fatal(err)
	}
	file := binary.LittleEndian.AppendUint64(nil, uint64(len(text)))
	if err := os.WriteFile(path, append(append(file, text...), data...), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestFLOPs(t *testing.T) {
	// The expected figures are the FLOPs of the matrix products per token, without attention: two for each element of a
	// matrix.
	for name, want := range map[string]float64{"dnabert-s": 226.5e6, "esm2-650m": 1.2976e9} {
		c, _ := transformer.Families.Config(name)
		attention := 4 * float64(c.Hidden) * float64(c.Layers)
		if got := c.FLOPs(1) - attention; math.Abs(got/want-1) > 1e-3 {
			t.Errorf("%s: %.4g FLOP a token, want %.4g", name, got, want)
		}
		if got, want := c.FLOPs(3, 5), c.FLOPs(3)+c.FLOPs(5); got != want {
			t.Errorf("%s: sequences do not add up: %v, %v", name, got, want)
		}
	}
}

// TestEncoderStarts checks that a batch has the same results whether or not other batches have been started before it
// is finished.
func TestEncoderStarts(t *testing.T) {
	backend := ref.New()
	model := load(t, "esm2-tiny", backend)
	e, err := transformer.NewEncoder(model, backend, kernels.Limits{Tokens: 12, Sequences: 3}, transformer.Columns([]int{3, 1}, transformer.Mean))
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	var finish []func() ([][]float32, error)
	var batches []kernels.Batch
	for n := range 5 {
		var b kernels.Batch
		for s := range n/2 + 1 {
			b.Append([]int32{0, int32(4 + n), int32(5 + s), 2}[:4-n%2])
		}
		batches, finish = append(batches, b), append(finish, e.Start(b))
	}
	for i, f := range finish {
		got, err := f()
		if err != nil {
			t.Fatal(err)
		}
		alone, err := e.Encode(batches[i])
		if err != nil {
			t.Fatal(err)
		}
		if !slices.EqualFunc(got, alone, slices.Equal) {
			t.Errorf("batch %d depends on the others under way", i)
		}
	}
}

// TestPlans checks how much memory Program.Plan assigns to the activations of each model: for each token, the number of
// values in float32 and in the operand type, as multiples of the hidden size.
func TestPlans(t *testing.T) {
	for _, c := range []struct {
		name             string
		uniform          bool
		float32, operand int
	}{
		{"esm2-650m", false, 1, 5}, {"esm2-650m", true, 6, 0},
		{"dnabert-s", false, 2, 6}, {"dnabert-s", true, 6, 0},
	} {
		model := load(t, c.name, shapesOnly{})
		config := model.Config()
		p := transformer.Program(model, transformer.Columns([]int{config.Layers}, transformer.Mean))
		if err := p.Err(); err != nil {
			t.Fatal(err)
		}
		float32Cols, operandCols := 0, 0
		for _, s := range p.Plan(kernels.Needs{Uniform: c.uniform}).Slots {
			if s.PerSequence {
				continue
			}
			if s.Precision&kernels.Float32 != 0 {
				float32Cols += s.Cols
			}
			if s.Precision&kernels.Operand != 0 {
				operandCols += s.Cols
			}
		}
		if h := config.Hidden; float32Cols != c.float32*h || operandCols != c.operand*h {
			t.Errorf("%s, uniform %t: %d columns of float32 and %d operands, want %d and %d",
				c.name, c.uniform, float32Cols, operandCols, c.float32*h, c.operand*h)
		}
	}
}

// shapesOnly is a backend whose weights have no values.
type shapesOnly struct{ kernels.Backend }

func (s shapesOnly) NewModel() kernels.Model { return s }

func (shapesOnly) Load(role kernels.Role, parts ...kernels.Source) (kernels.Weight, error) {
	rows, cols, err := kernels.StackedDims(role, parts)
	return shape{role, rows, cols}, err
}

func (shapesOnly) Close() error { return nil }

type shape struct {
	role       kernels.Role
	rows, cols int
}

func (s shape) Role() kernels.Role     { return s.role }
func (s shape) Dims() (rows, cols int) { return s.rows, s.cols }
