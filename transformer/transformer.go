// Package transformer holds the models: DNABERT-S and ESM-2, each in one file
// that reads like its paper, written once against the operations of kernels.
// Around them: their configuration, the loading of their weights, and the
// Encoder that turns packed batches into embeddings.
//
// The package must not know which backend runs it, where sequences come from
// or where embeddings go.
package transformer

import (
	"errors"
	"fmt"

	"seqembed/kernels"
	"seqembed/weights"
)

// Model is one architecture with its weights on a device. It may serve many
// encoders at a time.
type Model interface {
	// Config is the model's shape.
	Config() Config
	// Close frees the weights. Every encoder has to be closed before.
	Close() error
	// build adds the forward pass up to block last to a program. It calls
	// visit after the embedding, as block 0, and after each block, with the
	// hidden state x.
	build(p *kernels.Program, last int, visit func(block int, x kernels.Value))
}

// Load checks the checkpoint against its configuration and loads the weights
// that the model uses onto the backend, one tensor at a time. The checkpoint
// may be closed afterwards.
func Load(c *weights.Checkpoint, config Config, b kernels.Backend) (Model, error) {
	if err := c.Check(Tensors(config)); err != nil {
		return nil, err
	}
	l := &loader{checkpoint: c, model: b.NewModel()}
	var m Model
	switch config.Architecture {
	case DNABERTS:
		m = loadDNABERTS(config, l)
	case ESM2:
		m = loadESM2(config, l)
	default:
		l.err = fmt.Errorf("architecture %q: %w", config.Architecture, ErrUnsupported)
	}
	if l.err != nil {
		return nil, errors.Join(fmt.Errorf("loading %s: %w", c.Source(), l.err), l.model.Close())
	}
	return m, nil
}

// Tensors lists the tensors that a model of this shape reads, under their
// canonical names.
func Tensors(config Config) []weights.Spec {
	if config.Architecture == DNABERTS {
		return dnabertsTensors(config)
	}
	return esm2Tensors(config)
}

// Open opens the checkpoint that ref stands for and reads its configuration.
// A synthetic one is computed, not read.
func Open(ref weights.Ref) (*weights.Checkpoint, Config, error) {
	if ref.Synthetic != "" {
		config, ok := KnownConfig(ref.Synthetic)
		if !ok {
			return nil, Config{}, fmt.Errorf("synthetic model %q: %w", ref.Synthetic, ErrUnsupported)
		}
		return weights.Synthetic(ref.Synthetic, ref.Seed, config.json(), Tensors(config)), config, nil
	}
	c, err := weights.Open(ref.Path)
	if err != nil {
		return nil, Config{}, err
	}
	config, err := ReadConfig(c)
	if err != nil {
		c.Close()
		return nil, Config{}, err
	}
	return c, config, nil
}

// loader loads weights by name; its first error sticks, so that a model's
// loading reads as the list of its weights.
type loader struct {
	checkpoint *weights.Checkpoint
	model      kernels.Model
	err        error
}

// load stacks the named tensors into one weight and lets go of their pages.
func (l *loader) load(role kernels.Role, names ...string) kernels.Weight {
	var parts []kernels.Source
	for _, name := range names {
		t := l.tensor(name)
		if t == nil {
			return nil
		}
		parts = append(parts, t)
		defer t.Release()
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

// tensor is nil once an error has stuck.
func (l *loader) tensor(name string) *weights.Tensor {
	if l.err != nil {
		return nil
	}
	t, ok := l.checkpoint.Tensor(name)
	if !ok {
		l.err = fmt.Errorf("there is no tensor %s", name)
		return nil
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

// withBias lists name.weight of shape [out, in] and name.bias [out].
func withBias(name string, out, in int) []weights.Spec {
	return []weights.Spec{{Name: name + ".weight", Shape: []int{out, in}}, {Name: name + ".bias", Shape: []int{out}}}
}

// layerNorm lists name.weight and name.bias of shape [width].
func layerNorm(name string, width int) []weights.Spec {
	return []weights.Spec{{Name: name + ".weight", Shape: []int{width}}, {Name: name + ".bias", Shape: []int{width}}}
}
