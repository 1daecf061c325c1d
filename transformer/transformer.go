// Package transformer contains the models. Every family of models, such as ESM-2, has one file, which contains the
// forward pass and everything else that is known about the family. The forward pass uses the operations of package
// kernels, so that it is written once for all backends. The package also loads checkpoints, and its Encoder turns
// packed batches into embeddings.
//
// The package must not know which backend runs it, where sequences come from or where embeddings go.
package transformer

import (
	"errors"
	"fmt"
	"math"

	"seqembed/kernels"
	"seqembed/weights"
)

// Model is a network with its weights on a device. It may serve many encoders at a time.
type Model struct {
	network
	config  Config
	weights kernels.Model
}

// Load loads the weights of a checkpoint onto a backend, one weight at a time. The checkpoint may be closed afterwards.
func Load(c *Checkpoint, b kernels.Backend) (*Model, error) {
	l := &loader{checkpoint: c, model: b.NewModel()}
	m := &Model{network: c.Config.Family.load(c.Config, l), config: c.Config, weights: l.model}
	if l.err != nil {
		return nil, errors.Join(fmt.Errorf("loading %s: %w", c.Source, l.err), m.Close())
	}
	return m, nil
}

// Config returns the model's shape.
func (m *Model) Config() Config { return m.config }

// Close frees the weights. All encoders must have been closed.
func (m *Model) Close() error { return m.weights.Close() }

// loader loads weights by name. It keeps its first error, so that code can load all weights of a model without checking
// for an error after each.
type loader struct {
	checkpoint *Checkpoint
	model      kernels.Model
	err        error
}

// load joins the named tensors, vectors end to end and matrices one below the other, and loads them as one weight.
func (l *loader) load(role kernels.Role, names ...string) kernels.Weight {
	var parts []kernels.Source
	for _, name := range names {
		parts = append(parts, l.tensor(name))
	}
	return l.loadFrom(role, parts...)
}

func (l *loader) loadFrom(role kernels.Role, parts ...kernels.Source) kernels.Weight {
	if l.err != nil {
		return nil
	}
	w, err := l.model.Load(role, parts...)
	l.err = err
	return w
}

// tensor returns the tensor with the given name. If there is none, it sets the error and returns nil.
func (l *loader) tensor(name string) *weights.Tensor {
	t, ok := l.checkpoint.Tensor(name)
	if !ok && l.err == nil {
		l.err = fmt.Errorf("there is no tensor %s", name)
	}
	return t
}

// vector and matrix join the named tensors, vectors end to end and matrices one below the other, and load them as one
// weight.
func (l *loader) vector(names ...string) kernels.Weight { return l.load(kernels.Vector, names...) }
func (l *loader) matrix(names ...string) kernels.Weight { return l.load(kernels.Projection, names...) }

// projection loads the tensors NAME.weight and NAME.bias. For several names it joins the weights one below the other
// and the biases end to end.
func (l *loader) projection(names ...string) kernels.Linear {
	var w, bias []string
	for _, name := range names {
		w, bias = append(w, name+".weight"), append(bias, name+".bias")
	}
	return kernels.Linear{W: l.matrix(w...), Bias: l.vector(bias...)}
}

// normalization loads the gain and bias of a LayerNorm.
func (l *loader) normalization(name string, eps float32) kernels.Norm {
	return kernels.Norm{Gain: l.vector(name + ".weight"), Bias: l.vector(name + ".bias"), Eps: eps}
}

// firstRow is a kernels.Source for the first row of a matrix, as a vector.
type firstRow struct{ *weights.Tensor }

func (r firstRow) Shape() []int { return r.Tensor.Shape()[1:] }

// The functions below describe tensors. Scale and Shift of the descriptions determine the values of synthetic
// checkpoints (see weights.Spec). If they were changed, the synthetic checkpoints would have other weights and other
// digests.

// attending is the gain (see matrix) of the projections to queries and keys in synthetic checkpoints. With a gain this
// large, the attention weights of a token differ clearly from each other, as in a trained model.
const attending = 1.5

// table describes the tensor of an embedding table. It gives synthetic checkpoints values between −1 and 1.
func table(name string, rows, cols int) weights.Spec {
	return weights.Spec{Name: name, Shape: []int{rows, cols}, Scale: 1, Nonzero: true}
}

// matrix describes name.weight of shape [out, in]. With its synthetic values, the root mean square of a product x·Wᵀ is
// about gain times that of x.
func matrix(name string, out, in int, gain float64) weights.Spec {
	return weights.Spec{Name: name + ".weight", Shape: []int{out, in}, Scale: gain * math.Sqrt(3/float64(in)), Nonzero: true}
}

// projection describes the two tensors of a linear layer: name.weight [out, in], as matrix does, and name.bias [out].
func projection(name string, out, in int, gain float64) []weights.Spec {
	return []weights.Spec{matrix(name, out, in, gain), {Name: name + ".bias", Shape: []int{out}, Scale: 0.1}}
}

// layerNorm describes name.weight and name.bias of shape [width].
func layerNorm(name string, width int) []weights.Spec {
	return []weights.Spec{
		{Name: name + ".weight", Shape: []int{width}, Scale: 0.1, Shift: 1, Nonzero: true},
		{Name: name + ".bias", Shape: []int{width}, Scale: 0.1},
	}
}
