package main

// mutation replaces old, which stands exactly once in the file, by new.
type mutation struct {
	name, file, old, new string
}

const (
	esm2      = "transformer/esm2.go"
	dnaberts  = "transformer/dnaberts.go"
	config    = "transformer/config.go"
	encoder   = "transformer/encoder.go"
	modelLoad = "transformer/transformer.go"
)

var mutations = []mutation{
	{"ESM-2: no attention residual", esm2, "Bias: b.attention.bias, Add: p.x}", "Bias: b.attention.bias}"},
	{"ESM-2: no feed-forward residual", esm2, "Bias: b.down.bias, Add: p.x}", "Bias: b.down.bias}"},
	{"ESM-2: key and query exchanged", esm2,
		`self+"query", self+"key", self+"value"`, `self+"key", self+"query", self+"value"`},
	{"ESM-2: value first", esm2, `self+"query", self+"key", self+"value"`, `self+"value", self+"query", self+"key"`},
	{"ESM-2: no query scale", esm2, "qScale := float32(1 / math.Sqrt(float64(c.HeadDim())))", "qScale := float32(1)"},
	{"ESM-2: scores scaled twice", esm2, "Heads: c.Heads, Scale: 1,", "Heads: c.Heads, Scale: qScale,"},
	{"ESM-2: no last LayerNorm", esm2, "p.normalize(p.x, p.norm)", "_ = p.norm"},
	{"ESM-2: last LayerNorm after every block", esm2, "if i+1 == c.Layers {", "if c.Layers > 0 {"},
	{"ESM-2: attention LayerNorm's weights used twice", esm2,
		"p.normalize(p.y, b.norm)", "p.normalize(p.y, b.attentionNorm)"},
	{"ESM-2: feed-forward LayerNorm's weights used twice", esm2,
		"p.normalize(p.y, b.attentionNorm)", "p.normalize(p.y, b.norm)"},
	{"ESM-2: attention LayerNorm's weights loaded twice", esm2,
		`l.normalization(block + "LayerNorm")`, `l.normalization(block + "attention.LayerNorm")`},
	{"ESM-2: a GELU of queries, keys and values", esm2, "Bias: b.qkv.bias}", "Bias: b.qkv.bias, Then: kernels.GELU}"},
	{"ESM-2: no GELU", esm2, ", Then: kernels.GELU}", "}"},
	{"ESM-2: rotary base 1,000", esm2, "math.Pow(10000,", "math.Pow(1000,"},
	{"ESM-2: no rotary positions", esm2, "InvFreq: b.invFreq}", "InvFreq: make([]float32, len(b.invFreq))}"},
	{"ESM-2: no token-dropout scale", esm2,
		"embed.Scale, embed.Mask = 1-maskedInTraining, c.MaskID", "embed.Scale, embed.Mask = 1, c.MaskID"},
	{"ESM-2: every block has the first one's weights", esm2,
		"block := fmt.Sprintf(\"encoder.layer.%d.\", i)\n\t\tself :=",
		"block := fmt.Sprintf(\"encoder.layer.%d.\", i*0)\n\t\tself :="},
	{"ESM-2: eps 1e-3", esm2, "Eps: p.config.Eps}", "Eps: 1e-3}"},
	{"ESM-2: eps 1e-3 in the published shapes", config, "Vocabulary: 33, Eps: 1e-5,", "Vocabulary: 33, Eps: 1e-3,"},
	{"ESM-2: eps 1e-3 for a config.json without it", config, "= ESM2, 1e-5,", "= ESM2, 1e-3,"},
	{"ESM-2: special tokens in the mean", encoder, "o.Skip, o.Trim = 1, 1", "o.Skip, o.Trim = 0, 0"},
	{"ESM-2: <eos> in the mean", encoder, "o.Skip, o.Trim = 1, 1", "o.Skip, o.Trim = 1, 0"},

	{"DNABERT-S: no attention residual", dnaberts, "Bias: b.attention.bias, Add: p.x}", "Bias: b.attention.bias}"},
	{"DNABERT-S: no feed-forward residual", dnaberts, "Bias: b.down.bias, Add: p.x}", "Bias: b.down.bias}"},
	{"DNABERT-S: no 1/√d", dnaberts,
		"scale := float32(1 / math.Sqrt(float64(p.config.HeadDim())))", "scale := float32(1)"},
	{"DNABERT-S: no token-type row", dnaberts, "Type: p.tokenType, ", ""},
	{"DNABERT-S: attention LayerNorm's weights used twice", dnaberts,
		"p.normalize(b.norm)", "p.normalize(b.attentionNorm)"},
	{"DNABERT-S: feed-forward LayerNorm's weights used twice", dnaberts,
		"p.normalize(b.attentionNorm)", "p.normalize(b.norm)"},
	{"DNABERT-S: attention LayerNorm's weights loaded twice", dnaberts, `l.normalization(block + "mlp.layernorm")`,
		`l.normalization(block + "attention.output.LayerNorm")`},
	{"DNABERT-S: a GELU of queries, keys and values", dnaberts, "Bias: b.qkv.bias}", "Bias: b.qkv.bias, Then: kernels.GELU}"},
	{"DNABERT-S: ALiBi doubled", dnaberts,
		"return slopes\n", "for i := range slopes {\n\t\tslopes[i] *= 2\n\t}\n\treturn slopes\n"},
	{"DNABERT-S: no ALiBi", dnaberts, "Scale: scale, Slopes: p.slopes}", "Scale: scale}"},
	{"DNABERT-S: slopes of one series", dnaberts,
		"for i := 1; i <= m; i++ {", "m = heads\n\tfor i := 1; i <= m; i++ {"},
	{"DNABERT-S: every block has the first one's weights", dnaberts,
		"block := fmt.Sprintf(\"encoder.layer.%d.\", i)\n\t\tm.blocks",
		"block := fmt.Sprintf(\"encoder.layer.%d.\", i*0)\n\t\tm.blocks"},
	{"DNABERT-S: eps 1e-3", dnaberts, "Eps: p.config.Eps}", "Eps: 1e-3}"},
	{"DNABERT-S: eps 1e-3 in the published shapes", config,
		"TypeVocabulary: 2, Eps: 1e-12}", "TypeVocabulary: 2, Eps: 1e-3}"},
	{"DNABERT-S: eps 1e-3 for a config.json without it", config, "= DNABERTS, 1e-12,", "= DNABERTS, 1e-3,"},
	{"DNABERT-S: special tokens left out of the mean", encoder,
		"case e.model.Config().Architecture == ESM2:", "default:"},

	{"no biases", modelLoad,
		"return projection{l.matrix(w...), l.vector(bias...)}", "return projection{l.matrix(w...), nil}"},
	{"LayerNorm without its bias", modelLoad,
		`return normalization{l.vector(name + ".weight"), l.vector(name + ".bias")}`,
		`return normalization{l.vector(name + ".weight"), l.vector(name + ".weight")}`},
}
