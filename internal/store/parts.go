package store

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"

	"seqembed/internal/flock"
)

// Parts is the part log of an output under construction: a hidden file beside the output, with the results of the
// sequences that have been computed so far. If the run is interrupted, a later run reads these results instead of
// computing them again, and gives them to a new Writer. So a part log does not depend on the format of the output.
//
// The file begins with a line that holds the settings with which the results were computed. One entry for each sequence
// follows, in the order in which the results are needed: the key of the sequence, a mark, its values in float32, and a
// CRC-32C (see digest). A reader states the key and the number of values that it expects. So it rejects the entry of
// another sequence, and an incomplete entry that a killed run or a crash of the machine has left.
//
// A Parts is first used for reading, by Next, and afterwards for writing, by Add. Only one goroutine at a time may use
// it.
type Parts struct {
	path     string
	settings []byte    // the first line of the file, with its newline
	file     partsFile // nil until there is a file
	opened   *os.File  // the same file, which holds the lock; tests replace only the field file
	from     *bufio.Reader
	end      int64  // number of bytes in the file up to the end of the last entry that was read or written
	sum      uint32 // CRC-32C of the settings and all entries read or added so far, see digest
	begun    bool   // whether begin has prepared the file for the first entry that is added
	isNew    bool   // whether Sync must also sync the folder, because the file is new
	buf      []byte // entries that are not written to the file yet; while reading, the current entry
}

// partsFile is the file of a Parts. Tests replace it to make operations fail.
type partsFile interface {
	io.WriterAt
	Truncate(size int64) error
	Sync() error
}

// PartKey identifies a sequence by a digest of its content.
type PartKey [16]byte

// Marks of the entries of a part log.
const (
	partOmitted = 0 // the sequence has no result
	partResult  = 1
)

// ErrOtherParts is the error for a part log that was made with other settings. OpenParts removes such a log.
var ErrOtherParts = errors.New("the parts of an interrupted run were made with other settings")

// ErrPart is the error for an entry of a part log that is damaged or belongs to another sequence than the expected one.
var ErrPart = errors.New("the input has changed since, or the parts are damaged")

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// partsName matches the names of part logs, the files with results of unfinished outputs (see Parts).
var partsName = regexp.MustCompile(`^\..+\.parts$`)

// partsPath returns the path of the part log of an output. main is the main file of the output, the first of
// Spec.Paths.
func partsPath(main string) string {
	dir, name := filepath.Split(main)
	return filepath.Join(dir, "."+name+".parts")
}

// OpenParts opens the part log of the output whose first path, of those in Spec.Paths, is main. settings describes
// everything on which results depend, except their sequences; it must not contain a newline. If there is no log, the
// Parts is empty, and the first Add creates the file. If the log has other settings, OpenParts removes it and returns
// an empty Parts together with ErrOtherParts. If another process uses the log, the error wraps ErrLocked. With any
// error but ErrOtherParts, the Parts is nil.
func OpenParts(main string, settings []byte) (*Parts, error) {
	p := &Parts{path: partsPath(main), settings: append(bytes.Clone(settings), '\n')}
	f, err := os.OpenFile(p.path, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return p, nil
	}
	if err != nil {
		return nil, ioError("read", p.path, err)
	}
	if err := p.lock(f); err != nil {
		f.Close()
		if errors.Is(err, fs.ErrNotExist) { // another process has just removed the file
			return p, nil
		}
		return nil, ioError("lock", p.path, err)
	}
	p.opened, p.file = f, f
	p.from = bufio.NewReaderSize(io.NewSectionReader(f, 0, math.MaxInt64), bufferSize)
	first := make([]byte, len(p.settings))
	switch n, err := io.ReadFull(p.from, first); {
	case err == nil && bytes.Equal(first, p.settings):
		p.end, p.sum = int64(len(first)), p.digest(first)
	case err != nil && bytes.HasPrefix(p.settings, first[:n]): // a run was killed while it wrote the first line
		p.from = nil
	default:
		p.Remove()
		return p, ErrOtherParts
	}
	return p, nil
}

// lock takes the lock of a part log. It returns fs.ErrNotExist if the file at p.path is not f any more. On a system
// without locks two processes may write to one log and damage it; Next detects the damage.
func (p *Parts) lock(f *os.File) error {
	if err := flock.Try(f, false); errors.Is(err, ErrLocked) {
		return err
	}
	if !isAt(f, p.path) {
		return fs.ErrNotExist
	}
	return nil
}

// digest returns the CRC-32C of the settings and entries so far, whose CRC-32C is p.sum, followed by b. The checksums
// in the log are left out: with them the CRC-32C would be constant, as for any text followed by its own CRC.
func (p *Parts) digest(b []byte) uint32 { return crc32.Update(p.sum, castagnoli, b) }

// Next returns the values of the next entry of the log, one slice for each of the given sizes. The values are nil if
// the log says that the sequence has no result. If the entry does not have the given key, or is damaged, the error is
// ErrPart. At the end of the log, and in every call after an error, the error is io.EOF.
func (p *Parts) Next(key PartKey, sizes ...int) (values [][]float32, err error) {
	if p.from == nil {
		return nil, io.EOF
	}
	if values, err = p.next(key, sizes); err != nil {
		p.from = nil
	}
	return values, err
}

