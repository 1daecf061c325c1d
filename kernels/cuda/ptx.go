package cuda

import (
	"embed"
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
			text := func() ([]byte, error) { // ended by a zero, as the driver takes it
				text, err := ptxFiles.ReadFile("ptx/" + fields[1])
				return append(text, 0), err
			}
			list = append(list, gpu.Image{Name: fields[1], ISA: fields[2], Text: text})
		case "kernel":
			if i := &list[len(list)-1]; !slices.Contains(i.Kernels, fields[1]) {
				i.Kernels = append(i.Kernels, fields[1])
			}
		}
	}
	return list, nil
}
