package weights

import (
	"fmt"
	"hash/fnv"
	"io"
	"slices"
	"strings"
)

// golden is 2^64 divided by the golden ratio: the step of SplitMix64's counter.
const golden = 0x9E3779B97F4A7C15

// Synthetic returns the synthetic checkpoint called name: every tensor of specs that is not optional, with values that
// follow from its spec and the seed alone (synthetic checkpoints, version 1). Nothing is stored; rows are computed when
// they are read. The embeddings that such weights give carry no biology. Config is the config.json that the checkpoint
// reports.
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

// generated computes the values of a synthetic tensor: element i is float32(u*scale + shift), where u in [-2^23, 2^23)
// are the top 24 bits of the i-th output of SplitMix64. The counter begins with the FNV-1a hash of the name.
func generated(s Spec, seed uint64) func(dst []float32, at int) error {
	name := fnv.New64a()
	io.WriteString(name, s.Name)
	start := name.Sum64() + seed*golden
	scale := s.Scale * (1.0 / (1 << 23)) // a power of two commutes with rounding
	return func(dst []float32, at int) error {
		counter := start + uint64(at)*golden
		for i := range dst {
			counter += golden
			z := counter
			z = (z ^ z>>30) * 0xBF58476D1CE4E5B9
			z = (z ^ z>>27) * 0x94D049BB133111EB
			z ^= z >> 31
			u := float64(int64(z>>40) - 1<<23)
			// The conversion keeps compilers from fusing the product with the sum, which would round once where the
			// specification rounds twice.
			dst[i] = float32(float64(u*scale) + s.Shift)
		}
		return nil
	}
}
