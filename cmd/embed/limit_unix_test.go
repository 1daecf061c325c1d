//go:build unix

package main

import (
	"os"
	"os/signal"
	"strconv"
	"syscall"
)

// sizeVariable is an environment variable that limits the size in bytes of files that a child process may write. It
// simulates a disk that fills up.
const sizeVariable = "EMBED_CHILD_FILE_SIZE"

func limitChild() {
	text := os.Getenv(sizeVariable)
	if text == "" {
		return
	}
	size, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		panic(err)
	}
	// If the signal is ignored, a write over the limit returns an error.
	signal.Ignore(syscall.SIGXFSZ)
	var limit syscall.Rlimit
	setBytes(&limit.Cur, size)
	setBytes(&limit.Max, size)
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limit); err != nil {
		panic(err)
	}
}

// setBytes sets a field of Rlimit, which is signed on FreeBSD.
func setBytes[T int64 | uint64](field *T, bytes uint64) { *field = T(bytes) }
