package transformer

import (
	"encoding/json"
	"errors"
	"fmt"

	"seqembed/weights"
)

// Architecture names one of the models.
type Architecture string

const (
	// DNABERTS is DNABERT-S, for DNA.
	DNABERTS Architecture = "DNABERT-S"
	// ESM2 is ESM-2, for protein.
	ESM2 Architecture = "ESM-2"
)

// Config is a model's shape: what its config.json says, as far as it changes
// a number.
type Config struct {
	Architecture   Architecture
	Layers         int // blocks
	Hidden         int
	Heads          int
	Intermediate   int // width of the feed-forward layer
	Vocabulary     int
	TypeVocabulary int     // token types (DNABERT-S)
	Eps            float32 // of every LayerNorm
	TokenDropout   bool    // embeddings are scaled as in training (ESM-2)
	MaskID         int32   // id of the mask token (ESM-2)
}

// ErrUnsupported is in the chain of errors about checkpoints that are neither
// DNABERT-S nor ESM-2, or use what those models do not.
var ErrUnsupported = errors.New("unsupported checkpoint")

// HeadDim is the size of one head.
func (c Config) HeadDim() int { return c.Hidden / c.Heads }

// FLOPs is the arithmetic of a forward pass over sequences of those numbers
// of tokens, a multiply-add counted as 2: the matrix products and attention.
func (c Config) FLOPs(lengths ...int) float64 {
	h, f, up := float64(c.Hidden), float64(c.Intermediate), 1.0
	if c.Architecture == DNABERTS {
		up = 2 // the gate doubles the first layer of the feed-forward
	}
	sum := 0.0
	for _, n := range lengths {
		t := float64(n)
		sum += t * (2*(4*h*h+(up+1)*h*f) + 4*t*h)
	}
	return sum * float64(c.Layers)
}

// known holds the shapes of the published checkpoints and of the synthetic
// ones, by short name.
var known = map[string]Config{
	"dnabert-s":    dnabertsConfig(12),
	"dnabert-s-2l": dnabertsConfig(2),
	"esm2-tiny":    esm2Config(3, 64, 4),
	"esm2-hd128":   esm2Config(2, 512, 4),
	"esm2-8m":      esm2Config(6, 320, 20),
	"esm2-35m":     esm2Config(12, 480, 20),
	"esm2-150m":    esm2Config(30, 640, 20),
	"esm2-650m":    esm2Config(33, 1280, 20),
	"esm2-3b":      esm2Config(36, 2560, 40),
	"esm2-15b":     esm2Config(48, 5120, 40),
}

func dnabertsConfig(layers int) Config {
	return Config{Architecture: DNABERTS, Layers: layers, Hidden: 768, Heads: 12, Intermediate: 3072,
		Vocabulary: 4096, TypeVocabulary: 2, Eps: 1e-12}
}

func esm2Config(layers, hidden, heads int) Config {
	return Config{Architecture: ESM2, Layers: layers, Hidden: hidden, Heads: heads, Intermediate: 4 * hidden,
		Vocabulary: 33, Eps: 1e-5, TokenDropout: true, MaskID: 32}
}

// KnownConfig gives the shape behind a short name such as "esm2-8m".
func KnownConfig(name string) (Config, bool) {
	c, ok := known[name]
	return c, ok
}

// configFile is the part of a config.json that is looked at. Pointers tell
// what is absent from what is zero.
type configFile struct {
	ModelType      string   `json:"model_type"`
	Layers         int      `json:"num_hidden_layers"`
	Hidden         int      `json:"hidden_size"`
	Heads          int      `json:"num_attention_heads"`
	Intermediate   int      `json:"intermediate_size"`
	Vocabulary     int      `json:"vocab_size"`
	TypeVocabulary int      `json:"type_vocab_size"`
	Eps            *float32 `json:"layer_norm_eps"`
	Activation     string   `json:"hidden_act"`
	Positions      string   `json:"position_embedding_type"`
	NormBefore     bool     `json:"emb_layer_norm_before"`
	Folding        bool     `json:"is_folding_model"`
	TokenDropout   bool     `json:"token_dropout"`
	MaskID         *int32   `json:"mask_token_id"`
}

// ParseConfig reads a config.json of Hugging Face's layout.
func ParseConfig(data []byte) (Config, error) {
	var f configFile
	if err := json.Unmarshal(data, &f); err != nil {
		return Config{}, fmt.Errorf("config.json: %w", err)
	}
	c := Config{Layers: f.Layers, Hidden: f.Hidden, Heads: f.Heads, Intermediate: f.Intermediate, Vocabulary: f.Vocabulary}
	if f.Activation != "" && f.Activation != "gelu" {
		return Config{}, fmt.Errorf("config.json: hidden_act is %q, and only the exact gelu is built: %w", f.Activation, ErrUnsupported)
	}
	switch f.ModelType {
	case "esm":
		c.Architecture, c.Eps, c.TokenDropout, c.MaskID = ESM2, 1e-5, f.TokenDropout, 32
		if f.MaskID != nil {
			c.MaskID = *f.MaskID
		}
		if f.Positions != "rotary" || f.NormBefore || f.Folding {
			return Config{}, fmt.Errorf("config.json: position_embedding_type %q, emb_layer_norm_before %t, is_folding_model %t are not those of ESM-2: %w",
				f.Positions, f.NormBefore, f.Folding, ErrUnsupported)
		}
	case "bert":
		c.Architecture, c.Eps, c.TypeVocabulary = DNABERTS, 1e-12, f.TypeVocabulary
	default:
		return Config{}, fmt.Errorf("config.json: model_type is %q, neither ESM-2 (esm) nor DNABERT-S (bert): %w", f.ModelType, ErrUnsupported)
	}
	if f.Eps != nil {
		c.Eps = *f.Eps
	}
	return c, c.check()
}

