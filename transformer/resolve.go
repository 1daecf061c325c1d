package transformer

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"seqembed/weights"
)

// ref is where a model that a user named is.
type ref struct {
	label     string // the short name of a synthetic model
	path      string // of a checkpoint, "" for a synthetic model
	synthetic bool
	seed      uint64
}

// resolve finds the model that name stands for, see Open.
func (l List) resolve(name string) (ref, error) {
	if rest, ok := strings.CutPrefix(name, "synthetic:"); ok {
		return l.resolveSynthetic(rest)
	}
	_, known, ok := l.published(func(p Published) bool {
		return p.Hub != "" && name != "" && (name == p.Name || name == p.Alias)
	})
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
		return ref{}, fmt.Errorf("model %q is no existing file or folder, no hub id ORG/NAME and none of %s",
			name, strings.Join(l.names(false), ", "))
	}
	folder, err := weights.CachedSnapshot(id)
	if err != nil {
		return ref{}, err
	}
	return ref{label: l.hubLabel(id), path: folder}, nil
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

func (l List) resolveSynthetic(rest string) (ref, error) {
	name, seedText, hasSeed := strings.Cut(rest, "@")
	if _, _, err := l.synthetic(name); err != nil {
		return ref{}, err
	}
	var seed uint64
	if hasSeed {
		var err error
		if seed, err = strconv.ParseUint(seedText, 10, 64); err != nil {
			return ref{}, fmt.Errorf("the seed in \"synthetic:%s\" is not a number from 0 to 2^64-1: %w", rest, err)
		}
	}
	return ref{label: name, synthetic: true, seed: seed}, nil
}

func (l List) resolveLocal(path string) (ref, error) {
	if id := weights.HubID(path); id != "" {
		return ref{label: l.hubLabel(id), path: path}, nil
	}
	label, err := weights.Label(path)
	return ref{label: label, path: path}, err
}

// hubLabel returns the short name of a hub id, or its last part if it has none.
func (l List) hubLabel(id string) string {
	if _, p, ok := l.published(func(p Published) bool { return p.Hub == id }); ok {
		return p.Name
	}
	_, name, _ := strings.Cut(id, "/")
	return weights.SafeLabel(name)
}
