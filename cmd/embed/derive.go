package main

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"seqembed/internal/seqio"
	"seqembed/internal/store"
	"seqembed/internal/translate"
	"seqembed/pool"
)

// presetRun is the additional work of a run with --preset: it translates the inputs into FASTA files before the models
// run, and merges the outputs of both models at the end.
type presetRun struct {
	*command
	manifest *store.Manifest
	inputs   []*derived // the inputs whose FASTA files are complete
}

// derived is an input of a run with --preset, and the three FASTA files that embed makes from it.
type derived struct {
	seqio.Input
	paths []string    // paths of the FASTA files: chunks, DNA of the reading frames, proteins of the frames
	entry store.Entry // manifest entry of the FASTA files
}

// newDerived returns an input with the paths of its FASTA files, which have the names that VirNucPro gives to them.
func (c *presetRun) newDerived(in seqio.Input) *derived {
	base := filepath.Join(pool.Folder(c.out, in.Dir), store.EscapeName(in.Name))
	return &derived{Input: in, paths: []string{fmt.Sprintf("%s_chunked%d.fa", base, c.expectedLength),
		base + "_identified_nucleotide.fa", base + "_identified_protein.faa"}}
}

// merged returns the path of the merged file, which has the embeddings of the DNA and of the proteins.
func (d *derived) merged() string {
	return strings.TrimSuffix(d.paths[1], "_identified_nucleotide.fa") + "_merged.pt"
}

// embedded returns the two FASTA files that the models embed, as inputs: the DNA of the frames, and their proteins.
func (d *derived) embedded() (list []seqio.Input) {
	for i, a := range []seqio.Alphabet{seqio.DNA, seqio.Protein} {
		list = append(list, seqio.Input{Path: d.paths[1+i], Name: d.Name, Dir: d.Dir, Alphabet: a})
	}
	return list
}

// derive translates the inputs of a preset into FASTA files in the output folder. It returns the FASTA files that the
// models embed, as inputs, and a failure for each input that cannot be translated. Before it writes a file it claims
// the folder for the jobs of the models (see pool.Claim), until release is called.
func (c *presetRun) derive(ctx context.Context, inputs []seqio.Input) (list []seqio.Input, failed []pool.Failure, release func(), err error) {
	if err := c.readManifest(ctx); err != nil {
		return nil, nil, nil, err
	}
	todo, err := c.plan(inputs)
	if err != nil {
		return nil, nil, nil, err
	}
	leave, err := pool.Claim(commandLine(), jobsOf(c.models)...)
	if err != nil {
		return nil, nil, nil, err
	}
	defer func() {
		if err != nil {
			leave()
		}
	}()
	for _, d := range todo {
		err := c.translate(ctx, d)
		switch {
		case ctx.Err() != nil:
			return nil, nil, nil, pool.ErrInterrupted
		case errors.Is(err, pool.ErrOutput), errors.Is(err, pool.ErrMixture):
			return nil, nil, nil, err
		case err != nil:
			failed = append(failed, pool.NewFailure(d.Path, err))
			continue
		}
		c.inputs = append(c.inputs, d)
		list = append(list, d.embedded()...)
	}
	return list, failed, leave, nil
}

// plan returns the inputs with the paths of their FASTA files. It leaves out inputs that the preset itself has made
// (see withoutOutputs). The caller must have set c.manifest.
func (c *presetRun) plan(inputs []seqio.Input) (list []*derived, err error) {
	if inputs, err = c.withoutOutputs(inputs); err != nil {
		return nil, err
	}
	named := slices.Clone(inputs)
	var pointers []*seqio.Input
	for i := range named {
		named[i].Alphabet = seqio.DNA
		pointers = append(pointers, &named[i])
	}
	seqio.TellApart(pointers)
	if err := seqio.CheckNames(named); err != nil {
		return nil, err
	}
	for i, in := range named {
		in.Alphabet = inputs[i].Alphabet
		list = append(list, c.newDerived(in))
	}
	return list, nil
}

// withoutOutputs returns the inputs without the files that, according to the manifest, an earlier run of the preset has
// made. If the output folder is inside an input folder, a rerun thus does not embed earlier outputs. Files that the
// command line names one by one are kept.
func (c *presetRun) withoutOutputs(inputs []seqio.Input) (list []seqio.Input, err error) {
	own := map[string]bool{}
	for path := range c.manifest.Outputs() {
		if e, _, _ := c.manifest.Find(path); e.Model == c.preset.name {
			absolute, _ := filepath.Abs(path) // empty if there is no working directory
			own[absolute] = true
		}
	}
	named := slices.Concat(c.settings.inputs, c.dna)
	for _, in := range inputs {
		if absolute, err := filepath.Abs(in.Path); err == nil && own[absolute] && !slices.Contains(named, in.Path) {
			c.log.Info("left out, because the preset has made it", "input", in.Path)
			continue
		}
		list = append(list, in)
	}
	if len(list) == 0 && len(inputs) > 0 {
		return nil, fmt.Errorf("%w: the preset has made all of these files", seqio.ErrNoInput)
	}
	return list, nil
}

