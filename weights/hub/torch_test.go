package hub

import (
	"os"
	"path/filepath"
	"testing"
)

func TestTorchFile(t *testing.T) {
	home := t.TempDir()
	t.Setenv("HOME", home)
	t.Setenv("USERPROFILE", home) // the name of HOME on Windows
	t.Setenv("FOLDER", filepath.Join(home, "f"))
	for _, c := range []struct{ torchHome, cacheHome, want string }{
		{"", "", ".cache/torch"},
		{"", "~/x", "x/torch"},
		{"~/y", "~/x", "y"},
		{"$FOLDER/z", "", "f/z"},
	} {
		t.Setenv("TORCH_HOME", c.torchHome)
		t.Setenv("XDG_CACHE_HOME", c.cacheHome)
		if path, err := TorchFile("net.pt"); err != nil || path != "" {
			t.Errorf("%+v: %q, %v, and there is no file", c, path, err)
		}
		want := filepath.Join(home, filepath.FromSlash(c.want), "hub", "checkpoints", "net.pt")
		if err := os.MkdirAll(filepath.Dir(want), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(want, nil, 0o666); err != nil {
			t.Fatal(err)
		}
		if path, err := TorchFile("net.pt"); err != nil || path != want {
			t.Errorf("%+v: %q, %v, want %q", c, path, err, want)
		}
		if path, err := TorchFile(""); err != nil || path != "" {
			t.Errorf("a folder is taken for a file: %q, %v", path, err)
		}
	}
}
