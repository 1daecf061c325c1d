package pool

import (
	"errors"
	"strings"
	"testing"
)

// FuzzFailureLine checks that a Failure with any path and any message becomes one line of FailedFiles. The line must
// contain no character that controls a terminal, and parseLine must return the path from it. parseLine must not panic
// for any other line.
func FuzzFailureLine(f *testing.F) {
	for _, c := range [][2]string{{"a.faa", "bad"}, {"a|b%.faa", "x|y\nz"}, {"\x1b]0;x\a.faa", "\x1b[31m"}, {"caf\xe9.faa", "\xff\u2028"}, {"=1+1|x", ""}, {"a\nb", "%0A"}} {
		f.Add(c[0], c[1])
	}
	f.Fuzz(func(t *testing.T, path, message string) {
		line := Failure{Path: path, Type: "other", Err: errors.New(message)}.line()
		if strings.Count(line, "\n") != 1 || !strings.HasSuffix(line, "\n") || strings.ContainsAny(strings.TrimSuffix(line, "\n"), "\x00\x1b\r\a\b\u2028") {
			t.Errorf("%q", line)
		}
		if got := parseLine(line); got.Path != path || got.Type != "other" || strings.Count(line, "|") != 2 {
			t.Errorf("%q is read as %q of %q", line, got.Path, path)
		}
		parseLine(path)
		parseLine(message + "\n")
	})
}
