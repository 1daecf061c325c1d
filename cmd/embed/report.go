package main

import (
	"encoding/json"
	"errors"
	"sync"
	"time"

	"seqembed/internal/monitor"
	"seqembed/internal/store"
	"seqembed/pool"
)

// report is the content of report.json. The event "run ended" of a JSON log has the same fields.
type report struct {
	Version    int       `json:"report_version"`
	Program    string    `json:"program_version"`
	Started    time.Time `json:"started"`
	Finished   time.Time `json:"finished"`
	ExitStatus int       `json:"exit_status"`
	Error      string    `json:"error,omitempty"` // error of the run as a whole
	totals
	monitor.Snapshot
	folderGone bool // whether the output folder has disappeared
}

// totals are numbers of files, and numbers of records and tokens in the finished files.
type totals struct {
	Files     int   `json:"files_finished"`
	Resumed   int   `json:"files_complete_before"`
	Failed    int   `json:"files_failed"`
	Records   int64 `json:"records"`
	Tokens    int64 `json:"tokens"`
	Truncated int64 `json:"records_truncated"`
	Skipped   int64 `json:"records_skipped"`
}

// tally adds up totals while several goroutines finish files.
type tally struct {
	mu sync.Mutex
	n  totals
}

func (t *tally) add(n totals) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.n.Files, t.n.Resumed, t.n.Failed = t.n.Files+n.Files, t.n.Resumed+n.Resumed, t.n.Failed+n.Failed
	t.n.Records, t.n.Tokens = t.n.Records+n.Records, t.n.Tokens+n.Tokens
	t.n.Truncated, t.n.Skipped = t.n.Truncated+n.Truncated, t.n.Skipped+n.Skipped
}

func (t *tally) total() totals {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.n
}

// close prints or logs the error of the run if there is one. In a JSON log it adds the event "run ended". It calls
// saveReport. code and err are the exit code and the error of the whole run. If an interrupted run does not end in
// time, close is called while the run goes on. A second call has no effect.
func (c *command) close(code int, err error) { c.closing.Do(func() { conclude(c, code, err) }) }

// newReport returns the report of a run that ends now.
func newReport(c *command, code int, err error) report {
	now, state := time.Now().UTC(), c.progress.Snapshot()
	began := now.Add(-time.Duration(float64(state.Elapsed) * float64(time.Second)))
	r := report{Version: 1, Program: version(), Started: began, Finished: now, ExitStatus: code, totals: c.progress.tally.total(), Snapshot: state}
	if r.folderGone = errors.Is(err, pool.ErrFolderGone); r.folderGone {
		r.totals = totals{} // the counted outputs are gone with the folder
	}
	if err != nil {
		r.Error = oneLine(err)
	}
	return r
}

func conclude(c *command, code int, err error) {
	switch {
	case err == nil:
	case c.logFormat == "json":
		c.log.Error(oneLine(err))
	default:
		printError(c.stderr, err)
	}
	r := newReport(c, code, err)
	if c.logFormat == "json" {
		c.log.Info("run ended", "report", r)
	}
	saveReport(c, r)
}

// saveReport writes report.json if the run has computed anything, unless the output folder has disappeared. A second
// call has no effect.
func saveReport(c *command, r report) {
	c.saving.Do(func() {
		if r.ComputedTokens() == 0 || r.folderGone {
			return
		}
		content, err := json.MarshalIndent(r, "", "  ")
		if err == nil {
			err = store.WriteReport(c.out, append(content, '\n'))
		}
		if err != nil {
			c.log.Warn("the report of the run cannot be written", "error", oneLine(err))
		}
	})
}
