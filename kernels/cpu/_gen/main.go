// Command _gen generates the assembly of kernels/cpu with avo. It is a separate module so that the module of
// kernels/cpu does not depend on avo. The output of the command is committed.
//
//	cd kernels/cpu/_gen && go run .
package main

import (
	"bytes"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"strings"

	"github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/pass"
	"github.com/mmcloughlin/avo/printer"
)

// outputs lists the files to generate, each as the pair NAME_amd64.s and NAME_amd64.go with the declarations.
var outputs = []struct {
	folder, name string
	write        func(*generator)
}{
	{"..", "tile_avx2", func(g *generator) { tiles(g, avx2) }},
	{"..", "tile_avx512", func(g *generator) { tiles(g, avx512) }},
	{"..", "rows_avx2", func(g *generator) { rows(g, avx2) }},
	{"..", "rows_avx512", func(g *generator) { rows(g, avx512) }},
	{"..", "pack_avx2", packs},
	{"..", "tile_bf16", func(g *generator) { tiles(g, bf16) }},
	{"..", "pack_bf16", packsBF16},
	{"../../../bench/peak", "peak", func(g *generator) { peak(g, avx2, avx512) }},
	{"../../../bench/peak", "peak_bf16", func(g *generator) { peak(g, bf16) }},
}

func main() {
	for _, o := range outputs {
		if err := generate(o.folder, o.name, o.write); err != nil {
			log.Fatalf("%s: %v", o.name, err)
		}
	}
}

func generate(folder, name string, write func(*generator)) error {
	g := &generator{Context: build.NewContext()}
	g.ConstraintExpr("amd64,!noasm")
	write(g)
	file, err := g.Result()
	if err != nil {
		return err
	}
	if err := pass.Compile.Execute(file); err != nil {
		return err
	}
	pkg := filepath.Base(folder)
	if folder == ".." {
		pkg = "cpu"
	}
	config := printer.Config{Name: "kernels/cpu/_gen", Pkg: pkg}
	for suffix, p := range map[string]printer.Printer{
		"_amd64.s":  printer.NewGoAsm(config),
		"_amd64.go": printer.NewStubs(config),
	} {
		text, err := p.Print(file)
		if err != nil {
			return err
		}
		if strings.HasSuffix(name, "_bf16") {
			text = encodeBF16(text)
		}
		if err := os.WriteFile(filepath.Join(folder, name+suffix), append(bytes.TrimSpace(text), '\n'), 0o644); err != nil {
			return fmt.Errorf("writing: %w", err)
		}
	}
	return nil
}
