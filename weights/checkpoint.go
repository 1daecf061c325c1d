package weights

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
)

// Checkpoint is an opened set of tensors, with whatever describes them. Once Rename has been called, if at all, it is
// immutable and safe for concurrent use until Close.
type Checkpoint struct {
	source   string
	revision string
	config   []byte
	values   map[string]any
	tensors  map[string]*Tensor
	unplaced map[string]error // of a sharded checkpoint: tensors that its index does not put where they are
	leftOut  []string
	digest   func() (string, error)
	closers  []io.Closer
}

// preferred are the names under which a folder may hold its checkpoint, best first.
var preferred = [...]string{
	"model.safetensors", "model.safetensors.index.json",
	"pytorch_model.bin", "pytorch_model.bin.index.json",
}

// Open opens the checkpoint at path: a safetensors file, a PyTorch zip archive (.bin, .pt, .pth), the *.index.json of a
// sharded checkpoint, or a folder with one of them, see Find. What kind of file it is follows from its contents, and
// its tensors have the names that it stores. Errors name the file and the tensor; a missing file matches
// fs.ErrNotExist, one that is cut short ErrTruncated, a pickle that asks for more than tensors ErrForbidden.
func Open(path string, beside ...string) (*Checkpoint, error) {
	file, err := Find(path, beside...)
	if err != nil {
		return nil, err
	}
	c := &Checkpoint{source: file, revision: hubSnapshot(file).revision}
	if strings.HasSuffix(file, ".json") {
		err = c.openShards()
	} else {
		var f *File
		if f, err = openFile(file); err == nil {
			c.tensors, c.values = f.tensors, f.values
			c.digest = sync.OnceValues(f.bytes.sha256)
			c.closers = append(c.closers, f)
		}
	}
	if err != nil {
		return nil, err
	}
	if err := c.readConfig(); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// openShards opens what the index at c.source names.
func (c *Checkpoint) openShards() error {
	shards, shardOf, err := openShards(c.source)
	if err != nil {
		return err
	}
	c.digest = sync.OnceValues(func() (string, error) { return combinedDigest(shards) })
	c.tensors, c.unplaced = make(map[string]*Tensor), make(map[string]error)
	for _, shard := range slices.Sorted(maps.Keys(shards)) {
		c.closers = append(c.closers, shards[shard])
		for name, t := range shards[shard].tensors {
			if shardOf[name] == shard {
				c.tensors[name] = t
				continue
			}
			c.unplaced[name] = fmt.Errorf("%s holds tensor %q, which %s does not put there",
				shards[shard].bytes.path, name, filepath.Base(c.source))
		}
	}
	return nil
}

// readConfig takes in config.json, where it lies beside the checkpoint.
func (c *Checkpoint) readConfig() error {
	path := filepath.Join(filepath.Dir(c.source), "config.json")
	config, err := readText(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case !json.Valid(config):
		return fmt.Errorf("%s is not JSON", path)
	}
	c.config = config
	return nil
}

// Rename gives the tensors the names that canonical makes of the stored ones and leaves out those for which use is
// false. Two tensors that end up with one name are an error, and so is one that is used and lies in a shard where the
// index does not put it.
func (c *Checkpoint) Rename(canonical func(stored string) (name string, use bool)) error {
	for _, stored := range slices.Sorted(maps.Keys(c.unplaced)) {
		if _, use := canonical(stored); use {
			return c.unplaced[stored]
		}
	}
	tensors, storedAs := make(map[string]*Tensor), make(map[string]string)
	for _, stored := range c.Names() {
		name, use := canonical(stored)
		if !use {
			c.leftOut = append(c.leftOut, stored)
			continue
		}
		if other, taken := storedAs[name]; taken {
			return fmt.Errorf("%s: tensors %q and %q are both %s", c.source, other, stored, name)
		}
		storedAs[name] = stored
		tensors[name] = c.tensors[stored].named(name)
	}
	c.tensors = tensors
	return nil
}

// LeftOut returns the stored names of the tensors that Rename has left out, sorted.
func (c *Checkpoint) LeftOut() []string { return slices.Clone(c.leftOut) }

// Find returns path, or the checkpoint file in it if it is a folder: model.safetensors before
// model.safetensors.index.json, pytorch_model.bin, pytorch_model.bin.index.json and the only *.safetensors, *.pt, *.pth
// or *.bin. Files whose names end in one of beside lie next to checkpoints and are none.
func Find(path string, beside ...string) (string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", fmt.Errorf("opening a checkpoint: %w", err)
	}
	if !info.IsDir() {
		return path, nil
	}
	for _, name := range preferred {
		if info, err := os.Stat(filepath.Join(path, name)); err == nil && info.Mode().IsRegular() {
			return filepath.Join(path, name), nil
		}
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return "", err
	}
	var found []string
	for _, entry := range entries {
		name := entry.Name()
		switch filepath.Ext(name) {
		case ".safetensors", ".pt", ".pth", ".bin":
			isEnd := func(suffix string) bool { return strings.HasSuffix(name, suffix) }
			if !entry.IsDir() && !slices.ContainsFunc(beside, isEnd) {
				found = append(found, name)
			}
		}
	}
	switch len(found) {
	case 0:
		return "", fmt.Errorf("folder %s holds no checkpoint: none of %s, nor another .safetensors, .pt, .pth or .bin file",
			path, strings.Join(preferred[:], ", "))
	case 1:
		return filepath.Join(path, found[0]), nil
	}
	return "", fmt.Errorf("folder %s holds several checkpoints; name one of %s", path, listed(found))
}

