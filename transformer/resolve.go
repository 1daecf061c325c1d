package transformer

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"seqembed/weights"
)

// Ref is a model that a user named.
type Ref struct {
	Path      string // of a checkpoint, "" for a synthetic model
	Name      string // short label for the names of outputs, such as "esm2-650m"
	Synthetic string // short name of a synthetic model, "" for the others
	Seed      uint64 // of a synthetic model
}

// Resolve finds the model that name stands for: synthetic:NAME[@SEED] (seed 0 if none is given), an existing file or
// folder, the short name or the alias of a published model, or a hub id ORG/NAME in the Hugging Face cache, see
// weights.CachedSnapshot. An existing path wins over a hub id; over a short name or an alias it does so if it is, or
// holds, a checkpoint. A hub model that is not cached wraps weights.ErrNotCached.
func (l List) Resolve(name string) (Ref, error) {
	if rest, ok := strings.CutPrefix(name, "synthetic:"); ok {
		return l.resolveSynthetic(rest)
	}
	_, known, ok := l.published(func(p Published) bool { return p.Hub != "" && name != "" && (name == p.Name || name == p.Alias) })
	if _, err := os.Stat(name); err == nil {
		if _, err := weights.Find(name, l.besideFiles()...); err == nil || !ok {
			return l.resolveLocal(name)
		}
	}
	id := known.Hub
	if !ok && weights.IsHubID(name) {
		id = name
	}
	if id == "" {
		return Ref{}, fmt.Errorf("model %q is no existing file or folder, no hub id ORG/NAME and none of %s",
			name, strings.Join(l.names(false), ", "))
	}
	folder, err := weights.CachedSnapshot(id)
	if err != nil {
		return Ref{}, err
	}
	return Ref{Path: folder, Name: l.hubLabel(id)}, nil
}

// names lists the short names of the published models, and of those that are only synthetic, too.
func (l List) names(synthetic bool) (list []string) {
	for _, f := range l {
		for _, p := range f.Published {
			if synthetic || p.Hub != "" {
				list = append(list, p.Name)
			}
		}
	}
	return list
}

// ModelNames lists the short names of the family's published models.
func (f *Family) ModelNames() []string { return List{f}.names(false) }

func (l List) resolveSynthetic(rest string) (Ref, error) {
	name, seedText, hasSeed := strings.Cut(rest, "@")
	if names := l.names(true); !slices.Contains(names, name) {
		return Ref{}, fmt.Errorf("there is no synthetic model %q; there are %s", name, strings.Join(names, ", "))
	}
	var seed uint64
	if hasSeed {
		var err error
		if seed, err = strconv.ParseUint(seedText, 10, 64); err != nil {
			return Ref{}, fmt.Errorf("the seed in \"synthetic:%s\" is not a number from 0 to 2^64-1: %w", rest, err)
		}
	}
	return Ref{Name: name, Synthetic: name, Seed: seed}, nil
}

func (l List) resolveLocal(path string) (Ref, error) {
	if id := weights.HubID(path); id != "" {
		return Ref{Path: path, Name: l.hubLabel(id)}, nil
	}
	label, err := weights.Label(path)
	return Ref{Path: path, Name: label}, err
}

// hubLabel returns the short name of a hub id, or its last part if it has none.
func (l List) hubLabel(id string) string {
	if _, p, ok := l.published(func(p Published) bool { return p.Hub == id }); ok {
		return p.Name
	}
	_, name, _ := strings.Cut(id, "/")
	return weights.SafeLabel(name)
}
