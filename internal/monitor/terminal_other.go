//go:build !windows

package monitor

import "os"

// ControlSequences reports whether terminals obey control sequences, as all do except those with TERM=dumb.
func ControlSequences(*os.File) bool { return os.Getenv("TERM") != "dumb" }
