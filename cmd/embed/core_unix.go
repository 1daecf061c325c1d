//go:build unix

package main

import (
	"slices"
	"strings"
	"syscall"
)

// leaveNoCore forbids core files, because a core file contains the weights, which may be tens of gigabytes. If
// GOTRACEBACK is set in the environment, leaveNoCore does nothing, because the user then decides about core files.
func leaveNoCore(environ []string) {
	if slices.ContainsFunc(environ, func(v string) bool { return strings.HasPrefix(v, "GOTRACEBACK=") }) {
		return
	}
	var limit syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_CORE, &limit) == nil {
		limit.Cur = 0
		_ = syscall.Setrlimit(syscall.RLIMIT_CORE, &limit) // after an error, a crash may leave a core file
	}
}
