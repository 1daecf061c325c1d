package transformer

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"seqembed/weights"
	"seqembed/weights/hub"
)

// find returns the path of the checkpoint for a name that Open accepts, other than synthetic:NAME. The label is the
// model's name in the names of outputs.
func (l List) find(name string) (path, label string, err error) {
	if _, err := os.Stat(name); err == nil {
		if _, err := weights.Find(name, l.besideFiles()...); err == nil || l.hubID(name) == "" {
			if id, _ := hub.Of(name); id != "" {
				return name, l.hubLabel(id), nil
			}
			label, err := weights.Label(name)
			return name, label, err
		}
	}
	id, revision, ok := l.Hub(name)
	if !ok {
		return "", "", fmt.Errorf("model %q is no existing file or folder, no hub id ORG/NAME and none of %s",
			name, strings.Join(l.names(false), ", "))
	}
	path, err = l.cached(name, id, revision)
	return path, l.hubLabel(id), err
}

// cached returns the path of a hub model in a local cache. It searches the cache of Hugging Face's libraries and, for
// the short name or the alias of a published model, the cache of fair-esm. For an alias, which is fair-esm's name, it
// searches the cache of fair-esm first. If the model is in neither cache, the error is a *weights.NotCached.
func (l List) cached(name, id, revision string) (path string, err error) {
	_, p, ok := l.published(func(p Published) bool { return p.Alias != "" && (name == p.Name || name == p.Alias) })
	torch := ""
	if ok {
		if torch, err = hub.TorchFile(p.Alias + ".pt"); err != nil {
			return "", err
		}
		if torch != "" && name == p.Alias {
			return torch, nil
		}
	}
	path, err = weights.CachedSnapshot(id, revision)
	if missing := (*weights.NotCached)(nil); torch != "" && errors.As(err, &missing) {
		return torch, nil
	}
	return path, err
}

// Cached returns the path of a published model in a local cache, or "" if no local cache contains the model. The path
// is a snapshot folder in Hugging Face's cache or a file in the cache of fair-esm.
func (l List) Cached(p Published) (path string, err error) {
	path, err = l.cached(p.Name, p.Hub, "")
	if missing := (*weights.NotCached)(nil); errors.As(err, &missing) {
		return "", nil
	}
	return path, err
}

// Hub returns the id and the revision on the hub for a name that Open accepts. ok reports whether the name stands for a
// model of the hub. The revision is "" if the name has no @REVISION.
func (l List) Hub(name string) (id, revision string, ok bool) {
	base, revision, _ := strings.Cut(name, "@")
	if id = l.hubID(base); id == "" && hub.IsID(base) {
		id = base
	}
	return id, revision, id != ""
}

// hubID returns the id on the hub of the published model whose short name or alias is name, or "" if there is none.
func (l List) hubID(name string) string {
	_, p, _ := l.published(func(p Published) bool {
		return p.Hub != "" && name != "" && (name == p.Name || name == p.Alias)
	})
	return p.Hub
}

// hubLabel returns the name that a model of the hub gets in the names of outputs: its short name or, without one, the
// part of its id after the slash, made safe for file names.
func (l List) hubLabel(id string) string {
	if _, p, ok := l.published(func(p Published) bool { return p.Hub == id }); ok {
		return p.Name
	}
	_, name, _ := strings.Cut(id, "/")
	return weights.SafeLabel(name)
}

// names returns the short names of the models that are on the hub. If synthetic is true, it also returns the short
// names of the models that exist only with synthetic weights.
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

// ModelNames returns the short names of the family's models on the hub.
func (f *Family) ModelNames() []string { return List{f}.names(false) }
