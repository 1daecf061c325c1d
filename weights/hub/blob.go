package hub

import (
	"context"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"
	"time"

	"seqembed/internal/cancel"
	"seqembed/internal/flock"
)

// digestOf returns the hash with which the digest of a file's content is computed if the etag is a digest, and nil if
// it is not. The digest is the SHA-256 of the content, or the SHA-1 of a git object with the size and the content.
func digestOf(etag string, size int64) hash.Hash {
	switch _, err := hex.DecodeString(etag); {
	case err == nil && len(etag) == 2*sha256.Size:
		return sha256.New()
	case err == nil && len(etag) == 2*sha1.Size:
		h := sha1.New()
		fmt.Fprintf(h, "blob %d\x00", size)
		return h
	}
	return nil
}

// verify returns an ErrDamaged unless a file has the given size in bytes and, if the etag is a digest, the digest that
// the hub gave as its etag. When ctx ends, verify returns the cause of ctx.
func verify(ctx context.Context, path, etag string, size int64) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || info.Size() != size {
		return errors.Join(err, fmt.Errorf("%w: it does not have the %d bytes that the hub announced", ErrDamaged, size))
	}
	h := digestOf(etag, size)
	if h == nil {
		return nil
	}
	if _, err := io.Copy(h, cancel.Reader(ctx, f)); err != nil {
		return err
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != etag {
		return fmt.Errorf("%w: its digest is %s, and the hub announced %s", ErrDamaged, got, etag)
	}
	return nil
}

// place creates a file at the path link with the content of the file blob. It creates a relative symbolic link, as
// Hugging Face's libraries do. If the system does not allow symbolic links, it creates a hard link or a copy.
func place(ctx context.Context, blob, link string) error {
	target, err := filepath.Rel(filepath.Dir(link), blob)
	if err != nil {
		return err
	}
	for _, make := range []func() error{
		func() error { return os.Symlink(target, link) },
		func() error { return os.Link(blob, link) },
		func() error { return copyFile(ctx, blob, link) },
	} {
		if err = make(); err == nil {
			return nil
		}
		if _, there := os.Stat(link); there == nil {
			return nil // another process has created it
		}
		_ = os.Remove(link) // removes a link to a blob that is missing
	}
	return err
}

func copyFile(ctx context.Context, from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	part := to + ".incomplete"
	out, err := os.Create(part)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, cancel.Reader(ctx, in))
	if err = errors.Join(err, out.Close()); err != nil {
		return errors.Join(err, os.Remove(part))
	}
	return os.Rename(part, to)
}

// writeWhole replaces a small file so that at any time the file has either its old or its new content.
func writeWhole(path, text string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".ref-*")
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	err = errors.Join(err, f.Chmod(0o644), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name())
	}
	return err
}

// lock waits until it holds the lock on the lock file of a blob. Hugging Face's libraries lock the same file. If the
// system or the file system has no locks, lock does nothing. Two processes that download the same file may then write
// to the same incomplete file and damage it, which verify detects.
func lock(ctx context.Context, path string) (unlock func(), err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o666)
	if err != nil {
		return nil, err
	}
	for {
		if !errors.Is(flock.Try(f, false), flock.ErrLocked) { // this process has the lock, or there are no locks here
			return func() { _ = f.Close() }, nil
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			_ = f.Close()
			return nil, context.Cause(ctx)
		}
	}
}