func (p *Parts) next(key PartKey, sizes []int) (values [][]float32, err error) {
	const head = len(key) + 1
	entry := slices.Grow(p.buf[:0], head)[:head]
	if err := p.fill(entry); err != nil {
		return nil, err
	}
	mark := entry[len(key)]
	if PartKey(entry[:len(key)]) != key || mark > partResult {
		return nil, ErrPart
	}
	total := 0
	for _, n := range sizes {
		total += n
	}
	if mark == partOmitted {
		total = 0
	}
	last := head + FP32.size()*total // number of bytes in the entry before its CRC-32C
	entry = slices.Grow(entry, last+crc32.Size-head)[:last+crc32.Size]
	p.buf = entry[:0]
	if err := p.fill(entry[head:]); err != nil {
		return nil, err
	}
	sum := p.digest(entry[:last])
	if sum != binary.LittleEndian.Uint32(entry[last:]) {
		return nil, ErrPart
	}
	p.end, p.sum = p.end+int64(len(entry)), sum
	if mark == partOmitted {
		return nil, nil
	}
	all := appendValues(make([]float32, 0, total), FP32, entry[head:last])
	for _, n := range sizes {
		values = append(values, all[:n:n])
		all = all[n:]
	}
	return values, nil
}

// fill fills b with the next bytes of the log. If too few bytes are left, it returns io.EOF: the log has ended, or a
// run was killed while it wrote an entry.
func (p *Parts) fill(b []byte) error {
	_, err := io.ReadFull(p.from, b)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return io.EOF
	}
	return err
}

// Exists reports whether the log has a file, which the first Add creates.
func (p *Parts) Exists() bool { return p.opened != nil }

// Add appends the entry of a sequence to the log. values is nil for a sequence without a result. The entry may stay in
// memory until Flush. After an error of Add, Flush or Sync the log is unusable and must be removed.
func (p *Parts) Add(key PartKey, values [][]float32) error {
	if err := p.begin(); err != nil {
		return err
	}
	from := len(p.buf)
	p.buf = append(p.buf, key[:]...)
	if values == nil {
		p.buf = append(p.buf, partOmitted)
	} else {
		p.buf = append(p.buf, partResult)
	}
	for _, v := range values {
		p.buf = appendFloats(p.buf, FP32, v)
	}
	p.sum = p.digest(p.buf[from:])
	if p.buf = binary.LittleEndian.AppendUint32(p.buf, p.sum); len(p.buf) >= bufferSize {
		return p.Flush()
	}
	return nil
}

// begin prepares the log for the first entry that is added: it creates the file if necessary, and removes everything
// after the entries that were read.
func (p *Parts) begin() error {
	if p.begun {
		return nil
	}
	p.from, p.buf = nil, p.buf[:0]
	if p.opened == nil {
		f, err := os.OpenFile(p.path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o666)
		if errors.Is(err, fs.ErrExist) {
			err = ErrLocked // another run has created the file since OpenParts
		} else if err == nil {
			if err = p.lock(f); err != nil {
				f.Close()
			}
		}
		if err != nil {
			return ioError("create", p.path, err)
		}
		p.opened, p.file, p.isNew = f, f, true
	}
	if err := p.file.Truncate(p.end); err != nil {
		return ioError("write", p.path, err)
	}
	if p.begun = true; p.end == 0 {
		p.buf = append(p.buf, p.settings...)
		p.sum = p.digest(p.settings)
	}
	return nil
}

// Flush writes all entries to the file, so that they remain if the process is killed.
func (p *Parts) Flush() error {
	if _, err := p.file.WriteAt(p.buf, p.end); err != nil {
		return ioError("write", p.path, err)
	}
	p.end += int64(len(p.buf))
	p.buf = p.buf[:0]
	return nil
}

// Sync writes the flushed entries to the disk, so that they remain if the machine goes down.
func (p *Parts) Sync() error {
	if err := p.file.Sync(); err != nil {
		return ioError("write", p.path, err)
	}
	if p.isNew {
		p.isNew = false
		return syncFolder(osFS{}, filepath.Dir(p.path))
	}
	return nil
}

// Close closes the log. Entries that were added after the last Flush are lost. A later run can continue the log.
func (p *Parts) Close() {
	if p.opened != nil {
		p.opened.Close() // an error does not matter: Flush has already written the entries
	}
	*p = Parts{path: p.path, settings: p.settings}
}

// Remove closes the log and removes its file. It ignores errors, because a file that is left does no harm: OpenParts
// and Next check its content.
func (p *Parts) Remove() {
	if p.opened != nil && isAt(p.opened, p.path) {
		removeOpen(p.opened, p.path)
	}
	p.Close()
}

// RemoveParts removes the part log of the output whose first path, of those in Spec.Paths, is main. It leaves the log
// if another process uses it.
func RemoveParts(main string) {
	p := Parts{path: partsPath(main)}
	f, err := os.OpenFile(p.path, os.O_RDWR, 0)
	if err != nil {
		return // usually because there is no log
	}
	defer f.Close()
	if p.lock(f) == nil {
		removeOpen(f, p.path)
	}
}

// removeOpen removes the locked file f at path. On systems with locks, the lock is held until the file is removed, so
// the removed file cannot be a new one that another process has made at the same path.
func removeOpen(f *os.File, path string) {
	if !keepsLocks { // some systems without locks cannot remove an open file
		f.Close()
	}
	_ = os.Remove(path)
}

// partsState describes the state of a part log (see Parts) for a user.
func partsState(path string) string {
	f, err := os.Open(path)
	if err == nil {
		defer f.Close()
		err = flock.Try(f, true)
	}
	if errors.Is(err, ErrLocked) {
		return "parts of an output that a run is making"
	}
	return "parts of an output that no run has completed: the same command continues it; if none will, delete this file"
}
