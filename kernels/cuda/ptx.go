package cuda

import (
	"embed"
	"fmt"
	"slices"
	"strings"

	"seqembed/kernels/cuda/gpu"
)

// ptxFiles are the compiled kernels. src/build.sh writes them, and a MANIFEST of their sources and kernels.
//
//go:embed ptx/MANIFEST ptx/*.ptx
var ptxFiles embed.FS

// embeddedImages are the kernels that the binary carries. A test checks the MANIFEST.
func embeddedImages() ([]gpu.Image, error) {
	manifest, err := ptxFiles.ReadFile("ptx/MANIFEST")
	if err != nil {
		return nil, err
	}
	var list []gpu.Image
	for line := range strings.Lines(string(manifest)) {
		switch fields := strings.Fields(line); fields[0] {
		case "ptx": // its kernels follow, each once for an architecture
			text := func() ([]byte, error) { return ptx(fields[1]) }
			list = append(list, gpu.Image{Name: fields[1], ISA: fields[2], Text: text})
		case "kernel":
			if i := &list[len(list)-1]; !slices.Contains(i.Kernels, fields[1]) {
				i.Kernels = append(i.Kernels, fields[1])
			}
		}
	}
	return list, nil
}

// ptx is a file as the driver takes it: ended by a zero.
func ptx(file string) ([]byte, error) {
	text, err := ptxFiles.ReadFile("ptx/" + file)
	if err != nil {
		return nil, fmt.Errorf("kernels of %s: %w", file, err)
	}
	return append(text, 0), nil
}
