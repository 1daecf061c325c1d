package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// profiled is the number of tokens in a batch that embed profile has recommended for a model on a kind of device.
type profiled struct {
	Model           string `json:"model"` // short name, as in the names of outputs
	Backend         string `json:"backend"`
	DType           string `json:"dtype"`
	Tokens          int    `json:"tokens"`
	TokensPerSecond int64  `json:"tokens_per_second"`
}

// same reports whether p and q are about the same model, kind of device and type of matrix products.
func (p profiled) same(q profiled) bool {
	return p.Model == q.Model && p.Backend == q.Backend && p.DType == q.DType
}

// profilePath returns the path of the file in which embed profile stores its results for this machine. It is empty if
// neither XDG_STATE_HOME nor a home directory is known.
func profilePath() string {
	state := os.Getenv("XDG_STATE_HOME")
	if !filepath.IsAbs(state) { // the XDG Base Directory Specification ignores a relative path
		home, err := os.UserHomeDir()
		if err != nil {
			return ""
		}
		state = filepath.Join(home, ".local", "state")
	}
	return filepath.Join(state, "seqembed", "profile.json")
}

// allProfiled returns all results that embed profile has stored, or none if there is no file.
func allProfiled() (list []profiled, err error) {
	path := profilePath()
	if path == "" {
		return nil, nil
	}
	content, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err == nil {
		err = json.Unmarshal(content, &list)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w; embed profile makes a new one if it is deleted", path, err)
	}
	return list, nil
}

// findProfiled returns the number of tokens in a batch that embed profile has stored for a model, a kind of device and
// a type of matrix products. It returns 0 if no valid number is stored.
func findProfiled(model, backend, dtype string) (tokens int, err error) {
	list, err := allProfiled()
	i := slices.IndexFunc(list, profiled{Model: model, Backend: backend, DType: dtype}.same)
	if i < 0 || list[i].Tokens < 1 || list[i].Tokens > maxBudget {
		return 0, err
	}
	return list[i].Tokens, nil
}

// setProfiled adds a result to the file of embed profile. It replaces an earlier result for the same model, kind of
// device and type of matrix products.
func setProfiled(p profiled) error {
	list, err := allProfiled()
	if err != nil {
		return err
	}
	list = append(slices.DeleteFunc(list, p.same), p)
	slices.SortFunc(list, func(a, b profiled) int {
		return cmp.Or(strings.Compare(a.Model, b.Model), strings.Compare(a.Backend, b.Backend), strings.Compare(a.DType, b.DType))
	})
	content, err := json.MarshalIndent(list, "", "  ")
	if err != nil {
		return err
	}
	path := profilePath()
	if path == "" {
		return errors.New("neither XDG_STATE_HOME nor HOME names a folder for it")
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
		return err
	}
	temporary, err := os.CreateTemp(filepath.Dir(path), "profile-*")
	if err != nil {
		return err
	}
	defer os.Remove(temporary.Name()) // does nothing after the rename
	_, err = temporary.Write(append(content, '\n'))
	if err = cmp.Or(err, temporary.Close()); err != nil {
		return err
	}
	return os.Rename(temporary.Name(), path)
}
