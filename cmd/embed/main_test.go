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

// childVariable is an environment variable that makes the test binary behave as the program. Tests set it to run the
// program in a child process.
const childVariable = "RUN_AS_EMBED"

// graceVariable is an environment variable that sets grace, the time that an interrupted run may take to end, in a
// child process.
const graceVariable = "GRACE_OF_EMBED"

func TestMain(m *testing.M) {
	if os.Getenv(childVariable) != "" {
		limitChild()
		if d, err := time.ParseDuration(os.Getenv(graceVariable)); err == nil {
			grace = d
		}
		main()
	}
	// No test may need the network. Tests of downloads start a server of their own on this machine.
	if err := os.Setenv("HF_HUB_OFFLINE", "1"); err != nil {
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
	tiny    = "synthetic:esm2-tiny"
	tinyDNA = "synthetic:dnabert-tiny"
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

// wantCode fails the test unless the run ended with the given exit code.
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

// wantProblem fails the test unless exactly one line reports a problem, and that line contains all parts. It also fails
// the test if standard error shows a panic.
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

// workspace makes a new temporary folder the working directory until the test ends.
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

// files returns the paths of all files below dir except report.json, relative to dir. It returns none if dir does not
// exist.
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

// manyProteins returns FASTA with n different proteins of 20 to 60 residues. n must be at most 8,000.
func manyProteins(prefix string, n int) string {
	var b strings.Builder
	for i := range n {
		const letters = "ACDEFGHIKLMNPQRSTVWY"
		// The sequences must differ, because the program computes equal sequences of a file only once.
		distinct := []byte{letters[i/400%20], letters[i/20%20], letters[i%20]}
		fmt.Fprintf(&b, ">%s%d\n%s%s\n", prefix, i, distinct, strings.Repeat("MKVLWAGTRE", 2+i%5)[3:])
	}
	return b.String()
}

// withStdin lets the program read content from standard input until the test ends.
func withStdin(t *testing.T, content string) {
	t.Helper()
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		// WriteString fails if the program stops reading early, which is no error of the test.
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
