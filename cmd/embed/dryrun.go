package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"seqembed/internal/seqio"
	"seqembed/internal/store"
	"seqembed/pool"
)

// surveyAll prints the work of a run, without computing embeddings and without writing files. For each input it prints
// the numbers of records, tokens, truncated and skipped records, and the output with its approximate size. For each
// model it prints the estimated time on each device, if the manifest of the output folder tells the speed of earlier
// runs. An input that would fail is listed as failed.
func (c *command) surveyAll(ctx context.Context, models []*model) error {
	out := bufio.NewWriter(c.stdout)
	for _, m := range models {
		fmt.Fprintf(out, "%s, %s\n", m.Alphabet, m.model)
		var todo, done pool.Survey
		var bytes int64
		left, complete := 0, 0
		for _, f := range m.job.Files {
			s, err := m.job.Survey(ctx, f)
			switch {
			case errors.Is(err, pool.ErrInterrupted), errors.Is(err, pool.ErrMixture):
				return err
			case err != nil:
				failure := pool.NewFailure(f.Path, err)
				c.progress.FileFailed(failure)
				c.total.Failed = append(c.total.Failed, failure)
				continue
			}
			c.total.Files = append(c.total.Files, pool.FileReport{Path: f.Path})
			size := m.outputSize(c.settings, s)
			fmt.Fprintf(out, "  %s\n", surveyLine(s, size))
			if err := out.Flush(); err != nil {
				return err
			}
			sum := &todo
			if s.Complete {
				complete++
				sum = &done
			} else {
				left++
				bytes += size
			}
			sum.Records, sum.Tokens = sum.Records+s.Records, sum.Tokens+s.Tokens
		}
		fmt.Fprintf(out, "  to do: %d inputs, %s records, %s tokens, about %s; complete already: %d inputs, %s records\n", left,
			grouped(todo.Records), grouped(todo.Tokens), aboutBytes(bytes), complete, grouped(done.Records))
		if todo.Tokens > 0 {
			printTimes(out, m, todo.Tokens)
		}
	}
	return out.Flush()
}

// surveyLine returns the line of a dry run about one input. size is the estimated size of the output in bytes.
func surveyLine(s pool.Survey, size int64) string {
	line := plain(s.Path) + ": "
	if s.Unread {
		return line + "not read, because it can be read only once -> " + plain(s.Output)
	}
	line += fmt.Sprintf("%s records, %s tokens, %s truncated", grouped(s.Records), grouped(s.Tokens), grouped(s.Truncated))
	if s.Skipped > 0 {
		line += fmt.Sprintf(", %s skipped", grouped(s.Skipped))
	}
	line += fmt.Sprintf(" -> %s, about %s", plain(s.Output), aboutBytes(size))
	if s.Complete {
		line += ", complete already"
	}
	return line
}

// outputSize estimates the size of an output in bytes: that of its values, ids and descriptions, and of the headers of
// its format.
func (m *model) outputSize(with *settings, s pool.Survey) (size int64) {
	perValue, perRecord := int64(4), int64(0)
	switch format := store.Format(with.format); {
	case format == store.TSV:
		perValue = 11 // bytes of a decimal number and a tab
	case format == store.VirNucPro && m.Alphabet == seqio.DNA:
		perValue = 9 // bytes of a 64-bit float in a pickle
	case with.dtypeOut == string(store.FP16):
		perValue = 2
	}
	switch format := store.Format(with.format); {
	case format == store.VirNucPro && m.Alphabet == seqio.Protein:
		perRecord = 190 // bytes of the entry of a tensor in a zip file
	case format == store.H5 && !with.h5Matrix:
		perRecord = 430 * int64(len(m.columns)) // bytes of the headers of an array
	case format == store.Pt:
		perRecord = 800 // bytes of the headers of a zip file; each record is a zip file
	}
	for _, column := range m.storedColumns() {
		rows := s.Records
		if !column.Pooling.PerRecord() {
			rows = s.Tokens
		} else if with.windows {
			rows = s.Windows
		}
		size += rows * int64(m.config.Hidden) * perValue
	}
	return size + s.Text + s.Records*perRecord
}

// aboutBytes formats a number of bytes in kB, MB or GB.
func aboutBytes(n int64) string {
	switch {
	case n < 1e6:
		return fmt.Sprintf("%d kB", (n+999)/1e3)
	case n < 1e9:
		return fmt.Sprintf("%.1f MB", float64(n)/1e6)
	}
	return fmt.Sprintf("%.1f GB", float64(n)/1e9)
}

// printTimes prints the estimated time of each device. It assumes that the devices share the tokens equally, because
// they are of one kind.
func printTimes(w io.Writer, m *model, tokens int64) {
	speed, dir := m.knownSpeed(), plain(m.job.Output.Dir)
	for _, d := range m.job.Devices {
		if speed == 0 {
			fmt.Fprintf(w, "  %s: the time is not known, because no run in %s has used this model on such a device\n", d.Name, dir)
			continue
		}
		share := float64(tokens) / float64(len(m.job.Devices))
		took := time.Duration(share / speed * float64(time.Second))
		fmt.Fprintf(w, "  %s: about %s, at the %s tokens/s of earlier runs in %s\n", d.Name, rounded(took),
			grouped(int64(speed)), dir)
	}
}

// rounded rounds a duration to seconds; below ten seconds to tenths of a second, and below one second to milliseconds.
func rounded(d time.Duration) time.Duration {
	switch {
	case d < time.Second:
		return d.Round(time.Millisecond)
	case d < 10*time.Second:
		return d.Round(100 * time.Millisecond)
	}
	return d.Round(time.Second)
}

// knownSpeed returns the speed of one device in tokens per second, as measured by earlier runs, or 0 if it is not
// known. From the manifest it takes the outputs of this model, in this precision and on this kind of device. The speed
// is the number of tokens of these outputs, divided by the time in which the outputs were made and by the largest
// number of devices that shared an output. Time in which several outputs were made at once counts once.
func (m *model) knownSpeed() float64 {
	manifest, err := store.ReadManifest(m.job.Output.Dir)
	if err != nil {
		return 0
	}
	var made []store.Entry
	tokens, devices := int64(0), 1
	want := m.job.Output.Template
	for path := range manifest.Outputs() {
		e, file, _ := manifest.Find(path)
		if e.CheckpointSHA256 != want.CheckpointSHA256 || e.Backend != want.Backend || e.DType != want.DType || e.Finished.IsZero() ||
			file.Path != e.Outputs[0].Path {
			continue
		}
		made = append(made, e)
		tokens += e.Tokens
		devices = max(devices, 1+strings.Count(e.Device, ","))
	}
	slices.SortFunc(made, func(a, b store.Entry) int {
		return cmp.Or(a.Started.Compare(b.Started), a.Finished.Compare(b.Finished))
	})
	var busy time.Duration
	var until time.Time
	for _, e := range made {
		if from := later(e.Started, until); e.Finished.After(from) {
			busy, until = busy+e.Finished.Sub(from), e.Finished
		}
	}
	if busy <= 0 {
		return 0
	}
	return float64(tokens) / busy.Seconds() / float64(devices)
}

// later returns the later of two times.
func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
