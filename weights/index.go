package weights

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strings"
)

// maxText is the largest index or config.json that is read.
const maxText = 64 << 20

// openShards opens every shard that an index names and returns them by file name, with the shard of each tensor. Each
// tensor must lie in the shard that the index says.
func openShards(path string) (shards map[string]*File, shardOf map[string]string, err error) {
	text, err := readText(path)
	if err != nil {
		return nil, nil, err
	}
	if shardOf, err = parseIndex(text); err != nil {
		return nil, nil, fmt.Errorf("%s: %w", path, err)
	}
	shards = make(map[string]*File)
	fail := func(err error) (map[string]*File, map[string]string, error) {
		for _, f := range shards {
			err = errors.Join(err, f.Close())
		}
		return nil, nil, err
	}
	for _, shard := range slices.Sorted(maps.Values(shardOf)) {
		if shards[shard] != nil {
			continue
		}
		f, err := openFile(filepath.Join(filepath.Dir(path), shard))
		if errors.Is(err, fs.ErrNotExist) {
			return fail(fmt.Errorf("%s names the shard %s, which is missing: %w", path, shard, err))
		} else if err != nil {
			return fail(err)
		}
		shards[shard] = f
	}
	for _, name := range slices.Sorted(maps.Keys(shardOf)) {
		if _, ok := shards[shardOf[name]].tensors[name]; !ok {
			return fail(fmt.Errorf("%s puts tensor %q into %s, which does not hold it", path, name, shardOf[name]))
		}
	}
	return shards, shardOf, nil
}

// parseIndex reads the weight_map of an index: tensor name to shard file name. A shard name must be a plain name, so
// that an index cannot reach other folders.
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

// plainFileName says whether name is one path element that stays in its folder on every system.
func plainFileName(name string) bool {
	return name != "." && !strings.ContainsAny(name, "/\\:\x00") && filepath.IsLocal(name)
}

// readText reads a whole regular file of at most maxText bytes.
func readText(path string) ([]byte, error) {
	file, err := openRegular(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, maxText+1))
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", path, err)
	}
	if len(text) > maxText {
		return nil, fmt.Errorf("%s has more than %d bytes", path, maxText)
	}
	if err := formatError(formatOf(text[:min(len(text), 64)])); err != nil {
		return nil, fmt.Errorf("%s %w", path, err)
	}
	return text, nil
}
