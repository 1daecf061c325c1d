package main

import (
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// TestCompleteReadOnlyFolder checks runs with a read-only output folder. A run whose outputs are all complete must
// succeed. A run that has to write an output must end with one error.
func TestCompleteReadOnlyFolder(t *testing.T) {
	workspace(t)
	write(t, "a.faa", proteinFile)
	write(t, "b.faa", proteinFile)
	embed(t, npyArgs("a.faa")...).wantCode(0)
	command := func(cmd *exec.Cmd) *exec.Cmd { return cmd }
	if os.Geteuid() != 0 {
		if err := os.Chmod("out", 0o555); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.Chmod("out", 0o777) })
	} else {
		command = func(cmd *exec.Cmd) *exec.Cmd { // root ignores permissions, so cmd gets a read-only mount of out
			const script = `mount --make-rprivate / && mount --bind out out && mount -o remount,ro,bind out out && exec "$0" "$@"`
			inner := exec.Command("sh", append([]string{"-c", script}, cmd.Args...)...)
			inner.Env, inner.SysProcAttr = cmd.Env, &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
			return inner
		}
		if err := command(exec.Command("true")).Run(); err != nil {
			t.Skipf("no mounts here: %v", err)
		}
	}
	readOnly := func(args ...string) result {
		t.Helper()
		var stdout, stderr strings.Builder
		cmd := command(child(t, nil, args...))
		cmd.Stdout, cmd.Stderr = &stdout, &stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		return wait(t, cmd, &stdout, &stderr)
	}
	if r := readOnly(npyArgs("a.faa")...).wantCode(0); !strings.Contains(r.stdout, "complete already") || len(r.problems()) > 0 {
		t.Errorf("%s%s", r.stdout, r.stderr)
	}
	readOnly("inspect", "out").wantCode(0)
	readOnly(npyArgs("a.faa", "b.faa")...).wantCode(exitSome).wantProblem("cannot write to the output folder out: ")
}
