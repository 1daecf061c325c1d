package store

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"seqembed/internal/cancel"
)

// State is the state of a file in an output folder, compared with the manifest.
type State string

// States of files.
const (
	Complete   State = "complete"   // the file is as the manifest describes it
	Changed    State = "changed"    // the file is not as the manifest describes it
	Missing    State = "missing"    // the manifest describes the file, but it does not exist
	Unfinished State = "unfinished" // a run is writing the file, or was killed while it wrote it
	Foreign    State = "foreign"    // the manifest does not describe the file
	Unreadable State = "unreadable" // the file or folder cannot be read
)

// Inspected is a file of an output folder.
type Inspected struct {
	Path   string `json:"path"` // relative to the folder, with slashes
	State  State  `json:"state"`
	Detail string `json:"detail,omitempty"` // reason for the state, if there is more to say
	Input  string `json:"input,omitempty"`  // path of the input as the user gave it; empty if unknown
}

// clockSkew is the tolerated difference between two clocks: the clock of the machine that ran the program sets the
// times in the manifest, and the clock of a file server sets the modification times of files.
const clockSkew = time.Minute

// Inspect compares the files of a folder with its manifest. It calls report for each file but the manifest itself:
// first for the files that the manifest describes, then for the others, in the order of their paths. It compares the
// digests of the files. If quick is set, it compares only their sizes, and checks that no file was modified after it
// was finished. Inspect leaves out a file that the manifest does not describe if the function known returns true for
// the path of the file, which is relative to dir and has slashes.
//
// If the manifest is damaged, Inspect reports all files according to the lines that can be read, and returns an
// ErrManifest at the end.
func Inspect(ctx context.Context, dir string, quick bool, known func(path string) bool, report func(Inspected)) error {
	m, damage := readDespiteDamage(dir)
	if m == nil {
		return damage
	}
	replaced := m.allReplaced()
	for _, key := range slices.Sorted(maps.Keys(m.last)) {
		o := m.last[key]
		state, detail, err := o.inspect(ctx, quick)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			state, detail = Unreadable, err.Error()
		case replaced[key] && state == Missing:
			continue
		case replaced[key]:
			state, detail = Changed, "belongs to an earlier output, whose list of ids was replaced"
		}
		report(Inspected{relative(dir, key), state, detail, o.Input.Path})
	}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		rel := relative(dir, path)
		switch _, described := m.last[outputKey(path)]; {
		case err != nil && path == dir:
			return ioError("read", path, err)
		case err != nil:
			report(Inspected{rel, Unreadable, ioError("read", path, err).Error(), ""})
		case d.IsDir() && described:
			return filepath.SkipDir
		case d.IsDir() && leftoverName.MatchString(strings.TrimSuffix(d.Name(), folderSuffix)):
			return filepath.SkipDir // the temporary file beside the folder is reported
		case d.IsDir() || described || rel == ManifestName || known(rel):
		case leftoverName.MatchString(d.Name()):
			report(Inspected{rel, Unfinished, temporaryState(path), ""})
		case partsName.MatchString(d.Name()):
			report(Inspected{rel, Unfinished, partsState(path), ""})
		default:
			report(Inspected{rel, Foreign, "", ""})
		}
		return ctx.Err()
	})
	return cmp.Or(err, damage)
}

// allReplaced returns the keys of the NumPy files whose list of ids has been replaced by a later output without them
// (see Manifest.Replaced).
func (m *Manifest) allReplaced() map[string]bool {
	replaced := map[string]bool{}
	for ids, arrays := range m.arrays {
		later := m.last[ids]
		for key := range arrays {
			named := slices.ContainsFunc(later.Outputs, func(o File) bool { return outputKey(o.Path) == key })
			replaced[key] = !named && !later.Finished.IsZero()
		}
	}
	return replaced
}

// readDespiteDamage reads a manifest. If the manifest is damaged, readDespiteDamage returns its readable lines together
// with the error. After any other error it returns no manifest.
func readDespiteDamage(dir string) (*Manifest, error) {
	m, damage := ReadManifest(dir)
	if damage == nil {
		return m, nil
	}
	content, err := os.ReadFile(m.path()) // missing if the folder has only a manifest of version 1
	if !errors.Is(damage, ErrManifest) || err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, damage
	}
	m.reset()
	kept, err := readableLines(dir, content)
	if err != nil || m.addLines(kept) != nil {
		return nil, damage
	}
	return m, damage
}

func relative(dir, path string) string {
	rel, err := filepath.Rel(dir, path)
	if err != nil {
		return path
	}
	return filepath.ToSlash(rel)
}

// inspect compares an output file with its entry in the manifest.
func (o outputEntry) inspect(ctx context.Context, quick bool) (state State, detail string, err error) {
	size, info, err := Size(o.file.Path)
	switch {
	case errors.Is(err, fs.ErrNotExist) && o.Finished.IsZero():
		return Unfinished, "a run was killed before the file got its name, or is still writing it", nil
	case errors.Is(err, fs.ErrNotExist):
		return Missing, "", nil
	case err != nil:
		return "", "", ioError("read", o.file.Path, err)
	case o.Finished.IsZero():
		return Unfinished, "a run was killed when the file got its name", nil
	case size != o.file.Size:
		return Changed, fmt.Sprintf("%d bytes, %d in the manifest", size, o.file.Size), nil
	case quick && info.ModTime().Sub(o.Finished) > clockSkew:
		return Changed, "modified after it was finished; without --quick its content counts", nil
	case quick:
		return Complete, "", nil
	}
	sum, err := HashFile(ctx, o.file.Path)
	switch {
	case err != nil:
		return "", "", err
	case sum != o.file.SHA256:
		return Changed, "another SHA-256 than in the manifest", nil
	}
	return Complete, "", nil
}

// temporaryState describes the state of a temporary file, or of the file by which a run claims an output folder (see
// claimPrefix).
func temporaryState(path string) string {
	h, alive := osFS{}.readClaim(path)
	switch {
	case alive == nil:
		return "left by a run that was killed; the next run removes it"
	case !errors.Is(alive, ErrLocked):
		return "of a run that may have been killed: this file system has no locks"
	case strings.HasPrefix(filepath.Base(path), claimPrefix):
		return "a run is going on: " + h.String()
	}
	return "being written"
}

// HashFile returns the SHA-256 of a file in hexadecimal. For a folder it is the SHA-256 of the lines that the program
// sha256sum prints for the files of the folder, in the order of their names. If ctx ends, HashFile returns an error
// that wraps the cause.
func HashFile(ctx context.Context, path string) (string, error) {
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		return hashFolder(ctx, path)
	}
	f, err := os.Open(path)
	if err != nil {
		return "", ioError("read", path, err)
	}
	defer f.Close()
	sum, err := Hash(ctx, f)
	if err != nil {
		return "", ioError("read", path, err)
	}
	return sum, nil
}

// Hash returns the SHA-256 of the content of r, in hexadecimal. If ctx ends, Hash returns an error.
func Hash(ctx context.Context, r io.Reader) (string, error) {
	sum := sha256.New()
	_, err := io.Copy(sum, cancel.Reader(ctx, r))
	return hex.EncodeToString(sum.Sum(nil)), err
}
