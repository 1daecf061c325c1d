package transformer

import (
	"strings"
	"testing"
)

func TestCanonicalNames(t *testing.T) {
	const block = "encoder.layer.31."
	for _, c := range []struct {
		family *Family
		names  map[string]string
	}{
		{DNABERT, map[string]string{
			"embeddings.word_embeddings.weight":             "embeddings.word_embeddings.weight",
			"bert.encoder.layer.31.mlp.gated_layers.weight": block + "mlp.gated_layers.weight",
			"bert.embeddings.token_type_embeddings.weight":  "embeddings.token_type_embeddings.weight",
			"layers.31.fc1.weight":                          "layers.31.fc1.weight",
			"esm.embeddings.word_embeddings.weight":         "esm.embeddings.word_embeddings.weight",
			"encoder.layer.0.cls.weight":                    "encoder.layer.0.cls.weight",
			"clsx.weight":                                   "clsx.weight",
		}},
		{ESM2, map[string]string{
			"embeddings.word_embeddings.weight":                            "embeddings.word_embeddings.weight",
			"esm.embeddings.word_embeddings.weight":                        "embeddings.word_embeddings.weight",
			"esm.encoder.layer.31.attention.self.query.weight":             block + "attention.self.query.weight",
			"esm.encoder.emb_layer_norm_after.bias":                        "encoder.emb_layer_norm_after.bias",
			"encoder.emb_layer_norm_after.bias":                            "encoder.emb_layer_norm_after.bias",
			"encoder.layer.31.attention.self.rotary_embeddings.inv_freq":   block + "attention.self.rotary_embeddings.inv_freq",
			"encoder.layer.31.output.dense.bias":                           block + "output.dense.bias",
			"embeddings.position_embeddings_2.weight":                      "embeddings.position_embeddings_2.weight",
			"embeddings.LayerNorm.weight":                                  "embeddings.LayerNorm.weight",
			"something.else":                                               "something.else",
			"layers.x.fc1.weight":                                          "layers.x.fc1.weight",
			"layers.3.fc7.weight":                                          "layers.3.fc7.weight",
			"layers.3":                                                     "layers.3",
			"fc1":                                                          "fc1",
			"encoder.sentence_encoder.embed_tokens.weight":                 "embeddings.word_embeddings.weight",
			"encoder.embed_tokens.weight":                                  "embeddings.word_embeddings.weight",
			"embed_tokens.weight":                                          "embeddings.word_embeddings.weight",
			"encoder.sentence_encoder.emb_layer_norm_after.weight":         "encoder.emb_layer_norm_after.weight",
			"emb_layer_norm_after.weight":                                  "encoder.emb_layer_norm_after.weight",
			"encoder.sentence_encoder.layers.31.self_attn.k_proj.weight":   block + "attention.self.key.weight",
			"encoder.sentence_encoder.layers.31.self_attn.q_proj.bias":     block + "attention.self.query.bias",
			"encoder.layers.31.self_attn.v_proj.weight":                    block + "attention.self.value.weight",
			"layers.31.self_attn.out_proj.bias":                            block + "attention.output.dense.bias",
			"encoder.sentence_encoder.layers.31.self_attn_layer_norm.bias": block + "attention.LayerNorm.bias",
			"encoder.sentence_encoder.layers.31.fc1.weight":                block + "intermediate.dense.weight",
			"encoder.sentence_encoder.layers.31.fc2.bias":                  block + "output.dense.bias",
			"encoder.sentence_encoder.layers.31.final_layer_norm.weight":   block + "LayerNorm.weight",
			"layers.31.self_attn.rot_emb.inv_freq":                         block + "attention.self.rotary_embeddings.inv_freq",
		}},
	} {
		for stored, want := range c.names {
			if got, used := c.family.canonical(stored); got != want || !used {
				t.Errorf("%s: %s becomes %s (used: %t), want %s", c.family.Name, stored, got, used, want)
			}
		}
	}
}

func TestKnownUnusedNamesAreLeftOut(t *testing.T) {
	for family, names := range map[*Family][]string{
		DNABERT: {"cls.predictions.bias", "cls.predictions.transform.LayerNorm.weight", "bert.pooler.dense.weight", "pooler.dense.bias",
			"bert.embeddings.position_ids", "embeddings.position_ids", "classifier.weight", "classifier.bias", "qa_outputs.weight"},
		ESM2: {"lm_head.dense.weight", "lm_head.bias", "encoder.lm_head.weight", "esm.contact_head.regression.weight", "contact_head.regression.bias",
			"esm.pooler.dense.weight", "esm.embeddings.position_embeddings.weight", "esm.embeddings.position_ids", "embeddings.position_ids",
			"encoder.sentence_encoder.contact_head.regression.weight", "classifier.dense.weight", "classifier.out_proj.bias", "score.weight"},
	} {
		for _, stored := range names {
			if name, used := family.canonical(stored); used {
				t.Errorf("%s: %s becomes %s instead of being left out", family.Name, stored, name)
			}
		}
	}
}

// FuzzCanonicalName checks that canonical, applied to a name that canonical has returned, returns the same name. The
// test leaves out names that begin with the family's prefix, and names of tensors that are not used.
func FuzzCanonicalName(f *testing.F) {
	for _, name := range []string{"esm.embeddings.word_embeddings.weight", "encoder.sentence_encoder.layers.0.fc1.weight", "layers.", "encoder.", "bert.pooler.x"} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, stored string) {
		for _, family := range Families {
			name, used := family.canonical(stored)
			if strings.HasPrefix(stored, family.prefixes[0]) || !used {
				// canonical removes only one prefix, and the name of a tensor that is not used does not matter.
				continue
			}
			if again, _ := family.canonical(name); again != name && name != stored {
				t.Errorf("%s: %q becomes %q, which becomes %q", family.Name, stored, name, again)
			}
		}
	})
}

// TestFairESMArguments checks that the number of heads and token dropout are read from both places in which files of
// fair-esm store them. A file without them must leave the configuration as it is.
func TestFairESMArguments(t *testing.T) {
	args := map[string]any{"encoder_attention_heads": int64(5), "token_dropout": false}
	for where, values := range map[string]map[any]any{
		"args": {"args": args}, "cfg": {"cfg": map[any]any{"model": args}}, "both": {"args": args, "cfg": map[any]any{"model": nil}},
	} {
		config, _ := Families.Config("esm2-8m")
		want := config
		want.Heads, want.Own = 5, tokenDropout{On: false, MaskID: 32}
		if ESM2.deduce(values, &config); config != want {
			t.Errorf("%s: %+v, want %+v", where, config, want)
		}
	}
	config, _ := Families.Config("esm2-8m")
	want := config
	if ESM2.deduce(nil, &config); config != want {
		t.Errorf("a file without them changes the configuration to %+v", config)
	}
}
