package transformer_test

import (
	"math"
	"testing"

	"seqembed/kernels"
	"seqembed/kernels/cpu"
	"seqembed/kernels/ref"
	"seqembed/transformer/goldentest"
)

// TestGoldens compares a small model of each family with the results of its original PyTorch code, on the CPU backend
// and, except in short mode, on two slow reference backends in plain Go. The errors must be within the limits for
// float32.
func TestGoldens(t *testing.T) {
	backends := []func() kernels.Backend{func() kernels.Backend { return cpu.New(2) }}
	if !testing.Short() {
		backends = append(backends, ref.New, func() kernels.Backend { return ref.NewBaseline(kernels.FP32) })
	}
	for _, open := range backends {
		for _, g := range goldentest.Goldens() {
			compareGolden(t, open(), g, g.FP32)
		}
	}
}

// TestGoldensOfRoundedWeights checks the error limits for weights in bfloat16: the exact reference backend, with
// weights rounded to bfloat16, must be within them. This rounding alone causes four fifths of the error that is
// allowed.
func TestGoldensOfRoundedWeights(t *testing.T) {
	if testing.Short() {
		t.Skip("checks a bar, and no backend; the loops of the reference take their time")
	}
	for _, g := range goldentest.Goldens() {
		compareGolden(t, roundedWeights{ref.New()}, g, g.BF16Weights)
	}
}

// compareGolden compares a backend with the expected results g in a parallel subtest, and closes the backend. The
// reference backends take 15 ms for a token of DNABERT-S, so for that model they run only records of at most 24 tokens.
func compareGolden(t *testing.T, b kernels.Backend, g goldentest.Golden, bars goldentest.Bars) {
	longest := 0
	if _, fast := b.(*cpu.Backend); !fast && g.Model == "dnabert-s-2l" {
		longest = 24
	}
	t.Run(b.Name()+"/"+g.Model, func(t *testing.T) {
		t.Parallel()
		defer b.Close()
		g.Compare(t, b, bars, longest)
	})
}

// roundedWeights is a backend that rounds the weights of matrix products to bfloat16.
type roundedWeights struct{ kernels.Backend }

func (b roundedWeights) NewModel() kernels.Model { return roundedModel{b.Backend.NewModel()} }

type roundedModel struct{ kernels.Model }

func (m roundedModel) Load(role kernels.Role, parts ...kernels.Source) (kernels.Weight, error) {
	if role != kernels.Projection {
		return m.Model.Load(role, parts...)
	}
	rounded := make([]kernels.Source, len(parts))
	for i, p := range parts {
		rounded[i] = roundedSource{p}
	}
	return m.Model.Load(role, rounded...)
}

type roundedSource struct{ kernels.Source }

func (s roundedSource) ReadRows(dst []float32, first int) error {
	err := s.Source.ReadRows(dst, first)
	for i, v := range dst {
		bits := math.Float32bits(v)
		dst[i] = math.Float32frombits((bits + 0x7fff + bits>>16&1) &^ 0xffff) // to nearest, ties to even
	}
	return err
}
