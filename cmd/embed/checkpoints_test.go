package main

import (
	"encoding/binary"
	"encoding/json"
	"math"
	"regexp"
	"testing"

	"seqembed/tokenizer"
	"seqembed/transformer"
)

// writeCheckpoint writes the tensors of a synthetic model as a folder that looks like a real checkpoint:
// model.safetensors and config.json. The function change returns the shape to write for a tensor, or nil to omit the
// tensor. If change is nil, all tensors are written.
func writeCheckpoint(t *testing.T, dir, model string, change func(name string, shape []int) []int) {
	t.Helper()
	c, err := transformer.Families.Open(model)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	header := map[string]any{}
	var body []byte
	for _, name := range c.Names() {
		tensor, _ := c.Tensor(name)
		values, err := tensor.Float32s()
		if err != nil {
			t.Fatal(err)
		}
		shape := tensor.Shape()
		if change != nil {
			if shape = change(name, shape); shape == nil {
				continue
			}
			count := 1
			for _, d := range shape {
				count *= d
			}
			values = values[:count]
		}
		from := len(body)
		for _, v := range values {
			body = binary.LittleEndian.AppendUint32(body, math.Float32bits(v))
		}
		header[name] = map[string]any{"dtype": "F32", "shape": shape, "data_offsets": []int{from, len(body)}}
	}
	text, err := json.Marshal(header)
	if err != nil {
		t.Fatal(err)
	}
	file := binary.LittleEndian.AppendUint64(nil, uint64(len(text)))
	write(t, dir+"/model.safetensors", string(file)+string(text)+string(body))
	write(t, dir+"/config.json", string(c.ConfigJSON))
}

// withoutMerges returns the content of the synthetic DNA tokenizer file, a byte-pair encoding, with an empty list of
// merges.
func withoutMerges(t *testing.T) string {
	t.Helper()
	merges := regexp.MustCompile(`"merges":\[[^\]]*\]`)
	text := string(tokenizer.SyntheticDNAFile())
	if !merges.MatchString(text) {
		t.Fatal("the tokenizer lists no merges")
	}
	return merges.ReplaceAllString(text, `"merges":[]`)
}
