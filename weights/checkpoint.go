// Package weights reads checkpoints: safetensors files, PyTorch zip archives, folders of shards with their index, and
// synthetic checkpoints that are computed rather than stored. It finds checkpoints in folders and in the local Hugging
// Face cache.
//
// The package must not know any model. Specs give the names and shapes of the tensors that a model expects, and the
// argument of Rename translates the names in files to these names. The package must not write anything, execute
// anything that a file asks for, or use the network, which only weights/hub does.
package weights

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"seqembed/weights/hub"
)

// Checkpoint is a set of tensors. Rename, which is optional, must be called before the tensors are used. Afterwards a
// Checkpoint is immutable and safe for concurrent use until Close.
type Checkpoint struct {
	Source     string // path of the opened file, or synthetic:NAME@SEED
	Revision   string // commit of the hub snapshot that contains the file, or ""
	ConfigJSON []byte // content of the config.json in the same folder, or nil
	// Values are the values of a PyTorch file outside its state dict, in the types of LoadPickle. They are nil for a
	// file that is only a state dict, for shards, and for other formats.
	Values  map[any]any
	LeftOut []string // names of the tensors that Rename has removed; sorted

	tensors   map[string]*Tensor
	misplaced map[string]error // by name, errors for tensors in a shard where the index does not place them
	files     []*file          // sorted by name
	identity  []byte           // text that SHA256 hashes for a synthetic checkpoint; nil for others
}

// Open opens the checkpoint at path: a safetensors file, a PyTorch zip archive (.bin, .pt, .pth), the *.index.json of a
// sharded checkpoint, or a folder that contains one of them. It recognises an index by the extension .json, and a
// PyTorch archive by its content. A file of the folder does not count as a checkpoint if its name ends in one of the
// strings in beside (see Find). The tensors have the names under which the file stores them, without prefixes such as
// "module." that all names share.
//
// Errors name the file. The error for a missing file matches fs.ErrNotExist. The error for a safetensors file or
// archive that is cut short matches ErrTruncated, if enough of the file is left to recognise its kind. The error for a
// pickle that asks for more than tensors matches ErrForbidden.
func Open(path string, beside ...string) (*Checkpoint, error) {
	path, err := Find(path, beside...)
	if err != nil {
		return nil, err
	}
	c := &Checkpoint{Source: path}
	_, c.Revision = hub.Of(path)
	if c.sharded() {
		err = c.openShards()
	} else {
		c.tensors, c.Values, err = c.open(path)
	}
	if err == nil {
		err = c.readConfig()
	}
	if err == nil {
		err = c.unwrap()
	}
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// wrappers lists the prefixes that PyTorch's tools, such as DataParallel, Lightning, torch.compile and PEFT, add to the
// names of a module's tensors.
var wrappers = [...]string{"module.", "model.", "_orig_mod.", "state_dict.", "base_model."}

// unwrap removes the prefixes in wrappers from the names of the tensors, as long as all names have the same prefix. It
// refuses the weights of adapters, because they are not a checkpoint by themselves.
func (c *Checkpoint) unwrap() error {
	adapter := func(name string) bool { return strings.Contains(name, ".lora_") }
	names := slices.Concat(c.Names(), slices.Sorted(maps.Keys(c.misplaced)))
	if i := slices.IndexFunc(names, adapter); i >= 0 || strings.HasPrefix(filepath.Base(c.Source), "adapter_model.") {
		return fmt.Errorf("%s holds an adapter (LoRA) of a model, not the model: merge it into its base model first, "+
			"as PEFT's merge_and_unload does, and save that", c.Source)
	}
	for len(names) > 0 {
		i := slices.IndexFunc(wrappers[:], func(prefix string) bool {
			return !slices.ContainsFunc(names, func(name string) bool { return !strings.HasPrefix(name, prefix) })
		})
		if i < 0 {
			break
		}
		for j, name := range names {
			names[j] = strings.TrimPrefix(name, wrappers[i])
		}
		c.tensors, c.misplaced = trimKeys(c.tensors, wrappers[i]), trimKeys(c.misplaced, wrappers[i])
	}
	return nil
}

// trimKeys removes a prefix from all keys of a map. All keys must have the prefix.
func trimKeys[T any](m map[string]T, prefix string) map[string]T {
	short := make(map[string]T, len(m))
	for name, v := range m {
		short[strings.TrimPrefix(name, prefix)] = v
	}
	return short
}

func (c *Checkpoint) sharded() bool { return strings.HasSuffix(c.Source, ".json") }

// open opens a safetensors file or a PyTorch zip archive. It returns the tensors by their names in the file, and the
// other values of the file.
func (c *Checkpoint) open(path string) (tensors map[string]*Tensor, values map[any]any, err error) {
	f, err := openFile(path)
	if err != nil {
		return nil, nil, err
	}
	c.files = append(c.files, f)
	switch {
	case f.isText():
		err = fmt.Errorf("text, not a checkpoint; a download may have left it there: it begins with %.60q", f.head)
	case f.isZip():
		tensors, values, err = readTorch(f)
	case filepath.Ext(path) == ".safetensors" || len(f.head) > 8 && f.head[8] == '{':
		tensors, err = readSafetensors(f)
	default:
		err = errors.New("neither a safetensors file nor a PyTorch zip archive")
	}
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", path, err)
	}
	return tensors, values, nil
}

