package main

import (
	"slices"
	"strings"

	"seqembed/internal/seqio"
)

// checkPolicies checks the flags about bad records.
func (s *settings) checkPolicies() error {
	for _, f := range []struct{ name, value, other string }{
		{"on-bad-record", s.onBad, "skip"}, {"gaps", s.gaps, "remove"}, {"duplicates", s.duplicates, "suffix"},
	} {
		if allowed := []string{"error", f.other}; !slices.Contains(allowed, f.value) {
			return usagef("--%s: %q is none of %s", f.name, f.value, strings.Join(allowed, ", "))
		}
	}
	return nil
}

// reading returns the options of the reader that the flags select.
func (s *settings) reading() seqio.Options {
	o := seqio.Options{KeepCase: s.keepCase, MinLength: s.minLength}
	if s.onBad == "skip" {
		o.OnBad = seqio.BadSkip
	}
	if s.gaps == "remove" {
		o.Gaps = seqio.GapsRemove
	}
	if s.duplicates == "suffix" {
		o.Duplicates = seqio.DuplicateSuffix
	}
	return o
}
