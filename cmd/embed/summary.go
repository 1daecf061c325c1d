package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"seqembed/internal/digits"
	"seqembed/internal/store"
)

// summaryLines is the maximum number of finished files that the summary names, and also of files that were complete
// before the run. All failed files are named.
const summaryLines = 20

// printSummary prints the result of the run on standard output.
func (c *command) printSummary() {
	t := c.total
	if c.quiet || c.dryRun || c.done()+len(t.Failed) == 0 {
		return
	}
	w, state := c.stdout, c.progress.Snapshot()
	if len(t.Files) > 0 {
		took, tokens, now := t.Finished.Sub(t.Started), t.Tokens, ""
		if c.progress.continued.Load() { // tokens of an earlier run do not count for the speed
			tokens = state.ComputedTokens()
			now = fmt.Sprintf(", %s of them computed now,", grouped(tokens))
		}
		fmt.Fprintf(w, "%s records, %s tokens%s in %s: %s tokens/s\n", grouped(t.Records), grouped(t.Tokens), now,
			took.Round(10*time.Millisecond), grouped(int64(float64(tokens)/max(took.Seconds(), 1e-3))))
		fmt.Fprintf(w, "truncated %s records, skipped %s, unknown letters %.3f%%\n", grouped(t.Truncated), grouped(t.Skipped),
			100*float64(t.Unknown)/float64(max(t.Letters, 1)))
		if t.Repeated > 0 {
			fmt.Fprintf(w, "computed once: %s records are equal to earlier ones of their file\n", grouped(t.Repeated))
		}
	}
	for _, line := range state.Table() {
		fmt.Fprintf(w, "  %s\n", plain(line))
	}
	for i, f := range t.Files {
		if i == summaryLines {
			fmt.Fprintf(w, "  and %s more files, see %s\n", grouped(int64(len(t.Files)-i)), store.ManifestName)
			break
		}
		printSkipped(w, "  ", f.Path, f.Skipped)
		for _, o := range f.Outputs {
			fmt.Fprintf(w, "  %s -> %s\n", plain(f.Path), plain(o.Path))
		}
	}
	for i, path := range t.Resumed {
		if i == summaryLines {
			fmt.Fprintf(w, "  and %s more were complete already\n", grouped(int64(len(t.Resumed)-i)))
			break
		}
		fmt.Fprintf(w, "  %s was complete already\n", plain(path))
	}
	for _, f := range t.Failed {
		fmt.Fprintf(w, "  %s FAILED (%s)\n", plain(f.Path), f.Type)
	}
}

// grouped formats 1234567 as 1,234,567.
func grouped(n int64) string { return digits.Group(n) }

// printSkipped writes a line, which begins with the given text, for each reason for which records of an input were
// skipped.
func printSkipped(w io.Writer, begin, path string, counts map[string]int64) {
	for _, reason := range slices.Sorted(maps.Keys(counts)) {
		fmt.Fprintf(w, "%s%s: skipped %s: %s\n", begin, plain(path), grouped(counts[reason]), reason)
	}
}
