package weights

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"seqembed/weights/hub"
)

// NotCached is the error for a model of the hub that is missing from the local cache, completely or in part. It wraps
// hub.ErrNotCached.
type NotCached struct {
	ID       string // ORG/NAME
	Revision string // revision that was asked for; "" for the default
	why      error
}

// Error names the model and the part that is missing.
func (e *NotCached) Error() string {
	return fmt.Sprintf("model %s is no file or folder here, and it is %v", e.ID, e.why)
}

// Unwrap returns hub.ErrNotCached.
func (e *NotCached) Unwrap() error { return hub.ErrNotCached }

// CachedSnapshot returns the folder of a hub model in the local cache (see hub.Snapshot). If there is no such folder,
// or it contains no checkpoint, the error is a *NotCached.
func CachedSnapshot(id, revision string) (folder string, err error) {
	folder, err = hub.Snapshot(id, revision)
	if err == nil {
		if _, incomplete := Find(folder); incomplete != nil {
			err = fmt.Errorf("%w: %w", hub.ErrNotCached, incomplete)
		}
	}
	if errors.Is(err, hub.ErrNotCached) {
		return "", &NotCached{id, revision, err}
	}
	if err != nil {
		return "", fmt.Errorf("model %s: %w", id, err)
	}
	return folder, nil
}

// HubFiles selects, from the names of all files of a model on the hub, those that the program needs: the .json and .txt
// files of its main folder, such as config.json and the files of a tokenizer, and one checkpoint, the first in Find's
// order of preference. For a sharded checkpoint it selects the shards and the index. The last name is that of the
// checkpoint or, if it is sharded, of the index.
func HubFiles(all []string) (needed []string, err error) {
	checkpoint := slices.IndexFunc(preferred[:], func(name string) bool { return slices.Contains(all, name) })
	if checkpoint < 0 {
		return nil, fmt.Errorf("it has no checkpoint: none of %s", strings.Join(preferred[:], ", "))
	}
	stem, isIndex := strings.CutSuffix(preferred[checkpoint], ".index.json")
	stem, extension := strings.TrimSuffix(stem, path.Ext(stem)), path.Ext(stem)
	for _, name := range all {
		part := isIndex && strings.HasPrefix(name, stem+"-") && path.Ext(name) == extension
		small := !strings.Contains(name, "/") && (path.Ext(name) == ".json" || path.Ext(name) == ".txt") && !strings.HasSuffix(name, ".index.json")
		if part || small {
			needed = append(needed, name)
		}
	}
	return append(needed, preferred[checkpoint]), nil
}
