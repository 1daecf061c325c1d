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
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: size, Max: size}); err != nil {
		panic(err)
	}
}
