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

// Checkpoint is an opened set of tensors under their canonical names, with
// whatever describes them. It is immutable and safe for concurrent use until Close.
type Checkpoint struct {
	source    string
	revision  string
	config    []byte
	tokenizer string
	args      map[string]any
	tensors   map[string]*Tensor
	digest    func() (string, error)
	closers   []io.Closer
}

// preferred are the names under which a folder may hold its checkpoint, best first.
var preferred = [...]string{
	"model.safetensors", "model.safetensors.index.json",
	"pytorch_model.bin", "pytorch_model.bin.index.json",
}

// Open opens the checkpoint at path: a safetensors file, a PyTorch zip archive
// (.bin, .pt, .pth), the *.index.json of a sharded checkpoint, or a folder with
// one of them. In a folder model.safetensors comes first, then
// model.safetensors.index.json, pytorch_model.bin, pytorch_model.bin.index.json,
// then the only *.safetensors, *.pt, *.pth or *.bin. What kind of file it is
// follows from its contents. Errors name the file and the tensor; a missing file
// matches fs.ErrNotExist, one that is cut short ErrTruncated, a pickle that asks
// for more than tensors ErrForbidden.
func Open(path string) (*Checkpoint, error) {
	file, err := findCheckpoint(path)
	if err != nil {
		return nil, err
	}
	c := &Checkpoint{source: file, revision: hubSnapshot(file).revision}
	files := make(map[string]*File)
	if strings.HasSuffix(file, ".json") {
		files, err = openShards(file)
		c.digest = sync.OnceValues(func() (string, error) { return combinedDigest(files) })
	} else {
		var f *File
		if f, err = openFile(file); err == nil {
			files[filepath.Base(file)] = f
			c.args = f.args
			c.digest = sync.OnceValues(f.bytes.sha256)
		}
	}
	if err != nil {
		return nil, err
	}
	inOrder := make([]*File, 0, len(files))
	for _, name := range slices.Sorted(maps.Keys(files)) {
		inOrder = append(inOrder, files[name])
		c.closers = append(c.closers, files[name])
	}
	if c.tensors, err = canonicalTensors(inOrder); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", file, err), c.Close())
	}
	if err := c.readNeighbours(filepath.Dir(file)); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// readNeighbours takes in config.json and tokenizer.json, where they lie beside the checkpoint.
func (c *Checkpoint) readNeighbours(folder string) error {
	path := filepath.Join(folder, "config.json")
	config, err := readText(path)
	if errors.Is(err, fs.ErrNotExist) {
		config = nil
	} else if err != nil {
		return err
	} else if !json.Valid(config) {
		return fmt.Errorf("%s is not JSON", path)
	}
	c.config = config
	path = filepath.Join(folder, "tokenizer.json")
	if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
		c.tokenizer = path
	}
	return nil
}

// findCheckpoint returns path, or the checkpoint file in it if it is a folder.
func findCheckpoint(path string) (string, error) {
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
			// fair-esm puts the weights of its contact head, which no embedding needs, beside each model.
			if !strings.HasSuffix(name, "-contact-regression.pt") && !entry.IsDir() {
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

// combinedDigest is the SHA-256 of what `sha256sum SHARD...` prints for the
// shards in the order of their names: a line with digest, two spaces and name for each.
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

// Tensor returns the tensor with the canonical name, which is the one that
// transformers' EsmModel or DNABERT-S's BertModel uses, without a prefix.
func (c *Checkpoint) Tensor(name string) (*Tensor, bool) {
	t, ok := c.tensors[name]
	return t, ok
}

// Names returns the canonical names, sorted, without the tensors that are known
// to be of no use for embeddings (task heads, the pooler, position ids).
func (c *Checkpoint) Names() []string { return slices.Sorted(maps.Keys(c.tensors)) }

// Config returns the config.json beside the checkpoint, nil where there is none.
func (c *Checkpoint) Config() []byte { return bytes.Clone(c.config) }

// Args returns the hyper-parameters that a fair-esm .pt file carries, as plain
// values (LoadPickle lists their types), nil for any other checkpoint.
func (c *Checkpoint) Args() map[string]any { return maps.Clone(c.args) }

// Source returns the checkpoint's path, or synthetic:NAME@SEED, for messages.
func (c *Checkpoint) Source() string { return c.source }

// Revision returns the commit of the hub snapshot that the checkpoint lies in, "" elsewhere.
func (c *Checkpoint) Revision() string { return c.revision }

// SHA256 returns the SHA-256 of the checkpoint file in hexadecimal; it reads the
// whole file, once. For a sharded checkpoint it is that of the lines that
// `sha256sum` prints for the shards, sorted by name. For a synthetic one it is
// that of its identity: version, name, seed, the names and shapes of its
// tensors, and its config.
func (c *Checkpoint) SHA256() (string, error) { return c.digest() }

// TokenizerFile returns the path of the tokenizer.json beside the checkpoint, "" where there is none.
func (c *Checkpoint) TokenizerFile() string { return c.tokenizer }

// Close releases the files. Tensors can no longer be read then.
func (c *Checkpoint) Close() error {
	var errs []error
	for _, closer := range c.closers {
		errs = append(errs, closer.Close())
	}
	return errors.Join(errs...)
}
