package weights

import (
	"fmt"
	"hash/fnv"
	"io"
	"slices"
	"strings"
)

// golden is the increment of the random number generator SplitMix64: 2^64 divided by the golden ratio.
const golden = 0x9E3779B97F4A7C15

// Synthetic returns the synthetic checkpoint called name. It contains every tensor of specs that is not optional. The
// values depend only on the spec and the seed, and are computed when they are read. Their computation is version 1 of
// synthetic checkpoints. A change to the computation needs a new version number, which changes the digests. Embeddings
// with such weights have no biological meaning. config becomes the checkpoint's ConfigJSON.
func Synthetic(name string, seed uint64, config []byte, specs []Spec) *Checkpoint {
	c := &Checkpoint{
		Source:     fmt.Sprintf("synthetic:%s@%d", name, seed),
		ConfigJSON: config,
		tensors:    make(map[string]*Tensor, len(specs)),
		identity:   fmt.Appendf(nil, "synthetic checkpoint version 1\n%s\n%d\n", name, seed),
	}
	for _, spec := range slices.SortedFunc(slices.Values(specs), func(a, b Spec) int { return strings.Compare(a.Name, b.Name) }) {
		if spec.Optional {
			continue
		}
		t, err := newTensor(spec.Name, spec.Shape)
		if err != nil {
			t = &Tensor{name: spec.Name, shape: spec.Shape, unreadable: err}
		}
		t.read = generated(spec, seed)
		c.tensors[spec.Name] = t
		c.identity = fmt.Appendf(c.identity, "%s %v\n", spec.Name, spec.Shape)
	}
	c.identity = append(c.identity, config...)
	return c
}

// generated returns a function that computes the values of a synthetic tensor. Element i is float32(u·Scale/2^23 +
// Shift), where the top 24 bits of the i-th output of SplitMix64 give u, in the range [-2^23, 2^23). The state of
// SplitMix64 begins with h + seed·golden, where h is the FNV-1a hash of the tensor's name.
func generated(s Spec, seed uint64) func(dst []float32, at int) error {
	name := fnv.New64a()
	io.WriteString(name, s.Name)
	start := name.Sum64() + seed*golden
	scale := s.Scale * (1.0 / (1 << 23)) // exact, because 2^-23 is a power of two
	return func(dst []float32, at int) error {
		counter := start + uint64(at)*golden
		for i := range dst {
			counter += golden
			z := counter
			z = (z ^ z>>30) * 0xBF58476D1CE4E5B9
			z = (z ^ z>>27) * 0x94D049BB133111EB
			z ^= z >> 31
			u := float64(int64(z>>40) - 1<<23)
			// The conversion to float64 keeps compilers from fusing the product with the sum. A fused operation rounds
			// once instead of twice, so the values would depend on the processor.
			dst[i] = float32(float64(u*scale) + s.Shift)
		}
		return nil
	}
}
