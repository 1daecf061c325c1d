package main

import (
	"fmt"
	"io"
	"runtime"

	"github.com/spf13/pflag"

	"seqembed/kernels/cpu"
)

const devicesUsage = `embed devices says what could compute here: the CPU, each GPU, and the cuBLAS that would
multiply matrices.

Usage:
  embed devices [flags]

Flags:
  -v, --verbose   every place where the NVIDIA driver and cuBLAS were looked for as well
  -h, --help      this page
`

// devices is embed devices: it prints what could compute here, and on demand where it was looked for. Finding nothing
// is an answer, too.
func devices(m machine, args, environ []string, w io.Writer) error {
	flags := pflag.NewFlagSet("embed devices", pflag.ContinueOnError)
	flags.SetOutput(io.Discard) // errors are ours to print
	verbose := flags.BoolP("verbose", "v", false, "")
	help := flags.BoolP("help", "h", false, "")
	if err := flags.Parse(twoDashes(args, flags)); err != nil {
		return usagef("embed devices: %v", err)
	}
	if err := fromEnvironment(flags, environ); err != nil {
		return err
	}
	if *help {
		_, err := io.WriteString(w, devicesUsage)
		return err
	}
	if flags.NArg() > 0 {
		return usagef("embed devices takes no inputs, and a file of that name is ./devices")
	}
	backend := cpu.New(0)
	defer backend.Close()
	report := m.findGPUs()
	text := report.String()
	if *verbose {
		text = report.Details()
	}
	_, err := fmt.Fprintf(w, "%s, %d threads\n%s", backend.Name(), runtime.GOMAXPROCS(0), text)
	return err
}