// combinedDigest is the SHA-256 of what `sha256sum SHARD...` prints for the shards in the order of their names: a line
// with digest, two spaces and name for each.
func combinedDigest(shards map[string]*File) (string, error) {
	h := sha256.New()
	for _, name := range slices.Sorted(maps.Keys(shards)) {
		digest, err := shards[name].bytes.sha256()
		if err != nil {
			return "", err
		}
		fmt.Fprintf(h, "%s  %s\n", digest, name)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// Tensor returns the tensor of that name.
func (c *Checkpoint) Tensor(name string) (*Tensor, bool) {
	t, ok := c.tensors[name]
	return t, ok
}

// Names returns the names of the tensors, sorted.
func (c *Checkpoint) Names() []string { return slices.Sorted(maps.Keys(c.tensors)) }

// ConfigJSON returns the config.json beside the checkpoint, nil where there is none.
func (c *Checkpoint) ConfigJSON() []byte { return bytes.Clone(c.config) }

// Values returns what a PyTorch file holds beside a state dict that lies under "model", as plain values (LoadPickle
// lists their types), nil for any other checkpoint.
func (c *Checkpoint) Values() map[string]any { return maps.Clone(c.values) }

// Source returns the checkpoint's path, or synthetic:NAME@SEED, for messages.
func (c *Checkpoint) Source() string { return c.source }

// Revision returns the commit of the hub snapshot that the checkpoint lies in, "" elsewhere.
func (c *Checkpoint) Revision() string { return c.revision }

// SHA256 returns the SHA-256 of the checkpoint file in hexadecimal; it reads the whole file, once. For a sharded
// checkpoint it is that of the lines that `sha256sum` prints for the shards, sorted by name. For a synthetic one it is
// that of its identity: version, name, seed, the names and shapes of its tensors, and its config.
func (c *Checkpoint) SHA256() (string, error) { return c.digest() }

// Beside returns the path of the regular file of that name in the checkpoint's folder, "" where there is none.
func (c *Checkpoint) Beside(name string) string {
	path := filepath.Join(filepath.Dir(c.source), name)
	if info, err := os.Stat(path); len(c.closers) == 0 || err != nil || !info.Mode().IsRegular() {
		return ""
	}
	return path
}

// Close releases the files. Tensors can no longer be read then.
func (c *Checkpoint) Close() error {
	var errs []error
	for _, closer := range c.closers {
		errs = append(errs, closer.Close())
	}
	return errors.Join(errs...)
}
