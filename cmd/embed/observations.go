package main

import (
	"math/rand/v2"
	"slices"
	"sync"

	"seqembed/internal/htmlreport"
	"seqembed/internal/store"
	"seqembed/pool"
)

// mapRows is the maximum number of rows of one model on the map of embeddings, a chart on the page of --report. The
// model's files share it evenly.
const mapRows = 2000

// listedRows is the maximum number of rows in each table on the page of --report.
const listedRows = 100

// observations collects the contents of the page of --report that are not in report.json. Its memory is bounded,
// except for a few words for each file.
type observations struct {
	on bool // whether --report is given

	mu       sync.Mutex
	models   []*observedModel
	files    map[string]*observedFile // files that are waiting or being embedded, by path
	reports  []pool.FileReport        // of the first listedRows files that have finished
	failures []pool.Failure           // of the first listedRows files that have failed
	cut      []cutRecord              // truncated records of finished files, at most listedRows
	skipped  []skippedRecord          // skipped records that reports of finished files name, at most listedRows
	letters  int64                    // number of embedded letters in all finished files
	unknown  int64                    // number of letters that became the unknown token
	repeated int64                    // number of records equal to an earlier one of their file
}

// observedModel has the observations of the finished files of one model.
type observedModel struct {
	*model
	column  int // index of the output column on the map; -1 if there is no map
	files   int // number of files of the model
	resumed int // number of files that were complete before the run
	rows    int64
	lengths htmlreport.Lengths
	samples []*observedFile // files with rows on the map
}

// observedFile has the observations of a file. At any time only one goroutine adds observations: the goroutine that
// writes the file's output.
type observedFile struct {
	of      *observedModel
	path    string
	quota   int // maximum number of rows on the map
	random  *rand.Rand
	rows    int64
	lengths htmlreport.Lengths
	sample  []sampledRow
	cut     []cutRecord
}

// sampledRow is a row of an output that is a point on the map of embeddings.
type sampledRow struct {
	id     string
	values []float32
}

// cutRecord is a truncated record, a row of a table on the page of --report.
type cutRecord struct {
	path, id      string
	line          int64
	letters, used int
}

// skippedRecord is a record that was left out, a row of a table on the page of --report.
type skippedRecord struct {
	path, id, reason string
	line             int64
}

func newObservations(on bool) *observations {
	return &observations{on: on, files: map[string]*observedFile{}}
}

// observe adds a model and its files before the files are embedded. RecordWritten ignores files that were not added.
func (o *observations) observe(m *model) {
	if !o.on {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	of := &observedModel{model: m, column: mapColumn(m.storedColumns()), files: len(m.job.Files)}
	o.models = append(o.models, of)
	for i, f := range m.job.Files {
		o.files[f.Path] = &observedFile{of: of, path: f.Path, quota: quotaOf(i, of.files), random: rand.New(rand.NewPCG(1, uint64(i)))}
	}
}

// quotaOf returns the maximum number of rows of file number index on the map of embeddings. The quotas of all files of
// a model add up to mapRows. If there are more than mapRows files, each quota is 0 or 1.
func quotaOf(index, files int) int { return (index+1)*mapRows/files - index*mapRows/files }

// mapColumn returns the index of the column that the map of embeddings shows. It is the first column of the last layer,
// among the columns whose pooling has one row for a whole record or window. If there is no such column, mapColumn
// returns -1.
func mapColumn(columns []store.Column) int {
	best := -1
	for i, c := range columns {
		if c.Pooling.PerRecord() && (best < 0 || c.Layer > columns[best].Layer) {
			best = i
		}
	}
	return best
}

// end removes a file from o.files and returns it, or nil if the file is not in o.files.
func (o *observations) end(path string) *observedFile {
	f := o.files[path]
	delete(o.files, path)
	return f
}

// RecordWritten counts a record and gives each of its rows the chance to be on the map of embeddings.
func (o *observations) RecordWritten(path string, line int64, rows []store.Row) {
	if !o.on {
		return
	}
	o.mu.Lock()
	f := o.files[path]
	o.mu.Unlock()
	if f == nil || len(rows) == 0 {
		return
	}
	first := rows[0]
	f.lengths.Add(first.RecordLength, first.Truncated)
	if first.Truncated && len(f.cut) < listedRows {
		f.cut = append(f.cut, cutRecord{path, shortID(first.ID), line, first.RecordLength, first.Length})
	}
	for _, row := range rows {
		f.rows++
		if f.of.column >= 0 {
			f.add(row)
		}
	}
}

// add gives a row the same chance to be on the map of embeddings as every other row of the file (reservoir sampling,
// algorithm R).
func (f *observedFile) add(row store.Row) {
	at := len(f.sample)
	if at >= f.quota {
		if at = int(f.random.Int64N(f.rows)); at >= f.quota {
			return
		}
	} else {
		f.sample = append(f.sample, sampledRow{})
	}
	if row.ID = shortID(row.ID); row.Start > 0 {
		row.ID = row.Region()
	}
	f.sample[at] = sampledRow{row.ID, append(f.sample[at].values[:0], row.Embeddings[f.of.column]...)}
}

// resumed counts a file that was complete before the run.
func (o *observations) resumed(path string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if f := o.end(path); f != nil {
		f.of.resumed++
	}
}

// finished adds the observations of a finished file to those of its model and of the run.
func (o *observations) finished(r pool.FileReport) {
	o.mu.Lock()
	defer o.mu.Unlock()
	f := o.end(r.Path)
	if f == nil {
		return
	}
	m := f.of
	m.rows += f.rows
	m.lengths.Merge(&f.lengths)
	if f.lengths = (htmlreport.Lengths{}); len(f.sample) > 0 {
		m.samples = append(m.samples, f)
	}
	o.cut = append(o.cut, f.cut[:min(len(f.cut), listedRows-len(o.cut))]...)
	f.cut = nil
	for _, skip := range r.Examples {
		if len(o.skipped) < listedRows {
			o.skipped = append(o.skipped, skippedRecord{r.Path, shortID(skip.ID), skip.Reason, skip.Line})
		}
	}
	o.letters, o.unknown, o.repeated = o.letters+r.Letters, o.unknown+r.Unknown, o.repeated+r.Repeated
	if len(o.reports) < listedRows {
		o.reports = append(o.reports, r)
	}
}

// failed drops the observations of a file that has failed. It keeps the first listedRows failures.
func (o *observations) failed(f pool.Failure) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.files, f.Path)
	if o.on && len(o.failures) < listedRows {
		o.failures = append(o.failures, f)
	}
}

// largestFirst returns the files with rows on the map of embeddings. The files with the largest outputs, counted in
// rows, come first.
func (m *observedModel) largestFirst() []*observedFile {
	return slices.SortedStableFunc(slices.Values(m.samples), func(a, b *observedFile) int { return int(b.rows - a.rows) })
}
