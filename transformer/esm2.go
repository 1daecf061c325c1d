package transformer

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"

	"seqembed/internal/seqio"
	"seqembed/kernels"
	"seqembed/tokenizer"
	"seqembed/weights"
)

// ESM2 is ESM-2 (Lin et al. 2023, doi:10.1126/science.ade2574): pre-LayerNorm blocks with rotary positions, and a final
// LayerNorm. The references are facebookresearch/esm and transformers' modeling_esm.py.
var ESM2 = &Family{
	Name:      "ESM-2",
	Alphabet:  seqio.Protein,
	Flag:      "esm",
	VirNucPro: "ESM",
	Published: []Published{
		{"esm2-8m", "facebook/esm2_t6_8M_UR50D", "esm2_t6_8M_UR50D", 6, 320, 20},
		{"esm2-35m", "facebook/esm2_t12_35M_UR50D", "esm2_t12_35M_UR50D", 12, 480, 20},
		{"esm2-150m", "facebook/esm2_t30_150M_UR50D", "esm2_t30_150M_UR50D", 30, 640, 20},
		{"esm2-650m", "facebook/esm2_t33_650M_UR50D", "esm2_t33_650M_UR50D", 33, 1280, 20},
		{"esm2-3b", "facebook/esm2_t36_3B_UR50D", "esm2_t36_3B_UR50D", 36, 2560, 40},
		{"esm2-15b", "facebook/esm2_t48_15B_UR50D", "esm2_t48_15B_UR50D", 48, 5120, 40},
		{Name: "esm2-tiny", layers: 3, hidden: 64, heads: 4},
		{Name: "esm2-hd128", layers: 2, hidden: 512, heads: 4},
	},
	Licence: "MIT",
	Default: "esm2-650m",

	FixedVocabulary: true,
	tokenizer:       func([]byte) (tokenizer.Tokenizer, error) { return esm2Tokenizer(), nil },
	Before:          1,    // <cls>
	After:           1,    // <eos>
	MaxLength:       1022, // residues, as in training

	modelType: "esm",
	marker:    "encoder.layer.0.attention.self.query.weight",
	prefixes:  []string{"esm."},
	// Files on the hub contain a table of absolute positions, which the model does not use.
	ignored: []string{"lm_head.*", "contact_head.*", "pooler.*", "embeddings.position_embeddings.weight",
		"*position_ids"},
	tuned:       tunedHeads, // EsmForSequenceClassification has a head with the tensors classifier.*
	rename:      fromFairESM,
	besideFiles: []string{"-contact-regression.pt"}, // fair-esm stores the weights of the contact head in such files

	configJSON: func(layers, hidden, heads int) string {
		return fmt.Sprintf(`{"model_type":"esm","num_hidden_layers":%d,"hidden_size":%d,"num_attention_heads":%d,`+
			`"intermediate_size":%d,"vocab_size":33,"type_vocab_size":0,"layer_norm_eps":0.00001,"hidden_act":"gelu",`+
			`"position_embedding_type":"rotary","emb_layer_norm_before":false,"is_folding_model":false,`+
			`"token_dropout":true,"mask_token_id":32}`, layers, hidden, heads, 4*hidden)
	},
	activation: "gelu",
	own:        esm2Own,
	deduce:     fairESMArguments,
	another:    absolutePositions,
	tensors:    esm2Tensors,
	load:       loadESM2,
}

// esm2Tokenizer returns the tokenizer, which is the same for all sizes of ESM-2.
func esm2Tokenizer() tokenizer.Tokenizer {
	const entries = "<cls> <pad> <eos> <unk> L A G V S E R T I D P K Q N F Y M H W C X B U Z O . - <null_1> <mask>"
	return tokenizer.NewLetters(strings.Fields(entries), "<cls>", "<eos>", "<unk>")
}

// tokenDropout contains the settings in config.json for ESM-2's token dropout, which scales the token embeddings (see
// maskedInTraining).
type tokenDropout struct {
	On     bool  `json:"token_dropout"`
	MaskID int32 `json:"mask_token_id"`
}

