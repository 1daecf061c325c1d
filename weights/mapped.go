package weights

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"runtime"
	"runtime/debug"
	"sync"
)

// chunkSize is what visit reads at once from a file that is not mapped: a multiple of every element size.
const chunkSize = 1 << 16

// mappedFile is an open checkpoint file: mapped into memory where the system can, read with ReadAt where it cannot.
// Headers are always read with ReadAt, so that only tensor values depend on the mapping.
type mappedFile struct {
	path string
	size int64
	file *os.File

	mu     sync.RWMutex // held for reading while the mapping is in use
	data   []byte       // the whole file, nil where it is not mapped
	closed bool
}

// openRegular opens a file, and refuses a pipe or a folder. Stat comes before Open because opening a pipe would wait
// for a writer.
func openRegular(path string) (*os.File, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", path)
	}
	return os.Open(path)
}

// openMapped opens a regular file that is not empty.
func openMapped(path string) (*mappedFile, error) {
	file, err := openRegular(path)
	if err != nil {
		return nil, err
	}
	info, err := file.Stat()
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	if info.Size() == 0 {
		file.Close()
		return nil, fmt.Errorf("%s is empty", path)
	}
	m := &mappedFile{path: path, size: info.Size(), file: file}
	if int64(int(m.size)) == m.size {
		// A file system that cannot map (some network ones) still serves ReadAt.
		m.data, _ = mapMemory(file, int(m.size))
	}
	return m, nil
}

// ReadAt implements io.ReaderAt over the file itself.
func (m *mappedFile) ReadAt(p []byte, offset int64) (int, error) { return m.file.ReadAt(p, offset) }

// errShort is what reading fails with when the file has shrunk since it was opened.
var errShort = errors.New("the file became shorter, or its disk failed, while it was read")

// visit calls use with the bytes [offset, offset+size), all at once where the file is mapped, else in consecutive
// chunks. The range must lie in the file.
func (m *mappedFile) visit(offset, size int64, use func(chunk []byte)) (err error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if m.closed {
		return fmt.Errorf("%s: %w", m.path, fs.ErrClosed)
	}
	if m.data != nil {
		// A page that cannot be read raises SIGBUS; as a panic it can become an error.
		defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
		defer func() {
			if r := recover(); r != nil {
				if _, fault := r.(interface {
					runtime.Error
					Addr() uintptr
				}); !fault {
					panic(r)
				}
				err = fmt.Errorf("%s: %w", m.path, errShort)
			}
		}()
		use(m.data[offset : offset+size])
		return nil
	}
	buffer := make([]byte, min(size, chunkSize))
	for size > 0 {
		chunk := buffer[:min(size, chunkSize)]
		if _, err := m.file.ReadAt(chunk, offset); err != nil {
			if errors.Is(err, io.EOF) {
				err = errShort
			}
			return fmt.Errorf("%s: %w", m.path, err)
		}
		use(chunk)
		offset += int64(len(chunk))
		size -= int64(len(chunk))
	}
	return nil
}

// release gives back the whole pages inside [offset, offset+size).
func (m *mappedFile) release(offset, size int64) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	page := int64(os.Getpagesize())
	first := (offset + page - 1) / page * page
	end := (offset + size) / page * page
	if m.data != nil && first < end {
		releaseMemory(m.data[first:end])
	}
}

// sha256 reads the whole file and returns its SHA-256 in hexadecimal.
func (m *mappedFile) sha256() (string, error) {
	h := sha256.New()
	if n, err := io.Copy(h, io.NewSectionReader(m.file, 0, m.size)); err != nil {
		return "", fmt.Errorf("hashing %s: %w", m.path, err)
	} else if n != m.size {
		return "", fmt.Errorf("hashing %s: %w", m.path, errShort)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// Close unmaps and closes the file, after the reads in progress have ended.
func (m *mappedFile) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return nil
	}
	m.closed = true
	var err error
	if m.data != nil {
		err = unmapMemory(m.data)
		m.data = nil
	}
	return errors.Join(err, m.file.Close())
}
