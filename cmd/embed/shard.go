package main

import (
	"log/slog"
	"slices"
	"strconv"
	"strings"

	"seqembed/pool"
)

// maxShards is the maximum of N in --shard I/N.
const maxShards = 1 << 20

// taskVariables lists the environment variables in which schedulers number the tasks of an array, each with the number
// that the first task must have.
var taskVariables = []struct {
	name  string
	first int
}{{"SLURM_ARRAY_TASK_ID", 1}, {"JOB_COMPLETION_INDEX", 0}, {"AWS_BATCH_JOB_ARRAY_INDEX", 0}}

// parseShard sets s.shard from --shard and --shards.
func (s *settings) parseShard() error {
	switch {
	case s.shardText == "" && s.given("shards"):
		return usagef("--shards is about --shard auto")
	case s.shardText == "":
		return nil
	case s.preset != nil:
		return usagef("--shard and --preset exclude each other: a preset makes its files from whole inputs")
	case s.shardText == "auto":
		return s.findShard()
	case s.given("shards"):
		return usagef("--shards is about --shard auto; --shard I/N has the number already")
	}
	i, n, ok := strings.Cut(s.shardText, "/")
	var err, err2 error
	s.shard.I, err = strconv.Atoi(i)
	s.shard.N, err2 = strconv.Atoi(n)
	if !ok || err != nil || err2 != nil || s.shard.I < 1 || s.shard.I > s.shard.N || s.shard.N > maxShards {
		return usagef("--shard: %q is neither auto nor I/N with I from 1 to N, such as 3/8", s.shardText)
	}
	return nil
}

// findShard sets s.shard for --shard auto. The number of this shard comes from a variable of the scheduler, and the
// number of all shards from --shards. A scheduler's own number of tasks would be wrong if some tasks are submitted
// again without the others.
func (s *settings) findShard() error {
	if s.shards < 1 || s.shards > maxShards {
		return usagef("--shard auto needs --shards N, the number of all shards")
	}
	for _, v := range taskVariables {
		at := slices.IndexFunc(s.environ, func(set string) bool { return strings.HasPrefix(set, v.name+"=") })
		if at < 0 {
			continue
		}
		text := strings.TrimPrefix(s.environ[at], v.name+"=")
		task, err := strconv.Atoi(text)
		s.shard = pool.Shard{I: task - v.first + 1, N: s.shards}
		if err != nil || s.shard.I < 1 || s.shard.I > s.shard.N {
			return usagef("--shard auto: %s is %q; with --shards %d the tasks have the numbers %d to %d", v.name, text, s.shards, v.first, v.first+s.shards-1)
		}
		return nil
	}
	var names []string
	for _, v := range taskVariables {
		names = append(names, v.name)
	}
	return usagef("--shard auto: none of %s is set", strings.Join(names, ", "))
}

// divide reduces the job to one shard, the part of the records that --shard I/N gives to this run. Without --shard it
// does nothing.
func (s *settings) divide(j *pool.Job, log *slog.Logger) error {
	if s.shard == (pool.Shard{}) {
		return nil
	}
	all := len(j.Files)
	if err := j.Divide(s.shard); err != nil {
		return usagef("--shard: %w", err)
	}
	log.Info("a shard", "shard", s.shard.String(), "inputs", len(j.Files), "of", all)
	count, size := 0, int64(0)
	for _, f := range j.Files {
		if f.Part.Interleaved() && f.Part.To-f.Part.From < f.Part.Size {
			count, size = count+1, size+f.Part.Size
		}
	}
	if count > 0 {
		log.Info("this shard decompresses and parses whole inputs for a part of their records, as do the others that share them; "+
			"files of bgzip are cut instead", "inputs", count, "bytes", size)
	}
	return nil
}