func esm2Own(configJSON []byte) (any, error) {
	var file struct {
		Positions  string `json:"position_embedding_type"`
		NormBefore bool   `json:"emb_layer_norm_before"`
		Folding    bool   `json:"is_folding_model"`
		PadID      int32  `json:"pad_token_id"`
		tokenDropout
	}
	t := esm2Tokenizer()
	mask, _ := t.ID("<mask>")
	pad, _ := t.ID("<pad>")
	file.MaskID, file.PadID = int32(mask), int32(pad)
	if err := json.Unmarshal(configJSON, &file); err != nil {
		return nil, err
	}
	if file.Positions != "rotary" || file.NormBefore || file.Folding {
		return nil, fmt.Errorf("position_embedding_type %q, emb_layer_norm_before %t, is_folding_model %t are not those of ESM-2: %w",
			file.Positions, file.NormBefore, file.Folding, ErrUnsupported)
	}
	if file.MaskID != int32(mask) || file.PadID != int32(pad) {
		return nil, fmt.Errorf("mask_token_id %d and pad_token_id %d are not those of ESM-2, %d and %d: %w",
			file.MaskID, file.PadID, mask, pad, tokenizer.ErrVocabulary)
	}
	return file.tokenDropout, nil
}

// absolutePositions returns an error for a checkpoint with a table of absolute positions and without rotary
// frequencies, such as one of ESM-1v. The files of ESM-2 on the hub have both, because the table is not used.
func absolutePositions(c *weights.Checkpoint) error {
	table := slices.ContainsFunc(c.LeftOut, func(stored string) bool {
		return strings.HasSuffix(stored, "embeddings.position_embeddings.weight")
	})
	if _, rotary := c.Tensor(invFreqOf("encoder.layer.0.")); table && !rotary {
		return fmt.Errorf("there is no config.json, and the tensors have absolute positions and no rotary frequencies, "+
			"as in ESM-1v but not in ESM-2: %w", ErrUnsupported)
	}
	return nil
}

// fairESMArguments sets the number of heads and token dropout from the hyper-parameters that a file of fair-esm stores
// beside the tensors, under "args" or, without "args", under "model" in "cfg".
func fairESMArguments(values map[any]any, config *Config) {
	args, ok := values["args"].(map[string]any)
	if cfg, _ := values["cfg"].(map[any]any); !ok {
		args, _ = cfg["model"].(map[string]any)
	}
	if heads, ok := args["encoder_attention_heads"].(int64); ok {
		config.Heads = int(heads)
	}
	if on, ok := args["token_dropout"].(bool); ok {
		dropout := config.Own.(tokenDropout)
		dropout.On = on
		config.Own = dropout
	}
}

// fairNames maps the names of fair-esm's modules outside the blocks to their names in the library transformers.
var fairNames = map[string]string{
	"embed_tokens":            "embeddings.word_embeddings",
	"emb_layer_norm_after":    "encoder.emb_layer_norm_after",
	"lm_head":                 "lm_head",
	"lm_head.dense":           "lm_head.dense",
	"lm_head.layer_norm":      "lm_head.layer_norm",
	"contact_head.regression": "contact_head.regression",
}

// fairBlockNames maps the modules of a fair-esm block (layers.N.) to the modules of transformers' EsmLayer
// (encoder.layer.N.).
var fairBlockNames = map[string]string{
	"self_attn.q_proj":     "attention.self.query",
	"self_attn.k_proj":     "attention.self.key",
	"self_attn.v_proj":     "attention.self.value",
	"self_attn.out_proj":   "attention.output.dense",
	"self_attn.rot_emb":    "attention.self.rotary_embeddings",
	"self_attn_layer_norm": "attention.LayerNorm",
	"fc1":                  "intermediate.dense",
	"fc2":                  "output.dense",
	"final_layer_norm":     "LayerNorm",
}

// fromFairESM translates the name of a tensor in fair-esm's module ESM2 to the name in the library transformers. It
// returns any other name unchanged.
func fromFairESM(name string) string {
	rest := strings.TrimPrefix(strings.TrimPrefix(name, "encoder."), "sentence_encoder.")
	names, block := fairNames, ""
	if module, ok := strings.CutPrefix(rest, "layers."); ok {
		number, module, _ := strings.Cut(module, ".")
		if number == "" || strings.Trim(number, "0123456789") != "" {
			return name
		}
		names, block, rest = fairBlockNames, "encoder.layer."+number+".", module
	}
	dot := max(strings.LastIndexByte(rest, '.'), 0)
	if module, ok := names[rest[:dot]]; ok {
		return block + module + rest[dot:]
	}
	return name
}

