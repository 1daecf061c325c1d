// Package transformer holds the models: every family in one file that reads like its paper and has all that is known of
// it, written once against the operations of kernels. Around them: the shapes and the loading of checkpoints, and the
// Encoder that turns packed batches into embeddings.
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

// Model is a checkpoint's network with its weights on a device. It may serve many encoders at a time.
type Model struct {
	network
	config  Config
	weights kernels.Model
}

// Load loads the weights that the model uses onto the backend, one tensor at a time. The checkpoint may be closed
// afterwards.
func Load(c *Checkpoint, b kernels.Backend) (*Model, error) {
	l := &loader{checkpoint: c, model: b.NewModel()}
	m := &Model{network: c.Config.Family.load(c.Config, l), config: c.Config, weights: l.model}
	if l.err != nil {
		return nil, errors.Join(fmt.Errorf("loading %s: %w", c.Source, l.err), m.Close())
	}
	return m, nil
}

// Config is the model's shape.
func (m *Model) Config() Config { return m.config }

// Close frees the weights. Every encoder has to be closed before.
func (m *Model) Close() error { return m.weights.Close() }

// loader loads weights by name; its first error sticks, so that a model's loading reads as the list of its weights.
type loader struct {
	checkpoint *Checkpoint
	model      kernels.Model
	err        error
}

// load stacks the named tensors into one weight.
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

// tensor is nil where there is none, which is an error.
func (l *loader) tensor(name string) *weights.Tensor {
	t, ok := l.checkpoint.Tensor(name)
	if !ok && l.err == nil {
		l.err = fmt.Errorf("there is no tensor %s", name)
	}
	return t
}

// vector and matrix load one weight each.
func (l *loader) vector(names ...string) kernels.Weight { return l.load(kernels.Vector, names...) }
func (l *loader) matrix(names ...string) kernels.Weight { return l.load(kernels.Projection, names...) }

// projection loads name.weight and name.bias, those of several names stacked.
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

// firstRow is a Source of one dimension: row 0 of a matrix.
type firstRow struct{ *weights.Tensor }

func (r firstRow) Shape() []int { return r.Tensor.Shape()[1:] }

// The functions below list tensors, with the spread of their values in synthetic checkpoints of version 1.

// attending is the gain of the matrices that make queries and keys, so that synthetic attention is not uniform.
const attending = 1.5

// table lists a table of embeddings.
func table(name string, rows, cols int) weights.Spec {
	return weights.Spec{Name: name, Shape: []int{rows, cols}, Scale: 1, Nonzero: true}
}

// matrix lists name.weight of shape [out, in], which multiplies the spread of its input by gain.
func matrix(name string, out, in int, gain float64) weights.Spec {
	return weights.Spec{Name: name + ".weight", Shape: []int{out, in}, Scale: gain * math.Sqrt(3/float64(in)), Nonzero: true}
}

// projection lists a matrix and name.bias [out].
func projection(name string, out, in int, gain float64) []weights.Spec {
	return []weights.Spec{matrix(name, out, in, gain), {Name: name + ".bias", Shape: []int{out}, Scale: 0.1}}
}

// layerNorm lists name.weight and name.bias of shape [width].
func layerNorm(name string, width int) []weights.Spec {
	return []weights.Spec{
		{Name: name + ".weight", Shape: []int{width}, Scale: 0.1, Shift: 1, Nonzero: true},
		{Name: name + ".bias", Shape: []int{width}, Scale: 0.1},
	}
}