// json writes the config in the layout that ParseConfig reads.
func (c Config) json() []byte {
	f := configFile{ModelType: "bert", Layers: c.Layers, Hidden: c.Hidden, Heads: c.Heads, Intermediate: c.Intermediate,
		Vocabulary: c.Vocabulary, TypeVocabulary: c.TypeVocabulary, Eps: &c.Eps, Activation: "gelu"}
	if c.Architecture == ESM2 {
		f.ModelType, f.Positions, f.TokenDropout, f.MaskID = "esm", "rotary", c.TokenDropout, &c.MaskID
	}
	data, err := json.Marshal(f)
	if err != nil {
		panic(err) // a struct of numbers and strings
	}
	return data
}

// check refuses sizes that no model of these has, before anything is
// allocated from them.
func (c Config) check() error {
	sizes := []struct {
		name       string
		value, max int
	}{
		{"num_hidden_layers", c.Layers, 1 << 10}, {"hidden_size", c.Hidden, 1 << 16}, {"num_attention_heads", c.Heads, 1 << 10},
		{"intermediate_size", c.Intermediate, 1 << 18}, {"vocab_size", c.Vocabulary, 1 << 20},
	}
	if c.Architecture == DNABERTS {
		sizes = append(sizes, struct {
			name       string
			value, max int
		}{"type_vocab_size", c.TypeVocabulary, 1 << 10})
	}
	for _, s := range sizes {
		if s.value < 1 || s.value > s.max {
			return fmt.Errorf("config: %s is %d, outside 1 to %d: %w", s.name, s.value, s.max, ErrUnsupported)
		}
	}
	if c.Hidden%c.Heads != 0 || c.HeadDim()%2 != 0 {
		return fmt.Errorf("config: hidden_size %d does not split into %d heads of an even size: %w", c.Hidden, c.Heads, ErrUnsupported)
	}
	if !(c.Eps > 0) {
		return fmt.Errorf("config: layer_norm_eps is %v and has to be positive: %w", c.Eps, ErrUnsupported)
	}
	return nil
}

// ReadConfig finds the shape of a checkpoint: from its config.json, from the
// hyper-parameters that fair-esm keeps inside its .pt files, or, for a bare
// file of tensors, from their names and shapes.
func ReadConfig(c *weights.Checkpoint) (Config, error) {
	if data := c.Config(); data != nil {
		config, err := ParseConfig(data)
		if err != nil {
			return Config{}, fmt.Errorf("%s: %w", c.Source(), err)
		}
		return config, nil
	}
	config, err := deduceConfig(c)
	if err != nil {
		return Config{}, fmt.Errorf("%s: %w", c.Source(), err)
	}
	if err := config.check(); err != nil {
		return Config{}, fmt.Errorf("%s: %w", c.Source(), err)
	}
	return config, nil
}

const wordEmbeddings = "embeddings.word_embeddings.weight"

// deduceConfig reads the shape off the tensors. The number of heads is in
// none of them: it comes from fair-esm's arguments or from the published
// model of that width.
func deduceConfig(c *weights.Checkpoint) (Config, error) {
	word, ok := c.Tensor(wordEmbeddings)
	if !ok || len(word.Shape()) != 2 {
		return Config{}, fmt.Errorf("there is no config.json and no matrix %s: neither ESM-2 nor DNABERT-S: %w", wordEmbeddings, ErrUnsupported)
	}
	layers := 0
	for _, name := range c.Names() {
		var block int
		if n, _ := fmt.Sscanf(name, "encoder.layer.%d.", &block); n == 1 {
			layers = max(layers, block+1)
		}
	}
	hidden := word.Shape()[1]
	config := esm2Config(layers, hidden, 0)
	if _, fused := c.Tensor("encoder.layer.0.attention.self.Wqkv.weight"); fused {
		config = dnabertsConfig(layers)
		config.Hidden = hidden
	}
	config.Vocabulary = word.Shape()[0]
	if heads, ok := c.Args()["encoder_attention_heads"].(int64); ok {
		config.Heads = int(heads)
	}
	if dropout, ok := c.Args()["token_dropout"].(bool); ok {
		config.TokenDropout = dropout
	}
	for _, k := range known { // no two widths of an architecture differ in heads
		if config.Heads == 0 && k.Architecture == config.Architecture && k.Hidden == hidden {
			config.Heads = k.Heads
		}
	}
	if config.Heads == 0 {
		return Config{}, fmt.Errorf("there is no config.json, and no published model is %d wide: the number of heads is unknown: %w", hidden, ErrUnsupported)
	}
	return config, nil
}
