//go:build !windows

package monitor

import "os"

// ControlSequences reports whether a terminal obeys control sequences.
func ControlSequences(*os.File) bool { return os.Getenv("TERM") != "dumb" }
