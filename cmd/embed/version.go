package main

import (
	"runtime"
	"runtime/debug"
	"strings"
)

// release is the version in the metadata of outputs. A build of another commit of it has the same numbers.
const release = "0.1.0"

// numerics is raised with every change of the program that changes a number in an output, of any model or backend.
// Outputs of different values are not mixed.
const numerics = 1

// version returns the release and, where the go command recorded it, the commit: 0.1.0+a81f565c1a2b, with .dirty after
// it for a tree with changes.
func version() string {
	info, _ := debug.ReadBuildInfo()
	if info == nil {
		return release
	}
	var commit, changed string
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision":
			commit = "+" + s.Value[:min(12, len(s.Value))]
		case s.Key == "vcs.modified" && s.Value == "true":
			changed = ".dirty"
		}
	}
	if commit == "" {
		return release
	}
	return release + commit + changed
}

// versionLine is the output of embed --version.
func versionLine() string {
	return strings.Join([]string{"embed", version(), runtime.Version(), runtime.GOOS + "/" + runtime.GOARCH}, " ")
}
