package main

import (
	"math/rand/v2"
	"slices"
	"sync"

	"seqembed/internal/htmlreport"
	"seqembed/internal/store"
	"seqembed/pool"
)

// mapRows is the number of rows of one model on the map of embeddings, a chart on the page of --report. The model's
// files share it evenly.
const mapRows = 2000

// listedRows is the maximum number of rows in each table on the page of --report.
const listedRows = 100

// observations collects the contents of the page of --report that are not in report.json. Its memory is bounded,
// except for a few words for each file.
type observations struct {
	on bool // whether there is to be a page

	mu       sync.Mutex
	models   []*observedModel
	files    map[string]*observedFile // by path; files that have not ended
	reports  []pool.FileReport        // the first finished files
	failures []pool.Failure           // the first failed files
	cut      []cutRecord              // the first truncated records
	skipped  []skippedRecord          // the first records that were left out, as far as the reports name them
	letters  int64                    // of all finished files
	unknown  int64                    // letters of these that became the unknown token
	repeated int64
}

// observedModel has the observations of the files of one model that have finished.
type observedModel struct {
	*model
	column  int // index of the column on the map; -1 if there is none
	files   int // number of files of the model
	resumed int // number of files that were complete before the run
	rows    int64
	lengths htmlreport.Lengths
	samples []*observedFile // files with rows on the map
}

// observedFile has the observations of a file. One writer at a time adds to it.
type observedFile struct {
	of      *observedModel
	path    string
	quota   int // number of rows on the map
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

// observe prepares for observations of the files of a model.
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

// quotaOf returns how many rows of file number index the map of embeddings shows. The quotas of all files of a model
// add up to mapRows; if there are more files than that, each has one row or none.
func quotaOf(index, files int) int { return (index+1)*mapRows/files - index*mapRows/files }

// mapColumn returns the index of the column that the map of embeddings shows: of the columns with a row for each
// record, the first one of the last layer. It returns -1 if no column has a row for each record.
func mapColumn(columns []store.Column) int {
	best := -1
	for i, c := range columns {
		if c.Pooling.PerRecord() && (best < 0 || c.Layer > columns[best].Layer) {
			best = i
		}
	}
	return best
}

// end removes a file from the files that have not ended, and returns it. It returns nil if the file is not among them.
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

// failed drops the observations of a file that has failed, and keeps the failure.
func (o *observations) failed(f pool.Failure) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.files, f.Path)
	if o.on && len(o.failures) < listedRows {
		o.failures = append(o.failures, f)
	}
}

// largestFirst returns the files with rows on the map of embeddings. Files with the most rows in all come first.
func (m *observedModel) largestFirst() []*observedFile {
	return slices.SortedStableFunc(slices.Values(m.samples), func(a, b *observedFile) int { return int(b.rows - a.rows) })
}