// readManifest reads the manifest of the output folder. With --force it repairs a damaged manifest first; without
// --force a damaged manifest is an error.
func (c *presetRun) readManifest(ctx context.Context) (err error) {
	if c.force {
		c.manifest, err = store.ReadRepaired(ctx, c.out, store.ThisProcess(commandLine()))
	} else {
		c.manifest, err = store.ReadManifest(c.out)
	}
	return err
}

// translate writes the FASTA files of an input, unless they are complete. Files that were made from another input or
// with other settings are an error. With --force, translate always writes the files.
func (c *presetRun) translate(ctx context.Context, d *derived) error {
	t := c.newTranslation(ctx, d)
	if err := os.MkdirAll(filepath.Dir(d.paths[0]), 0o777); err != nil {
		return fmt.Errorf("%w %s: %w", pool.ErrOutput, c.out, err)
	}
	return c.once(ctx, d.paths[0], func() (bool, error) { return c.compare(t) }, func() error {
		files, err := store.WriteFiles(d.paths, t.write)
		switch {
		case t.err != nil:
			return t.err
		case err != nil:
			return fmt.Errorf("%w %s: %w", pool.ErrOutput, c.out, err)
		}
		c.log.Info("translated", "input", d.Path, "records", d.entry.Records, "frames", t.frames)
		countSkipped(c.progress, d.Path, d.entry.Skipped, t.skipped)
		if t.cut {
			c.log.Warn(cutShort, "input", d.Path)
		}
		c.total.Skipped += skippedRecords(d.entry.Skipped)
		d.entry.Outputs = files
		return c.record(ctx, d.entry)
	})
}

// newTranslation prepares the translation of an input. In d.entry, the manifest entry of the FASTA files, it sets the
// fields that are known before the translation.
func (c *presetRun) newTranslation(ctx context.Context, d *derived) *translation {
	d.entry = store.Entry{Model: c.preset.name, ProgramVersion: version(), Started: time.Now(),
		Input: store.Source{Path: d.Path}, Parameters: c.parameters()}
	reading := c.reading()
	reading.Alphabet = d.Input.Alphabet
	t := &translation{ctx: ctx, derived: d, reading: reading, length: c.expectedLength}
	if info, err := os.Stat(d.Path); err == nil && info.Mode().IsRegular() {
		d.entry.Input.Absolute, _ = filepath.Abs(d.Path) // empty if there is no working directory
		d.entry.Input.Modified = info.ModTime()
	}
	return t
}

// once calls the function produce, which makes the output at path. If the function complete reports that the output
// exists, once does not call produce. If several runs call once for the same path at the same time, one run makes the
// output. The other runs wait, and then call complete again.
func (c *presetRun) once(ctx context.Context, path string, complete func() (bool, error), produce func() error) error {
	if done, err := complete(); done || err != nil {
		return err
	}
	release, err := store.Lock(ctx, path)
	switch {
	case ctx.Err() != nil:
		return pool.ErrInterrupted
	case err != nil:
		return fmt.Errorf("%w %s: %w", pool.ErrOutput, c.out, err)
	}
	defer release()
	if done, err := complete(); done || err != nil {
		return err
	}
	return produce()
}

// parameters returns the settings on which the FASTA files depend, for the manifest.
func (c *presetRun) parameters() map[string]string {
	return map[string]string{"preset": c.preset.name, "expected_length": fmt.Sprint(c.expectedLength), "min_length": fmt.Sprint(c.minLength),
		"gaps": c.gaps, "on_bad_record": c.onBad, "duplicates": c.duplicates}
}

