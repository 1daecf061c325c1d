package main

import (
	"encoding/binary"
	"regexp"
	"slices"
	"strconv"
	"testing"

	"golang.org/x/arch/arm64/arm64asm"
)

// unknown lists the instructions that the disassembler does not know.
var unknown = []string{"bfmmla", "bfcvtn", "bfcvtn2"}

// TestWords checks that every instruction that is written as a machine word disassembles to the text of its comment,
// unless it is in unknown, and that each instruction in names is used.
func TestWords(t *testing.T) {
	written := map[string]bool{}
	line := regexp.MustCompile(`(?m)^\tWORD \$0x([0-9a-f]{8}) // ((\S+) .*)$`)
	for _, o := range outputs {
		g := new(generator)
		o.write(g)
		for _, part := range line.FindAllStringSubmatch(g.text.String(), -1) {
			code, err := strconv.ParseUint(part[1], 16, 32)
			if err != nil {
				t.Fatal(err)
			}
			if slices.Contains(unknown, part[3]) {
				continue
			}
			i, err := arm64asm.Decode(binary.LittleEndian.AppendUint32(nil, uint32(code)))
			if err != nil {
				t.Fatalf("%s: %#x: %v", o.name, code, err)
			}
			if got := arm64asm.GNUSyntax(i); got != part[2] {
				t.Fatalf("%s: %#x is %q, not %q", o.name, code, got, part[2])
			}
			written[part[3]] = true
		}
	}
	for _, name := range names {
		if !written[name] {
			t.Errorf("no kernel uses %s", name)
		}
	}
}
