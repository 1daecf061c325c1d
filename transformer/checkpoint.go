package transformer

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"seqembed/weights"
)

// Checkpoint is an open checkpoint of a model of a known Family. It contains only the tensors that a model with its
// Config reads. They have the same names for all checkpoints of the family, whatever names the file gives them.
type Checkpoint struct {
	*weights.Checkpoint
	Config    Config
	Label     string // name of the model in the names of outputs, such as "esm2-650m"
	Synthetic bool   // whether its weights are computed instead of read
}

// Open opens the model called name. A name is synthetic:NAME[@SEED] (seed 0 by default), an existing file or folder,
// the short name or alias of a published model, or a hub id ORG/NAME. @REVISION may follow a short name, an alias or an
// id. A model with a short name, an alias or an id is searched in the local caches (see List.cached). If no cache
// contains it, the error is a *weights.NotCached.
//
// An existing path takes precedence over a hub id. It takes precedence over a short name or alias only if it is, or
// contains, a checkpoint.
func (l List) Open(name string) (*Checkpoint, error) {
	if rest, ok := strings.CutPrefix(name, "synthetic:"); ok {
		return l.openSynthetic(rest)
	}
	path, label, err := l.find(name)
	if err != nil {
		return nil, err
	}
	c := &Checkpoint{Label: label}
	if c.Checkpoint, err = weights.Open(path, l.besideFiles()...); err != nil {
		return nil, err
	}
	if err := c.configure(l); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// openSynthetic returns the synthetic checkpoint for ref, which has the form NAME[@SEED].
func (l List) openSynthetic(ref string) (*Checkpoint, error) {
	name, seedText, hasSeed := strings.Cut(ref, "@")
	text, config, err := l.synthetic(name)
	if err != nil {
		return nil, err
	}
	var seed uint64
	if hasSeed {
		if seed, err = strconv.ParseUint(seedText, 10, 64); err != nil {
			return nil, fmt.Errorf("the seed in \"synthetic:%s\" is not a number from 0 to 2^64-1", ref)
		}
	}
	return &Checkpoint{weights.Synthetic(name, seed, []byte(text), config.Tensors()), config, name, true}, nil
}

func (l List) besideFiles() (ends []string) {
	for _, f := range l {
		ends = append(ends, f.besideFiles...)
	}
	return ends
}

// configure finds the family of l that the checkpoint belongs to, renames the tensors to the names that the family
// uses, sets c.Config from config.json or, without one, from the tensors, and checks the tensors.
func (c *Checkpoint) configure(l List) error {
	f, err := l.recognise(c.Checkpoint)
	if err != nil {
		return fmt.Errorf("%s: %w", c.Source, err)
	}
	if err := c.Rename(f.canonical); err != nil {
		return err
	}
	if data := c.ConfigJSON; data != nil {
		c.Config, err = f.ParseConfig(data)
	} else {
		c.Config, err = f.deduceConfig(c.Checkpoint)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", c.Source, err)
	}
	return c.Check(c.Config.Tensors())
}

// recognise returns the family of a checkpoint. The tensors must still have the names under which the file stores them.
func (l List) recognise(c *weights.Checkpoint) (*Family, error) {
	var file struct {
		ModelType string `json:"model_type"`
	}
	data := c.ConfigJSON
	if data != nil {
		if err := json.Unmarshal(data, &file); err != nil {
			return nil, fmt.Errorf("config.json: %w", err)
		}
	}
	var known []string
	for _, f := range l {
		isMarker := func(stored string) bool { name, _ := f.canonical(stored); return name == f.marker }
		if (data == nil || file.ModelType == f.modelType) && slices.ContainsFunc(c.Names(), isMarker) {
			return f, nil
		}
		known = append(known, fmt.Sprintf("%s (model_type %s, tensor %s)", f.Name, f.modelType, f.marker))
	}
	return nil, fmt.Errorf("a checkpoint of no known family: config.json, if there is one, has the "+
		"model_type %q; known are %s: %w", file.ModelType, strings.Join(known, ", "), ErrUnsupported)
}

// TunedHead returns the names, as in the file, of the tensors that belong to the head of a fine-tuned model, such as a
// classifier. The Checkpoint does not contain these tensors.
func (c *Checkpoint) TunedHead() []string {
	f := c.Config.Family
	return slices.DeleteFunc(slices.Clone(c.LeftOut), func(stored string) bool {
		name, _ := f.canonical(stored)
		return !matches(name, f.tuned)
	})
}
