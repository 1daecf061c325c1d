package weights

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Label derives a short name for the names of outputs from a checkpoint's path: that of its file, or of its folder
// where the file's own name says nothing, as that of model.safetensors.
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
		for _, extension := range []string{".index.json", ".safetensors", ".bin", ".pt", ".pth"} {
			base = strings.TrimSuffix(base, extension)
		}
	}
	return SafeLabel(base), nil
}

// SafeLabel keeps of a name what is safe in a file name on every system.
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
