package weights

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// ErrNotCached is what CachedSnapshot's error wraps when a hub model is not in the local cache.
var ErrNotCached = errors.New("not in the local cache")

var (
	hubIDPattern  = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*$`)
	commitPattern = regexp.MustCompile(`^[0-9a-f]{40}$`)
)

// cacheFolder returns the Hugging Face cache, as its own libraries find it.
func cacheFolder() (string, error) {
	home, err := os.UserHomeDir()
	for _, place := range [][2]string{{"HF_HUB_CACHE", ""}, {"HUGGINGFACE_HUB_CACHE", ""}, {"TRANSFORMERS_CACHE", ""},
		{"HF_HOME", "hub"}, {"XDG_CACHE_HOME", "huggingface/hub"}} {
		if folder := os.Getenv(place[0]); folder != "" {
			return filepath.Join(expand(folder, home), place[1]), nil
		}
	}
	if err != nil {
		return "", fmt.Errorf("finding the Hugging Face cache: %w; HF_HOME can name it", err)
	}
	return filepath.Join(home, ".cache", "huggingface", "hub"), nil
}

// expand replaces the home folder's ~ at the beginning of a path, and the variables $NAME and ${NAME} that are set: no
// shell has seen a path of an env file or a container.
func expand(path, home string) string {
	path = os.Expand(path, func(name string) string {
		if value, set := os.LookupEnv(name); set {
			return value
		}
		return "${" + name + "}"
	})
	if rest, ok := strings.CutPrefix(path, "~"); ok && home != "" && (rest == "" || os.IsPathSeparator(rest[0])) {
		return home + rest
	}
	return path
}

// IsHubID reports whether name has the form ORG/NAME.
func IsHubID(name string) bool { return hubIDPattern.MatchString(name) }

// CachedSnapshot finds a hub model in the Hugging Face cache (HF_HUB_CACHE, HUGGINGFACE_HUB_CACHE, TRANSFORMERS_CACHE,
// HF_HOME, XDG_CACHE_HOME): the snapshot that refs/main points to, or the only one where there is no refs/main. The
// error for a model that is not there wraps ErrNotCached.
func CachedSnapshot(id string) (folder string, err error) {
	cache, err := cacheFolder()
	if err != nil {
		return "", err
	}
	model := filepath.Join(cache, "models--"+strings.ReplaceAll(id, "/", "--"))
	missing := func(why string) error {
		return fmt.Errorf("model %s is no file or folder here and %w (%s), and downloading is not built yet: put it into %s as the Hugging Face tools do, "+
			"or give a folder with its config.json and model.safetensors instead of its name", id, ErrNotCached, why, model)
	}
	ref, err := ReadText(filepath.Join(model, "refs", "main"))
	if errors.Is(err, fs.ErrNotExist) {
		found, _ := os.ReadDir(filepath.Join(model, "snapshots"))
		found = slices.DeleteFunc(found, func(e fs.DirEntry) bool { return !commitPattern.MatchString(e.Name()) })
		switch len(found) {
		case 0:
			return "", missing("there is no refs/main")
		case 1:
			ref, err = []byte(found[0].Name()), nil
		default:
			return "", fmt.Errorf("model %s has no refs/main and %d snapshots: give the folder of one of them, such as %s",
				id, len(found), filepath.Join(model, "snapshots", found[0].Name()))
		}
	}
	if err != nil {
		return "", fmt.Errorf("looking for %s in the cache: %w", id, err)
	}
	revision := string(bytes.TrimSpace(ref))
	if !commitPattern.MatchString(revision) {
		return "", fmt.Errorf("%s does not hold a commit but %q", filepath.Join(model, "refs", "main"), revision[:min(len(revision), 60)])
	}
	folder = filepath.Join(model, "snapshots", revision)
	if _, err := Find(folder); err != nil {
		return "", missing(fmt.Sprintf("revision %s is incomplete: %v", revision, err))
	}
	return folder, nil
}

// HubSnapshot returns the hub id and the commit of the snapshot in a Hugging Face cache that path names or lies in,
// .../models--ORG--NAME/snapshots/COMMIT, "" for any other path. Symbolic links are not followed, since those of a
// cache lead out of it.
func HubSnapshot(path string) (id, revision string) {
	path, err := filepath.Abs(path)
	if err != nil {
		return "", ""
	}
	for range 2 {
		snapshots, commit := filepath.Split(path)
		model, ok := strings.CutPrefix(filepath.Base(filepath.Dir(filepath.Clean(snapshots))), "models--")
		if ok && filepath.Base(snapshots) == "snapshots" && commitPattern.MatchString(commit) {
			return strings.Replace(model, "--", "/", 1), commit
		}
		path = filepath.Clean(snapshots)
	}
	return "", ""
}
