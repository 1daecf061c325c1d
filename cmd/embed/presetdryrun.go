package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"

	"seqembed/internal/seqio"
	"seqembed/internal/store"
	"seqembed/internal/translate"
	"seqembed/pool"
)

// presetSurvey is the work of --preset for one input, as a dry run counts it.
type presetSurvey struct {
	*translation
	tokens   []int64    // number of tokens for each model
	files    [3]counter // sizes of the FASTA files in bytes
	letters  int64      // number of letters in the DNA of all frames
	complete bool       // whether the merged file exists, made from the same input with the same --expected-length
}

// counter counts the bytes that are written to it.
type counter int64

// Write adds the length of p to the counter.
func (c *counter) Write(p []byte) (int, error) {
	*c += counter(len(p))
	return len(p), nil
}

// survey is the dry run of a preset: it prints the work for each input and writes no file. To count the chunks, frames
// and tokens, it translates the inputs.
func (c *presetRun) survey(ctx context.Context, inputs []seqio.Input) (err error) {
	if c.manifest, err = store.ReadManifest(c.out); err != nil {
		return err
	}
	models := c.models
	todo, err := c.plan(inputs)
	if err != nil {
		return err
	}
	out := bufio.NewWriter(c.stdout)
	fmt.Fprintf(out, "%s, %s and %s\n", c.preset.program, models[0].model, models[1].model)
	tokens, left, complete := make([]int64, len(models)), 0, 0
	for _, d := range todo {
		s, err := c.surveyInput(ctx, d, models)
		switch {
		case ctx.Err() != nil:
			return pool.ErrInterrupted
		case errors.Is(err, pool.ErrMixture):
			return err
		case err != nil:
			listFailures(c.command, []pool.Failure{pool.NewFailure(d.Path, err)})
			continue
		}
		c.total.Files = append(c.total.Files, pool.FileReport{Path: d.Path})
		fmt.Fprintf(out, "  %s\n", c.surveyLine(s, models))
		if err := out.Flush(); err != nil {
			return err
		}
		if s.complete {
			complete++
			continue
		}
		left++
		for i, n := range s.tokens {
			tokens[i] += n
		}
	}
	fmt.Fprintf(out, "  to do: %d inputs; complete already: %d inputs\n", left, complete)
	for i, m := range models {
		if tokens[i] > 0 {
			fmt.Fprintf(out, "%s, %s: %s tokens\n", m.Alphabet, m.model, grouped(tokens[i]))
			printTimes(out, m, tokens[i])
		}
	}
	return out.Flush()
}

// unread reports whether the input is one that can be read only once, such as a pipe. A dry run does not read such an
// input.
func (s *presetSurvey) unread() bool { return s.entry.Input.Modified.IsZero() }

// surveyInput translates an input and counts the tokens of its frames. It counts all letters of a frame, because the
// preset truncates only sequences that are longer than its chunks.
func (c *presetRun) surveyInput(ctx context.Context, d *derived, models []*model) (*presetSurvey, error) {
	_, mixture := c.compare(c.newTranslation(ctx, d)) // an error, for example if the FASTA files are of another input
	s := &presetSurvey{translation: c.newTranslation(ctx, d), tokens: make([]int64, len(models))}
	if s.unread() || mixture != nil {
		return s, mixture
	}
	s.each = func(f translate.Frame) {
		s.letters += int64(len(f.DNA))
		for i, seq := range [][]byte{f.DNA, f.Protein} {
			ids, _ := models[i].tokenizer.Append(nil, seq)
			s.tokens[i] += int64(len(ids))
		}
	}
	if err := s.write([]io.Writer{&s.files[0], &s.files[1], &s.files[2]}); err != nil {
		return nil, err
	}
	entry, file, known := c.manifest.Find(d.merged())
	if known && !c.force && !entry.Finished.IsZero() && entry.Input.SHA256 == d.entry.Input.SHA256 && entry.Parameters["expected_length"] == fmt.Sprint(c.expectedLength) {
		size, _, err := store.Size(d.merged())
		s.complete = err == nil && size == file.Size
	}
	return s, nil
}

// surveyLine returns the line of a dry run about one input.
func (c *presetRun) surveyLine(s *presetSurvey, models []*model) string {
	if s.unread() {
		return fmt.Sprintf("%s: not read, because it can be read only once -> %s and 5 other files", plain(s.Path), plain(s.merged()))
	}
	const perHeader = 3 // ">", and the line feeds after the header and after the sequence
	work := pool.Survey{Records: s.frames, Text: int64(s.files[1]) - s.letters - perHeader*s.frames}
	size, width := work.Text, 0
	for _, n := range s.files {
		size += int64(n)
	}
	for _, m := range models {
		size, width = size+m.outputSize(c.settings, work), width+m.config.Hidden
	}
	size += s.frames * int64(width) * 4 // the merged file stores float32: 4 bytes a value
	line := fmt.Sprintf("%s: %s records, %s chunks, %s frames, %s tokens of DNA and %s of proteins -> %s and 5 other files, about %s", plain(s.Path),
		grouped(s.entry.Records), grouped(s.chunks), grouped(s.frames), grouped(s.tokens[0]), grouped(s.tokens[1]), plain(s.merged()), aboutBytes(size))
	if n := skippedRecords(s.entry.Skipped); n > 0 {
		line += fmt.Sprintf(", %s skipped", grouped(n))
	}
	if s.complete {
		line += ", complete already"
	}
	return line
}
