package weights

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strings"
)

// openShards opens every shard that the index file at c.Source names. It returns an error if a tensor is not in the
// shard in which the index places it. If a shard contains a tensor that the index does not place in this shard,
// openShards records an error in c.misplaced.
func (c *Checkpoint) openShards() error {
	text, err := ReadText(c.Source)
	if err != nil {
		return err
	}
	shardOf, err := parseIndex(text)
	if err != nil {
		return fmt.Errorf("%s: %w", c.Source, err)
	}
	c.tensors, c.misplaced = make(map[string]*Tensor), make(map[string]error)
	for _, shard := range slices.Compact(slices.Sorted(maps.Values(shardOf))) {
		path := filepath.Join(filepath.Dir(c.Source), shard)
		tensors, _, err := c.open(path)
		if errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%s names the shard %s, which is missing: %w", c.Source, shard, err)
		} else if err != nil {
			return err
		}
		for name, t := range tensors {
			if shardOf[name] == shard {
				c.tensors[name] = t
			} else {
				c.misplaced[name] = fmt.Errorf("%s holds tensor %q, which %s does not put there", path, name, filepath.Base(c.Source))
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(shardOf)) {
		if c.tensors[name] == nil {
			return fmt.Errorf("%s puts tensor %q into %s, which does not hold it", c.Source, name, shardOf[name])
		}
	}
	return nil
}

// parseIndex parses the weight_map of an index, which maps the names of tensors to the file names of shards. It refuses
// a name that is a path, so that an index cannot refer to other folders.
func parseIndex(text []byte) (map[string]string, error) {
	shardOf := make(map[string]string)
	decoder := json.NewDecoder(bytes.NewReader(text))
	err := decodeObject(decoder, func(key string) error {
		if key != "weight_map" {
			var ignored json.RawMessage
			return decoder.Decode(&ignored)
		}
		return decodeObject(decoder, func(name string) error {
			var shard string
			if err := decoder.Decode(&shard); err != nil {
				return err
			}
			if !plainFileName(shard) {
				return fmt.Errorf("the shard %q is not a plain file name", shard)
			}
			shardOf[name] = shard
			return nil
		})
	})
	if err != nil {
		return nil, err
	}
	if len(shardOf) == 0 {
		return nil, errors.New(`has no "weight_map" with tensors: not the index of a sharded checkpoint`)
	}
	return shardOf, nil
}

// plainFileName reports whether name is a single path element on every system.
func plainFileName(name string) bool {
	return name != "." && !strings.ContainsAny(name, "/\\:\x00") && filepath.IsLocal(name)
}
