package pool

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"unicode"
	"unicode/utf8"

	"seqembed/internal/seqio"
	"seqembed/internal/store"
)

// OutputFailure is the Failure.Type of an input whose results could not be written.
const OutputFailure = "output"

// FailedFiles is the name of the file in the output folder that lists failed input files.
const FailedFiles = "failed_files.txt"

// Failure is an input file that could not be embedded, or an output whose shards could not be joined.
type Failure struct {
	Path string
	Type string // missing, permission, format, record, memory, changed, OutputFailure, device or other
	Err  error
}

// outputError is an error in writing results.
type outputError struct{ error }

func (e *outputError) Unwrap() error { return e.error }

// NewFailure returns the failure of the input at path. Its type follows from err.
func NewFailure(path string, err error) Failure {
	return Failure{Path: path, Type: failureType(err), Err: err}
}

func failureType(err error) string {
	var device *DeviceError
	var output *outputError
	var format *seqio.FormatError
	switch {
	case errors.As(err, &device):
		return "device"
	case errors.Is(err, store.ErrRecord), errors.Is(err, ErrTooLong), errors.Is(err, seqio.ErrBadRecord), errors.Is(err, seqio.ErrLongRecord),
		errors.Is(err, seqio.ErrDuplicateID):
		return "record"
	case errors.Is(err, ErrMemory):
		return "memory"
	case errors.Is(err, ErrChanged):
		return "changed"
	case errors.As(err, &output):
		return OutputFailure
	case errors.As(err, &format):
		return "format"
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, seqio.ErrNoInput):
		return "missing"
	case errors.Is(err, fs.ErrPermission):
		return "permission"
	}
	return "other"
}

// line returns the failure's line in FailedFiles: path|type|message.
func (f Failure) line() string {
	message := strings.NewReplacer("\n", " ", "\r", " ").Replace(f.Err.Error())
	return escape(f.Path, "|%") + "|" + f.Type + "|" + escape(message, "|") + "\n"
}

// escape returns s with some bytes replaced by %XX: the given characters, characters that do not print, and bytes that
// are not UTF-8.
func escape(s, characters string) string {
	var b strings.Builder
	for i := 0; i < len(s); {
		r, size := utf8.DecodeRuneInString(s[i:])
		part := s[i : i+size]
		i += size
		if r == utf8.RuneError && size == 1 || !unicode.IsPrint(r) || strings.ContainsRune(characters, r) {
			for _, c := range []byte(part) {
				fmt.Fprintf(&b, "%%%02X", c)
			}
		} else {
			b.WriteString(part)
		}
	}
	return b.String()
}

// absolute returns the absolute form of a path, so that all forms of a path identify the same input. It returns "-",
// which stands for standard input, unchanged.
func absolute(path string) string {
	if abs, err := filepath.Abs(path); err == nil && path != "-" {
		return abs
	}
	return path
}

// parseLine is the inverse of Failure.line, except that it leaves the message escaped.
func parseLine(line string) Failure {
	fields := append(strings.SplitN(strings.TrimSuffix(line, "\n"), "|", 3), "", "")
	f := Failure{Path: fields[0], Type: fields[1], Err: errors.New(fields[2])}
	if path, err := url.PathUnescape(f.Path); err == nil { // an error means that another program has written the line
		f.Path = path
	}
	return f
}

// ReadFailures returns the failures that are listed in FailedFiles in the folder dir. If there is no such file, the
// list is empty.
func ReadFailures(dir string) (list []Failure, err error) {
	content, err := os.ReadFile(filepath.Join(dir, FailedFiles))
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	for line := range strings.Lines(string(content)) {
		list = append(list, parseLine(line))
	}
	return list, err
}

// WriteFailures adds the failures of a run to FailedFiles in the folder dir. It creates the folder and the file if
// needed. It removes the lines of earlier runs for the paths in done and in failed, and keeps all other lines. If no
// line is left, it removes the file. The paths in the new lines are absolute, because later runs may have other working
// directories.
func WriteFailures(ctx context.Context, dir string, done []string, failed []Failure) error {
	if len(failed) > 0 {
		if err := os.MkdirAll(dir, 0o777); err != nil {
			return err
		}
	}
	latest := map[string]bool{}
	var added strings.Builder
	for _, path := range done {
		latest[absolute(path)] = true
	}
	for _, f := range failed {
		f.Path = absolute(f.Path)
		latest[f.Path] = true
		added.WriteString(f.line())
	}
	return store.Edit(ctx, filepath.Join(dir, FailedFiles), func(old []byte) []byte {
		var list []byte
		for line := range bytes.Lines(old) {
			if !latest[absolute(parseLine(string(line)).Path)] {
				list = append(append(list, bytes.TrimSuffix(line, []byte("\n"))...), '\n')
			}
		}
		return append(list, added.String()...)
	})
}

// reasonMemory is the key in FileReport.Skipped that counts the skipped records that do not fit a device's memory.
const reasonMemory = "out of memory"

// failure returns the error with which the file has failed, or nil. The end of the run is not a failure: a file whose
// records are all computed is still written.
func (f *fileJob) failure() error {
	if cause := context.Cause(f.ctx); cause != context.Cause(f.run.ctx) {
		return cause
	}
	return nil
}
