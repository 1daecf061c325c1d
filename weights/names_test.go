package weights

import (
	"slices"
	"strings"
	"testing"
)

func TestCanonicalNames(t *testing.T) {
	const block = "encoder.layer.31."
	for stored, want := range map[string]string{
		// transformers' own, and DNABERT-S's
		"embeddings.word_embeddings.weight":                            "embeddings.word_embeddings.weight",
		"esm.embeddings.word_embeddings.weight":                        "embeddings.word_embeddings.weight",
		"esm.encoder.layer.31.attention.self.query.weight":             block + "attention.self.query.weight",
		"esm.encoder.emb_layer_norm_after.bias":                        "encoder.emb_layer_norm_after.bias",
		"encoder.emb_layer_norm_after.bias":                            "encoder.emb_layer_norm_after.bias",
		"bert.encoder.layer.31.mlp.gated_layers.weight":                block + "mlp.gated_layers.weight",
		"encoder.layer.31.attention.self.rotary_embeddings.inv_freq":   block + "attention.self.rotary_embeddings.inv_freq",
		"bert.embeddings.token_type_embeddings.weight":                 "embeddings.token_type_embeddings.weight",
		"encoder.layer.31.output.dense.bias":                           block + "output.dense.bias",
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
	} {
		if got, used := canonicalName(stored); got != want || !used {
			t.Errorf("%s becomes %s (used: %t), want %s", stored, got, used, want)
		}
	}
}

func TestKnownUnusedNamesAreLeftOut(t *testing.T) {
	for _, stored := range []string{
		"lm_head.dense.weight", "lm_head.bias", "encoder.lm_head.weight", "esm.contact_head.regression.weight", "contact_head.regression.bias",
		"bert.pooler.dense.weight", "pooler.dense.bias", "cls.predictions.bias", "esm.embeddings.position_embeddings.weight",
		"esm.embeddings.position_ids", "embeddings.position_ids", "bert.embeddings.position_ids", "encoder.sentence_encoder.contact_head.regression.weight",
	} {
		if name, used := canonicalName(stored); used {
			t.Errorf("%s becomes %s instead of being left out", stored, name)
		}
	}
	for _, stored := range []string{"encoder.layer.0.cls.weight", "embeddings.position_embeddings_2.weight", "clsx.weight", "embeddings.LayerNorm.weight"} {
		if _, used := canonicalName(stored); !used {
			t.Errorf("%s is left out", stored)
		}
	}
}

// No name that comes out may be translated again into another one.
func FuzzCanonicalName(f *testing.F) {
	for _, name := range []string{"esm.embeddings.word_embeddings.weight", "encoder.sentence_encoder.layers.0.fc1.weight", "layers.", "encoder.", "bert.pooler.x"} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, stored string) {
		name, used := canonicalName(stored)
		if strings.HasPrefix(stored, "esm.") || strings.HasPrefix(stored, "bert.") || !used {
			return // a second prefix is not taken off, an unused name stays as it is
		}
		if again, _ := canonicalName(name); again != name && name != stored {
			t.Errorf("%q becomes %q, which becomes %q", stored, name, again)
		}
	})
}

func TestCheckNamesWhatDoesNotFit(t *testing.T) {
	c, err := Open(writeFile(t, t.TempDir(), "x.safetensors", safetensorsOf(
		f32Tensor("right", []int{2, 1}, 1, 2),
		f32Tensor("turned", []int{1, 2}, 1, 2),
		f32Tensor("stranger", []int{1}, 1),
		stored{"double", F64, []int{1}, make([]byte, 8)},
		stored{"embeddings.position_ids", I64, []int{1}, make([]byte, 8)},
	)))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	specs := []Spec{
		{Name: "right", Shape: []int{2, 1}}, {Name: "turned", Shape: []int{2, 1}}, {Name: "absent", Shape: []int{1}},
		{Name: "double", Shape: []int{1}}, {Name: "freq", Shape: []int{1}, Optional: true},
	}
	err = c.Check(specs)
	wantError(t, err, c.Source(), "1 missing (absent)", "1 unknown (stranger)", "turned: [1 2], not [2 1]", "double is stored as F64")
	mismatch := err.(*MismatchError)
	if !slices.Equal(mismatch.Missing, []string{"absent"}) || !slices.Equal(mismatch.Unknown, []string{"stranger"}) ||
		len(mismatch.WrongShape) != 1 || len(mismatch.Unreadable) != 1 {
		t.Errorf("%+v", mismatch)
	}
	many := Synthetic("any", 0, nil, nil)
	for _, letter := range "abcdefghij" {
		specs = append(specs, Spec{Name: string(letter), Shape: []int{1}})
	}
	wantError(t, many.Check(specs), "14 missing (right, turned, absent, double, a and 9 more)")
}
