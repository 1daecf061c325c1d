package weights

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"math"
	"slices"
	"sync"
	"testing"
)

// syntheticCases are values of synthetic tensors that a second implementation, in Python, has computed. Each case has
// the bits of the first two values and of the last value, and the SHA-256 of all values as little-endian float32.
var syntheticCases = []struct {
	scale  float64
	shift  float64
	name   string
	shape  []int
	seed   uint64
	values [3]uint32
	sha256 string
}{
	{1, 0, "embeddings.word_embeddings.weight", []int{33, 320}, 0, [3]uint32{0xbf2ba1c8, 0x3ed2bf54, 0x3f2b5e96}, "4edde1877c6e1c6b30300b7e40fad35b7f2cb9485b4d37f2324aaec0725d44d5"},
	{1, 0, "embeddings.token_type_embeddings.weight", []int{2, 768}, 3, [3]uint32{0x3eca320c, 0xbf72b5e6, 0x3f0fab2a}, "03680c82a9c7e2de8bcadc73064d2472996fcbc121c0929cdd7613e7ea65dda6"},
	{1.5 * math.Sqrt(3.0/320), 0, "encoder.layer.0.attention.self.query.weight", []int{320, 320}, 0, [3]uint32{0xbd5a4d76, 0xbc830c4d, 0x3dd496eb}, "4d8180873e6d29a3489484ad8c78bb406bb1911e1b0840738889fda26bcb9ff0"},
	{0.1, 0, "encoder.layer.0.attention.self.query.bias", []int{320}, 0, [3]uint32{0x3b1e9200, 0xbd8f5626, 0x3d18802d}, "d4985e7b402f926b14238a21c74fc7a080cf1920292f035e1211a6aee19e3a12"},
	{math.Sqrt(3.0 / 64), 0, "encoder.layer.2.attention.self.value.weight", []int{64, 64}, math.MaxUint64, [3]uint32{0x3cdae1a1, 0x3e519ea4, 0x3dca9895}, "16aca6fc17e563c3267de1e8b6dc16accd840e4cc48b66fff8409e5edf4e7622"},
	{math.Sqrt(3.0 / 1280), 0, "encoder.layer.5.output.dense.weight", []int{320, 1280}, 1, [3]uint32{0xbd354b5f, 0xbc058f03, 0x3b8c87ce}, "baf4da23d9ef348a6efb5fa4e9768750ecefe46ad0060400f384be941732501f"},
	{0.1, 0, "encoder.layer.5.attention.LayerNorm.bias", []int{320}, 1, [3]uint32{0xbd33ff96, 0x3db8ed46, 0xbdb26820}, "0b831afdf15b6f16926993beb1a2a77c2f11d969fab4a8f3b4ba781c882865b4"},
	{0.1, 1, "encoder.layer.3.mlp.layernorm.weight", []int{768}, 2, [3]uint32{0x3f8a5bea, 0x3f7060fe, 0x3f85f514}, "f464a3c10f27c7b9121e3df9bee949f113ca74f1912e27183d86c0f7fd9c8085"},
	{0.1, 1, "encoder.emb_layer_norm_after.weight", []int{320}, 7, [3]uint32{0x3f852b83, 0x3f8a3e9c, 0x3f70e700}, "b4a7326e6334a1cc3636a9e4853c8cf362833480ec36dacd1c68c515d5b4cd81"},
	{1.5 * math.Sqrt(3.0/768), 0, "encoder.layer.11.attention.self.Wqkv.weight", []int{2304, 768}, 7, [3]uint32{0xbd4393de, 0xbcdc1a54, 0xbd2df883}, "af88102bb79d7421135835ce3bcf9f081c72170868bedbe3aed10549626b5511"},
}

