package hub

import (
	"fmt"
	"os"
	"path/filepath"
)

// TorchFile returns the path of a file in the cache of torch.hub, which fair-esm uses: hub/checkpoints/NAME in the
// folder TORCH_HOME or, if this variable is not set, in the folder torch of XDG_CACHE_HOME, which is ~/.cache by
// default. It returns "" and no error if there is no such file.
func TorchFile(name string) (path string, err error) {
	home := expand(os.Getenv("TORCH_HOME"))
	if home == "" {
		cache := expand(os.Getenv("XDG_CACHE_HOME"))
		if cache == "" {
			user, err := os.UserHomeDir()
			if err != nil {
				return "", fmt.Errorf("finding the cache of torch.hub: %w; TORCH_HOME can name it", err)
			}
			cache = filepath.Join(user, ".cache")
		}
		home = filepath.Join(cache, "torch")
	}
	path = filepath.Join(home, "hub", "checkpoints", name)
	if info, err := os.Stat(path); err != nil || !info.Mode().IsRegular() {
		return "", nil
	}
	return path, nil
}
