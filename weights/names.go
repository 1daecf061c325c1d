package weights

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// prefixes are what a checkpoint of a whole task model puts before the names of
// the encoder's tensors.
var prefixes = [...]string{"esm.", "bert."}

// unusedPrefixes start the names of tensors that no embedding needs: the heads
// of tasks, and the table of absolute positions that hub ESM-2 files carry.
var unusedPrefixes = [...]string{"lm_head.", "contact_head.", "pooler.", "cls.", "embeddings.position_embeddings.weight"}

// fairPrefixes are what fair-esm puts before its encoder's names, longest first.
var fairPrefixes = [...]string{"encoder.sentence_encoder.", "encoder."}

// fairNames maps fair-esm's modules outside the blocks to transformers' names.
var fairNames = map[string]string{
	"embed_tokens":         "embeddings.word_embeddings",
	"emb_layer_norm_after": "encoder.emb_layer_norm_after",
}

// fairBlockNames maps the modules of a fair-esm block (layers.N.) to those of
// transformers' EsmLayer (encoder.layer.N.).
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

// canonicalName turns the name under which a file stores a tensor into the one
// that transformers' EsmModel or DNABERT-S's BertModel uses, without a prefix.
// used is false for the tensors that are known and not needed. A name that is
// not recognised stays as it is: whether it belongs is for Check to say.
func canonicalName(stored string) (name string, used bool) {
	name = stored
	for _, p := range prefixes {
		if rest, ok := strings.CutPrefix(name, p); ok {
			name = rest
			break
		}
	}
	for _, p := range fairPrefixes {
		rest, ok := strings.CutPrefix(name, p)
		if !ok {
			continue
		}
		if unusedName(rest) {
			return rest, false
		}
		if fair, ok := fromFair(rest); ok {
			return fair, true
		}
	}
	if fair, ok := fromFair(name); ok {
		return fair, true
	}
	return name, !unusedName(name)
}

// fromFair translates a name of fair-esm's ESM2 module.
func fromFair(name string) (string, bool) {
	block := ""
	names := fairNames
	if rest, ok := strings.CutPrefix(name, "layers."); ok {
		number, module, ok := strings.Cut(rest, ".")
		if !ok || !isNumber(number) {
			return "", false
		}
		block, name, names = "encoder.layer."+number+".", module, fairBlockNames
	}
	dot := strings.LastIndexByte(name, '.')
	if dot < 0 {
		return "", false
	}
	module, ok := names[name[:dot]]
	return block + module + name[dot:], ok
}

func isNumber(s string) bool {
	return s != "" && strings.Trim(s, "0123456789") == ""
}

func unusedName(name string) bool {
	for _, p := range unusedPrefixes {
		if strings.HasPrefix(name, p) {
			return true
		}
	}
	return strings.HasSuffix(name, "position_ids")
}

// canonicalTensors gives the tensors of the files their canonical names and
// leaves out the unused ones. Two that end up with one name are an error.
func canonicalTensors(files []*File) (map[string]*Tensor, error) {
	tensors := make(map[string]*Tensor)
	storedAs := make(map[string]string)
	for _, f := range files {
		for _, stored := range slices.Sorted(maps.Keys(f.tensors)) {
			name, used := canonicalName(stored)
			if !used {
				continue
			}
			if other, taken := storedAs[name]; taken {
				return nil, fmt.Errorf("tensors %q and %q are both %s", other, stored, name)
			}
			storedAs[name] = stored
			tensors[name] = f.tensors[stored].named(name)
		}
	}
	return tensors, nil
}
