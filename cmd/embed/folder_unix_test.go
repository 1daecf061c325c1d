//go:build unix

package main

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"seqembed/internal/store"
	"seqembed/pool"
)

// started is a run that waits for more standard input, and meanwhile reserves the output folder for its settings. The
// function end closes standard input. The function result waits until the run has ended, and returns its result.
type started struct {
	result func() result
	end    func()
}

// waitForFile waits until a file that matches the pattern exists.
func waitForFile(t *testing.T, pattern string) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		if found, _ := filepath.Glob(pattern); len(found) > 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("there is no %s", pattern)
		}
	}
}

// start starts a run with the output folder out, and waits until the run has begun its last output. The last input is
// standard input: 300 records, and then nothing until the function end is called.
func start(t *testing.T, args ...string) started {
	t.Helper()
	cmd := child(t, nil, append(npyArgs(args...), "-")...)
	var stdout, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := stdin.Write([]byte(manyProteins("r", 300))); err != nil {
		t.Fatal(err)
	}
	waitForFile(t, "out/.stdin*.tmp-*")
	return started{func() result { return wait(t, cmd, &stdout, &stderr) }, func() { stdin.Close() }}
}

// TestTwoSettingsAtOnce checks runs that start while another run uses the same output folder. A run with other settings
// must be refused with an error that names the other run. A run with the same settings or another format must be
// accepted.
func TestTwoSettingsAtOnce(t *testing.T) {
	workspace(t)
	write(t, "a.faa", proteinFile)
	write(t, "b.faa", proteinFile)
	first := start(t, "a.faa")
	host, _ := os.Hostname()
	embed(t, npyArgs("--pool", "cls", "b.faa")...).wantCode(exitNothing).wantProblem("embed: out: the output folder is in use by another run",
		`pool "mean", now "cls"`, "process ", "on "+host, "since ", "--esm-model "+tiny, "another folder with --out")
	embed(t, npyArgs("b.faa")...).wantCode(0)
	embed(t, "--esm-model", tiny, "--pool", "cls", "-o", "out", "b.faa").wantCode(0) // format parquet
	if r := embed(t, "inspect", "out"); !strings.Contains(r.stdout, "a run is going on: process ") {
		t.Errorf("embed inspect:\n%s", r.stdout)
	}
	first.end()
	first.result().wantCode(0)
	embed(t, npyArgs("--pool", "cls", "b.faa")...).wantCode(exitNothing).wantProblem("b.esm2-tiny", `pool "mean", now "cls"`)
	for _, name := range files(t, "out") {
		if strings.HasPrefix(name, ".") {
			t.Errorf("%s is left", name)
		}
	}
}

// TestTasksAtOnce checks that the tasks of an array job can write to one folder at the same time, and that the failures
// of all tasks are listed.
func TestTasksAtOnce(t *testing.T) {
	workspace(t)
	const tasks = 4
	for i := range tasks {
		write(t, fmt.Sprintf("%d.faa", i), proteinFile)
		write(t, fmt.Sprintf("bad%d.faa", i), ">x\nMK1V\n")
	}
	var wait sync.WaitGroup
	for i := range tasks {
		wait.Go(func() {
			args := append(npyArgs(), "--threads", "1", fmt.Sprintf("%d.faa", i), fmt.Sprintf("bad%d.faa", i))
			if code := runOn(t.Context(), noGPU, args, nil, io.Discard, io.Discard); code != exitSome {
				t.Errorf("task %d: exit code %d", i, code)
			}
		})
	}
	wait.Wait()
	r := embed(t, "inspect", "out").wantCode(exitSome)
	if !strings.HasSuffix(r.stdout, fmt.Sprintf("\n%d complete, %d failed\n", 2*tasks, tasks)) {
		t.Errorf("embed inspect:\n%s", r.stdout)
	}
}

