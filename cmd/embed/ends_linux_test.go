package main

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"seqembed/internal/monitor"
)

// awaitedLog is the log of a child process, in which a test can wait for a text.
type awaitedLog struct {
	mutex sync.Mutex
	log   bytes.Buffer
	text  string
	seen  chan struct{}
}

func (a *awaitedLog) Write(p []byte) (int, error) {
	a.mutex.Lock()
	defer a.mutex.Unlock()
	a.log.Write(p)
	if a.text != "" && bytes.Contains(a.log.Bytes(), []byte(a.text)) {
		close(a.seen)
		a.text = ""
	}
	return len(p), nil
}

func (a *awaitedLog) String() string {
	a.mutex.Lock()
	defer a.mutex.Unlock()
	return a.log.String()
}

// await waits until the log contains a text.
func (a *awaitedLog) await(t *testing.T, text string) {
	t.Helper()
	a.mutex.Lock()
	a.text, a.seen = text, make(chan struct{})
	a.mutex.Unlock()
	_, _ = a.Write(nil)
	select {
	case <-a.seen:
	case <-time.After(time.Minute):
		t.Fatalf("the log has no %q:\n%s", text, a)
	}
}

// running starts the program in a child process, and kills it if it has not ended after a minute. It returns the
// process and its log. If stdin is nil, standard input is empty.
func running(t *testing.T, stdin *os.File, environ []string, args ...string) (*exec.Cmd, *awaitedLog) {
	t.Helper()
	cmd, log := child(t, environ, args...), &awaitedLog{}
	cmd.Stdout, cmd.Stderr = log, log
	if stdin != nil {
		cmd.Stdin = stdin
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	timer := time.AfterFunc(time.Minute, func() { _ = cmd.Process.Kill() })
	t.Cleanup(func() { timer.Stop() })
	return cmd, log
}

// ended waits for a child process and returns the exit code as a shell reports it: 128 plus the number of the signal,
// if a signal has ended the process.
func ended(cmd *exec.Cmd) int {
	_ = cmd.Wait() // the exit code below says more than the error
	status := cmd.ProcessState.Sys().(syscall.WaitStatus)
	if status.Signaled() {
		return 128 + int(status.Signal())
	}
	return status.ExitStatus()
}

func send(t *testing.T, cmd *exec.Cmd, s syscall.Signal) {
	t.Helper()
	if err := cmd.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
}

// awaitState waits until the function holds reports that a process has reached a state. Its argument proc is the folder
// of the process in /proc.
func awaitState(t *testing.T, cmd *exec.Cmd, log *awaitedLog, holds func(proc string) bool) {
	t.Helper()
	proc := fmt.Sprintf("/proc/%d", cmd.Process.Pid)
	for deadline := time.Now().Add(time.Minute); !holds(proc); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("the run does not get to this state:\n%s", log)
		}
	}
}

// hasOpenForWriting reports whether a process has a file open for reading and writing. proc is the folder of the
// process in /proc, and path is the end of the file's path.
func hasOpenForWriting(proc, path string) bool {
	descriptors, _ := filepath.Glob(proc + "/fd/*")
	for _, d := range descriptors {
		target, _ := os.Readlink(d)
		info, _ := os.ReadFile(proc + "/fdinfo/" + filepath.Base(d))
		var position, flags int
		_, _ = fmt.Sscanf(string(info), "pos:%d\nflags:%o", &position, &flags)
		if strings.HasSuffix(target, path) && flags&syscall.O_RDWR != 0 {
			return true
		}
	}
	return false
}

// bytesRead returns the number of bytes that a process has read. proc is the folder of the process in /proc.
func bytesRead(proc string) (n int64) {
	text, _ := os.ReadFile(proc + "/io")
	_, _ = fmt.Sscanf(string(text), "rchar: %d", &n)
	return n
}

// ticks returns the processor time that a process has used in user mode, in hundredths of a second. proc is the folder
// of the process in /proc.
func ticks(proc string) (user int) {
	text, _ := os.ReadFile(proc + "/stat")
	if fields := strings.Fields(string(text)); len(fields) > 13 {
		user, _ = strconv.Atoi(fields[13])
	}
	return user
}

