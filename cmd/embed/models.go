package main

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"seqembed/internal/seqio"
	"seqembed/internal/store"
	"seqembed/pool"
	"seqembed/tokenizer"
	"seqembed/transformer"
)

// familyFlags holds the flag values of a family of models, such as ESM-2: the model, the path of a vocabulary file (""
// means the checkpoint's own), and the number of tokens in a batch (0 means automatic).
type familyFlags struct {
	*transformer.Family
	model, vocabulary string
	batch             int
}

// flag returns the full name of one of the family's flags: flag("model") of ESM-2 is "esm-model".
func (f *familyFlags) flag(what string) string { return f.Flag + "-" + what }

// family returns a family of models for an alphabet. It is the family whose model flag, such as --esm-model, is set. If
// no such flag is set, it is the first family for the alphabet. Two set flags for one alphabet are a usage error.
func (s *settings) family(a seqio.Alphabet) (*familyFlags, error) {
	var named, first *familyFlags
	for i := range s.families {
		f := &s.families[i]
		switch {
		case f.Alphabet != a:
		case s.given(f.flag("model")) && named != nil:
			return nil, usagef("--%s and --%s are both for %s: name one", named.flag("model"), f.flag("model"), a)
		case s.given(f.flag("model")):
			named = f
		case first == nil:
			first = f
		}
	}
	if named != nil {
		return named, nil
	}
	return first, nil
}

// meantModel returns a suggestion for a misspelt name of a model: the most similar names of models of the families. It
// returns "" if no name is similar, or if model is the name of a known model, a file or a folder.
func meantModel(model string, families ...*transformer.Family) string {
	name, synthetic := strings.CutPrefix(model, "synthetic:")
	name, _, _ = strings.Cut(name, "@")
	var known []string
	for _, f := range families {
		for _, p := range f.Published {
			if synthetic {
				known = append(known, p.Name)
			} else if p.Hub != "" {
				known = append(known, p.Name, p.Hub, p.Alias)
			}
		}
	}
	if _, err := os.Stat(model); err == nil || slices.Contains(known, name) {
		return ""
	}
	prefix := ""
	if synthetic {
		prefix = "synthetic:"
	}
	return didYouMean(name, prefix, slices.DeleteFunc(known, func(name string) bool { return name == "" }))
}

// model is an open checkpoint, ready to be loaded onto devices.
type model struct {
	*familyFlags
	checkpoint *transformer.Checkpoint
	config     transformer.Config
	tokenizer  tokenizer.Tokenizer
	layers     []int
	columns    []transformer.Column
	job        *pool.Job // embeds the files of the model's alphabet
}

// openModel opens the checkpoint that the flags select for an alphabet, and checks that it suits the other flags. It
// does not load the weights.
func (s *settings) openModel(a seqio.Alphabet) (*model, error) {
	f, err := s.family(a)
	if err != nil {
		return nil, err
	}
	c, err := transformer.Families.Open(f.model)
	if err != nil {
		return nil, fmt.Errorf("--%s %s: %w%s", f.flag("model"), f.model, fetchAgain(f.model, err), meantModel(f.model, f.Family))
	}
	m := &model{familyFlags: f, checkpoint: c, config: c.Config}
	if err := m.check(s); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return m, nil
}

func (m *model) check(s *settings) error {
	flag, source := "--"+m.flag("model"), m.checkpoint.Source
	if m.config.Family != m.Family {
		return fmt.Errorf("%s: %s is a checkpoint of %s, and %s is needed", flag, source, m.config.Family.Name, m.Name)
	}
	var err error
	if m.layers, err = transformer.ResolveLayers(s.layers, m.config.Layers); err != nil {
		return usagef("--layers: %s: %w", m.model, err)
	}
	m.columns = transformer.Columns(m.layers, s.poolings...)
	if err := m.checkWindows(s); err != nil {
		return err
	}
	if s.preset != nil {
		if err := s.preset.check(m); err != nil {
			return err
		}
	}
	if m.tokenizer, err = m.checkpoint.Tokenizer(m.vocabulary); err != nil {
		if m.vocabulary == "" {
			err = fetchAgain(m.model, err)
		} else {
			flag = "--" + m.flag("tokenizer")
		}
		return fmt.Errorf("%s: %w", flag, err)
	}
	return nil
}

// maxLength returns the maximum length of this model's records in letters, or 0 if there is no limit. With --long
// window it returns the length of a window.
func (m *model) maxLength(s *settings) int {
	switch {
	case s.preset != nil:
		return s.preset.maxLength
	case s.given("max-length") || s.given("truncation_seq_length"):
		return s.maxLength
	case s.long == string(pool.LongWindow):
		return cmp.Or(m.MaxLength, m.Window)
	}
	return m.MaxLength
}

// checkWindows checks the length and the overlap of windows for --long window. It returns a usage error if the length
// is 0, or if --overlap is more than half of the length.
func (m *model) checkWindows(s *settings) error {
	switch length := m.maxLength(s); {
	case s.long != string(pool.LongWindow):
	case length == 0:
		return usagef("--long window: --max-length 0 gives no windows; of %s the default is %d letters", m.Name, cmp.Or(m.MaxLength, m.Window))
	case s.overlap > length/2:
		return usagef("--overlap: %d letters are more than half of a window of %s, which has %d (--max-length)", s.overlap, m.Name, length)
	}
	return nil
}

// layerList returns the numbers of the embedded layers, separated by spaces. None is negative, although --layers may
// count from the last layer, which is -1.
func (m *model) layerList() string { return strings.Trim(fmt.Sprint(m.layers), "[]") }

// storedColumns returns the columns of the model's outputs, each a pooling of a layer, as values of store.Column.
func (m *model) storedColumns() (list []store.Column) {
	for _, c := range m.columns {
		list = append(list, store.Column{Pooling: store.Pooling(c.Pooling), Layer: c.Layer})
	}
	return list
}

// covered returns the range of tokens that a pooling covers in a sequence of n tokens. It is the function for the field
// Covered of pool.Job.
func (m *model) covered(p store.Pooling, n int) (from, to int) {
	return m.Covered(transformer.Pooling(p), n)
}
