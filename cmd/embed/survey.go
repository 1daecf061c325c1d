package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"seqembed/internal/store"
	"seqembed/pool"
)

// inspectFile prints counts of an output file, such as its rows and NaN values. The exit code is exitSome if ids are
// repeated, or if values are NaN, infinite, or the same in a whole row.
func inspectFile(ctx context.Context, path string, asJSON bool, w io.Writer) (code int, err error) {
	t, err := openAnyTable(ctx, path)
	switch {
	case ctx.Err() != nil:
		return exitInterrupted, pool.ErrInterrupted
	case err != nil:
		return exitNothing, err
	}
	defer t.Close()
	stopOnInterrupt(ctx, t)
	s, err := t.Survey()
	switch {
	case ctx.Err() != nil:
		return exitInterrupted, pool.ErrInterrupted
	case err != nil:
		return exitNothing, err
	}
	if asJSON {
		err = printSurveyJSON(w, path, t, s)
	} else {
		err = printSurvey(w, path, t, s)
	}
	if err != nil {
		return exitNothing, err
	}
	bad := s.RepeatedIDs
	for _, c := range s.Columns {
		bad += c.NaN + c.Infinite + c.Zero + c.Constant
	}
	if bad > 0 {
		return exitSome, nil
	}
	return exitDone, nil
}

// stopOnInterrupt makes t.Read, which reads the rows of a table, return an error once ctx has ended.
func stopOnInterrupt(ctx context.Context, t *store.Table) {
	read := t.Read
	t.Read = func(yield func(*store.Row) error) error {
		return read(func(r *store.Row) error {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return yield(r)
		})
	}
}

// printSurvey prints the counts of a survey, such as those of NaN and of equal rows, as text.
func printSurvey(w io.Writer, path string, t *store.Table, s store.Survey) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s, %s records", plain(path), t.Format, grouped(s.Records))
	if !t.IDs {
		b.WriteString(" without ids")
	} else if s.RepeatedIDs > 0 {
		fmt.Fprintf(&b, ", %s with the id of an earlier one", grouped(s.RepeatedIDs))
	}
	b.WriteString("\n")
	for i, c := range s.Columns {
		fmt.Fprintf(&b, "%s: %s rows of %d %s", plain(t.Names[i]), grouped(c.Rows), t.Dim, t.DType)
		for _, f := range []struct {
			n           int64
			text, first string
		}{
			{c.NaN, "NaN values", c.FirstNaN}, {c.Infinite, "infinite values", c.FirstInf}, {c.Zero, "rows of zeros", c.FirstZero},
			{c.Constant, "constant rows", c.FirstSame}, {c.Repeated, "rows equal to an earlier one", ""},
		} {
			if f.n == 0 {
				continue
			}
			fmt.Fprintf(&b, ", %s %s", grouped(f.n), f.text)
			if f.first != "" {
				fmt.Fprintf(&b, " (first in %s)", plain(f.first))
			}
		}
		b.WriteString("\n")
	}
	if s.Counted < s.Records {
		fmt.Fprintf(&b, "equal ids and rows are those among the first %s\n", grouped(s.Counted))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// printSurveyJSON prints the counts of a survey as one JSON object.
func printSurveyJSON(w io.Writer, path string, t *store.Table, s store.Survey) error {
	type column struct {
		Name     string `json:"name"`
		Rows     int64  `json:"rows"`
		Dim      int    `json:"dim"`
		DType    string `json:"dtype"`
		NaN      int64  `json:"nan"`
		Infinite int64  `json:"infinite"`
		Zero     int64  `json:"zero_rows"`
		Constant int64  `json:"constant_rows"`
		Repeated int64  `json:"repeated_rows"`
	}
	out := struct {
		Path        string            `json:"path"`
		Format      string            `json:"format"`
		Records     int64             `json:"records"`
		RepeatedIDs int64             `json:"repeated_ids"`
		Columns     []column          `json:"columns"`
		Meta        map[string]string `json:"metadata"`
	}{path, string(t.Format), s.Records, s.RepeatedIDs, nil, t.Meta}
	for i, c := range s.Columns {
		out.Columns = append(out.Columns, column{t.Names[i], c.Rows, t.Dim, string(t.DType), c.NaN, c.Infinite, c.Zero, c.Constant, c.Repeated})
	}
	line, err := json.Marshal(out)
	if err == nil {
		_, err = w.Write(append(line, '\n'))
	}
	return err
}
