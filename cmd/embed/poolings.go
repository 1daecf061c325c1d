package main

import (
	"slices"
	"strings"

	"seqembed/transformer"
)

// formerTokens is another name for the pooling "tokens". The flag --pool accepts both names.
const formerTokens = "none"

// parsePoolings sets s.poolings from the value of --pool. It returns a usage error for an unknown pooling, for a
// pooling that is listed twice, and for an empty list.
func (s *settings) parsePoolings() error {
	known := []transformer.Pooling{transformer.Mean, transformer.Max, transformer.CLS, transformer.Residues, transformer.Tokens}
	s.poolings = nil
	for _, name := range s.pool {
		p := transformer.Pooling(strings.TrimSpace(name))
		if p == formerTokens {
			p = transformer.Tokens
		}
		switch {
		case !slices.Contains(known, p):
			return usagef("--pool: %q is none of %s", name, joined(known))
		case slices.Contains(s.poolings, p):
			return usagef("--pool: %s is asked for twice", p)
		}
		s.poolings = append(s.poolings, p)
	}
	if len(s.poolings) == 0 {
		return usagef("--pool: at least one of %s has to be asked for", joined(known))
	}
	return nil
}

func joined(list []transformer.Pooling) string {
	names := make([]string, len(list))
	for i, p := range list {
		names[i] = string(p)
	}
	return strings.Join(names, ", ")
}

// poolingList returns the poolings in the syntax of --pool, such as "mean,max".
func (s *settings) poolingList() string { return strings.ReplaceAll(joined(s.poolings), " ", "") }
