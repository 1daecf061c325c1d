package main

import (
	"fmt"
	"slices"
	"strings"

	"seqembed/internal/store"
	"seqembed/pool"
	"seqembed/transformer"
)

// preset describes a program that makes predictions from embeddings. With the preset, embed does the steps before the
// prediction: it translates the inputs, embeds their DNA and their proteins, and merges the two outputs of each input.
type preset struct {
	name      string
	program   string            // name of the program in messages
	models    map[string]string // short names of the models that the program can use, by flag, such as esm-model
	chunks    []int             // lengths of chunks in letters that the program supports, the default last
	maxLength int               // longer sequences are truncated to this number of letters
}

// virNucPro is the preset for VirNucPro, which averages the first 1,024 residues of a protein.
var virNucPro = preset{name: "virnucpro", program: "VirNucPro", chunks: []int{300, 500}, maxLength: 1024,
	models: map[string]string{"dnabert-model": "dnabert-s", "esm-model": "esm2-3b"}}

// presetFlags lists flags that exclude --preset, because the preset decides about them. The last three are flags of
// fair-esm's extract.py, which embed accepts in place of --pool, --layers and --max-length.
var presetFlags = []string{"format", "dtype-out", "pool", "layers", "long", "max-length", "overlap", "windows", "keep-case", "protein",
	"include", "repr_layers", "truncation_seq_length"}

// usePreset applies --preset and --expected-length to the other settings.
func (s *settings) usePreset(p preset) error {
	switch s.presetName {
	case "":
		if s.given("expected-length") {
			return usagef("--expected-length is about chunks: it needs --preset %s", p.name)
		}
		return nil
	case p.name:
	default:
		return usagef("--preset: there is no preset %q, only %s", s.presetName, p.name)
	}
	for _, flag := range presetFlags {
		if s.given(flag) {
			return usagef("--%s and --preset %s exclude each other: the preset does as %s does", flag, p.name, p.program)
		}
	}
	if s.expectedLength == 0 {
		s.expectedLength = p.chunks[len(p.chunks)-1]
	}
	if !slices.Contains(p.chunks, s.expectedLength) {
		return usagef("--expected-length: %s has models for chunks of %s letters, not %d", p.program,
			strings.ReplaceAll(strings.Trim(fmt.Sprint(p.chunks), "[]"), " ", " or "), s.expectedLength)
	}
	s.preset, s.format, s.pool, s.long = &p, string(store.VirNucPro), []string{string(transformer.Mean)}, string(pool.LongTruncate)
	for i := range s.families {
		if f := &s.families[i]; !s.given(f.flag("model")) {
			f.model = p.models[f.flag("model")]
		}
	}
	return nil
}

// check returns an error if the program that the preset replaces cannot use the embeddings of a model. The model must
// have as many layers and columns as the program's own model. A published model must also have the same name.
func (p *preset) check(m *model) error {
	name := p.models[m.flag("model")]
	want, ok := transformer.Families.Config(name)
	label := m.checkpoint.Label
	switch {
	case !ok:
		return usagef("--%s: %s has no use for models of %s", m.flag("model"), p.program, m.Name)
	case m.config.Layers != want.Layers || m.config.Hidden != want.Hidden:
		return fmt.Errorf("--%s %s: %s reads the embeddings of %s, which has %d layers and %d columns; this model has %d and %d",
			m.flag("model"), m.model, p.program, name, want.Layers, want.Hidden, m.config.Layers, m.config.Hidden)
	case label != name && slices.Contains(m.ModelNames(), label):
		return fmt.Errorf("--%s %s: %s reads the embeddings of %s", m.flag("model"), m.model, p.program, name)
	}
	return nil
}
