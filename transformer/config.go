package transformer

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"seqembed/weights"
)

// Config is the shape of a model: the values of its config.json on which results depend.
type Config struct {
	Family       *Family
	Layers       int // number of blocks
	Hidden       int
	Heads        int
	Intermediate int // width of the feed-forward layer
	Vocabulary   int
	Eps          float32 // epsilon of every LayerNorm
	Own          any     // values that only this family has, of a comparable type; may be nil
}

// ErrUnsupported is wrapped by the error for a checkpoint that belongs to no family, or that needs something its family
// does not support.
var ErrUnsupported = errors.New("unsupported checkpoint")

// HeadDim returns the number of columns of one attention head.
func (c Config) HeadDim() int { return c.Hidden / c.Heads }

// Tensors lists the tensors that a model of this shape reads, under their canonical names.
func (c Config) Tensors() []weights.Spec { return c.Family.tensors(c) }

// Parameters returns the number of values in all tensors that a model of this shape needs.
func (c Config) Parameters() (n int64) {
	for _, s := range c.Tensors() {
		if s.Optional {
			continue
		}
		size := int64(1)
		for _, d := range s.Shape {
			size *= int64(d)
		}
		n += size
	}
	return n
}

// FLOPs returns the number of floating-point operations in the matrix products and the attention of a forward pass.
// lengths are the numbers of tokens of its sequences. A multiply-add counts as two operations.
func (c Config) FLOPs(lengths ...int) float64 {
	block := c
	block.Layers = 1
	products := 0.0 // FLOPs per token of the products of one block
	for _, s := range block.Tensors() {
		if len(s.Shape) == 2 && !strings.HasPrefix(s.Name, "embeddings.") {
			products += 2 * float64(s.Shape[0]) * float64(s.Shape[1])
		}
	}
	sum := 0.0
	for _, n := range lengths {
		t := float64(n)
		sum += t * (products + 4*t*float64(c.Hidden))
	}
	return sum * float64(c.Layers)
}

// ParseConfig parses a config.json in the layout of Hugging Face.
func (f *Family) ParseConfig(data []byte) (Config, error) {
	c, err := f.decodeConfig(data)
	if err == nil {
		// check comes before own, because its error for another vocabulary is clearer: own only sees that the ids of
		// special tokens differ.
		err = c.check()
	}
	if err == nil && f.own != nil {
		c.Own, err = f.own(data)
	}
	if err != nil {
		return Config{}, fmt.Errorf("config.json: %w", err)
	}
	return c, nil
}

// defaultEps is the epsilon of every LayerNorm if config.json gives none. It is the default of EsmConfig and BertConfig
// in the library transformers.
const defaultEps = 1e-12

func (f *Family) decodeConfig(data []byte) (Config, error) {
	var file struct {
		ModelType    string   `json:"model_type"`
		Layers       int      `json:"num_hidden_layers"`
		Hidden       int      `json:"hidden_size"`
		Heads        int      `json:"num_attention_heads"`
		Intermediate int      `json:"intermediate_size"`
		Vocabulary   int      `json:"vocab_size"`
		Eps          *float32 `json:"layer_norm_eps"`
		Activation   string   `json:"hidden_act"`
		Decoder      bool     `json:"is_decoder"`
	}
	if err := json.Unmarshal(data, &file); err != nil {
		return Config{}, err
	}
	switch {
	case file.ModelType != f.modelType:
		return Config{}, fmt.Errorf("model_type is %q, and that of %s is %q: %w",
			file.ModelType, f.Name, f.modelType, ErrUnsupported)
	case file.Activation != "" && file.Activation != f.activation:
		return Config{}, fmt.Errorf("hidden_act is %q, and %s computes %q only: %w",
			file.Activation, f.Name, f.activation, ErrUnsupported)
	case file.Decoder:
		return Config{}, fmt.Errorf("is_decoder is true, and %s computes attention in both directions only: %w", f.Name, ErrUnsupported)
	}
	c := Config{Family: f, Layers: file.Layers, Hidden: file.Hidden, Heads: file.Heads, Intermediate: file.Intermediate,
		Vocabulary: file.Vocabulary, Eps: defaultEps}
	if file.Eps != nil {
		c.Eps = *file.Eps
	}
	return c, nil
}

// size is a number in a config.json and its upper limit, which is far above the number that any published model of the
// families has.
type size struct {
	name       string
	value, max int
}

func checkSizes(sizes ...size) error {
	for _, s := range sizes {
		if s.value < 1 || s.value > s.max {
			return fmt.Errorf("%s is %d, outside 1 to %d: %w", s.name, s.value, s.max, ErrUnsupported)
		}
	}
	return nil
}

// check returns an error for numbers in a config.json that are impossible or far too large, so that no memory is
// allocated for them. For a family with a fixed vocabulary it also checks vocab_size against the number of entries of
// the vocabulary.
func (c Config) check() error {
	err := checkSizes(size{"num_hidden_layers", c.Layers, 1 << 10}, size{"hidden_size", c.Hidden, 1 << 16},
		size{"num_attention_heads", c.Heads, 1 << 10}, size{"intermediate_size", c.Intermediate, 1 << 18},
		size{"vocab_size", c.Vocabulary, 1 << 20})
	switch {
	case err != nil:
		return err
	case c.Hidden%c.Heads != 0 || c.HeadDim()%2 != 0:
		return fmt.Errorf("hidden_size %d does not split into %d heads of an even size: %w",
			c.Hidden, c.Heads, ErrUnsupported)
	case !(c.Eps > 0):
		return fmt.Errorf("layer_norm_eps is %v and has to be positive: %w", c.Eps, ErrUnsupported)
	case c.Family.FixedVocabulary:
		return c.Family.checkSize(c.Family.NewTokenizer(), c.Vocabulary)
	}
	return nil
}

// deduceConfig finds out the shape of a checkpoint without config.json from its tensors. The tensors do not show the
// number of heads. deduceConfig takes that number from the published model of the same width, unless the function
// f.deduce finds it in the values that the checkpoint file stores beside the tensors.
func (f *Family) deduceConfig(c *weights.Checkpoint) (Config, error) {
	if f.another != nil {
		if err := f.another(c); err != nil {
			return Config{}, err
		}
	}
	word, ok := c.Tensor(wordEmbeddings)
	if !ok || len(word.Shape()) != 2 {
		return Config{}, fmt.Errorf("there is no config.json and no matrix %s: %w", wordEmbeddings, ErrUnsupported)
	}
	layers, hidden, heads := 0, word.Shape()[1], 0
	for _, name := range c.Names() {
		var block int
		if n, _ := fmt.Sscanf(name, "encoder.layer.%d.", &block); n == 1 {
			layers = max(layers, block+1)
		}
	}
	for _, p := range f.Published { // a family's models of the same width have the same number of heads
		if p.hidden == hidden {
			heads = p.heads
		}
	}
	text := []byte(f.configJSON(layers, hidden, heads))
	config, err := f.decodeConfig(text)
	if err == nil && f.own != nil {
		config.Own, err = f.own(text)
	}
	if err != nil {
		return Config{}, err
	}
	config.Vocabulary = word.Shape()[0]
	if f.deduce != nil {
		f.deduce(c.Values, &config)
	}
	if config.Heads == 0 {
		return Config{}, fmt.Errorf("there is no config.json, and no published model is %d wide: "+
			"the number of heads is unknown: %w", hidden, ErrUnsupported)
	}
	return config, config.check()
}
