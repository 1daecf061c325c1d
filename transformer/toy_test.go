package transformer

import (
	"fmt"
	"math"

	"seqembed/internal/seqio"
	"seqembed/kernels"
	"seqembed/tokenizer"
	"seqembed/weights"
)

// This file is an example of a new family: everything that a family needs if the operations of package kernels suffice,
// except for its line in Families (see "Add a model" in CONTRIBUTING.md). TestToyFamily runs it.

// Toy is a family for tests: a small transformer encoder with a token for each letter of DNA, without positions and
// without biases in its products.
var Toy = &Family{
	Name:      "Toy",
	Alphabet:  seqio.DNA,
	Flag:      "toy",
	VirNucPro: "TOY",
	Published: []Published{{Name: "toy-s", Hub: "somebody/toy-small", layers: 2, hidden: 16, heads: 2}},
	Default:   "toy-s",

	FixedVocabulary: true,
	tokenizer: func([]byte) (tokenizer.Tokenizer, error) {
		return tokenizer.NewLetters([]string{"[CLS]", "[SEP]", "[UNK]", "A", "C", "G", "T"}, "[CLS]", "[SEP]", "[UNK]"), nil
	},
	Before: 1,
	After:  1,

	modelType: "toy",
	marker:    "encoder.layer.0.mixer.weight",
	prefixes:  []string{"toy."},
	ignored:   []string{"cls.*"},
	tuned:     tunedHeads,

	configJSON: func(layers, hidden, heads int) string {
		return fmt.Sprintf(`{"model_type":"toy","num_hidden_layers":%d,"hidden_size":%d,"num_attention_heads":%d,`+
			`"intermediate_size":%d,"vocab_size":7}`, layers, hidden, heads, 2*hidden)
	},
	activation: "gelu",

	tensors: func(c Config) []weights.Spec {
		list := []weights.Spec{table(wordEmbeddings, c.Vocabulary, c.Hidden)}
		for i := range c.Layers {
			block := fmt.Sprintf("encoder.layer.%d.", i)
			list = append(list, layerNorm(block+"norm", c.Hidden)...)
			list = append(list, matrix(block+"mixer", 3*c.Hidden, c.Hidden, attending),
				matrix(block+"output", c.Hidden, c.Hidden, 1), matrix(block+"up", c.Intermediate, c.Hidden, 1),
				matrix(block+"down", c.Hidden, c.Intermediate, 1))
		}
		return list
	},
	load: func(c Config, l *loader) network {
		m := &toy{
			embed:     kernels.Embed{Table: l.load(kernels.Lookup, wordEmbeddings), Scale: 1, Mask: kernels.NoMask},
			attention: kernels.Attention{Heads: c.Heads, Scale: float32(1 / math.Sqrt(float64(c.HeadDim())))},
		}
		for i := range c.Layers {
			block := fmt.Sprintf("encoder.layer.%d.", i)
			m.blocks = append(m.blocks, toyBlock{
				norm:   l.normalization(block+"norm", c.Eps),
				mixer:  kernels.Linear{W: l.matrix(block + "mixer.weight")},
				output: kernels.Linear{W: l.matrix(block + "output.weight")},
				up:     kernels.Linear{W: l.matrix(block + "up.weight"), Then: kernels.GELU},
				down:   kernels.Linear{W: l.matrix(block + "down.weight")},
			})
		}
		return m
	},
}

type toy struct {
	embed     kernels.Embed
	attention kernels.Attention
	blocks    []toyBlock
}

type toyBlock struct {
	norm                    kernels.Norm
	mixer, output, up, down kernels.Linear
}

func (m *toy) build(p *kernels.Program, last int, visit func(block int, x kernels.Value)) {
	x := p.Embed(m.embed)
	visit(0, x)
	for i, b := range m.blocks[:last] {
		qkv := p.Linear(p.Norm(x, b.norm), b.mixer, kernels.None)
		x = p.Linear(p.Attention(qkv, m.attention), b.output, x)
		x = p.Linear(p.Linear(x, b.up, kernels.None), b.down, x)
		visit(i+1, x)
	}
}
