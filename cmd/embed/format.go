package main

import (
	"seqembed/internal/store"
	"seqembed/transformer"
)

// checkFormat returns a usage error if --format is unknown, or if the other flags ask for something that the format
// cannot hold. The caller must have called parsePoolings.
func (s *settings) checkFormat() error {
	if _, err := store.ParseFormat(s.format); err != nil {
		return usagef("--format: %w", err)
	}
	if s.format == string(store.VirNucPro) && (len(s.layers) != 1 || s.poolingList() != string(transformer.Mean) || s.dtypeOut != string(store.FP32)) {
		return usagef("--format virnucpro holds one mean vector of float32 a record: one layer, --pool mean and --dtype-out fp32")
	}
	if s.compress && s.format != string(store.Parquet) {
		return usagef("--compress is about --format parquet")
	}
	if s.h5Matrix && s.format != string(store.H5) {
		return usagef("--h5-matrix is about --format h5")
	}
	columns := store.Spec{Format: store.Format(s.format), Matrix: s.h5Matrix}
	for _, p := range s.poolings {
		columns.Columns = append(columns.Columns, store.Column{Pooling: store.Pooling(p)})
	}
	if err := columns.Supported(); err != nil {
		return usagef("--pool: %w", err)
	}
	return nil
}

// formatParameter returns the values of --format, --compress and --h5-matrix as one text for the manifest.
func (s *settings) formatParameter() string {
	text := s.format
	if s.compress {
		text += ", compressed"
	}
	if s.h5Matrix {
		text += ", one matrix"
	}
	return text
}