// readConfig reads the config.json in the folder of the checkpoint, if there is one.
func (c *Checkpoint) readConfig() (err error) {
	path := filepath.Join(filepath.Dir(c.Source), "config.json")
	c.ConfigJSON, err = ReadText(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err == nil && !json.Valid(c.ConfigJSON):
		return fmt.Errorf("%s is not JSON: it begins with %.60q", path, c.ConfigJSON)
	}
	return err
}

// Rename renames each tensor. For the name that a tensor has after Open, the function canonical returns the new name
// and whether the tensor is used. Rename removes tensors that are not used, and returns an error if two tensors get the
// same name, or if a used tensor is in a shard where the index of the checkpoint does not place it.
func (c *Checkpoint) Rename(canonical func(stored string) (name string, use bool)) error {
	for _, stored := range slices.Sorted(maps.Keys(c.misplaced)) {
		if _, use := canonical(stored); use {
			return c.misplaced[stored]
		}
	}
	tensors, storedAs := make(map[string]*Tensor), make(map[string]string)
	for _, stored := range c.Names() {
		name, use := canonical(stored)
		if !use {
			c.LeftOut = append(c.LeftOut, stored)
			continue
		}
		if other, taken := storedAs[name]; taken {
			return fmt.Errorf("%s: tensors %q and %q are both %s", c.Source, other, stored, name)
		}
		storedAs[name] = stored
		tensors[name] = c.tensors[stored].named(name)
	}
	c.tensors = tensors
	return nil
}

// Tensor returns the tensor with that name.
func (c *Checkpoint) Tensor(name string) (*Tensor, bool) {
	t, ok := c.tensors[name]
	return t, ok
}

// Names returns the names of the tensors, sorted.
func (c *Checkpoint) Names() []string { return slices.Sorted(maps.Keys(c.tensors)) }

// SHA256 returns a SHA-256 in hexadecimal. For a checkpoint of a single file it is the digest of that file, which
// SHA256 reads completely. For a sharded checkpoint it is the digest of the output of `sha256sum` for the shards, in
// the order of their names: digest, two spaces and name on each line. For a synthetic checkpoint it is the digest of
// the version of synthetic checkpoints, the name, the seed, the names and shapes of the tensors, and the config. If ctx
// ends, the error wraps the cause of ctx.
func (c *Checkpoint) SHA256(ctx context.Context) (string, error) {
	hashed := c.identity
	for _, f := range c.files {
		digest, err := f.sha256(ctx)
		if err != nil || !c.sharded() {
			return digest, err
		}
		hashed = fmt.Appendf(hashed, "%s  %s\n", digest, filepath.Base(f.Name()))
	}
	sum := sha256.Sum256(hashed)
	return hex.EncodeToString(sum[:]), nil
}

// Beside returns the path of a file called name in the checkpoint's folder. It returns "" if there is no regular file
// of this name, or if the checkpoint is synthetic. A link to a missing file counts as a file, so that opening it
// reports the error.
func (c *Checkpoint) Beside(name string) string {
	path := filepath.Join(filepath.Dir(c.Source), name)
	if info, err := os.Lstat(path); c.identity != nil || err != nil || info.IsDir() {
		return ""
	} else if info, err = os.Stat(path); err == nil && !info.Mode().IsRegular() {
		return ""
	}
	return path
}

// Close closes the files of the checkpoint. Afterwards reading a tensor returns an error, unless the checkpoint is
// synthetic.
func (c *Checkpoint) Close() error {
	var errs []error
	for _, f := range c.files {
		errs = append(errs, f.Close())
	}
	return errors.Join(errs...)
}
