package main

import (
	"fmt"
	"io"
	"runtime"

	"seqembed/kernels/cpu"
)

// devices is embed devices: it prints what could compute here, and where it
// was looked for. Finding nothing is an answer, too.
func devices(m machine, args []string, w io.Writer) error {
	if len(args) > 0 {
		return usagef("embed devices takes no arguments, and a file of that name is ./devices")
	}
	backend := cpu.New(0)
	defer backend.Close()
	_, err := fmt.Fprintf(w, "%s, %d threads\n%s", backend.Name(), runtime.GOMAXPROCS(0), m.findGPUs())
	return err
}
