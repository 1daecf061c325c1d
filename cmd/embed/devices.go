package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"runtime"
	"strings"

	"github.com/spf13/pflag"

	"seqembed/kernels/cpu"
	"seqembed/kernels/cuda"
)

const devicesUsage = `embed devices lists the devices that can compute here: the CPU, each GPU, and the cuBLAS that
would multiply matrices.

Usage:
  embed devices [flags]

Flags:
  -v, --verbose   also every place where the NVIDIA driver and cuBLAS were searched
  -h, --help      this page
`

// devices is the command "embed devices". It prints the CPU, the GPUs, and the results of embed profile. With --verbose
// it also prints the places where the driver and cuBLAS were searched. A machine without GPUs is not an error.
func devices(_ context.Context, m machine, args, environ []string, w, _ io.Writer) (code int, err error) {
	flags := pflag.NewFlagSet("embed devices", pflag.ContinueOnError)
	verbose := flags.BoolP("verbose", "v", false, "")
	if _, helped, err := parseSubcommand(flags, devicesUsage, 0, args, environ, w); err != nil || helped {
		return exitCode(err, 0, 0), err
	}
	backend := cpu.New(0)
	defer backend.Close()
	_, err = fmt.Fprintf(w, "%s, %d threads\n%s",
		backend.Name(), runtime.GOMAXPROCS(0), gpuReport(m.findGPUs(), *verbose))
	list, listErr := allProfiled()
	for _, p := range list {
		fmt.Fprintf(w, "embed profile: %s on %s, %s: %s tokens in a batch, %s tokens/s\n", p.Model, p.Backend, p.DType,
			grouped(int64(p.Tokens)), grouped(p.TokensPerSecond))
	}
	err = cmp.Or(err, listErr)
	return exitCode(err, 0, 0), err
}

// searchHint ends the message that the driver or cuBLAS cannot be used. It names the command that lists the places
// searched.
const searchHint = " (embed devices --verbose lists the places searched)"

// gpuReport describes the GPUs of a machine in a few lines of text. If details is set, it also lists every place where
// the driver and cuBLAS were searched, and the folder in which the driver keeps compiled kernels.
func gpuReport(r cuda.Report, details bool) string {
	var text strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&text, format+"\n", args...) }
	places := func(searched []cuda.Attempt) {
		for _, a := range searched {
			if details {
				line("  %s", a)
			}
		}
	}
	hint := searchHint
	if details {
		hint = ""
	}
	if r.DriverVersion != "" {
		line("driver: supports CUDA %s", r.DriverVersion)
	}
	switch n := len(r.DriverSearch); {
	case r.Err == nil:
	case n > 0 && r.DriverSearch[n-1].Err != nil:
		line("no device: %v%s", r.Err, hint)
	default: // the places searched do not explain the error
		line("no device: %v", r.Err)
	}
	places(r.DriverSearch)
	for _, d := range r.Devices {
		if d.Err != nil {
			line("device %s: cannot be used: %v", deviceText(d), d.Err)
		} else {
			line("device %s, %s free", deviceText(d), gigabytes(d.FreeMemory))
		}
	}
	if len(r.Usable()) > 0 || details { // only a GPU uses cuBLAS
		switch {
		case r.Cublas.Version != "":
			line("cuBLASLt: %s", r.Cublas.Version)
		case r.Cublas.Err != nil:
			line("cuBLASLt: %s%s", withoutCublas(r.Cublas), hint)
		}
		places(r.Cublas.Searched)
	}
	if len(r.Usable()) > 0 {
		line("tested on: %s", cuda.TestedOn)
	}
	if details && r.DriverVersion != "" {
		if r.KernelCacheErr != nil {
			line("compiled kernels: not kept, every start compiles them again: %v", r.KernelCacheErr)
		} else {
			line("compiled kernels: kept by the driver in %s", r.KernelCache)
		}
	}
	return text.String()
}

// deviceText returns the index, the name, the compute capability and the memory of a device.
func deviceText(d cuda.Device) string {
	return fmt.Sprintf("%d: %s, compute capability %d.%d, %s",
		d.Ordinal, d.Name, d.Major, d.Minor, gigabytes(d.TotalMemory))
}

func gigabytes(bytes uint64) string { return fmt.Sprintf("%.1f GiB", float64(bytes)/(1<<30)) }

// withoutCublas returns one line with the reason why cuBLAS is not used, and how much slower a GPU is without cuBLAS.
// docs/command-line.md gives the same figure of 35%.
func withoutCublas(c cuda.Cublas) string {
	why := c.Err.Error()
	if n := len(c.Searched); n > 0 && c.Searched[n-1].Err != nil {
		// Most of the places searched have no such file. Only other faults are worth reporting.
		var broken []string
		for _, a := range c.Searched {
			if !a.Missing() {
				broken = append(broken, a.String())
			}
		}
		why = cmp.Or(strings.Join(broken, "; "), "not found")
	}
	return why + ": the program's own kernels multiply; on an H200 they made ESM-2 650M 35% slower in bf16"
}