// TestLeftoversOfAKilledRun checks that the next run removes the leftovers of a killed run, even if there is nothing
// to compute.
func TestLeftoversOfAKilledRun(t *testing.T) {
	workspace(t)
	write(t, "a.faa", proteinFile)
	embed(t, npyArgs("a.faa")...).wantCode(0)
	cmd := child(t, nil, npyArgs("--pool", "cls", "-")...)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := stdin.Write([]byte(manyProteins("r", 300))); err != nil {
		t.Fatal(err)
	}
	waitForFile(t, "out/.stdin*.tmp-*")
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // an error, because the process was killed
	write(t, "out/.probe-1", "")
	if left := files(t, "out"); len(left) < 3+3 {
		t.Fatalf("the killed run leaves only %q", left)
	}
	embed(t, npyArgs("a.faa")...).wantCode(0)
	wantFiles(t, "out", "a.esm2-tiny.ids.txt", "a.esm2-tiny.npy", "manifest.jsonl")
}

// TestLockedByTheUser checks runs while another process, here the test, holds a lock. A lock on the output folder has
// no effect. A run waits for a lock on the manifest until SIGTERM interrupts the run.
func TestLockedByTheUser(t *testing.T) {
	workspace(t)
	write(t, "a.faa", proteinFile)
	embed(t, npyArgs("a.faa")...).wantCode(0)
	lock := func(path string) {
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
			t.Skipf("no locks here: %v", err)
		}
	}
	lock("out")
	write(t, "b.faa", proteinFile)
	embed(t, npyArgs("b.faa")...).wantCode(0)

	lock("out/manifest.jsonl")
	write(t, "c.faa", proteinFile)
	cmd := child(t, []string{graceVariable + "=1h"}, npyArgs("c.faa")...)
	var stdout, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	waitForFile(t, "out/.c.*.tmp-*")
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	timer := time.AfterFunc(time.Minute, func() { _ = cmd.Process.Kill() })
	defer timer.Stop()
	wait(t, cmd, &stdout, &stderr).wantCode(exitInterrupted)
}

// brokenWriter fails every write, as on a full disk.
type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, syscall.ENOSPC }

// TestInspectCannotWrite checks that embed inspect fails if its output cannot be written, because a list that is cut
// short may hide a damaged file.
func TestInspectCannotWrite(t *testing.T) {
	workspace(t)
	write(t, "p.faa", proteinFile)
	embed(t, npyArgs("-o", "out", "p.faa")...).wantCode(exitDone)
	for _, args := range [][]string{{"inspect", "out"}, {"inspect", "--json", "out"}} {
		var stderr strings.Builder
		if code := runOn(t.Context(), noGPU, args, nil, brokenWriter{}, &stderr); code != exitNothing || !strings.Contains(stderr.String(), "no space") {
			t.Errorf("%v: exit code %d, %s", args, code, stderr.String())
		}
	}
}

// TestFolderWithABadEntry checks a run over a folder with a broken link and an unreadable subfolder. Both must be
// listed as failed, and in/p.faa must be embedded.
func TestFolderWithABadEntry(t *testing.T) {
	workspace(t)
	write(t, "in/p.faa", proteinFile)
	if err := os.Symlink("nowhere", "in/gone.faa"); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo("in/silent.faa", 0o600); err != nil { // a pipe in an input folder is not an input
		t.Fatal(err)
	}
	write(t, "in/closed/q.faa", proteinFile)
	bad := []string{"in/gone.faa"}
	if err := os.Chmod("in/closed", 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Chmod("in/closed", 0o777) }) // so that the workspace can be removed
	if os.Getuid() != 0 {                                  // root can read the subfolder
		bad = append(bad, "in/closed")
	}
	r := embed(t, npyArgs("-o", "out", "in")...).wantCode(exitSome)
	if len(r.problems()) != len(bad) {
		t.Errorf("problems %q", r.problems())
	}
	list, err := os.ReadFile("out/failed_files.txt")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range bad {
		if !strings.Contains(string(list), path+"|") {
			t.Errorf("the list does not name %s:\n%s", path, list)
		}
	}
	if _, err := os.Stat("out/p.esm2-tiny.npy"); err != nil {
		t.Error(err)
	}
}