// TestSignalWhileItWaits checks that SIGTERM ends a run that waits for a lock, hashes a checkpoint or computes a batch,
// with the exit code for an interruption. Finished outputs must remain. In the middle of a batch a run cannot end by
// itself: its process must end after grace, the time that a run may take to end after a signal.
func TestSignalWhileItWaits(t *testing.T) {
	if grace+messageTime >= 5*time.Second {
		t.Errorf("a run may take %v to end", grace+messageTime)
	}
	type state struct {
		args    string
		prepare func(t *testing.T)
		reached func(proc string, log *awaitedLog) bool
		grace   string
		says    string
	}
	const bySelf = "embed: interrupted; the same command continues"
	for name, s := range map[string]state{
		"for a lock": {"--esm-model " + tiny + " second.faa", lockManifest,
			func(proc string, _ *awaitedLog) bool { return hasOpenForWriting(proc, "/out/manifest.jsonl") }, "1h", bySelf},
		"for the digest of a checkpoint": {"--esm-model net second.faa", hugeCheckpoint,
			func(proc string, _ *awaitedLog) bool { return bytesRead(proc) > 64<<20 }, "1h", bySelf},
		"for a batch of one record": {"--esm-model " + tiny + " --max-length 0 long.faa", func(*testing.T) {},
			func(proc string, log *awaitedLog) bool {
				return strings.Contains(log.String(), "a very long record") && ticks(proc) > 20
			}, "300ms", "embed: interrupted while a device, a disk or a lock was busy; the same command continues"},
	} {
		t.Run(name, func(t *testing.T) {
			workspace(t)
			write(t, "first.faa", proteinFile)
			write(t, "second.faa", proteinFile)
			write(t, "long.faa", ">a\n"+strings.Repeat("MKVLWAGTRE", 20_000)+"\n")
			embed(t, "--esm-model", tiny, "-o", "out", "first.faa").wantCode(0)
			s.prepare(t)
			args := append(strings.Fields(s.args), "--threads", "1", "-o", "out")
			cmd, log := running(t, nil, []string{graceVariable + "=" + s.grace}, args...)
			awaitState(t, cmd, log, func(proc string) bool { return s.reached(proc, log) })
			send(t, cmd, syscall.SIGTERM)
			if code := ended(cmd); code != exitInterrupted || !strings.Contains(log.String(), s.says) {
				t.Errorf("exit code %d, want %q\n%s", code, s.says, log)
			}
			embed(t, "--esm-model", tiny, "-o", "out", "first.faa").wantCode(0)
		})
	}
}

// TestClosingEventOfARunThatDoesNotEnd checks that a JSON log ends with an event that has a report of the run, even if
// a signal ends the process in the middle of a batch.
func TestClosingEventOfARunThatDoesNotEnd(t *testing.T) {
	workspace(t)
	write(t, "first.faa", proteinFile)
	write(t, "long.faa", ">a\n"+strings.Repeat("MKVLWAGTRE", 20_000)+"\n")
	args := []string{"--esm-model", tiny, "--threads", "1", "--max-length", "0", "-o", "out", "first.faa"}
	embed(t, args...).wantCode(0)
	cmd, log := running(t, nil, []string{graceVariable + "=100ms"}, append(args, "long.faa", "--log-format", "json")...)
	awaitState(t, cmd, log, func(proc string) bool {
		return strings.Contains(log.String(), "a very long record") && ticks(proc) > 20
	})
	send(t, cmd, syscall.SIGTERM)
	if code := ended(cmd); code != exitInterrupted {
		t.Errorf("exit code %d", code)
	}
	lines := strings.Split(strings.TrimSpace(log.String()), "\n")
	var last struct {
		Msg    string
		Report report
	}
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &last); err != nil || last.Msg != "run ended" {
		t.Fatalf("the log does not end with its closing event: %v\n%s", err, log)
	}
	r := last.Report
	if r.ExitStatus != exitInterrupted || !strings.Contains(r.Error, "was busy") || r.Resumed != 1 || r.Models[0].State != monitor.Computing {
		t.Errorf("%+v", r)
	}
}

// sleeps reports whether all threads of a process sleep, and none runs or waits for a disk. proc is the folder of the
// process in /proc.
func sleeps(proc string) bool {
	threads, _ := filepath.Glob(proc + "/task/*/stat")
	for _, thread := range threads {
		text, _ := os.ReadFile(thread)
		_, state, _ := strings.Cut(string(text), ") ")
		if !strings.HasPrefix(state, "S") {
			return false
		}
	}
	return len(threads) > 0
}

