package main

import (
	"seqembed/internal/store"
	"seqembed/transformer"
)

// checkFormat returns a usage error if the format is unknown, or does not go with the flags about its layout. The
// poolings must have been parsed.
func (c *command) checkFormat() error {
	if _, err := store.ParseFormat(c.format); err != nil {
		return usagef("--format: %w", err)
	}
	if c.format == string(store.VirNucPro) && (len(c.layers) != 1 || c.poolingList() != string(transformer.Mean) || c.dtypeOut != string(store.FP32)) {
		return usagef("--format virnucpro holds one mean vector of float32 a record: one layer, --pool mean and --dtype-out fp32")
	}
	if c.compress && c.format != string(store.Parquet) {
		return usagef("--compress is about --format parquet")
	}
	if c.h5Matrix && c.format != string(store.H5) {
		return usagef("--h5-matrix is about --format h5")
	}
	columns := store.Spec{Format: store.Format(c.format), Matrix: c.h5Matrix}
	for _, p := range c.poolings {
		columns.Columns = append(columns.Columns, store.Column{Pooling: store.Pooling(p)})
	}
	if err := columns.Supported(); err != nil {
		return usagef("--pool: %w", err)
	}
	return nil
}

// formatParameter describes --format, --compress and --h5-matrix in a manifest.
func (c *command) formatParameter() string {
	text := c.format
	if c.compress {
		text += ", compressed"
	}
	if c.h5Matrix {
		text += ", one matrix"
	}
	return text
}
