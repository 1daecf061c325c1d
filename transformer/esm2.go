package transformer

import (
	"fmt"
	"math"

	"seqembed/kernels"
	"seqembed/weights"
)

// esm2 is ESM-2 (Lin et al. 2023, doi:10.1126/science.ade2574): pre-LayerNorm
// blocks with rotary positions, and a LayerNorm at the end. The references
// are facebookresearch/esm and transformers' modeling_esm.py.
type esm2 struct {
	kernels.Model
	config Config
	embed  kernels.Embed // [vocabulary, h]
	blocks []esm2Block
	norm   kernels.Norm // after the last block
}

type esm2Block struct {
	attentionNorm kernels.Norm
	qkv           kernels.Linear // [3h, h]: queries, keys, values
	attention     kernels.Attention
	output        kernels.Linear // [h, h]
	norm          kernels.Norm
	up            kernels.Linear // [f, h]
	down          kernels.Linear // [h, f]
}

func esm2Tensors(c Config) []weights.Spec {
	h, f := c.Hidden, c.Intermediate
	list := []weights.Spec{{Name: wordEmbeddings, Shape: []int{c.Vocabulary, h}}}
	for i := range c.Layers {
		block := fmt.Sprintf("encoder.layer.%d.", i)
		for _, part := range [...]string{"query", "key", "value"} {
			list = append(list, withBias(block+"attention.self."+part, h, h)...)
		}
		list = append(list, weights.Spec{Name: invFreqOf(block), Shape: []int{c.HeadDim() / 2}, Optional: true})
		list = append(list, withBias(block+"attention.output.dense", h, h)...)
		list = append(list, layerNorm(block+"attention.LayerNorm", h)...)
		list = append(list, withBias(block+"intermediate.dense", f, h)...)
		list = append(list, withBias(block+"output.dense", h, f)...)
		list = append(list, layerNorm(block+"LayerNorm", h)...)
	}
	return append(list, layerNorm("encoder.emb_layer_norm_after", h)...)
}

func invFreqOf(block string) string { return block + "attention.self.rotary_embeddings.inv_freq" }

// maskedInTraining is the share of tokens that were <mask> in training, 15%
// of which 80%: with token dropout the embeddings are scaled by what was left.
const maskedInTraining = 0.15 * 0.8

func loadESM2(c Config, l *loader) *esm2 {
	m := &esm2{Model: l.model, config: c}
	m.embed = kernels.Embed{Table: l.load(kernels.Lookup, wordEmbeddings), Scale: 1, Mask: kernels.NoMask}
	if c.TokenDropout {
		m.embed.Scale, m.embed.Mask = 1-maskedInTraining, c.MaskID
	}
	qScale := float32(1 / math.Sqrt(float64(c.HeadDim())))
	for i := range c.Layers {
		block := fmt.Sprintf("encoder.layer.%d.", i)
		self := block + "attention.self."
		b := esm2Block{
			attentionNorm: l.normalization(block+"attention.LayerNorm", c.Eps),
			qkv:           l.projection(self+"query", self+"key", self+"value"),
			attention:     kernels.Attention{Heads: c.Heads, Scale: 1, Rotary: &kernels.Rotary{QScale: qScale, InvFreq: l.invFreq(block, c.HeadDim())}},
			output:        l.projection(block + "attention.output.dense"),
			norm:          l.normalization(block+"LayerNorm", c.Eps),
			up:            l.projection(block + "intermediate.dense"),
			down:          l.projection(block + "output.dense"),
		}
		b.up.Then = kernels.GELU
		m.blocks = append(m.blocks, b)
	}
	m.norm = l.normalization("encoder.emb_layer_norm_after", c.Eps)
	return m
}

// invFreq is the block's table of rotary frequencies, as the checkpoint
// carries it, or 10000^(−2j/d) rounded as the reference rounds it.
func (l *loader) invFreq(block string, d int) []float32 {
	table := make([]float32, d/2)
	if t, ok := l.checkpoint.Tensor(invFreqOf(block)); ok {
		if l.err == nil {
			l.err = t.ReadRows(table, 0)
		}
		return table
	}
	for j := range table {
		table[j] = 1 / float32(math.Pow(10000, float64(2*j)/float64(d)))
	}
	return table
}

func (m *esm2) Config() Config { return m.config }

func (m *esm2) build(p *kernels.Program, last int, visit func(block int, x kernels.Value)) {
	x := p.Embed(m.embed)
	visit(0, x)
	for i, b := range m.blocks[:last] {
		qkv := p.Linear(p.Norm(x, b.attentionNorm), b.qkv, kernels.None)
		x = p.Linear(p.Attention(qkv, b.attention), b.output, x)
		hidden := p.Linear(p.Norm(x, b.norm), b.up, kernels.None)
		x = p.Linear(hidden, b.down, x)
		if i+1 == m.config.Layers {
			x = p.Norm(x, m.norm) // "layer L" of the reference is after the last LayerNorm
		}
		visit(i+1, x)
	}
}