// TestSignalWhileAnInputIsSilent checks that SIGTERM ends a run that waits for standard input or for a pipe without a
// writer. A run that reads a tokenizer from a silent pipe cannot end by itself: its process must end after grace, the
// time that a run may take to end after a signal.
func TestSignalWhileAnInputIsSilent(t *testing.T) {
	const bySelf = "embed: interrupted; the same command continues"
	for name, c := range map[string]struct {
		args  string
		stdin string
		grace string
		says  string
	}{
		"standard input that begins":  {"--esm-model " + tiny + " -", manyProteins("r", 2000), "1h", bySelf},
		"standard input":              {"--esm-model " + tiny + " -", "", "1h", bySelf},
		"pipe without a writer":       {"--esm-model " + tiny + " pipe.faa", "", "1h", bySelf},
		"tokenizer without an answer": {"--dnabert-model " + tinyDNA + " --dnabert-tokenizer pipe.faa --dna p.fa", "", "100ms", "embed: interrupted while a device, a disk or a lock was busy; the same command continues"},
	} {
		t.Run(name, func(t *testing.T) {
			workspace(t)
			write(t, "p.fa", ">a\nACGTTGCA\n")
			if err := syscall.Mkfifo("pipe.faa", 0o600); err != nil {
				t.Skipf("this system has no named pipes here: %v", err)
			}
			silent, writer, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer writer.Close()
			cmd, log := running(t, silent, []string{graceVariable + "=" + c.grace}, append(strings.Fields(c.args), "-o", "out")...)
			silent.Close()
			if _, err := writer.WriteString(c.stdin); err != nil {
				t.Fatal(err)
			}
			awaitState(t, cmd, log, func(proc string) bool { return log.String() != "" && sleeps(proc) })
			send(t, cmd, syscall.SIGTERM)
			if code := ended(cmd); code != exitInterrupted || !strings.Contains(log.String(), c.says) {
				t.Errorf("exit code %d, want %q\n%s", code, c.says, log)
			}
		})
	}
}

// lockManifest locks the manifest in folder out until the end of the test.
func lockManifest(t *testing.T) {
	manifest, err := os.Open("out/manifest.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { manifest.Close() })
	if err := syscall.Flock(int(manifest.Fd()), syscall.LOCK_EX); err != nil {
		t.Skip(err)
	}
}

// hugeCheckpoint writes the folder net with a checkpoint of 1 TiB, which takes long to hash. Almost all of the file is
// a hole, which takes no space on the disk, in a tensor that the model does not use.
func hugeCheckpoint(t *testing.T) {
	writeCheckpoint(t, "net", tiny, nil)
	if err := addTensor(t, "net/model.safetensors", "lm_head.bias", 1<<38); err != nil {
		t.Skipf("no file of this size here: %v", err)
	}
}

// TestSignalWhileNobodyReadsTheLog checks that a signal ends a run that is blocked because its log is a full pipe.
func TestSignalWhileNobodyReadsTheLog(t *testing.T) {
	workspace(t)
	write(t, "p.faa", manyProteins("r", 3000))
	read, unread, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()
	cmd := child(t, []string{graceVariable + "=300ms"}, "-v", "--esm-model", tiny, "--esm-batch-size", "1", "-o", "out", "p.faa")
	cmd.Stderr = unread
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	unread.Close()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		// Linux does not divide a line between two pages of a pipe's buffer, so that a full pipe holds a little less
		// than 65,536 bytes.
		if n, err := unix.IoctlGetInt(int(read.Fd()), unix.TIOCINQ); err != nil || n > 60_000 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the pipe does not fill up")
		}
	}
	send(t, cmd, syscall.SIGTERM)
	if code := ended(cmd); code != exitInterrupted {
		t.Errorf("exit code %d", code)
	}
}

// longRun starts a run on one record that takes long to embed, and waits until the log warns of the record's length.
func longRun(t *testing.T) (*exec.Cmd, *awaitedLog) {
	write(t, "long.faa", ">a\n"+strings.Repeat("MKVLWAGTRE", 20_000)+"\n")
	cmd, log := running(t, nil, []string{graceVariable + "=1h"}, "--esm-model", tiny, "--threads", "1", "--max-length", "0", "-o", "out", "long.faa")
	log.await(t, "a very long record")
	return cmd, log
}

// TestSecondSignal checks that a second signal ends the run at once.
func TestSecondSignal(t *testing.T) {
	workspace(t)
	cmd, log := longRun(t)
	send(t, cmd, syscall.SIGTERM)
	log.await(t, "a second signal ends the run at once")
	send(t, cmd, syscall.SIGTERM)
	if code := ended(cmd); code != 128+int(syscall.SIGTERM) {
		t.Errorf("exit code %d\n%s", code, log)
	}
}

// TestCrash checks that a crash, by SIGQUIT or by a panic, ends the process by SIGABRT, not with an exit code of the
// program, and leaves no core file.
func TestCrash(t *testing.T) {
	// SIGUSR1 makes the child process panic (see limitChild).
	for _, crash := range []syscall.Signal{syscall.SIGQUIT, syscall.SIGUSR1} {
		workspace(t)
		cmd, log := longRun(t)
		send(t, cmd, crash)
		if code := ended(cmd); code != 128+int(syscall.SIGABRT) || !strings.Contains(log.String(), "goroutine ") {
			t.Errorf("%v: exit code %d\n%s", crash, code, log)
		}
		if cmd.ProcessState.Sys().(syscall.WaitStatus).CoreDump() {
			t.Errorf("%v: a core was written", crash)
		}
	}
}

