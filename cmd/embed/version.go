package main

import (
	"runtime"
	"runtime/debug"
	"strings"
)

// release is the version in the metadata of outputs. CHANGELOG.md lists the changes of each release.
const release = "0.1.0"

// numerics is the version of the numbers in outputs. A change of the program that changes any number, for any model or
// backend, must raise it. Outputs of different versions are not mixed.
const numerics = 1

// version returns the release and, if the go command recorded it, the commit, such as 0.1.0+a81f565c1a2b. It appends
// .dirty if the program was built from changed files.
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
