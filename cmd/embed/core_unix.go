//go:build unix

package main

import (
	"slices"
	"strings"
	"syscall"
)

// leaveNoCore keeps a crash from writing the memory of the process to the disk, which may be tens of gigabytes of
// weights. GOTRACEBACK in the environment leaves that, too, to the user.
func leaveNoCore(environ []string) {
	if slices.ContainsFunc(environ, func(v string) bool { return strings.HasPrefix(v, "GOTRACEBACK=") }) {
		return
	}
	var limit syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_CORE, &limit) == nil {
		limit.Cur = 0
		_ = syscall.Setrlimit(syscall.RLIMIT_CORE, &limit) // a crash is no worse for it
	}
}