// compare reports whether all FASTA files of an input exist with the bytes that the translation gives. If they exist
// but the manifest has no entry for them, compare adds the entry, except in a dry run. With --force it compares nothing
// and returns false.
//
// The error is a pool.ErrMixture if a file has other bytes, unless the manifest says that the file was made from this
// input with these settings. It is a pool.ErrMixture, too, if FASTA files exist for an input that can be read only
// once.
func (c *presetRun) compare(t *translation) (there bool, err error) {
	d := t.derived
	path := firstFile(d.paths)
	if path == "" || c.force {
		return false, nil
	}
	if d.entry.Input.Modified.IsZero() {
		return false, fmt.Errorf("%s exists, and cannot be compared with the input that it was made from: %w", path, pool.ErrMixture)
	}
	sums := make([]hash.Hash, len(d.paths))
	writers := make([]io.Writer, len(d.paths))
	for i := range sums {
		sums[i] = sha256.New()
		writers[i] = sums[i]
	}
	if err := t.write(writers); err != nil {
		return false, err
	}
	there, differs := true, false
	d.entry.Outputs = nil
	for i, path := range d.paths {
		sum, err := store.HashFile(t.ctx, path)
		if errors.Is(err, fs.ErrNotExist) { // the user removed the file, or a run was killed while it renamed files
			there = false
			continue
		}
		if err != nil {
			return false, err
		}
		if sum != hex.EncodeToString(sums[i].Sum(nil)) {
			there, differs = false, true
		}
		if info, err := os.Stat(path); err == nil {
			d.entry.Outputs = append(d.entry.Outputs, store.File{Path: path, Size: info.Size(), SHA256: sum})
		}
	}
	if err := c.manifest.Update(); err != nil {
		return false, err
	}
	entry, _, known := c.manifest.Find(path)
	switch {
	case there && !known: // a run was killed before it added the manifest entry
		if c.dryRun {
			return true, nil
		}
		return true, c.record(t.ctx, d.entry)
	case differs && (!known || entry.Input.SHA256 != d.entry.Input.SHA256 || !maps.Equal(entry.Parameters, d.entry.Parameters)):
		return false, fmt.Errorf("%s is not the translation of %s with these settings: %w", path, d.Path, pool.ErrMixture)
	}
	return there, nil
}

// firstFile returns the first of the paths that exists, or "".
func firstFile(paths []string) string {
	for _, path := range paths {
		if _, err := os.Lstat(path); err == nil {
			return path
		}
	}
	return ""
}

// record appends e, the entry of the FASTA files or of the merged file of an input, to the manifest.
func (c *presetRun) record(ctx context.Context, e store.Entry) error {
	if e.Outputs[0].SHA256 != "" { // without a digest the file is yet to be made
		e.Finished = time.Now()
	}
	err := c.manifest.Append(ctx, e, func(other store.Entry) error {
		if c.force || other.Input.SHA256 == e.Input.SHA256 && maps.Equal(other.Parameters, e.Parameters) {
			return nil
		}
		return fmt.Errorf("another run has written %s in the meantime: %w", other.Outputs[0].Path, pool.ErrMixture)
	})
	if err != nil && !errors.Is(err, pool.ErrMixture) {
		return fmt.Errorf("%w %s: %w", pool.ErrOutput, c.out, err)
	}
	return err
}

// translation translates one input: it cuts the DNA of each record into chunks, and translates the reading frames of
// the chunks.
type translation struct {
	ctx context.Context
	*derived
	reading seqio.Options
	length  int   // maximum length of a chunk in letters
	chunks  int64 // number of chunks
	frames  int64 // number of reading frames that were kept
	skipped []seqio.Skip
	cut     bool // whether the input may be cut short (see seqio.Reader.CutShort)
	// each, unless it is nil, is called for every kept frame.
	each func(translate.Frame)
	err  error // error of the input or of ctx; nil if writing a FASTA file failed
}

// lineLetters is the number of letters in a line of the chunk file, the same as in FASTA files that Biopython writes.
const lineLetters = 60

// write translates the input and writes the three FASTA files: the chunks, the DNA of their reading frames, and the
// proteins of the frames. In the manifest entry it sets the counts of records and the digest of the input.
func (t *translation) write(files []io.Writer) error {
	var out []*bufio.Writer
	for _, f := range files {
		out = append(out, bufio.NewWriterSize(f, 1<<16))
	}
	r, err := seqio.Open(t.Path, t.reading)
	if err != nil {
		t.err = err
		return err
	}
	defer r.Close()
	t.err, t.chunks, t.frames, t.entry.Records = nil, 0, 0, 0
	if r.Alphabet() != seqio.DNA {
		t.err = fmt.Errorf("%s: the records are proteins, and --preset translates DNA", t.Path)
		return t.err
	}
	for t.ctx.Err() == nil {
		record, err := r.Read()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.err = err
			return err
		}
		t.entry.Records++
		t.translate(record, out)
	}
	if err := t.ctx.Err(); err != nil {
		t.err = err
		return err
	}
	if t.frames == 0 {
		t.err = fmt.Errorf("%s: no reading frame of a chunk is without a stop codon", t.Path)
		return t.err
	}
	t.entry.Skipped, t.skipped, t.cut = r.SkipCounts(), r.Skipped(), r.CutShort()
	in := &t.entry.Input
	if in.SHA256, in.Size, t.err = r.Digest(); t.err != nil {
		return t.err
	}
	if now, err := pool.Identify(t.Path); !in.Modified.IsZero() && (err != nil || !now.SameState(*in)) {
		t.err = fmt.Errorf("%s: %w", t.Path, pool.ErrChanged)
		return t.err
	}
	for _, w := range out {
		if err := w.Flush(); err != nil {
			return err
		}
	}
	return nil
}

