package goldentest

import (
	"encoding/binary"
	"encoding/json"
	"flag"
	"math"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"seqembed/transformer"
)

var from = flag.String("from", "", "folder with the goldens of make_goldens.py, from which testdata is written, see TestExtract")

// extract tells which records TestExtract copies from a large file of expected results to a small file in testdata.
type extract struct {
	from, to string
	model    string
	records  []string
	states   string  // the record whose hidden states are kept
	rows     []int32 // the tokens of this record whose hidden states are kept; nil means all
}

// The selected proteins have 1, 2 and 11 letters, lengths around 32, 64 and 128 letters, and 257 letters. One has rare
// letters. The selected DNA has from 1 to 1,000 letters.
var extracts = []extract{
	{
		from: "esm2_tiny.safetensors", to: "esm2-tiny.safetensors", model: "esm2-tiny",
		records: []string{"p0001_Q8WWJ3", "p0002_N0BDY6", "p0011_E3NI39", "p0031_A0A078GHK1", "p0032_E3LCT8", "p0033_Q98142",
			"p0063_E6ZII9", "p0064_A0A0K0F9R3", "p0065_Q252K9", "p0127_H2QKI6", "p0128_M4CT87", "p0257_B3NDZ7", "rare_letters"},
		states: "rare_letters",
	},
	{
		from: "dnabert_s_2layers.safetensors", to: "dnabert-s-2l.safetensors", model: "dnabert-s-2l",
		records: []string{"d0001", "d0005", "d0059", "d00150_lambda", "d00300_lambda", "d00500_ecoli", "d01000_ecoli",
			"homopolymer_A_700", "read_SRR059298.4.2"},
		states: "d0059", rows: []int32{0, 7, 16},
	},
}

// TestExtract writes the files of expected results in testdata. It selects a few records from the output of
// make_goldens.py, the script that runs the models' original PyTorch code. That output contains more records and is too
// large for the repository. The same input gives the same bytes.
//
//	go test ./transformer/goldentest -from DIR
//
// DIR contains esm2_tiny.safetensors and dnabert_s_2layers.safetensors.
func TestExtract(t *testing.T) {
	if *from == "" {
		t.Skip("writes the goldens: make goldens")
	}
	for _, e := range extracts {
		e.run(t, *from, "testdata")
	}
}

func (e extract) run(t *testing.T, from, to string) {
	data, err := os.ReadFile(filepath.Join(from, e.from))
	if err != nil {
		t.Fatal(err)
	}
	f := Read(data)
	if f.Metadata["arithmetic"] != "float64" || f.Metadata["seed"] != "0" {
		t.Fatalf("%s: arithmetic is %q and seed %q, not float64 and 0", e.from, f.Metadata["arithmetic"], f.Metadata["seed"])
	}
	w := writer{header: map[string]any{"__metadata__": map[string]string{
		"model": e.model, "seed": "0", "arithmetic": "float64", "torch": f.Metadata["torch"],
	}}}
	for _, id := range e.records {
		ids, mean := f.Int32s(id+"/ids"), f.Float32s(id+"/mean")
		if ids == nil || mean == nil {
			t.Fatalf("%s has no record %s", e.from, id)
		}
		w.int32s(id+"/ids", ids)
		w.float32s(id+"/mean", mean, len(mean))
		if id == e.states {
			e.writeStates(t, &w, f, len(ids))
		}
	}
	if err := w.save(filepath.Join(to, e.to)); err != nil {
		t.Fatal(err)
	}
}

// writeStates writes the hidden states of the selected tokens after every block. f contains two tensors of states for
// the record: /layers and /tokens. The states after the last block come from /tokens, because /layers contains them
// without the last LayerNorm of ESM-2.
func (e extract) writeStates(t *testing.T, w *writer, f File, tokens int) {
	config, ok := transformer.Families.Config(e.model)
	if !ok {
		t.Fatalf("model %q is not known", e.model)
	}
	blocks := f.Float32s(e.states + "/layers")
	states := slices.Concat(blocks[:(config.Layers-1)*tokens*config.Hidden], f.Float32s(e.states+"/tokens"))
	rows := e.rows
	for t := range tokens {
		if len(e.rows) == 0 {
			rows = append(rows, int32(t))
		}
	}
	var chosen []float32
	for l := range config.Layers {
		for _, t := range rows {
			chosen = append(chosen, states[(l*tokens+int(t))*config.Hidden:][:config.Hidden]...)
		}
	}
	w.int32s(e.states+"/rows", rows)
	w.float32s(e.states+"/layers", chosen, config.Layers, len(rows), config.Hidden)
}

// writer collects the tensors of a safetensors file.
type writer struct {
	header map[string]any
	data   []byte
}

func (w *writer) int32s(name string, values []int32) {
	from := len(w.data)
	for _, v := range values {
		w.data = binary.LittleEndian.AppendUint32(w.data, uint32(v))
	}
	w.enter(name, "I32", from, len(values))
}

func (w *writer) float32s(name string, values []float32, shape ...int) {
	from := len(w.data)
	for _, v := range values {
		w.data = binary.LittleEndian.AppendUint32(w.data, math.Float32bits(v))
	}
	w.enter(name, "F32", from, shape...)
}

func (w *writer) enter(name, dtype string, from int, shape ...int) {
	w.header[name] = map[string]any{"dtype": dtype, "shape": shape, "data_offsets": [2]int{from, len(w.data)}}
}

func (w *writer) save(path string) error {
	text, err := json.Marshal(w.header) // sorts the names
	if err != nil {
		return err
	}
	file := binary.LittleEndian.AppendUint64(nil, uint64(len(text)))
	return os.WriteFile(path, slices.Concat(file, text, w.data), 0o644)
}
