package weights

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// preferred lists the names of checkpoints in a folder, in descending order of preference.
var preferred = [...]string{
	"model.safetensors", "model.safetensors.index.json",
	"pytorch_model.bin", "pytorch_model.bin.index.json",
}

// extensions lists the extensions of possible checkpoints.
var extensions = [...]string{".safetensors", ".pt", ".pth", ".bin", ".ckpt"}

// ofTraining lists files that the library transformers saves beside a checkpoint, and that contain no weights.
var ofTraining = [...]string{"training_args.bin", "optimizer.pt", "optimizer.bin", "scheduler.pt", "rng_state.pth"}

// shardPattern matches the name of a shard, such as model-00001-of-00003.bin. Its groups are the stem, the number of
// shards, and the extension.
var shardPattern = regexp.MustCompile(`^(.+)-\d{5}-of-(\d{5})(\.\w+)$`)

// Find returns path itself or, if path is a folder, the path of the checkpoint in it. The order of preference is
// model.safetensors, model.safetensors.index.json, pytorch_model.bin, pytorch_model.bin.index.json, and then the only
// file with the extension .safetensors, .pt, .pth, .bin or .ckpt. In this last case, files of a training (see
// ofTraining), and files whose names end in one of the strings in beside, do not count.
func Find(path string, beside ...string) (string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", fmt.Errorf("opening a checkpoint: %w", err)
	}
	if !info.IsDir() {
		if stem := shardPattern.FindStringSubmatch(path); stem != nil && stem[2] != "00001" {
			return "", fmt.Errorf("%s is one of several shards of a checkpoint: give their folder", path)
		}
		return path, nil
	}
	for _, name := range preferred {
		if info, err := os.Stat(filepath.Join(path, name)); err == nil && info.Mode().IsRegular() {
			return filepath.Join(path, name), nil
		}
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return "", err
	}
	var found []string
	for _, entry := range entries {
		name := entry.Name()
		isEnd := func(suffix string) bool { return strings.HasSuffix(name, suffix) }
		if slices.Contains(extensions[:], filepath.Ext(name)) && !entry.IsDir() && !slices.Contains(ofTraining[:], name) && !slices.ContainsFunc(beside, isEnd) {
			found = append(found, name)
		}
	}
	if found == nil {
		return "", fmt.Errorf("folder %s holds no checkpoint: none of %s, nor another file of %s",
			path, strings.Join(preferred[:], ", "), strings.Join(extensions[:], ", "))
	}
	if stem := shardPattern.FindStringSubmatch(found[0]); stem != nil && stem[2] != "00001" {
		return "", fmt.Errorf("folder %s holds shards of a checkpoint (%s), and its %s.index.json is missing",
			path, listed(found), stem[1]+stem[3])
	}
	if len(found) == 1 {
		return filepath.Join(path, found[0]), nil
	}
	return "", fmt.Errorf("folder %s holds several checkpoints; name one of %s", path, listed(found))
}

// Label derives a name for outputs from the path of a checkpoint. It uses the name of the folder or, for a file, the
// file's name without the extension. For a file with a general name such as model.safetensors, it uses the name of the
// file's folder.
func Label(path string) (string, error) {
	absolute, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	base := filepath.Base(absolute)
	if slices.Contains(preferred[:], base) {
		base = filepath.Base(filepath.Dir(absolute))
	}
	if info, err := os.Stat(path); err == nil && !info.IsDir() {
		base = strings.TrimSuffix(base, ".index.json")
		for _, extension := range extensions {
			base = strings.TrimSuffix(base, extension)
		}
	}
	return SafeLabel(base), nil
}

// SafeLabel makes name usable in file names on every system: it replaces each character other than ASCII letters,
// digits, '.', '_' and '-' by '-', and removes '.' and '-' at both ends. It returns "model" if nothing is left.
func SafeLabel(name string) string {
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
