//go:build unix

package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"seqembed/internal/store"
)

// child returns a command that runs the program in a process of its own. The process also gets the variables in
// environ.
func child(t *testing.T, environ []string, args ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, args...)
	cmd.Env = append(append(os.Environ(), childVariable+"=1"), environ...)
	return cmd
}

// wait waits for a child and returns its result.
func wait(t *testing.T, cmd *exec.Cmd, stdout, stderr *strings.Builder) result {
	t.Helper()
	err := cmd.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return result{t, cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}

// signalled runs a child that logs every batch. It sends the signal once the log has a batch of the given input, and
// returns the result.
func signalled(t *testing.T, signal syscall.Signal, input string, args ...string) result {
	t.Helper()
	cmd := child(t, nil, args...)
	var stdout, stderr strings.Builder
	cmd.Stdout = &stdout
	pipe, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines, sent := bufio.NewScanner(pipe), false
	for lines.Scan() {
		stderr.WriteString(lines.Text() + "\n")
		if !sent && strings.Contains(lines.Text(), "batch") && strings.Contains(lines.Text(), input) {
			sent = true
			if err := cmd.Process.Signal(signal); err != nil {
				t.Fatal(err)
			}
		}
	}
	return wait(t, cmd, &stdout, &stderr)
}

// TestSignal checks that SIGINT and SIGTERM end a run soon. Complete outputs must remain, and so must the results of an
// incomplete output in its .parts file. The same command must complete the run.
func TestSignal(t *testing.T) {
	for _, signal := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
		t.Run(signal.String(), func(t *testing.T) {
			workspace(t)
			// The run begins with the first file, which is larger. Each record of the second file is a batch and a line
			// in the log. There are more lines than fit in a pipe, so the run cannot end before the test has read some
			// of them.
			const records = 2000
			write(t, "first.faa", manyProteins("a", 30)+strings.Repeat("\n", 200_000))
			write(t, "second.faa", manyProteins("b", records))
			args := []string{"-v", "--esm-model", tiny, "--esm-batch-size", "1", "-o", "out", "first.faa", "second.faa"}
			signalled(t, signal, "second.faa", args...).wantCode(exitInterrupted).wantProblem("embed: interrupted; the same command continues")
			wantFiles(t, "out", ".second.esm2-tiny.parquet.parts", "first.esm2-tiny.parquet", "manifest.jsonl")

			again := embed(t, append(args, "--esm-batch-size", "8192")...).wantCode(0)
			wantFiles(t, "out", "first.esm2-tiny.parquet", "manifest.jsonl", "second.esm2-tiny.parquet")
			if !strings.Contains(again.stdout, "first.faa was complete already") || !strings.Contains(again.stderr, "continuing inside a file") ||
				!strings.Contains(again.stdout, " of them computed now, in ") {
				t.Errorf("the second run:\n%s%s", again.stdout, again.stderr)
			}
			if rows := readParquet[parquetRow](t, "out/second.esm2-tiny.parquet"); len(rows) != records || rows[records-1].ID != fmt.Sprintf("b%d", records-1) {
				t.Errorf("%d rows", len(rows))
			}
		})
	}
}

// TestForceOfTwoModels checks that the same command continues an interrupted run with --force of two models: the
// outputs of the first model, which the run has made, stay. After it has ended, --force starts over.
func TestForceOfTwoModels(t *testing.T) {
	workspace(t)
	write(t, "d.fna", nucleotideFile)
	write(t, "p.faa", manyProteins("b", 2000)) // more lines in the log than fit in a pipe, as in TestSignal
	args := []string{"-v", "--force", "--dnabert-model", tinyDNA, "--esm-model", tiny, "--esm-batch-size", "1", "-o", "out", "d.fna", "p.faa"}
	signalled(t, syscall.SIGTERM, "p.faa", args...).wantCode(exitInterrupted)

	const complete = "d.fna was complete already"
	if again := embed(t, args...).wantCode(0); !strings.Contains(again.stdout, complete) {
		t.Errorf("the second run:\n%s%s", again.stdout, again.stderr)
	}
	wantFiles(t, "out", "d.dnabert-tiny.parquet", "manifest.jsonl", "p.esm2-tiny.parquet")
	if third := embed(t, args...).wantCode(0); strings.Contains(third.stdout, complete) {
		t.Errorf("the third run continues the second:\n%s", third.stdout)
	}
	embed(t, append(args, "missing.faa")...).wantCode(exitSome) // it has ended, too: every input that is there is done
	if fifth := embed(t, args...).wantCode(0); strings.Contains(fifth.stdout, complete) {
		t.Errorf("the fifth run continues the fourth:\n%s", fifth.stdout)
	}
}