// esm2 contains the weights of an ESM-2 model. h is Config.Hidden.
type esm2 struct {
	layers int           // number of blocks in the whole model
	embed  kernels.Embed // [vocabulary, h]
	blocks []esm2Block
	norm   kernels.Norm // LayerNorm after the last block
}

// esm2Block contains the weights of a block. h is Config.Hidden, f is Config.Intermediate, and the shape of a matrix is
// [outputs, inputs].
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
	list := []weights.Spec{table(wordEmbeddings, c.Vocabulary, h)}
	for i := range c.Layers {
		block := fmt.Sprintf("encoder.layer.%d.", i)
		list = append(list, projection(block+"attention.self.query", h, h, attending)...)
		list = append(list, projection(block+"attention.self.key", h, h, attending)...)
		list = append(list, projection(block+"attention.self.value", h, h, 1)...)
		list = append(list, weights.Spec{Name: invFreqOf(block), Shape: []int{c.HeadDim() / 2}, Optional: true})
		list = append(list, projection(block+"attention.output.dense", h, h, 1)...)
		list = append(list, layerNorm(block+"attention.LayerNorm", h)...)
		list = append(list, projection(block+"intermediate.dense", f, h, 1)...)
		list = append(list, projection(block+"output.dense", h, f, 1)...)
		list = append(list, layerNorm(block+"LayerNorm", h)...)
	}
	list = append(list, weights.Spec{Name: invFreqOf(everyBlock), Shape: []int{c.HeadDim() / 2}, Optional: true})
	return append(list, layerNorm("encoder.emb_layer_norm_after", h)...)
}

// everyBlock is the prefix under which transformers 5 stores the table of rotary frequencies that all blocks share.
const everyBlock = "encoder.layer.*."

func invFreqOf(block string) string { return block + "attention.self.rotary_embeddings.inv_freq" }

// maskedInTraining is the share of tokens that were replaced by <mask> when ESM-2 was trained: 80% of 15%. A model with
// token dropout multiplies its token embeddings by 1 − maskedInTraining.
const maskedInTraining = 0.15 * 0.8

func loadESM2(c Config, l *loader) network {
	m := &esm2{layers: c.Layers}
	m.embed = kernels.Embed{Table: l.load(kernels.Lookup, wordEmbeddings), Scale: 1, Mask: kernels.NoMask}
	if dropout := c.Own.(tokenDropout); dropout.On {
		m.embed.Scale, m.embed.Mask = 1-maskedInTraining, dropout.MaskID
	}
	qScale := float32(1 / math.Sqrt(float64(c.HeadDim())))
	for i := range c.Layers {
		block := fmt.Sprintf("encoder.layer.%d.", i)
		self := block + "attention.self."
		rotary := &kernels.Rotary{QScale: qScale, InvFreq: l.invFreq(block, c.HeadDim())}
		b := esm2Block{
			attentionNorm: l.normalization(block+"attention.LayerNorm", c.Eps),
			qkv:           l.projection(self+"query", self+"key", self+"value"),
			attention:     kernels.Attention{Heads: c.Heads, Scale: 1, Rotary: rotary},
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

// invFreq returns the d/2 rotary frequencies of a block, where d is the width of a head. It takes them from the
// checkpoint. If the checkpoint has none, they are 10000^(−2j/d), rounded as in ESM-2's own code.
func (l *loader) invFreq(block string, d int) []float32 {
	table := make([]float32, d/2)
	for _, b := range []string{block, everyBlock} {
		if t, ok := l.checkpoint.Tensor(invFreqOf(b)); ok {
			if l.err == nil {
				l.err = t.ReadRows(table, 0)
			}
			return table
		}
	}
	for j := range table {
		table[j] = 1 / float32(math.Pow(10000, float64(2*j)/float64(d)))
	}
	return table
}

func (m *esm2) build(p *kernels.Program, last int, visit func(block int, x kernels.Value)) {
	x := p.Embed(m.embed)
	visit(0, x)
	for i, b := range m.blocks[:last] {
		qkv := p.Linear(p.Norm(x, b.attentionNorm), b.qkv, kernels.None)
		x = p.Linear(p.Attention(qkv, b.attention), b.output, x)
		hidden := p.Linear(p.Norm(x, b.norm), b.up, kernels.None)
		x = p.Linear(hidden, b.down, x)
		if i+1 == m.layers {
			x = p.Norm(x, m.norm) // the hidden state of the last layer is normalized, as in the reference
		}
		visit(i+1, x)
	}
}
