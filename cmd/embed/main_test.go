package main

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"seqembed/internal/store"
)

// childVariable is an environment variable that makes the test binary behave as the program. Tests that need a process
// of their own set it.
const childVariable = "RUN_AS_EMBED"

// graceVariable is an environment variable that sets the time an interrupted child process has to end (the variable
// grace).
const graceVariable = "GRACE_OF_EMBED"

func TestMain(m *testing.M) {
	if os.Getenv(childVariable) != "" {
		limitChild()
		if d, err := time.ParseDuration(os.Getenv(graceVariable)); err == nil {
			grace = d
		}
		main()
	}
	if err := os.Setenv("HF_HUB_OFFLINE", "1"); err != nil { // tests of downloads start a hub of their own
		panic(err)
	}
	state, err := os.MkdirTemp("", "state")
	if err == nil {
		err = os.Setenv("XDG_STATE_HOME", state)
	}
	if err != nil {
		panic(err)
	}
	code := m.Run()
	os.RemoveAll(state)
	os.Exit(code)
}

const (
	tiny = "synthetic:esm2-tiny"
	dna2 = "synthetic:dnabert-s-2l"
)

// result is the outcome of a run.
type result struct {
	*testing.T
	code           int
	stdout, stderr string
}

// embed runs the program with arguments, in this process and without GPUs.
func embed(t *testing.T, args ...string) result { t.Helper(); return embedWith(t, nil, args...) }

// embedWith runs the program with arguments and an environment, in this process and without GPUs.
func embedWith(t *testing.T, environ []string, args ...string) result {
	t.Helper()
	var stdout, stderr strings.Builder
	code := runOn(context.Background(), noGPU, args, environ, &stdout, &stderr)
	return result{t, code, stdout.String(), stderr.String()}
}

// noGPU is a machine without GPUs, on which tests run by default.
var noGPU = (&fakeMachine{}).machine()

// wantCode fails the test unless the run ended with this exit code.
func (r result) wantCode(code int) result {
	r.Helper()
	if r.code != code {
		r.Fatalf("exit code %d, want %d\n%s%s", r.code, code, r.stdout, r.stderr)
	}
	return r
}

// problems returns the lines of standard error that report a problem: errors in the log, and the last line of a failed
// run.
func (r result) problems() []string {
	var list []string
	for line := range strings.Lines(r.stderr) {
		if strings.Contains(line, " ERROR ") || strings.HasPrefix(line, "embed: ") {
			list = append(list, line)
		}
	}
	return list
}

// wantProblem fails the test unless exactly one line reports a problem, and that line contains all parts.
func (r result) wantProblem(parts ...string) {
	r.Helper()
	list := r.problems()
	if len(list) != 1 {
		r.Fatalf("%d lines report a problem, want one:\n%s", len(list), r.stderr)
	}
	for _, part := range parts {
		if !strings.Contains(list[0], part) {
			r.Errorf("%q does not mention %q", list[0], part)
		}
	}
	for line := range strings.Lines(r.stderr) {
		if strings.HasPrefix(line, "goroutine ") || strings.Contains(line, "panic") {
			r.Fatalf("a crash:\n%s", r.stderr)
		}
	}
}

// workspace changes to a new folder for the test.
func workspace(t *testing.T) {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Chdir(dir)
}

func write(t testing.TB, path, content string) string {
	t.Helper()
	if dir := filepath.Dir(path); dir != "." {
		if err := os.MkdirAll(dir, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(path, []byte(content), 0o666); err != nil {
		t.Fatal(err)
	}
	return path
}

// files returns the paths of all files below dir except report.json, relative to dir. If there is no dir, there are
// none.
func files(t testing.TB, dir string) []string {
	t.Helper()
	var list []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && d.Name() != store.ReportName {
			list = append(list, strings.TrimPrefix(path, dir+"/"))
		}
		return err
	})
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	slices.Sort(list)
	return list
}

func wantFiles(t testing.TB, dir string, names ...string) {
	t.Helper()
	slices.Sort(names)
	if got := files(t, dir); !slices.Equal(got, names) {
		t.Fatalf("%s holds %q, want %q", dir, got, names)
	}
}

// manyProteins returns n different records, at most 8,000, of some dozen residues.
func manyProteins(prefix string, n int) string {
	var b strings.Builder
	for i := range n {
		const letters = "ACDEFGHIKLMNPQRSTVWY"
		distinct := []byte{letters[i/400%20], letters[i/20%20], letters[i%20]} // equal sequences are computed only once
		fmt.Fprintf(&b, ">%s%d\n%s%s\n", prefix, i, distinct, strings.Repeat("MKVLWAGTRE", 2+i%5)[3:])
	}
	return b.String()
}

// withStdin sets the standard input of the program.
func withStdin(t *testing.T, content string) {
	t.Helper()
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		// This fails if the program stops reading early, which is not an error here.
		_, _ = write.WriteString(content)
		write.Close()
	}()
	stdin := os.Stdin
	os.Stdin = read
	t.Cleanup(func() {
		os.Stdin = stdin
		read.Close()
	})
}
