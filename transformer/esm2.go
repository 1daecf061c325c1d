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
	config Config
	word   kernels.Weight // [vocabulary, h]
	blocks []esm2Block
	norm   normalization // after the last block
}

type esm2Block struct {
	attentionNorm normalization
	qkv           projection // [3h, h]: queries, keys, values
	invFreq       []float32  // [d/2] the rotary frequencies
	attention     projection // [h, h]
	norm          normalization
	up            projection // [f, h]
	down          projection // [h, f]
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

func loadESM2(c Config, l *loader) *esm2 {
	m := &esm2{config: c, word: l.load(kernels.Lookup, wordEmbeddings)}
	for i := range c.Layers {
		block := fmt.Sprintf("encoder.layer.%d.", i)
		self := block + "attention.self."
		m.blocks = append(m.blocks, esm2Block{
			attentionNorm: l.normalization(block + "attention.LayerNorm"),
			qkv:           l.projection(self+"query", self+"key", self+"value"),
			invFreq:       l.invFreq(block, c.HeadDim()),
			attention:     l.projection(block + "attention.output.dense"),
			norm:          l.normalization(block + "LayerNorm"),
			up:            l.projection(block + "intermediate.dense"),
			down:          l.projection(block + "output.dense"),
		})
	}
	m.norm = l.normalization("encoder.emb_layer_norm_after")
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

// esm2Pass holds the activations of one forward pass.
type esm2Pass struct {
	*esm2
	kernels.Stream
	x       kernels.Buffer // [T, h] the residual stream
	y       kernels.Buffer // [T, h] a LayerNorm of x
	qkv     kernels.Buffer // [T, 3h], over hidden
	context kernels.Buffer // [T, h] what attention gives, over y
	hidden  kernels.Buffer // [T, f]
}

func (m *esm2) newPass(s kernels.Stream) pass {
	h, f := m.config.Hidden, m.config.Intermediate
	p := &esm2Pass{esm2: m, Stream: s}
	p.x = s.Tokens(h, kernels.Residual)
	p.y = s.Tokens(h, kernels.Operand)
	wide := s.Tokens(max(f, 3*h), kernels.Operand)
	p.qkv, p.hidden = s.Reuse(wide, 3*h), s.Reuse(wide, f)
	p.context = s.Reuse(p.y, h)
	return p
}

// maskedInTraining is the share of tokens that were <mask> in training, 15%
// of which 80%: with token dropout the embeddings are scaled by what was left.
const maskedInTraining = 0.15 * 0.8

func (p *esm2Pass) forward(last int, visit func(block int, x kernels.Buffer)) {
	c := p.config
	qScale := float32(1 / math.Sqrt(float64(c.HeadDim())))

	embed := kernels.Embed{Out: p.x, Table: p.word, Scale: 1, Mask: kernels.NoMask}
	if c.TokenDropout {
		embed.Scale, embed.Mask = 1-maskedInTraining, c.MaskID
	}
	p.Embed(embed)
	visit(0, p.x)
	for i, b := range p.blocks[:last] {
		p.normalize(p.y, b.attentionNorm)
		p.Linear(kernels.Linear{Out: p.qkv, In: p.y, W: b.qkv.w, Bias: b.qkv.bias})
		rotary := &kernels.Rotary{QScale: qScale, InvFreq: b.invFreq}
		p.Attention(kernels.Attention{Out: p.context, QKV: p.qkv, Heads: c.Heads, Scale: 1, Rotary: rotary})
		p.Linear(kernels.Linear{Out: p.x, In: p.context, W: b.attention.w, Bias: b.attention.bias, Add: p.x})

		p.normalize(p.y, b.norm)
		p.Linear(kernels.Linear{Out: p.hidden, In: p.y, W: b.up.w, Bias: b.up.bias, Then: kernels.GELU})
		p.Linear(kernels.Linear{Out: p.x, In: p.hidden, W: b.down.w, Bias: b.down.bias, Add: p.x})
		if i+1 == c.Layers {
			p.normalize(p.x, p.norm) // "layer L" of the reference is after the last LayerNorm
		}
		visit(i+1, p.x)
	}
}

// normalize is out = LN(x).
func (p *esm2Pass) normalize(out kernels.Buffer, n normalization) {
	p.Norm(kernels.Norm{Out: out, In: p.x, Gain: n.gain, Bias: n.bias, Eps: p.config.Eps})
}
