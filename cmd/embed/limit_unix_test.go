//go:build unix

package main

import (
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"syscall"
)

// sizeVariable is an environment variable that limits the size in bytes of files that a child process may write. It
// simulates a disk that fills up.
const sizeVariable = "EMBED_CHILD_FILE_SIZE"

// spaceVariable bounds, in bytes, the address space of a child beyond the one it has: ulimit -v.
const spaceVariable = "ADDRESS_SPACE_OF_EMBED"

// limitChild sets the limits that the environment asks for, and makes a child panic at SIGUSR1.
func limitChild() {
	// Without the signal, a write over the limit fails.
	signal.Ignore(syscall.SIGXFSZ)
	limit(sizeVariable, syscall.RLIMIT_FSIZE, 0)
	limit(spaceVariable, syscall.RLIMIT_AS, addressSpace())
	crash := make(chan os.Signal, 1)
	signal.Notify(crash, syscall.SIGUSR1)
	go func() { panic(<-crash) }()
}

// limit sets a resource limit to a number of bytes in the environment, if it is there, and some more.
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

// addressSpace is that of the process, in bytes; 0 where it is not known.
func addressSpace() uint64 {
	var pages uint64
	if text, err := os.ReadFile("/proc/self/statm"); err == nil {
		_, _ = fmt.Sscan(string(text), &pages)
	}
	return pages * uint64(os.Getpagesize())
}

// setBytes sets a field of Rlimit, which is signed on FreeBSD.
func setBytes[T int64 | uint64](field *T, bytes uint64) { *field = T(bytes) }
