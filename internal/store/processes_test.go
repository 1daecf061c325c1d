package store

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

// Environment variables that make TestWriterProcess append entries to a manifest.
const (
	writerVariable = "STORE_TEST_WRITER" // beginning of the names of the outputs, to which a number is added
	writerLimit    = "STORE_TEST_LIMIT"  // number of entries to append
	writerFolder   = "STORE_TEST_FOLDER" // folder of the manifest
)

// TestWriterProcess checks nothing. Other tests run it in child processes, which append entries to one manifest.
func TestWriterProcess(t *testing.T) {
	name, dir := os.Getenv(writerVariable), os.Getenv(writerFolder)
	if name == "" {
		t.Skip("only run as a child process")
	}
	var limit int
	if _, err := fmt.Sscan(os.Getenv(writerLimit), &limit); err != nil {
		t.Fatal(err)
	}
	m := mustRead(t, dir)
	for i := range limit {
		entry := testEntry(dir, fmt.Sprintf("%s-%d", name, i))
		entry.Revision = strings.Repeat("x", i%7*1000) // longer lines are more likely to be torn
		if err := m.Append(t.Context(), entry, noClash); err != nil {
			t.Fatal(err)
		}
		fmt.Printf("appended %s-%d\n", name, i)
	}
}

// startWriter starts a child process that appends entries to the manifest of folder dir (see TestWriterProcess). The
// channel receives the name of each output whose entry the child has appended, and is closed at the end of the child's
// output.
func startWriter(t *testing.T, dir, name string, limit int) (*exec.Cmd, <-chan string) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run", "^TestWriterProcess$", "-test.v")
	cmd.Env = append(os.Environ(), writerVariable+"="+name, writerFolder+"="+dir, fmt.Sprintf("%s=%d", writerLimit, limit))
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := make(chan string, limit) // holds all lines, so that the child never waits for the test
	go func() {
		defer close(lines)
		for scanner := bufio.NewScanner(pipe); scanner.Scan(); {
			if name, ok := strings.CutPrefix(scanner.Text(), "appended "); ok {
				lines <- name
			}
		}
	}()
	return cmd, lines
}

func skipWithoutLocks(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("this system has no locks")
	}
}

// TestSeveralProcesses checks that no entry is lost when several processes append to one folder at the same time.
func TestSeveralProcesses(t *testing.T) {
	skipWithoutLocks(t)
	const processes, entries = 4, 12
	dir := t.TempDir()
	var wait sync.WaitGroup
	for p := range processes {
		wait.Go(func() {
			cmd, lines := startWriter(t, dir, fmt.Sprintf("p%d", p), entries)
			for range lines {
			}
			if err := cmd.Wait(); err != nil {
				t.Error(err)
			}
		})
	}
	wait.Wait()
	if m := mustRead(t, dir); m.lines != processes*entries || len(m.last) != 2*processes*entries {
		t.Errorf("%d lines and %d outputs of %d entries", m.lines, len(m.last), processes*entries)
	}
}

// TestKilledProcesses runs two processes that append entries. It kills each of them at a random moment and starts a new
// one in its place, again and again. Every entry that a process reported as written must be in the manifest, and the
// manifest must be readable after each kill.
func TestKilledProcesses(t *testing.T) {
	skipWithoutLocks(t)
	kills := 30
	if testing.Short() {
		kills = 5
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	dir := t.TempDir()
	written := make(chan string, 1<<20)
	var wait sync.WaitGroup
	for p := range 2 {
		rng := rand.New(rand.NewPCG(seed, uint64(p)))
		wait.Go(func() {
			for k := range kills {
				cmd, lines := startWriter(t, dir, fmt.Sprintf("p%d-%d", p, k), 10_000)
				written <- <-lines // waits until the process has appended an entry
				time.Sleep(time.Duration(rng.IntN(20_000)) * time.Microsecond)
				if err := cmd.Process.Kill(); err != nil {
					t.Error(err)
				}
				for name := range lines {
					written <- name
				}
				_ = cmd.Wait() // always fails, because the process was killed
				if _, err := ReadManifest(dir); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wait.Wait()
	close(written)
	m, n := mustRead(t, dir), 0
	for name := range written {
		n++
		if _, _, ok := m.Find(filepath.Join(dir, "sub", name+".npy")); !ok {
			t.Errorf("%s was reported as written but is missing", name)
		}
	}
	t.Logf("%d entries by processes killed %d times, %d lines", n, 2*kills, m.lines)
}
