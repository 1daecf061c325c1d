//go:build unix

package main

import (
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"syscall"
)

// sizeVariable is an environment variable that limits the size in bytes of the files that a child process may write.
// The limit simulates a disk that fills up.
const sizeVariable = "EMBED_CHILD_FILE_SIZE"

// spaceVariable is an environment variable that limits the address space of a child process, as ulimit -v does. It is
// the number of bytes that the process may use in addition to those that it uses at its start.
const spaceVariable = "ADDRESS_SPACE_OF_EMBED"

// limitChild is called in a child process of a test. It sets the limits that sizeVariable and spaceVariable ask for,
// and makes the process panic at SIGUSR1.
func limitChild() {
	// If SIGXFSZ is ignored, a write beyond the limit fails and does not end the process.
	signal.Ignore(syscall.SIGXFSZ)
	limit(sizeVariable, syscall.RLIMIT_FSIZE, 0)
	limit(spaceVariable, syscall.RLIMIT_AS, addressSpace())
	crash := make(chan os.Signal, 1)
	signal.Notify(crash, syscall.SIGUSR1)
	go func() { panic(<-crash) }()
}

// limit sets a resource limit. The limit in bytes is the number in an environment variable, plus the parameter more. If
// the variable is not set, limit does nothing.
func limit(variable string, resource int, more uint64) {
	text := os.Getenv(variable)
	if text == "" {
		return
	}
	size, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		panic(err)
	}
	var limit syscall.Rlimit
	setBytes(&limit.Cur, size+more)
	setBytes(&limit.Max, size+more)
	if err := syscall.Setrlimit(resource, &limit); err != nil {
		panic(err)
	}
}

// addressSpace returns the size of the process's address space in bytes, or 0 where it is not known.
func addressSpace() uint64 {
	var pages uint64
	if text, err := os.ReadFile("/proc/self/statm"); err == nil {
		_, _ = fmt.Sscan(string(text), &pages)
	}
	return pages * uint64(os.Getpagesize())
}

// setBytes sets a field of syscall.Rlimit, whose fields are signed integers on FreeBSD.
func setBytes[T int64 | uint64](field *T, bytes uint64) { *field = T(bytes) }