// TestLinkedManifest checks a manifest and a list of failed files that are symbolic links, one of them to a file that
// does not exist yet. The run must write to the files to which the links lead, and a repair must keep the links.
func TestLinkedManifest(t *testing.T) {
	workspace(t)
	write(t, "a.faa", proteinFile)
	write(t, "b.faa", proteinFile)
	write(t, "bad.faa", ">x\nMK1V\n")
	embed(t, npyArgs("a.faa")...).wantCode(exitDone)
	for _, name := range []string{store.ManifestName, pool.FailedFiles} {
		if err := os.Rename("out/"+name, "there-"+name); err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		if err := os.Symlink("../there-"+name, "out/"+name); err != nil {
			t.Fatal(err)
		}
	}
	embed(t, npyArgs("a.faa", "b.faa", "bad.faa")...).wantCode(exitSome)
	if n := strings.Count(read(t, "there-"+store.ManifestName), "b.esm2-tiny.npy"); n == 0 {
		t.Error("the manifest does not have the second output")
	}
	if list := read(t, "there-"+pool.FailedFiles); !strings.Contains(list, "bad.faa|record|") {
		t.Errorf("the list of failed files is %q", list)
	}
	write(t, "there-"+store.ManifestName, read(t, "there-"+store.ManifestName)+"damaged\n")
	embed(t, "inspect", "--repair", "out").wantCode(exitSome)
	for _, name := range []string{store.ManifestName, pool.FailedFiles} {
		if _, err := os.Readlink("out/" + name); err != nil {
			t.Error(err)
		}
	}
	if strings.Contains(read(t, "there-"+store.ManifestName), "damaged") {
		t.Error("the manifest is not repaired")
	}
}

// TestOnePipeTwice checks that a pipe to which two paths lead is refused, because each input would get a part of it.
func TestOnePipeTwice(t *testing.T) {
	workspace(t)
	if err := errors.Join(syscall.Mkfifo("pipe", 0o600), os.Symlink("pipe", "link")); err != nil {
		t.Fatal(err)
	}
	embed(t, npyArgs("pipe", "link")...).wantCode(exitNothing).wantProblem("link is the pipe or device")
	write(t, "in/a.faa", proteinFile)
	if err := syscall.Mkfifo("in/b.faa", 0o600); err != nil {
		t.Fatal(err)
	}
	if r := embed(t, npyArgs("in")...).wantCode(exitDone); !strings.Contains(r.stderr, "pipes and devices 1") {
		t.Errorf("the log does not name the pipe:\n%s", r.stderr)
	}
}

// TestReaderOfTheSummaryEnds checks that a run whose standard output has no reader any more still writes report.json.
func TestReaderOfTheSummaryEnds(t *testing.T) {
	workspace(t)
	write(t, "a.faa", proteinFile)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	cmd := child(t, nil, npyArgs("a.faa")...)
	cmd.Stdout = w
	if err := cmd.Run(); err == nil {
		t.Error("the write to a pipe without a reader has not ended the program")
	}
	w.Close()
	read(t, "out/"+store.ReportName)
	embed(t, "inspect", "out").wantCode(exitDone)
}

// TestForceInAFolderThatIsNotUTF8 checks that a run with --force removes arrays in its output folder only, if the name
// of the folder is not UTF-8, and another folder has the name that the manifest would give to it.
func TestForceInAFolderThatIsNotUTF8(t *testing.T) {
	workspace(t)
	write(t, "a.faa", proteinFile)
	const latin, utf8 = "caf\xe9", "café"
	run := func(args ...string) {
		t.Helper()
		embed(t, append([]string{"--esm-model", tiny, "--format", "npy", "a.faa"}, args...)...).wantCode(exitDone)
	}
	if err := os.Mkdir(latin, 0o777); err != nil {
		t.Skip("names that are not UTF-8 are not possible here: ", err)
	}
	for _, folder := range []string{latin, utf8} {
		run("--pool", "mean,cls", "-o", folder)
	}
	before := contents(t, utf8)
	run("--force", "--pool", "cls", "-o", latin)
	if !maps.Equal(before, contents(t, utf8)) {
		t.Errorf("the other folder holds %q", files(t, utf8))
	}
	if got := files(t, latin); slices.Contains(got, "a.esm2-tiny.mean.npy") || !slices.Contains(got, "a.esm2-tiny.npy") {
		t.Errorf("the folder holds %q", got)
	}
}
