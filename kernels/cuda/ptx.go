package cuda

import (
	"embed"
	"slices"
	"strings"

	"seqembed/kernels/cuda/gpu"
)

// ptxFiles contains the compiled kernels and MANIFEST, which describes them. src/build.sh writes both.
//
//go:embed ptx/MANIFEST ptx/*.ptx
var ptxFiles embed.FS

// embeddedImages returns the kernels of ptxFiles. It trusts MANIFEST, which a test checks.
func embeddedImages() ([]gpu.Image, error) {
	manifest, err := ptxFiles.ReadFile("ptx/MANIFEST")
	if err != nil {
		return nil, err
	}
	var list []gpu.Image
	for line := range strings.Lines(string(manifest)) {
		switch fields := strings.Fields(line); fields[0] {
		case "ptx": // a module; the lines of its kernels follow, one for each kernel and architecture
			text := func() ([]byte, error) { // the driver expects a zero byte at the end
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
