package main

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
)

// errDiffers is wrapped by the error for an engine whose embeddings differ too much from embed's, or that has not
// computed the same records.
var errDiffers = errors.New("the embeddings differ")

// table prints the results of several engines as a Markdown table. Each of paths is a file with the summary of one
// engine. The first summary is that of embed in float32, to which the others are compared. The error wraps errDiffers
// if an engine used another number of records, tokens, threads or columns, or if an engine in float32 has an embedding
// whose relative L2 distance from embed's exceeds bar. The table also shows the distances after the mean of embed's
// embeddings is subtracted from all embeddings, because a large part that all embeddings have in common hides errors.
func table(out io.Writer, paths []string, bar float64) error {
	if len(paths) == 0 {
		return errors.New("no results to compare")
	}
	var ours summary
	var oursRows []float32
	var wrong error
	for i, path := range paths {
		s, rows, err := readSummary(path)
		if err != nil {
			return err
		}
		ratio, distance, centred := "", "", ""
		if i == 0 {
			ours, oursRows = s, rows
			fmt.Fprintf(out, "%s: %d records, %d tokens, %d threads\n\n", s.Model, s.Records, s.Tokens, s.Threads)
			fmt.Fprintln(out, "| | operands | version | how | tokens/s, median | best | rounds | padding | embed in fp32 is faster by (median) | largest relative L2 from it | the same without the mean |")
			fmt.Fprintln(out, "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |")
		} else {
			if s.Records != ours.Records || s.Tokens != ours.Tokens || s.Threads != ours.Threads || s.Dim != ours.Dim {
				wrong = errors.Join(wrong, fmt.Errorf("%w: %s ran over %d records, %d tokens, with %d threads", errDiffers, s.Runner, s.Records, s.Tokens, s.Threads))
			}
			d := farthest(rows, oursRows, ours.Dim)
			if s.DType == "fp32" && !(d <= bar) {
				wrong = errors.Join(wrong, fmt.Errorf("%w: the distance of %s is %.2g, the bar is %.0e", errDiffers, s.Runner, d, bar))
			}
			ratio, distance = fmt.Sprintf("%.2f", ours.Median/s.Median), fmt.Sprintf("%.1e", d)
			mean := meanRow(oursRows, ours.Dim)
			centred = fmt.Sprintf("%.1e", farthest(without(rows, mean), without(oursRows, mean), ours.Dim))
		}
		fmt.Fprintf(out, "| %s | %s | %s | %s | %.0f | %.0f | %d | %.1f%% | %s | %s | %s |\n", s.Runner, s.DType, s.Version, s.How,
			s.Median, s.Best, len(s.Seconds), 100*float64(s.Padded-s.Tokens)/float64(s.Padded), ratio, distance, centred)
	}
	return wrong
}

// readSummary reads the summary that one engine has printed, and the file of embeddings named in it.
func readSummary(path string) (s summary, rows []float32, err error) {
	line, err := os.ReadFile(path)
	if err != nil {
		return s, nil, err
	}
	if err := json.Unmarshal(line, &s); err != nil {
		return s, nil, fmt.Errorf("%s: %w", path, err)
	}
	if s.Median <= 0 || s.Tokens <= 0 || s.Padded <= 0 {
		return s, nil, fmt.Errorf("%s: no round was timed", path)
	}
	values, err := os.ReadFile(s.Embeddings)
	if err != nil {
		return s, nil, fmt.Errorf("%s: %w", path, err)
	}
	if len(values) != 4*s.Records*s.Dim {
		return s, nil, fmt.Errorf("%s: %s has %d bytes, %d records of %d float32 are %d", path, s.Embeddings, len(values), s.Records, s.Dim, 4*s.Records*s.Dim)
	}
	rows = make([]float32, len(values)/4)
	return s, rows, binary.Read(bytes.NewReader(values), binary.LittleEndian, rows)
}

// farthest returns the largest relative L2 distance of a row of got from the same row of want. A row has dim values.
// The distance is infinite if a value is NaN, or if got and want differ in length.
func farthest(got, want []float32, dim int) (worst float64) {
	if len(got) != len(want) || dim <= 0 || len(want) == 0 {
		return math.Inf(1)
	}
	for at := 0; at < len(want); at += dim {
		diff, norm := 0.0, 0.0
		for i := at; i < at+dim; i++ {
			d, w := float64(got[i])-float64(want[i]), float64(want[i])
			diff += d * d
			norm += w * w
		}
		e := math.Sqrt(diff / norm)
		if math.IsNaN(e) {
			return math.Inf(1)
		}
		worst = max(worst, e)
	}
	return worst
}

// meanRow returns the mean of all rows of dim values.
func meanRow(rows []float32, dim int) []float64 {
	mean := make([]float64, dim)
	for i, v := range rows {
		mean[i%dim] += float64(v) * float64(dim) / float64(len(rows))
	}
	return mean
}

// without subtracts row from each of the rows and returns the results.
func without(rows []float32, row []float64) []float32 {
	rest := make([]float32, len(rows))
	for i, v := range rows {
		rest[i] = float32(float64(v) - row[i%len(row)])
	}
	return rest
}
