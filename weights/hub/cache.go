// Package hub finds models in the cache of Hugging Face's libraries and downloads them into it. It implements the
// protocol of the Hugging Face hub, and must not know what the files contain. It is the only package of the module that
// uses the network.
//
// The cache has a folder models--ORG--NAME for each model. In it, the folder blobs contains the files, with their
// digests as names. The folder snapshots/COMMIT contains links to blobs, with the names of the files. The file
// refs/REVISION contains the commit of a branch or tag.
package hub

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// ErrNotCached means that a model, or the requested revision of it, is not in the cache.
var ErrNotCached = errors.New("not in the local cache")

var (
	idPattern     = regexp.MustCompile(`^\w([\w.-]*\w)?/\w([\w.-]*\w)?$`)
	commitPattern = regexp.MustCompile(`^[0-9a-f]{40}$`)
	sha256Pattern = regexp.MustCompile(`^[0-9a-f]{64}$`)
)

// IsID reports whether name is the id of a model on the hub, which has the form ORG/NAME. By the rules of Hugging
// Face's libraries, ORG and NAME begin and end with a letter, a digit or an underscore, and neither "--" nor ".."
// occurs. So ORG and NAME follow from the name of the model's folder in the cache, models--ORG--NAME.
func IsID(name string) bool {
	return idPattern.MatchString(name) && !strings.Contains(name, "--") && !strings.Contains(name, "..")
}

// Cache returns the folder of the cache. The first of the environment variables HF_HUB_CACHE, HUGGINGFACE_HUB_CACHE,
// TRANSFORMERS_CACHE, HF_HOME and XDG_CACHE_HOME that is set determines it: the first three name the cache itself, and
// the others name a folder that contains it. If none is set, the cache is ~/.cache/huggingface/hub.
func Cache() (folder string, err error) {
	if name := CacheVariable(); name != "HF_HOME" {
		return expand(os.Getenv(name)), nil
	}
	home, err := hfHome()
	return filepath.Join(home, "hub"), err
}

// CacheVariable returns the environment variable by which a user can choose another folder for the cache: that which
// names the present one or, if none is set, HF_HOME.
func CacheVariable() string {
	for _, name := range []string{"HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "TRANSFORMERS_CACHE"} {
		if os.Getenv(name) != "" {
			return name
		}
	}
	return "HF_HOME"
}

// hfHome returns the folder of Hugging Face's libraries, which contains the cache and the token.
func hfHome() (folder string, err error) {
	if folder := os.Getenv("HF_HOME"); folder != "" {
		return expand(folder), nil
	}
	if folder := os.Getenv("XDG_CACHE_HOME"); folder != "" {
		return filepath.Join(expand(folder), "huggingface"), nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", fmt.Errorf("finding the Hugging Face cache: %w; HF_HOME can name it", err)
	}
	return filepath.Join(home, ".cache", "huggingface"), nil
}

// expand replaces a ~ at the beginning of a path by the home folder, and the variables $NAME and ${NAME} by their
// values. A variable that is not set remains in the path as ${NAME}. This is necessary because variables from an env
// file, or from the settings of a container, do not pass through a shell.
func expand(path string) string {
	path = os.Expand(path, func(name string) string {
		if value, set := os.LookupEnv(name); set {
			return value
		}
		return "${" + name + "}"
	})
	home, _ := os.UserHomeDir()
	if rest, ok := strings.CutPrefix(path, "~"); ok && home != "" && (rest == "" || os.IsPathSeparator(rest[0])) {
		return home + rest
	}
	return path
}

// modelFolder returns the folder of a model in a cache.
func modelFolder(cache, id string) string {
	return filepath.Join(cache, "models--"+strings.ReplaceAll(id, "/", "--"))
}

// Snapshot returns the folder of a model's snapshot in the cache. revision is a commit, a branch or a tag. "" stands
// for main, or for the only snapshot if there is no main. The error wraps ErrNotCached if the cache has no such
// snapshot. A snapshot that exists may lack files.
func Snapshot(id, revision string) (folder string, err error) {
	cache, err := Cache()
	if err != nil {
		return "", err
	}
	model := modelFolder(cache, id)
	commit, err := commitOf(model, revision)
	if err != nil {
		return "", err
	}
	folder = filepath.Join(model, "snapshots", commit)
	if _, err := os.Stat(folder); err != nil {
		return "", fmt.Errorf("%w: there is no %s", ErrNotCached, folder)
	}
	return folder, nil
}

func commitOf(model, revision string) (string, error) {
	if commitPattern.MatchString(revision) {
		return revision, nil
	}
	name := revision
	if name == "" {
		name = "main"
	}
	if !filepath.IsLocal(filepath.FromSlash(name)) {
		return "", fmt.Errorf("%q is no revision", revision)
	}
	path := filepath.Join(model, "refs", filepath.FromSlash(name))
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) && revision == "" {
		switch found, _ := os.ReadDir(filepath.Join(model, "snapshots")); len(found) {
		case 0:
		case 1:
			return found[0].Name(), nil
		default:
			return "", fmt.Errorf("there is no refs/main, but %d snapshots: give the folder of one of them, such as %s",
				len(found), filepath.Join(model, "snapshots", found[0].Name()))
		}
	}
	if errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("%w: there is no %s", ErrNotCached, path)
	}
	if err != nil {
		return "", err
	}
	commit := string(bytes.TrimSpace(text))
	if !commitPattern.MatchString(commit) {
		return "", fmt.Errorf("%s does not hold a commit but %.60q", path, commit)
	}
	return commit, nil
}

// Blob follows the symbolic links of file. If they lead to a file in a folder called blobs, and the name of this file
// is a SHA-256, Blob returns its path and this name. For any other file it returns "".
func Blob(file string) (path, sha256 string) {
	path, err := filepath.EvalSymlinks(file)
	if err != nil {
		return "", ""
	}
	folder, name := filepath.Split(path)
	if filepath.Base(folder) != "blobs" || !sha256Pattern.MatchString(name) {
		return "", ""
	}
	return path, name
}

// Of returns the id ORG/NAME and the commit for the path of a snapshot in a cache,
// .../models--ORG--NAME/snapshots/COMMIT, or of a file directly in it. It returns "" for any other path. It does not
// follow symbolic links, because the links of a cache lead out of the snapshot.
func Of(path string) (id, commit string) {
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
