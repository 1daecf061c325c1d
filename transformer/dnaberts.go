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
	config    Config
	word      kernels.Weight // [vocabulary, h]
	tokenType kernels.Weight // row 0 of the token types [h]
	norm      normalization
	blocks    []dnabertsBlock
	slopes    []float32 // [heads]
}

type dnabertsBlock struct {
	qkv           projection // [3h, h]: queries, keys, values
	attention     projection // [h, h]
	attentionNorm normalization
	gated         kernels.Weight // [2f, h], no bias: gate, then up
	down          projection     // [h, f]
	norm          normalization
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
	m := &dnaberts{config: c, slopes: alibiSlopes(c.Heads)}
	m.word = l.load(kernels.Lookup, wordEmbeddings)
	m.tokenType = l.loadFrom(kernels.Vector, firstRow{l.tensor(tokenTypes)})
	m.norm = l.normalization("embeddings.LayerNorm")
	for i := range c.Layers {
		block := fmt.Sprintf("encoder.layer.%d.", i)
		m.blocks = append(m.blocks, dnabertsBlock{
			qkv:           l.projection(block + "attention.self.Wqkv"),
			attention:     l.projection(block + "attention.output.dense"),
			attentionNorm: l.normalization(block + "attention.output.LayerNorm"),
			gated:         l.matrix(block + "mlp.gated_layers.weight"),
			down:          l.projection(block + "mlp.wo"),
			norm:          l.normalization(block + "mlp.layernorm"),
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

// dnabertsPass holds the activations of one forward pass.
type dnabertsPass struct {
	*dnaberts
	kernels.Stream
	x       kernels.Buffer // [T, h] the hidden state
	sum     kernels.Buffer // [T, h] what a LayerNorm reads
	qkv     kernels.Buffer // [T, 3h], over hidden
	context kernels.Buffer // [T, h] what attention gives
	hidden  kernels.Buffer // [T, f]
}

func (m *dnaberts) newPass(s kernels.Stream) pass {
	h, f := m.config.Hidden, m.config.Intermediate
	p := &dnabertsPass{dnaberts: m, Stream: s}
	p.x = s.Tokens(h, kernels.Residual|kernels.Operand)
	p.sum = s.Tokens(h, kernels.Residual)
	p.context = s.Tokens(h, kernels.Operand)
	wide := s.Tokens(max(f, 3*h), kernels.Operand)
	p.qkv, p.hidden = s.Reuse(wide, 3*h), s.Reuse(wide, f)
	return p
}

func (p *dnabertsPass) forward(last int, visit func(block int, x kernels.Buffer)) {
	scale := float32(1 / math.Sqrt(float64(p.config.HeadDim())))

	p.Embed(kernels.Embed{Out: p.sum, Table: p.word, Type: p.tokenType, Scale: 1, Mask: kernels.NoMask})
	p.normalize(p.norm)
	visit(0, p.x)
	for i, b := range p.blocks[:last] {
		p.Linear(kernels.Linear{Out: p.qkv, In: p.x, W: b.qkv.w, Bias: b.qkv.bias})
		p.Attention(kernels.Attention{Out: p.context, QKV: p.qkv, Heads: p.config.Heads, Scale: scale, Slopes: p.slopes})
		p.Linear(kernels.Linear{Out: p.sum, In: p.context, W: b.attention.w, Bias: b.attention.bias, Add: p.x})
		p.normalize(b.attentionNorm)

		p.Linear(kernels.Linear{Out: p.hidden, In: p.x, W: b.gated, Then: kernels.GEGLU})
		p.Linear(kernels.Linear{Out: p.sum, In: p.hidden, W: b.down.w, Bias: b.down.bias, Add: p.x})
		p.normalize(b.norm)
		visit(i+1, p.x)
	}
}

// normalize is x = LN(sum).
func (p *dnabertsPass) normalize(n normalization) {
	p.Norm(kernels.Norm{Out: p.x, In: p.sum, Gain: n.gain, Bias: n.bias, Eps: p.config.Eps})
}
