package transformer

import (
	"encoding/json"
	"fmt"
	"math"
	"math/bits"

	"seqembed/internal/seqio"
	"seqembed/kernels"
	"seqembed/tokenizer"
	"seqembed/weights"
)

// DNABERT is DNABERT-2 (Zhou et al. 2023, arXiv:2306.15006) and DNABERT-S (Zhou et al. 2024, arXiv:2402.08777), a
// MosaicBERT: BERT's post-LayerNorm blocks with ALiBi in place of a position table and a gated feed-forward layer. The
// reference is bert_layers.py of MAGICS-LAB/DNABERT_S, on its path without Triton. DNABERT-S was trained from
// DNABERT-2, as its config.json says. The two models differ only in their weights. The file of DNABERT-2 also contains
// the head for masked-language modelling (cls.*), and the names of all other tensors have the prefix "bert.".
var DNABERT = &Family{
	Name:      "DNABERT",
	Alphabet:  seqio.DNA,
	Flag:      "dnabert",
	VirNucPro: "DNABERT_S",
	Published: []Published{
		{Name: "dnabert-s", Hub: "zhihan1996/DNABERT-S", layers: 12, hidden: 768, heads: 12},
		{Name: "dnabert-2", Hub: "zhihan1996/DNABERT-2-117M", layers: 12, hidden: 768, heads: 12},
		{Name: "dnabert-s-2l", layers: 2, hidden: 768, heads: 12},
		{Name: "dnabert-tiny", layers: 2, hidden: 96, heads: 6},
	},
	Licence: "Apache-2.0",
	Default: "dnabert-s",

	VocabularyFile: "tokenizer.json",
	tokenizer: func(vocabulary []byte) (tokenizer.Tokenizer, error) {
		if vocabulary == nil {
			return tokenizer.SyntheticDNA(), nil
		}
		return tokenizer.ParseBPE(vocabulary)
	},
	tableMultiple: 8,    // bert_layers.py rounds vocab_size up to a multiple of 8
	Before:        1,    // [CLS]
	After:         1,    // [SEP]
	MeanOfSpecial: true, // as in the authors' examples
	Window:        10_000,

	modelType: "bert",
	marker:    "encoder.layer.0.attention.self.Wqkv.weight",
	prefixes:  []string{"bert."},
	ignored:   []string{"cls.*", "pooler.*", "*position_ids"},
	tuned:     tunedHeads, // BertForSequenceClassification has a head with the tensors classifier.*

	configJSON: func(layers, hidden, heads int) string {
		return fmt.Sprintf(`{"model_type":"bert","num_hidden_layers":%d,"hidden_size":%d,"num_attention_heads":%d,`+
			`"intermediate_size":%d,"vocab_size":4096,"type_vocab_size":2,"layer_norm_eps":1e-12,"hidden_act":"gelu",`+
			`"position_embedding_type":"","emb_layer_norm_before":false,"is_folding_model":false,`+
			`"token_dropout":false,"mask_token_id":null}`, layers, hidden, heads, 4*hidden)
	},
	activation: "gelu",
	own:        dnabertOwn,
	tensors:    dnabertTensors,
	load:       loadDNABERT,
}

// tokenTypes is the number of rows in the table of token types (type_vocab_size). The forward pass uses only row 0.
type tokenTypes int

func dnabertOwn(configJSON []byte) (any, error) {
	var file struct {
		TokenTypes int `json:"type_vocab_size"`
	}
	if err := json.Unmarshal(configJSON, &file); err != nil {
		return nil, err
	}
	return tokenTypes(file.TokenTypes), checkSizes(size{"type_vocab_size", file.TokenTypes, 1 << 10})
}

// dnabert contains the weights of a DNABERT model. h is Config.Hidden.
type dnabert struct {
	embed     kernels.Embed // [vocabulary, h], and row 0 of the token types [h]
	norm      kernels.Norm
	attention kernels.Attention
	blocks    []dnabertBlock
}

// dnabertBlock contains the weights of a block. h is Config.Hidden, f is Config.Intermediate, and the shape of a matrix
// is [outputs, inputs].
type dnabertBlock struct {
	qkv           kernels.Linear // [3h, h]: queries, keys, values
	output        kernels.Linear // [h, h]
	attentionNorm kernels.Norm
	gated         kernels.Linear // [2f, h], without bias: the gate's rows, then those of the up-projection
	down          kernels.Linear // [h, f]
	norm          kernels.Norm
}

const tokenTypeEmbeddings = "embeddings.token_type_embeddings.weight"

func dnabertTensors(c Config) []weights.Spec {
	h, f := c.Hidden, c.Intermediate
	types := int(c.Own.(tokenTypes))
	list := []weights.Spec{table(wordEmbeddings, c.Vocabulary, h), {Name: tokenTypeEmbeddings, Shape: []int{types, h}, Scale: 1}}
	list = append(list, layerNorm("embeddings.LayerNorm", h)...)
	for i := range c.Layers {
		block := fmt.Sprintf("encoder.layer.%d.", i)
		list = append(list, projection(block+"attention.self.Wqkv", 3*h, h, attending)...)
		list = append(list, projection(block+"attention.output.dense", h, h, 1)...)
		list = append(list, layerNorm(block+"attention.output.LayerNorm", h)...)
		list = append(list, matrix(block+"mlp.gated_layers", 2*f, h, 1))
		list = append(list, projection(block+"mlp.wo", h, f, 1)...)
		list = append(list, layerNorm(block+"mlp.layernorm", h)...)
	}
	return list
}

func loadDNABERT(c Config, l *loader) network {
	m := &dnabert{}
	m.embed = kernels.Embed{Table: l.load(kernels.Lookup, wordEmbeddings), Scale: 1, Mask: kernels.NoMask}
	m.embed.Type = l.loadFrom(kernels.Vector, firstRow{l.tensor(tokenTypeEmbeddings)})
	m.norm = l.normalization("embeddings.LayerNorm", c.Eps)
	scale := float32(1 / math.Sqrt(float64(c.HeadDim())))
	m.attention = kernels.Attention{Heads: c.Heads, Scale: scale, Slopes: alibiSlopes(c.Heads)}
	for i := range c.Layers {
		block := fmt.Sprintf("encoder.layer.%d.", i)
		m.blocks = append(m.blocks, dnabertBlock{
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

// alibiSlopes returns the slope of each head, as the code of ALiBi's authors does (Press et al. 2022). If the number of
// heads n is a power of two, the slopes are 2^(−8i/n) for i = 1 … n. For any other n, let m be the next smaller power
// of two. The first m slopes are those for m heads, and the rest are every other slope of those for 2m heads, from the
// first on.
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

func (m *dnabert) build(p *kernels.Program, last int, visit func(block int, x kernels.Value)) {
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
