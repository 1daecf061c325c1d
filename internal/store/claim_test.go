package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// holder returns the Holder of a run whose outputs have the given setting, the only one that differs between runs.
func holder(setting string) Holder {
	return Holder{Host: "node7", PID: 42, Command: "embed -o out", Since: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
		Outputs: map[string]Entry{"esm": {Parameters: map[string]string{"pool": setting}}}}
}

// clashWith returns the function that a run with the given setting passes to Claim as clash.
func clashWith(setting string) func(Holder) string {
	return func(other Holder) string {
		if had, ok := other.Outputs["esm"]; ok && had.Parameters["pool"] != setting {
			return "pool " + had.Parameters["pool"]
		}
		return ""
	}
}

func TestClaim(t *testing.T) {
	skipWithoutLocks(t)
	dir := t.TempDir()
	claim := func(setting string) (func(), error) { return Claim(dir, holder(setting), clashWith(setting)) }
	first, err := claim("mean")
	if err != nil {
		t.Fatal(err)
	}
	second, err := claim("mean")
	if err != nil {
		t.Fatalf("the same settings: %v", err)
	}
	first()
	_, err = claim("cls")
	wantError(t, err, dir, "in use", "pool mean", "process 42", "node7", "2026-01-02 03:04:05", "embed -o out")
	if !errors.Is(err, ErrInUse) || strings.Contains(err.Error(), "no locks") {
		t.Errorf("%v is not ErrInUse, or doubts it", err)
	}
	second()
	third, err := claim("cls")
	if err != nil {
		t.Fatalf("after both have ended: %v", err)
	}
	third()

	// Two claims that must not stop a run: the unlocked claim of a killed run, and the incomplete claim of a run that is
	// starting.
	if err := os.WriteFile(filepath.Join(dir, claimPrefix+"00000000000000aa"), []byte(`{"outputs":{"esm":{}}}`), 0o666); err != nil {
		t.Fatal(err)
	}
	f, err := osFS{}.create(filepath.Join(dir, claimPrefix+"00000000000000bb"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Write([]byte(`{"outputs":{"esm":{}`)); err != nil {
		t.Fatal(err)
	}
	if last, err := claim("cls"); err != nil {
		t.Error(err)
	} else {
		last()
	}
}

// TestClaimWithoutLocks checks that on a file system without locks the file with a run's claim is valid until it is
// deleted, and that the error for another run says so.
func TestClaimWithoutLocks(t *testing.T) {
	dir, disk := t.TempDir(), osFS{noLocks: true}
	if _, err := disk.claim(dir, holder("mean"), clashWith("mean")); err != nil {
		t.Fatal(err)
	}
	claims := filesIn(t, dir)
	_, err := disk.claim(dir, holder("cls"), clashWith("cls"))
	wantError(t, err, "pool mean", "no locks", "delete "+claims[0])
	if release, err := disk.claim(dir, holder("mean"), clashWith("mean")); err != nil {
		t.Errorf("the same settings: %v", err)
	} else {
		release()
	}
	if left := filesIn(t, dir); len(left) != 1 {
		t.Errorf("the folder holds %q", left)
	}
}

// TestUnreadableClaim checks that a run refuses a folder if it cannot read another run's claim. A run of another user
// may leave such a claim. The claim in the test is a symbolic link to itself, which root cannot open either.
func TestUnreadableClaim(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, claimPrefix+"00000000000000aa")
	if err := os.Symlink(path, path); err != nil {
		t.Skipf("this system makes no symbolic links: %v", err)
	}
	_, err := Claim(dir, holder("mean"), clashWith("mean"))
	wantError(t, err, dir, "in use", "another user", "delete "+path)
	if !errors.Is(err, ErrInUse) {
		t.Errorf("%v is not ErrInUse", err)
	}
}

// TestClaimsAtOnce checks that of several runs that start at the same moment, no two with different settings claim the
// folder.
func TestClaimsAtOnce(t *testing.T) {
	skipWithoutLocks(t)
	synctest.Test(t, func(t *testing.T) { // under synctest the pauses of Claim take no time
		for range 20 {
			dir := t.TempDir()
			var wait sync.WaitGroup
			releases := make([]func(), 4)
			for i := range releases {
				wait.Go(func() {
					setting := fmt.Sprint(i)
					release, err := Claim(dir, holder(setting), clashWith(setting))
					if releases[i] = release; err != nil && !errors.Is(err, ErrInUse) {
						t.Error(err)
					}
				})
			}
			wait.Wait()
			got := 0
			for _, release := range releases {
				if release != nil {
					release()
					got++
				}
			}
			if got > 1 {
				t.Fatalf("%d runs of different settings got the folder", got)
			}
		}
	})
}

// TestLockEndsWithContext checks that waiting for a lock ends soon after its context has ended, and that a free lock
// can be taken even then.
func TestLockEndsWithContext(t *testing.T) {
	skipWithoutLocks(t)
	path := filepath.Join(t.TempDir(), "x")
	synctest.Test(t, func(t *testing.T) {
		held, err := osFS{}.openLocked(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Minute, func() { cancel(errors.New("the end")) })
		began := time.Now()
		_, err = osFS{}.openLocked(ctx, path)
		if wantError(t, err, "the end"); !errors.Is(err, ErrLocked) {
			t.Errorf("%v is not ErrLocked", err)
		}
		if took := time.Since(began); took > time.Minute+lockPatience+lockPause {
			t.Errorf("it took %v", took)
		}
		held.Close()
		f, err := osFS{}.openLocked(ctx, path)
		if err != nil {
			t.Fatalf("a free lock, although the run has ended: %v", err)
		}
		f.Close()
	})
}

// TestEditsAtOnce checks that no edit is lost if several goroutines edit one file at the same time, although each call
// of Edit replaces the file, and that an edit to an empty text removes the file.
func TestEditsAtOnce(t *testing.T) {
	skipWithoutLocks(t)
	path := filepath.Join(t.TempDir(), "list")
	var wait sync.WaitGroup
	for i := range 8 {
		wait.Go(func() {
			for k := range 5 {
				err := Edit(t.Context(), path, func(old []byte) []byte { return fmt.Appendf(old, "%d.%d\n", i, k) })
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	wait.Wait()
	if n := strings.Count(string(readFile(t, path)), "\n"); n != 40 {
		t.Errorf("%d lines of 40", n)
	}
	if err := Edit(t.Context(), path, func([]byte) []byte { return nil }); err != nil {
		t.Error(err)
	}
	if left := filesIn(t, filepath.Dir(path)); left != nil {
		t.Errorf("left %q", left)
	}
}

// TestReplacedPair replaces an output of two files, an array and its ids, again and again: first all file operations
// fail, then all from the second one on, and so on until none fails. The folder must never contain the array of one
// output and the ids of another.
func TestReplacedPair(t *testing.T) {
	s := spec(t, Npy, 33)
	renames := 0
	for failAt := 1; ; failAt++ {
		writeAll(t, s, makeRows(s, 2))
		paths := s.Paths()
		oldMain, oldIDs := readFile(t, paths[0]), readFile(t, paths[1])
		broken := &failingFS{failAt: failAt, stays: true, cause: errors.New("killed")}
		if err := writeOn(s, broken, makeRows(s, 3)); err == nil {
			break
		}
		if broken.op == "rename" {
			renames++
		}
		main, err := os.ReadFile(paths[0])
		if err != nil {
			continue
		}
		if ids := readFile(t, paths[1]); (string(ids) == string(oldIDs)) != (string(main) == string(oldMain)) {
			t.Fatalf("after a failing %s, operation %d: new ids beside old vectors", broken.op, failAt)
		}
	}
	if renames != 2 {
		t.Errorf("%d renames failed", renames)
	}
}

// TestRepairBesideARun checks that Repair refuses to replace a damaged manifest while another run uses it, and that no
// run can begin while a process repairs it.
func TestRepairBesideARun(t *testing.T) {
	skipWithoutLocks(t)
	dir := t.TempDir()
	mustAppend(t, dir, testEntry(dir, "a"))
	good := string(readFile(t, manifestPath(dir)))
	if err := os.WriteFile(manifestPath(dir), []byte("damaged\n"+good), 0o666); err != nil {
		t.Fatal(err)
	}
	leave, err := Claim(dir, holder("mean"), clashWith("mean"))
	if err != nil {
		t.Fatal(err)
	}
	aside, err := Repair(t.Context(), dir, ThisProcess("embed inspect"))
	wantError(t, err, dir, "damaged and cannot be repaired", "in use by another run", "process 42 on node7", "embed -o out")
	if !errors.Is(err, ErrInUse) || aside != nil || string(readFile(t, manifestPath(dir))) != "damaged\n"+good {
		t.Errorf("%v; set aside %q, the manifest is %q", err, aside, readFile(t, manifestPath(dir)))
	}
	if aside, err = Repair(t.Context(), dir, holder("mean")); err != nil || len(aside) != 1 || string(readFile(t, manifestPath(dir))) != good {
		t.Errorf("repaired by the only run itself: %v; set aside %q", err, aside)
	}
	leave()
	repairing := ThisProcess("embed inspect --repair out")
	repairing.Repairs = true
	leave, err = Claim(dir, repairing, clashWith("mean"))
	if err != nil {
		t.Fatal(err)
	}
	_, err = Claim(dir, holder("mean"), clashWith("mean"))
	wantError(t, err, "repair of the manifest", "embed inspect --repair out")
	leave()
	if files := filesIn(t, dir); len(files) != 2 {
		t.Errorf("the folder holds %q", files)
	}
}
