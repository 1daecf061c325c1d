package weights

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Kind says where a model's weights come from.
type Kind int

// The kinds of a Ref.
const (
	Local          Kind = iota // a folder or file that the user named
	Hub                        // a hub model, found in the local cache
	SyntheticModel             // computed, see Synthetic
)

// Ref is a model that a user named.
type Ref struct {
	Kind      Kind
	Path      string // what Open takes; "" for a synthetic model
	Name      string // short label for the names of outputs, such as "esm2-650m"
	ID        string // hub id, or synthetic:NAME@SEED; "" for a local model that no cache knows
	Revision  string // commit of the hub snapshot, "" where there is none
	Seed      uint64 // of a synthetic model
	Synthetic string // name of a synthetic model, "" for the others
}

// hubModels are the short names of the models on the hub, smallest first.
var hubModels = [...]struct{ short, id string }{
	{"dnabert-s", "zhihan1996/DNABERT-S"},
	{"esm2-8m", "facebook/esm2_t6_8M_UR50D"},
	{"esm2-35m", "facebook/esm2_t12_35M_UR50D"},
	{"esm2-150m", "facebook/esm2_t30_150M_UR50D"},
	{"esm2-650m", "facebook/esm2_t33_650M_UR50D"},
	{"esm2-3b", "facebook/esm2_t36_3B_UR50D"},
	{"esm2-15b", "facebook/esm2_t48_15B_UR50D"},
}

// syntheticOnly are the synthetic models that have no counterpart on the hub.
var syntheticOnly = [...]string{"esm2-tiny", "esm2-hd128", "dnabert-s-2l"}

// ShortNames returns the short names of the hub models, smallest first.
func ShortNames() []string {
	var names []string
	for _, m := range hubModels {
		names = append(names, m.short)
	}
	return names
}

// SyntheticNames returns the names that may follow "synthetic:".
func SyntheticNames() []string { return append(ShortNames(), syntheticOnly[:]...) }

// ResolveModel finds the model that name stands for: synthetic:NAME[@SEED]
// (seed 0 if none is given), an existing file or folder, a short name, or a hub
// id ORG/NAME in the Hugging Face cache (HF_HUB_CACHE, HF_HOME, XDG_CACHE_HOME).
// An existing path wins over a hub id; over a short name it does so if it is, or
// holds, a checkpoint. A hub model that is not cached wraps ErrNotCached.
func ResolveModel(name string) (Ref, error) {
	if rest, ok := strings.CutPrefix(name, "synthetic:"); ok {
		return resolveSynthetic(rest)
	}
	id := hubID(name)
	if _, err := os.Stat(name); err == nil {
		if _, err := findCheckpoint(name); err == nil || id == "" {
			return resolveLocal(name)
		}
	}
	if id == "" && hubIDPattern.MatchString(name) {
		id = name
	}
	if id == "" {
		return Ref{}, fmt.Errorf("model %q is no existing file or folder, no hub id ORG/NAME and none of %s",
			name, strings.Join(ShortNames(), ", "))
	}
	folder, revision, err := cachedSnapshot(id)
	if err != nil {
		return Ref{}, err
	}
	return Ref{Kind: Hub, Path: folder, Name: hubLabel(id), ID: id, Revision: revision}, nil
}

func resolveSynthetic(rest string) (Ref, error) {
	name, seedText, hasSeed := strings.Cut(rest, "@")
	if !slices.Contains(SyntheticNames(), name) {
		return Ref{}, fmt.Errorf("there is no synthetic model %q; there are %s", name, strings.Join(SyntheticNames(), ", "))
	}
	var seed uint64
	if hasSeed {
		var err error
		if seed, err = strconv.ParseUint(seedText, 10, 64); err != nil {
			return Ref{}, fmt.Errorf("the seed in \"synthetic:%s\" is not a number from 0 to 2^64-1: %w", rest, err)
		}
	}
	return Ref{
		Kind:      SyntheticModel,
		Name:      name,
		ID:        fmt.Sprintf("synthetic:%s@%d", name, seed),
		Seed:      seed,
		Synthetic: name,
	}, nil
}

func resolveLocal(path string) (Ref, error) {
	ref := Ref{Kind: Local, Path: path}
	if s := hubSnapshot(path); s.id != "" {
		ref.ID, ref.Revision, ref.Name = s.id, s.revision, hubLabel(s.id)
		return ref, nil
	}
	absolute, err := filepath.Abs(path)
	if err != nil {
		return Ref{}, err
	}
	base := filepath.Base(absolute)
	// Names such as model.safetensors say nothing; the folder's name does.
	if slices.Contains(preferred[:], base) {
		base = filepath.Base(filepath.Dir(absolute))
	}
	if info, err := os.Stat(path); err == nil && !info.IsDir() {
		for _, extension := range []string{".index.json", ".safetensors", ".bin", ".pt", ".pth"} {
			base = strings.TrimSuffix(base, extension)
		}
	}
	ref.Name = label(base)
	return ref, nil
}

// hubID returns the hub id of a short name, "" if it is none.
func hubID(short string) string {
	for _, m := range hubModels {
		if m.short == short {
			return m.id
		}
	}
	return ""
}

// hubLabel returns the short name of a hub id, or its last part if it has none.
func hubLabel(id string) string {
	for _, m := range hubModels {
		if m.id == id {
			return m.short
		}
	}
	_, name, _ := strings.Cut(id, "/")
	return label(name)
}

// label keeps of a name what is safe in a file name on every system.
func label(name string) string {
	safe := strings.Map(func(r rune) rune {
		if r == '.' || r == '_' || r == '-' || '0' <= r && r <= '9' || 'A' <= r && r <= 'Z' || 'a' <= r && r <= 'z' {
			return r
		}
		return '-'
	}, name)
	if safe = strings.Trim(safe, ".-"); safe == "" {
		return "model"
	}
	return safe
}
