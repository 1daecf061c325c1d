package main

import (
	"fmt"
	"strings"
	"testing"
)

// TestSummaryOfManyFiles checks that the summary names at most summaryLines files and gives the number of the files
// that it does not name.
func TestSummaryOfManyFiles(t *testing.T) {
	workspace(t)
	args := []string{"--esm-model", tiny, "-o", "out"}
	for i := range summaryLines + 7 {
		name := fmt.Sprintf("f%02d.faa", i)
		write(t, name, proteinFile)
		args = append(args, name)
	}
	for _, c := range []struct{ each, rest string }{
		{" -> ", "and 7 more files"},
		{"was complete already", "and 7 more were complete already"},
	} {
		r := embed(t, args...).wantCode(0)
		if strings.Count(r.stdout, c.each) != summaryLines || !strings.Contains(r.stdout, c.rest) {
			t.Errorf("not %d files and %q:\n%s", summaryLines, c.rest, r.stdout)
		}
	}
}