func TestSyntheticValuesAreTheSpecified(t *testing.T) {
	for _, c := range syntheticCases {
		t.Run(c.name, func(t *testing.T) {
			checkpoint := Synthetic("any", c.seed, nil, []Spec{{Name: c.name, Shape: c.shape, Scale: c.scale, Shift: c.shift}})
			values := readAll(t, checkpoint, c.name)
			got := [3]uint32{bitsOf(values[0]), bitsOf(values[1]), bitsOf(values[len(values)-1])}
			if got != c.values {
				t.Errorf("first two and last value %#08x, want %#08x", got, c.values)
			}
			var b []byte
			for _, v := range values {
				b = binary.LittleEndian.AppendUint32(b, bitsOf(v))
			}
			if sum := sha256.Sum256(b); hex.EncodeToString(sum[:]) != c.sha256 {
				t.Errorf("SHA-256 of all values %x, want %s", sum, c.sha256)
			}
		})
	}
}

func TestSyntheticRowsDoNotDependOnHowTheyAreRead(t *testing.T) {
	const name = "encoder.layer.0.attention.self.Wqkv.weight"
	shape := []int{97, 33}
	checkpoint := Synthetic("any", 5, nil, []Spec{{Name: name, Shape: shape, Scale: 1}})
	tensor, _ := checkpoint.Tensor(name)
	whole := readAll(t, checkpoint, name)
	pieces := make([]float32, len(whole))
	var wg sync.WaitGroup
	for first := 0; first < shape[0]; first += 8 {
		wg.Go(func() {
			last := min(first+8, shape[0])
			if err := tensor.ReadRows(pieces[first*33:last*33], first); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if !slices.Equal(whole, pieces) {
		t.Error("rows read concurrently, eight at a time, differ from those read at once")
	}
}

func TestSyntheticCheckpointDescribesItself(t *testing.T) {
	specs := []Spec{
		{Name: "LayerNorm.weight", Shape: []int{4}},
		{Name: "a.weight", Shape: []int{2, 4}},
		{Name: "inv_freq", Shape: []int{2}, Optional: true},
	}
	config := []byte(`{"hidden_size":4}`)
	c := Synthetic("esm2-tiny", 7, config, specs)
	if got := c.Source; got != "synthetic:esm2-tiny@7" {
		t.Errorf("source %q", got)
	}
	if got := string(c.ConfigJSON); got != string(config) {
		t.Errorf("config %q", got)
	}
	if got, want := c.Names(), []string{"LayerNorm.weight", "a.weight"}; !slices.Equal(got, want) {
		t.Errorf("names %q, want %q: an optional tensor is not part of a synthetic checkpoint", got, want)
	}
	if err := c.Check(specs); err != nil {
		t.Errorf("it does not pass the check of its own specs: %v", err)
	}
	digest := func(c *Checkpoint) string {
		sum, err := c.SHA256(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return sum
	}
	slices.Reverse(specs)
	if digest(c) != digest(Synthetic("esm2-tiny", 7, config, specs)) {
		t.Error("the digest depends on the order of the specs")
	}
	for what, other := range map[string]*Checkpoint{
		"name":   Synthetic("esm2-8m", 7, config, specs),
		"seed":   Synthetic("esm2-tiny", 8, config, specs),
		"config": Synthetic("esm2-tiny", 7, nil, specs),
		"shapes": Synthetic("esm2-tiny", 7, config, specs[:2]),
	} {
		if digest(c) == digest(other) {
			t.Errorf("the digest does not depend on the %s", what)
		}
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}

func TestSyntheticRefusesAShapeThatCannotBe(t *testing.T) {
	bad := Spec{Name: "x.bias", Shape: []int{-3}}
	c := Synthetic("any", 0, nil, []Spec{bad})
	wantError(t, c.Check([]Spec{bad}), "x.bias", "negative")
}

func bitsOf(v float32) uint32 { return math.Float32bits(v) }

func BenchmarkSyntheticRows(b *testing.B) {
	const name = "encoder.layer.0.attention.self.query.weight"
	c := Synthetic("any", 0, nil, []Spec{{Name: name, Shape: []int{64, 1280}, Scale: 1}})
	benchmarkRows(b, c, name)
}
