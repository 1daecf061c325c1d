package main

import (
	"slices"
	"strings"

	"seqembed/internal/store"
	"seqembed/pool"
)

// choice is a flag whose value is one of a few words.
type choice struct {
	name, value string
	values      []string
}

// choices lists flags that take one of a few words, each with its value and the allowed words. It leaves out --format,
// --dtype and --log-format, which other functions check.
func (s *settings) choices() []choice {
	return append(s.policies(),
		choice{"dtype-out", s.dtypeOut, []string{string(store.FP32), string(store.FP16)}},
		choice{"long", s.long, []string{string(pool.LongTruncate), string(pool.LongWindow), string(pool.LongError)}},
	)
}

// policies lists the flags that select the treatment of bad records, the treatment of gaps, and the treatment of
// records with the id of an earlier record.
func (s *settings) policies() []choice {
	return []choice{
		{"on-bad-record", s.onBad, []string{"error", "skip"}},
		{"gaps", s.gaps, []string{"error", "remove"}},
		{"duplicates", s.duplicates, []string{"error", "suffix"}},
	}
}

// checkChoices returns a usage error for the first flag whose value is not one of its allowed words.
func checkChoices(list []choice) error {
	for _, f := range list {
		if !slices.Contains(f.values, f.value) {
			return usagef("--%s: %q is none of %s", f.name, f.value, strings.Join(f.values, ", "))
		}
	}
	return nil
}
