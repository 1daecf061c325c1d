//go:build unix

package main

import (
	"slices"
	"strings"
	"syscall"
)

// leaveNoCore keeps a crash from writing the memory of the process to the disk, which may be tens of gigabytes of
// weights. If GOTRACEBACK is set in the environment, leaveNoCore does nothing, because the user then controls what a
// crash leaves.
func leaveNoCore(environ []string) {
	if slices.ContainsFunc(environ, func(v string) bool { return strings.HasPrefix(v, "GOTRACEBACK=") }) {
		return
	}
	var limit syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_CORE, &limit) == nil {
		limit.Cur = 0
		_ = syscall.Setrlimit(syscall.RLIMIT_CORE, &limit) // an error changes nothing about the run
	}
}
