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

// OutputFailure is the type of a failure to write results.
const OutputFailure = "output"

// FailedFiles is the name of the list of failed files in an output folder.
const FailedFiles = "failed_files.txt"

// Failure is a file that was not embedded.
type Failure struct {
	Path string
	Type string // one word: missing, permission, format, record, changed, OutputFailure, device or other
	Err  error
}

// outputError marks an error of writing results.
type outputError struct{ error }

func (e *outputError) Unwrap() error { return e.error }

// NewFailure files an error under its type.
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

// line is the failure in the list: path|type|message, on one line.
func (f Failure) line() string {
	clean := strings.NewReplacer("\n", " ", "\r", " ")
	path := strings.ReplaceAll(clean.Replace(f.Path), "|", "%7C")
	return fmt.Sprintf("%s|%s|%s\n", path, f.Type, clean.Replace(f.Err.Error()))
}

// WriteFailures replaces the list in dir, which is created if needed, or removes an old one when nothing failed.
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
		_ = os.Remove(path) // a part of the list would be taken for all of it
	}
	return err
}
