//go:build linux

// Command build builds the software GPU of package softgpu:
//
//	go run ./kernels/cuda/softgpu/build FOLDER PTX...
package main

import (
	"fmt"
	"os"

	"seqembed/kernels/cuda/softgpu"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) < 2 {
		return fmt.Errorf("build takes a folder and PTX files")
	}
	return softgpu.BuildFiles(args[0], args[1:]...)
}
