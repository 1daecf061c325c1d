//go:build unix

package main

import (
	"os"
	"os/signal"
	"strconv"
	"syscall"
)

// sizeVariable bounds, in bytes, the files that a child may write: a disk
// that fills up.
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
	// Without the signal, a write over the limit fails.
	signal.Ignore(syscall.SIGXFSZ)
	var limit syscall.Rlimit
	setBytes(&limit.Cur, size)
	setBytes(&limit.Max, size)
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limit); err != nil {
		panic(err)
	}
}

// setBytes sets a field of Rlimit, whose type is signed on FreeBSD.
func setBytes[T int64 | uint64](field *T, bytes uint64) { *field = T(bytes) }