// TestDiskThatFillsUp checks that an output that does not fit on the disk fails with one line, and that the other
// outputs are written. Neither an incomplete nor a temporary file may be left. A limit of the file size takes the place
// of a full disk.
func TestDiskThatFillsUp(t *testing.T) {
	for _, format := range store.Formats() {
		format := string(format)
		t.Run(format, func(t *testing.T) {
			workspace(t)
			write(t, "small.faa", proteinFile)
			write(t, "large.faa", manyProteins("x", 150)+">long\n"+strings.Repeat("MKVLA", 200)+"\n")
			args := []string{"--esm-model", tiny, "--format", format, "-o", "out", "large.faa", "small.faa"}
			size := "20000"
			if format == string(store.Pt) { // one file for each record: only the last file exceeds the limit
				size = "100000"
				args = append(args, "--pool", "residues")
			}
			var stdout, stderr strings.Builder
			cmd := child(t, []string{sizeVariable + "=" + size}, args...)
			cmd.Stdout, cmd.Stderr = &stdout, &stderr
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			r := wait(t, cmd, &stdout, &stderr).wantCode(exitSome)
			r.wantProblem("out/large", "file too large", "input=large.faa")
			for _, name := range files(t, "out") {
				if strings.HasPrefix(name, ".") || strings.Contains(name, "large") {
					t.Errorf("%s is left", name)
				}
			}

			// Without the limit, the same command completes the run.
			embed(t, args...).wantCode(0)
		})
	}
}

// TestDiskThatIsFull checks that a full disk leaves neither an incomplete file in the output folder nor a part of a
// manifest line. The same command must succeed once there is room again.
func TestDiskThatIsFull(t *testing.T) {
	workspace(t)
	write(t, "a.faa", proteinFile)
	write(t, "p.faa", proteinFile)
	run := func(limit int64, name string) result {
		t.Helper()
		var stdout, stderr strings.Builder
		cmd := child(t, []string{fmt.Sprintf("%s=%d", sizeVariable, limit)}, "--esm-model", tiny, "--format", "npy", "-o", "out", name)
		cmd.Stdout, cmd.Stderr = &stdout, &stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		return wait(t, cmd, &stdout, &stderr)
	}
	run(10, "a.faa").wantCode(exitNothing).wantProblem("cannot write to the output folder out", "file too large")
	wantFiles(t, "out")
	run(1<<20, "a.faa").wantCode(0)
	before, err := os.ReadFile("out/manifest.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	run(int64(len(before))+10, "p.faa").wantCode(exitNothing).wantProblem("out/manifest.jsonl", "file too large")
	wantFiles(t, "out", "a.esm2-tiny.ids.txt", "a.esm2-tiny.npy", "failed_files.txt", "manifest.jsonl")
	if now, err := os.ReadFile("out/manifest.jsonl"); err != nil || string(now) != string(before) {
		t.Errorf("a part of a line is left: %d bytes of %d, %v", len(now), len(before), err)
	}
	run(1<<20, "p.faa").wantCode(0)
	wantFiles(t, "out", "a.esm2-tiny.ids.txt", "a.esm2-tiny.npy", "manifest.jsonl", "p.esm2-tiny.ids.txt", "p.esm2-tiny.npy")
}

// TestKilledShard kills a run of a shard while it computes batches. The same command must complete the shard, and the
// merged output must have the bytes of a run without shards.
func TestKilledShard(t *testing.T) {
	workspace(t)
	// Each record is a batch and a line in the log, which names the file. The lines do not fit in a pipe, so the shard
	// cannot end before the test has read some of them.
	path := write(t, strings.Repeat("p", 150)+".faa", manyProteins("p", 1000))
	embed(t, "--esm-model", tiny, "-o", "one", path).wantCode(0)
	args := []string{"-v", "--esm-model", tiny, "--shard", "2/2", "-o", "b", path}
	embed(t, "--esm-model", tiny, "--shard", "1/2", "-o", "a", path).wantCode(0)
	cmd := child(t, nil, append(args, "--esm-batch-size", "1")...)
	pipe, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for lines := bufio.NewScanner(pipe); lines.Scan(); {
		if strings.Contains(lines.Text(), "batch") && strings.Contains(lines.Text(), path) {
			_ = cmd.Process.Kill() // an error means that the process is already killed
		}
	}
	var none strings.Builder
	if r := wait(t, cmd, &none, &none); r.code != -1 {
		t.Fatalf("exit code %d of a killed process", r.code)
	}
	embed(t, "merge", "-o", "two", "a", "b").wantCode(exitNothing).wantProblem("2-of-2")
	embed(t, args...).wantCode(0)
	embed(t, "merge", "-o", "two", "a", "b").wantCode(0)
	sameFolders(t, "one", "two")
}
