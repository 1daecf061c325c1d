package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Holder describes a process that is writing to an output folder.
type Holder struct {
	Host    string           `json:"host"`
	PID     int              `json:"pid"`
	Command string           `json:"command"`
	Since   time.Time        `json:"since"`
	Outputs map[string]Entry `json:"outputs"`           // settings of the run, keyed by model, format and shard
	Repairs bool             `json:"repairs,omitempty"` // the process repairs the manifest: no other process may write
}

// ThisProcess returns a Holder, without outputs, for the calling process. command is the command line of the process.
func ThisProcess(command string) Holder {
	host, _ := os.Hostname() // empty if unknown
	return Holder{Host: host, PID: os.Getpid(), Command: command, Since: time.Now().UTC()}
}

// is reports whether two holders describe the same run.
func (h Holder) is(other Holder) bool {
	return h.Host == other.Host && h.PID == other.PID && h.Since.Equal(other.Since)
}

// String describes the process for an error message.
func (h Holder) String() string {
	return fmt.Sprintf("process %d on %s since %s, %s", h.PID, h.Host, h.Since.Format(time.DateTime), h.Command)
}

// ErrInUse is wrapped by the error for an output folder to which this process may not write, because another run uses
// it.
var ErrInUse = errors.New("the output folder is in use")

// claimPrefix is the beginning of the name of a claim, the file by which a run claims an output folder. The file
// contains a Holder and is locked until the run ends.
const claimPrefix = ".run-"

// claimTries is the number of attempts to claim a folder. An attempt may fail for both of two runs with different
// settings that begin at the same moment, because each sees the claim of the other.
const claimTries = 5

// Claim registers the run h in folder dir until release is called or the process ends. For each other run in the
// folder, Claim calls clash, which returns the difference between the settings of the two runs, or an empty string if
// both may write to the folder. If there is a difference, if another process repairs the manifest, or if the claim of
// another run cannot be read, Claim returns an ErrInUse.
//
// A run writes its claim (see claimPrefix) before it looks for the claims of others, so at least one of two clashing
// runs sees the other. On a file system without locks, the claim of a killed run stays valid until the user deletes the
// file of the claim, which the error names.
func Claim(dir string, h Holder, clash func(other Holder) string) (release func(), err error) {
	return osFS{}.claim(dir, h, clash)
}

func (s osFS) claim(dir string, h Holder, clash func(Holder) string) (release func(), err error) {
	content, err := json.Marshal(h)
	if err != nil {
		return nil, err
	}
	for try := range claimTries {
		time.Sleep(time.Duration(rand.Int64N(1<<try)) * 10 * time.Millisecond)
		if release, err = s.tryClaim(dir, content, clash); !errors.Is(err, ErrInUse) {
			return release, err
		}
	}
	return nil, err
}

func (s osFS) tryClaim(dir string, content []byte, clash func(Holder) string) (release func(), err error) {
	f, path, err := createUnique(s, filepath.Join(dir, claimPrefix))
	if err != nil {
		return nil, ioError("write to", dir, err)
	}
	release = func() {
		if !keepsLocks { // some systems without locks cannot remove an open file
			f.Close()
		}
		_ = os.Remove(path) // if the removal fails, the next run removes the file
		f.Close()
	}
	if _, err = f.Write(content); err != nil {
		release()
		return nil, ioError("write to", dir, err)
	}
	if err = s.lookForOthers(dir, path, clash); err != nil {
		release()
		return nil, err
	}
	return release, nil
}

// lookForOthers returns an ErrInUse for the first run in the folder that clashes with this run. own is the path of this
// run's claim.
func (s osFS) lookForOthers(dir, own string, clash func(Holder) string) error {
	list, err := os.ReadDir(dir)
	if err != nil {
		return ioError("read", dir, err)
	}
	for _, entry := range list {
		path := filepath.Join(dir, entry.Name())
		if path == own || !strings.HasPrefix(entry.Name(), claimPrefix) {
			continue
		}
		other, alive := s.readClaim(path)
		if alive == nil { // the run has ended
			continue
		}
		if !errors.Is(alive, ErrLocked) && !errors.Is(alive, errors.ErrUnsupported) {
			return fmt.Errorf("%s: %w by another user's run, perhaps with other settings: %w; if that run has ended, delete %s",
				dir, ErrInUse, alive, path)
		}
		difference := clash(other)
		if other.Repairs {
			difference = "its repair of the manifest"
		}
		switch {
		case difference == "":
		case errors.Is(alive, ErrLocked):
			return fmt.Errorf("%s: %w by another run, with %s: %v", dir, ErrInUse, difference, other)
		default:
			return fmt.Errorf("%s: %w by another run, with %s: %v; this file system has no locks: if that run has ended, delete %s",
				dir, ErrInUse, difference, other, path)
		}
	}
	return nil
}

// readClaim reads the Holder h from a claim, the file by which a run claims an output folder. alive is nil if the run
// has ended, ErrLocked if the run goes on, and errors.ErrUnsupported if the file system has no locks. Any other error
// means that the claim cannot be read. If the run is still writing its claim, h is incomplete, and the run has not
// looked for other claims yet.
func (s osFS) readClaim(path string) (h Holder, alive error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) { // the run has just ended and removed its claim
		return h, nil
	} else if err != nil {
		return h, err
	}
	defer f.Close()
	if alive = s.tryLock(f, true); alive != nil {
		_ = json.NewDecoder(f).Decode(&h)
	}
	return h, alive
}