// translate writes the chunks of a record, and the DNA and the proteins of their reading frames. It returns no error,
// because Flush of each writer returns the first error of the writer.
func (t *translation) translate(record seqio.Record, out []*bufio.Writer) {
	for i, chunk := range translate.Chunks(len(record.Seq), t.length) {
		seq, id := record.Seq[chunk.From:chunk.To], fmt.Sprintf("%s_chunk_%d", record.ID, i+1)
		t.chunks++
		writeFASTA(out[0], id, seq, lineLetters)
		for _, frame := range translate.VirNucPro(seq) {
			t.frames++
			if t.each != nil {
				t.each(frame)
			}
			writeFASTA(out[1], id+frame.Name, frame.DNA, len(frame.DNA))
			writeFASTA(out[2], id+frame.Name, frame.Protein, len(frame.Protein))
		}
	}
}

// writeFASTA writes a record with at most width letters in a line. It returns no error, because w.Flush returns the
// first error of w.
func writeFASTA(w *bufio.Writer, header string, seq []byte, width int) {
	_, _ = w.WriteString(">" + header + "\n")
	for line := range slices.Chunk(seq, max(width, 1)) {
		_, _ = w.Write(line)
		_ = w.WriteByte('\n')
	}
}

// mergeAll writes the merged file of each input whose DNA and protein outputs are complete. It lists an input as failed
// if its outputs cannot be merged, and returns errors that concern the whole run. Without --preset, c is nil, and
// mergeAll does nothing.
func (c *presetRun) mergeAll(ctx context.Context, models []*model) error {
	if c == nil {
		return nil
	}
	done := map[string]bool{}
	for _, path := range c.total.Done() {
		done[path] = true
	}
	outputs := map[string]string{} // paths of outputs by the paths of their inputs
	for _, m := range models {
		for _, f := range m.job.Files {
			if done[f.Path] {
				outputs[f.Path] = m.job.Output.Main(f)
			}
		}
	}
	for _, d := range c.inputs {
		dna, protein := outputs[d.paths[1]], outputs[d.paths[2]]
		if dna == "" || protein == "" {
			continue
		}
		err := c.join(ctx, d, dna, protein)
		switch {
		case errors.Is(err, pool.ErrInterrupted), errors.Is(err, pool.ErrMixture), errors.Is(err, pool.ErrOutput):
			return err
		case err != nil:
			failure := pool.NewFailure(d.Path, fmt.Errorf("merging its outputs: %w", err))
			c.progress.FileFailed(failure)
			c.total.Failed = append(c.total.Failed, failure)
		}
	}
	return nil
}

// join writes the merged file of an input, unless the file is complete. dna and protein are the paths of the two
// outputs that join merges.
func (c *presetRun) join(ctx context.Context, d *derived, dna, protein string) error {
	path := d.merged()
	e := d.entry
	e.Parameters = maps.Clone(e.Parameters)
	for key, from := range map[string]string{"nucleotide_sha256": dna, "protein_sha256": protein} {
		// The digest comes from the file, not from the manifest. If another run is about to replace the file, the
		// manifest may already have the digest of the new file.
		sum, err := store.HashFile(ctx, from)
		switch {
		case ctx.Err() != nil:
			return pool.ErrInterrupted
		case err != nil:
			return err
		}
		e.Parameters[key] = sum
	}
	complete := func() (bool, error) {
		sum, err := store.HashFile(ctx, path)
		if err != nil || c.force {
			return false, nil
		}
		if err := c.manifest.Update(); err != nil {
			return false, err
		}
		had, file, known := c.manifest.Find(path)
		switch {
		case !known:
			return false, fmt.Errorf("%s exists but has no entry in %s: %w", path, store.ManifestName, pool.ErrMixture)
		case sum != file.SHA256 || !maps.Equal(had.Parameters, e.Parameters):
			return false, nil
		}
		c.total.Resumed = append(c.total.Resumed, d.Path)
		return true, nil
	}
	return c.once(ctx, path, complete, func() error {
		e.Outputs = []store.File{{Path: path}}
		if err := c.record(ctx, e); err != nil {
			return err
		}
		merged, err := store.MergeVirNucPro(ctx, dna, protein, path)
		switch {
		case ctx.Err() != nil:
			return pool.ErrInterrupted
		case err != nil:
			return err
		}
		e.Outputs = []store.File{merged}
		if err := c.record(ctx, e); err != nil {
			return err
		}
		c.total.Files = append(c.total.Files, pool.FileReport{Path: d.Path, Records: e.Records, Outputs: e.Outputs, Skipped: d.entry.Skipped})
		return nil
	})
}
