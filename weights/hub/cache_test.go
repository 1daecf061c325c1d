package hub

import (
	"path/filepath"
	"testing"
)

func TestCacheFolderFollowsTheEnvironment(t *testing.T) {
	for _, variable := range []string{"HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "TRANSFORMERS_CACHE", "HF_HOME", "XDG_CACHE_HOME"} {
		t.Setenv(variable, "")
	}
	t.Setenv("SCRATCH", "/scratch/me")
	home := t.TempDir()
	t.Setenv("HOME", home)
	t.Setenv("USERPROFILE", home) // the name of HOME on Windows
	for _, step := range []struct{ variable, value, want string }{
		{"HF_HUB_CACHE", "", filepath.Join(home, ".cache", "huggingface", "hub")},
		{"XDG_CACHE_HOME", "/x", filepath.Join("/x", "huggingface", "hub")},
		{"HF_HOME", "/y", filepath.Join("/y", "hub")},
		{"HF_HOME", "~/y", filepath.Join(home, "y", "hub")},
		{"HF_HOME", "~", filepath.Join(home, "hub")},
		{"HF_HOME", "~other/y", filepath.Join("~other", "y", "hub")},
		{"HF_HOME", "$SCRATCH/y", filepath.Join("/scratch/me", "y", "hub")},
		{"TRANSFORMERS_CACHE", "${SCRATCH}/t", filepath.Join("/scratch/me", "t")},
		{"HUGGINGFACE_HUB_CACHE", "/h/$NOT_SET_ANYWHERE", filepath.Join("/h", "${NOT_SET_ANYWHERE}")},
		{"HF_HUB_CACHE", "/z", "/z"},
	} {
		t.Setenv(step.variable, step.value)
		if got, err := Cache(); err != nil || got != step.want {
			t.Errorf("with %s=%s the cache is %s, %v; want %s", step.variable, step.value, got, err, step.want)
		}
	}
}
