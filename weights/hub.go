package weights

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"seqembed/weights/hub"
)

// NotCached is the error for a model of the hub that is not in the local cache, or not completely. It wraps
// hub.ErrNotCached.
type NotCached struct {
	ID       string // ORG/NAME
	Revision string // as it was asked for, "" for the default
	why      error
}

// Error names the model and says what is missing.
func (e *NotCached) Error() string {
	return fmt.Sprintf("model %s is no file or folder here, and it is %v", e.ID, e.why)
}

// Unwrap returns hub.ErrNotCached.
func (e *NotCached) Unwrap() error { return hub.ErrNotCached }

// CachedSnapshot returns the folder of a hub model in the local cache, see hub.Snapshot. If there is none, or it
// contains no checkpoint, the error is a *NotCached.
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

// HubFiles returns the needed files of a hub model: the small files beside a checkpoint, such as config.json and those
// of a tokenizer, and the first checkpoint in the order of Find, with its shards. The file that Find looks for is the
// last one.
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
