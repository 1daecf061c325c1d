//go:build unix

package weights

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestReadTextFromAPipe checks that ReadText returns everything that comes from a named pipe, and an error if the pipe
// gives more than maxText bytes.
func TestReadTextFromAPipe(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Skip(err)
	}
	for _, size := range []int{0, 100, maxText, maxText + 1} {
		go func() {
			if f, err := os.OpenFile(path, os.O_WRONLY, 0); err == nil {
				_, _ = f.Write(make([]byte, size)) // fails if the reader has seen enough
				f.Close()
			}
		}()
		text, err := ReadText(path)
		switch {
		case size <= maxText && (err != nil || len(text) != size):
			t.Errorf("%d bytes: %d bytes were read, error %v", size, len(text), err)
		case size > maxText && (err == nil || !strings.Contains(err.Error(), "pipe has more than")):
			t.Errorf("%d bytes: %d bytes were read, error %v", size, len(text), err)
		}
	}
}