// TestAddressSpace checks a run whose address space (ulimit -v) is too small for one of the records. The error must
// name the record's line, the limit and the flags that help. The other input must be embedded.
func TestAddressSpace(t *testing.T) {
	workspace(t)
	write(t, "p.faa", proteinFile)
	write(t, "long.faa", ">short\nMKVL\n>titin\n"+strings.Repeat("MKVLWAGTRE", 200_000)+"\n")
	run := func(args ...string) result {
		return embedOn(t, []string{spaceVariable + "=1000000000"}, append(args, "--esm-model", tiny, "--max-length", "0", "--threads", "1", "-o", "out", "p.faa", "long.faa")...)
	}
	run().wantCode(exitSome).wantProblem(`long.faa:3: record "titin": `, "left of the address space (ulimit -v)", "--long window", "--max-length", "--on-bad-record skip")
	wantFiles(t, "out", "failed_files.txt", "manifest.jsonl", "p.esm2-tiny.parquet")
	if list, err := os.ReadFile("out/failed_files.txt"); err != nil || !strings.Contains(string(list), `/long.faa|memory|long.faa:3: record "titin": `) {
		t.Errorf("the list of failed files: %q, %v", list, err)
	}
	if r := run("--force", "--on-bad-record", "skip").wantCode(exitDone); !strings.Contains(r.stdout, "long.faa: skipped 1: out of memory") {
		t.Error(r.stdout)
	}
}

// TestHugeRecord checks a run over a small compressed file with a record of 40 million letters, too many for the
// address space (ulimit -v). The error must name the record's line, the limit and the flag --on-bad-record skip. A run
// with this flag must succeed.
func TestHugeRecord(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds under the race detector; other tests run the same goroutines")
	}
	workspace(t)
	var packed bytes.Buffer
	w := gzip.NewWriter(&packed)
	_, _ = io.WriteString(w, ">short\nMKVLWAGTREMKVLWAGTRE\n>huge\n"+strings.Repeat("MKVLWAGTRE", 4_000_000)+"\n>after\nMKVL\n")
	w.Close()
	write(t, "huge.faa.gz", packed.String())
	run := func(args ...string) result {
		return embedOn(t, []string{spaceVariable + "=700000000"}, append(args, "--esm-model", tiny, "--threads", "1", "-o", "out", "huge.faa.gz")...)
	}
	run().wantCode(exitNothing).wantProblem(`huge.faa.gz:3: record "huge": more than `, " letters, which is the limit for the address space (ulimit -v)", "--on-bad-record skip")
	if list, err := os.ReadFile("out/failed_files.txt"); err != nil || !strings.Contains(string(list), `/huge.faa.gz|record|huge.faa.gz:3: `) {
		t.Errorf("the list of failed files: %q, %v", list, err)
	}
	if r := run("--on-bad-record", "skip").wantCode(exitDone); !strings.Contains(r.stdout, "huge.faa.gz: skipped 1: too long") {
		t.Error(r.stdout)
	}
}

// TestScheduledThreads checks that the environment variables of batch schedulers lower the number of threads and never
// raise it.
func TestScheduledThreads(t *testing.T) {
	for _, c := range []struct {
		environ string
		want    int
	}{
		{"", 0}, {"SLURM_CPUS_PER_TASK=3", 3}, {"SLURM_CPUS_PER_TASK=99", 0}, {"SLURM_CPUS_PER_TASK=8", 0}, {"SLURM_CPUS_PER_TASK=", 0},
		{"SLURM_CPUS_PER_TASK=-1", 0}, {"SLURM_CPUS_PER_TASK=two", 0}, {"NSLOTS=5 PBS_NCPUS=2 SLURM_CPUS_PER_TASK=4", 2}, {"SLURM_CPUS_ON_NODE=1", 0},
	} {
		before := runtime.GOMAXPROCS(8)
		got := scheduledThreads(strings.Fields(c.environ))
		runtime.GOMAXPROCS(before)
		if got != c.want {
			t.Errorf("%s: %d threads, want %d", c.environ, got, c.want)
		}
	}
	before := runtime.GOMAXPROCS(1)
	(&command{settings: &settings{threads: 2}}).onCPU()
	if got, want := runtime.GOMAXPROCS(before), min(2, runtime.NumCPU()); got != want {
		t.Errorf("--threads 2 lets %d threads run, want %d", got, want)
	}
	r := embedOn(t, []string{"GOMAXPROCS=3", "SLURM_CPUS_PER_TASK=2"}, "devices").wantCode(0)
	if !strings.Contains(r.stdout, ", 2 threads\n") {
		t.Errorf("the program uses others than 2 threads:\n%s", r.stdout)
	}
}
