package main

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"

	"seqembed/kernels/cuda"
)

// logProducts logs the algorithm of cuBLAS for each shape of matrix product, after a model has run on a device. It
// leaves out lines that it has logged before. It warns of products that the program's own kernels have computed, which
// are slower than cuBLAS. If cuBLAS has computed the same shape in other batches, logProducts also warns that an
// embedding may depend on its batch.
func (p *processor) logProducts(log *slog.Logger) {
	reporter, ok := p.opened.(interface{ Products() []cuda.ProductReport })
	if !ok {
		return
	}
	var absent, refused []string
	device := p.name
	for _, r := range reporter.Products() {
		if slices.Contains(p.reported, r.String()) {
			continue
		}
		p.reported = append(p.reported, r.String())
		log.Debug("matrix products", "device", device, "shape", r.String())
		switch {
		case r.OwnCalls == 0:
		case r.Algorithm == "":
			absent = append(absent, r.String())
		default:
			refused = append(refused, r.String())
		}
	}
	if len(absent) > 0 {
		log.Warn("cuBLAS has no algorithm for some matrix products; the program's own kernels computed them in every batch: "+
			"this is slower, and an embedding does not depend on the batch", "device", device, "shapes", strings.Join(absent, " | "))
	}
	if len(refused) > 0 {
		log.Warn("cuBLAS refused some matrix products in some batches, where the program's own kernels computed them: "+
			"this is slower, and the last bits of an embedding may depend on the batch that its record was in; "+
			"EMBED_CUBLAS=none rules that out and is slower", "device", device, "shapes", strings.Join(refused, " | "))
	}
}

// logWithoutCublas logs one line if a GPU multiplies without cuBLAS. The line gives the reason, which is the same for
// all GPUs of a machine, and how much slower the GPU is. It is a warning unless the user has turned cuBLAS off.
func logWithoutCublas(log *slog.Logger, list []*processor) {
	for _, p := range list {
		b, ok := p.opened.(interface{ Cublas() cuda.Cublas })
		if !ok || b.Cublas().Err == nil {
			continue
		}
		level := slog.LevelWarn
		if errors.Is(b.Cublas().Err, cuda.ErrCublasOff) {
			level = slog.LevelInfo
		}
		log.Log(context.Background(), level, "no cuBLAS: "+oneLine(errors.New(withoutCublas(b.Cublas())))+searchHint)
		return
	}
}
