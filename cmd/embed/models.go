package main

import (
	"fmt"
	"strings"

	"seqembed/internal/seqio"
	"seqembed/internal/store"
	"seqembed/tokenizer"
	"seqembed/transformer"
	"seqembed/weights"
)

// defaultProteinLength is what ESM-2 was trained with, in residues.
const defaultProteinLength = 1022

// modelFlags are the flags that concern one of the two models.
type modelFlags struct {
	flag         string // that names the model
	architecture transformer.Architecture
	alphabet     seqio.Alphabet
	kind         store.Kind
}

var (
	dnabertFlags = modelFlags{"--dnabert-model", transformer.DNABERTS, seqio.DNA, store.Nucleotide}
	esmFlags     = modelFlags{"--esm-model", transformer.ESM2, seqio.Protein, store.Protein}
)

// model is a checkpoint that is ready to be loaded onto devices.
type model struct {
	modelFlags
	name       string // as the user gave it
	ref        weights.Ref
	checkpoint *weights.Checkpoint
	config     transformer.Config
	tokenizer  tokenizer.Tokenizer
	layers     []int
}

// openModel finds the checkpoint that name stands for and checks all that can
// be checked before its weights are loaded.
func openModel(f modelFlags, name string, s *settings) (*model, error) {
	ref, err := weights.ResolveModel(name)
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", f.flag, name, err)
	}
	checkpoint, config, err := transformer.Open(ref)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.flag, err)
	}
	m := &model{modelFlags: f, name: name, ref: ref, checkpoint: checkpoint, config: config}
	if err := m.check(s); err != nil {
		checkpoint.Close()
		return nil, err
	}
	return m, nil
}

func (m *model) check(s *settings) error {
	if m.config.Architecture != m.architecture {
		return fmt.Errorf("%s: %s is a checkpoint of %s, and %s is needed", m.flag, m.checkpoint.Source(), m.config.Architecture, m.architecture)
	}
	if err := m.checkpoint.Check(transformer.Tensors(m.config)); err != nil {
		return fmt.Errorf("%s: %w", m.flag, err)
	}
	var err error
	if m.layers, err = transformer.ResolveLayers(s.layers, m.config.Layers); err != nil {
		return usagef("--layers: %s: %w", m.name, err)
	}
	if m.tokenizer, err = m.openTokenizer(s.dnabertTokenizer); err != nil {
		return err
	}
	if n := m.tokenizer.VocabSize(); n > m.config.Vocabulary {
		return fmt.Errorf("%s: the tokenizer has %d entries and the checkpoint %s has embeddings for %d", m.flag, n, m.checkpoint.Source(), m.config.Vocabulary)
	}
	return nil
}

func (m *model) openTokenizer(override string) (tokenizer.Tokenizer, error) {
	if m.architecture == transformer.ESM2 {
		return tokenizer.NewESM2(), nil
	}
	path := override
	if path == "" {
		path = m.checkpoint.TokenizerFile()
	}
	if path != "" {
		return tokenizer.ReadBPE(path)
	}
	if m.ref.Synthetic != "" {
		return tokenizer.SyntheticDNA(), nil
	}
	return nil, fmt.Errorf("%s: there is no tokenizer.json beside %s; --dnabert-tokenizer FILE names one", m.flag, m.checkpoint.Source())
}

// synthetic tells whether the embeddings mean nothing.
func (m *model) synthetic() bool { return m.ref.Synthetic != "" }

// maxLength is the limit of letters for this model's records.
func (m *model) maxLength(s *settings) int {
	if !s.given("max-length") && m.architecture == transformer.ESM2 {
		return defaultProteinLength
	}
	return s.maxLength
}

// layerList writes layers as the flag takes them.
func (m *model) layerList() string { return strings.Trim(fmt.Sprint(m.layers), "[]") }
