package main

import (
	"seqembed/internal/seqio"
	"seqembed/kernels/cpu"
)

// reading returns the options for reading FASTA and FASTQ that the flags select.
func (s *settings) reading() seqio.Options {
	o := seqio.Options{KeepCase: s.keepCase, MinLength: s.minLength, Longest: longestRecord(cpu.Available())}
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

// longestRecord returns the maximum number of letters of a record, given the number of bytes of memory that are
// available. The text by names this memory, for example "the free memory of the machine". A record takes up to 8 bytes
// a letter before it is embedded. So a record with one letter for every 12 bytes takes at most two thirds of the
// memory. The maximum is at least 2²⁰ letters, which take up to 8 MiB: with less memory no model can be loaded, and the
// error for the model is clearer. If the maximum would exceed seqio.MaxLetters, longestRecord returns the zero Limit,
// which means seqio.MaxLetters.
func longestRecord(bytes int64, by string) seqio.Limit {
	if letters := max(1<<20, bytes/12); letters < seqio.MaxLetters {
		return seqio.Limit{Letters: int(letters), By: by}
	}
	return seqio.Limit{}
}
