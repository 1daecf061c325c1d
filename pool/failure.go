package pool

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"seqembed/internal/seqio"
	"seqembed/internal/store"
)

// OutputFailure is the type of failures to write results.
const OutputFailure = "output"

// FailedFiles is the name of the file in the output folder that lists failed input files.
const FailedFiles = "failed_files.txt"

// Failure is an input file that could not be embedded.
type Failure struct {
	Path string
	Type string // missing, permission, format, record, memory, changed, OutputFailure, device or other
	Err  error
}

// outputError is an error in writing results.
type outputError struct{ error }

func (e *outputError) Unwrap() error { return e.error }

// NewFailure returns the failure of path with the type that follows from err.
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
	case errors.Is(err, store.ErrRecord), errors.Is(err, ErrTooLong), errors.Is(err, seqio.ErrBadRecord), errors.Is(err, seqio.ErrDuplicateID):
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
	clean := strings.NewReplacer("\n", " ", "\r", " ")
	path := strings.ReplaceAll(clean.Replace(f.Path), "|", "%7C")
	return fmt.Sprintf("%s|%s|%s\n", path, f.Type, clean.Replace(f.Err.Error()))
}

// WriteFailures writes FailedFiles in dir, which it creates if needed. If nothing has failed, it removes the file of an
// earlier run.
func WriteFailures(dir string, failed []Failure) error {
	path := filepath.Join(dir, FailedFiles)
	if len(failed) == 0 {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return err
	}
	var list strings.Builder
	for _, f := range failed {
		list.WriteString(f.line())
	}
	err := os.WriteFile(path, []byte(list.String()), 0o644)
	if err != nil {
		_ = os.Remove(path) // an incomplete list would be mistaken for a complete one
	}
	return err
}
