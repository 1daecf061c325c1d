package transformer

import (
	"fmt"
	"math"
	"math/bits"

	"seqembed/kernels"
	"seqembed/weights"
)

// dnaberts is DNABERT-S (Zhou et al. 2024, arXiv:2402.08777), a MosaicBERT:
// BERT's post-LayerNorm blocks with ALiBi in place of a position table and a
// gated feed-forward layer. The reference is bert_layers.py of
// MAGICS-LAB/DNABERT_S, on its path without Triton.
type dnaberts struct {
	kernels.Model
	config    Config
	embed     kernels.Embed // [vocabulary, h], and row 0 of the token types [h]
	norm      kernels.Norm
	attention kernels.Attention
	blocks    []dnabertsBlock
}

type dnabertsBlock struct {
	qkv           kernels.Linear // [3h, h]: queries, keys, values
	output        kernels.Linear // [h, h]
	attentionNorm kernels.Norm
	gated         kernels.Linear // [2f, h], no bias: gate, then up
	down          kernels.Linear // [h, f]
	norm          kernels.Norm
}

const tokenTypes = "embeddings.token_type_embeddings.weight"

func dnabertsTensors(c Config) []weights.Spec {
	h, f := c.Hidden, c.Intermediate
	list := []weights.Spec{
		{Name: wordEmbeddings, Shape: []int{c.Vocabulary, h}},
		{Name: tokenTypes, Shape: []int{c.TypeVocabulary, h}},
	}
	list = append(list, layerNorm("embeddings.LayerNorm", h)...)
	for i := range c.Layers {
		block := fmt.Sprintf("encoder.layer.%d.", i)
		list = append(list, withBias(block+"attention.self.Wqkv", 3*h, h)...)
		list = append(list, withBias(block+"attention.output.dense", h, h)...)
		list = append(list, layerNorm(block+"attention.output.LayerNorm", h)...)
		list = append(list, weights.Spec{Name: block + "mlp.gated_layers.weight", Shape: []int{2 * f, h}})
		list = append(list, withBias(block+"mlp.wo", h, f)...)
		list = append(list, layerNorm(block+"mlp.layernorm", h)...)
	}
	return list
}

func loadDNABERTS(c Config, l *loader) *dnaberts {
	m := &dnaberts{Model: l.model, config: c}
	m.embed = kernels.Embed{Table: l.load(kernels.Lookup, wordEmbeddings), Scale: 1, Mask: kernels.NoMask}
	m.embed.Type = l.loadFrom(kernels.Vector, firstRow{l.tensor(tokenTypes)})
	m.norm = l.normalization("embeddings.LayerNorm", c.Eps)
	scale := float32(1 / math.Sqrt(float64(c.HeadDim())))
	m.attention = kernels.Attention{Heads: c.Heads, Scale: scale, Slopes: alibiSlopes(c.Heads)}
	for i := range c.Layers {
		block := fmt.Sprintf("encoder.layer.%d.", i)
		m.blocks = append(m.blocks, dnabertsBlock{
			qkv:           l.projection(block + "attention.self.Wqkv"),
			output:        l.projection(block + "attention.output.dense"),
			attentionNorm: l.normalization(block+"attention.output.LayerNorm", c.Eps),
			gated:         kernels.Linear{W: l.matrix(block + "mlp.gated_layers.weight"), Then: kernels.GEGLU},
			down:          l.projection(block + "mlp.wo"),
			norm:          l.normalization(block+"mlp.layernorm", c.Eps),
		})
	}
	return m
}

func (m *dnaberts) Config() Config { return m.config }

// alibiSlopes gives the slope of each head as the ALiBi authors' code does
// (Press et al. 2022): 2^(−8i/n) for n heads, a power of two; otherwise those
// of the next smaller power of two m, then every other slope of 2m heads.
func alibiSlopes(heads int) []float32 {
	m := 1 << (bits.Len(uint(heads)) - 1)
	var slopes []float32
	for i := 1; i <= m; i++ {
		slopes = append(slopes, float32(math.Exp2(-8*float64(i)/float64(m))))
	}
	for i := 1; len(slopes) < heads; i += 2 {
		slopes = append(slopes, float32(math.Exp2(-8*float64(i)/float64(2*m))))
	}
	return slopes
}

func (m *dnaberts) build(p *kernels.Program, last int, visit func(block int, x kernels.Value)) {
	x := p.Norm(p.Embed(m.embed), m.norm)
	visit(0, x)
	for i, b := range m.blocks[:last] {
		context := p.Attention(p.Linear(x, b.qkv, kernels.None), m.attention)
		x = p.Norm(p.Linear(context, b.output, x), b.attentionNorm)
		hidden := p.Linear(x, b.gated, kernels.None)
		x = p.Norm(p.Linear(hidden, b.down, x), b.norm)
		visit(i+1, x)
	}
}
