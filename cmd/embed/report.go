package main

import (
	"encoding/json"
	"errors"
	"time"

	"seqembed/internal/monitor"
	"seqembed/internal/store"
	"seqembed/pool"
)

// report is the content of report.json. The closing event of a JSON log has the same fields.
type report struct {
	Version    int       `json:"report_version"`
	Program    string    `json:"program_version"`
	Started    time.Time `json:"started"`
	Finished   time.Time `json:"finished"`
	ExitStatus int       `json:"exit_status"`
	Error      string    `json:"error,omitempty"` // that of the run as a whole
	Files      int       `json:"files_finished"`
	Resumed    int       `json:"files_complete_before"`
	Failed     int       `json:"files_failed"`
	Records    int64     `json:"records"`
	Tokens     int64     `json:"tokens"`
	Truncated  int64     `json:"records_truncated"`
	Skipped    int64     `json:"records_skipped"`
	monitor.Snapshot
}

// report writes report.json, if the run has computed anything, and logs the closing event of a JSON log. code and err
// are those of the whole run.
func (c *command) report(code int, err error) {
	t, now, state := c.total, time.Now().UTC(), c.progress.Snapshot()
	began := now.Add(-time.Duration(float64(state.Elapsed) * float64(time.Second)))
	r := report{Version: 1, Program: version(), Started: began, Finished: now, ExitStatus: code,
		Files: len(t.Files), Resumed: len(t.Resumed), Failed: len(t.Failed), Records: t.Records, Tokens: t.Tokens,
		Truncated: t.Truncated, Skipped: t.Skipped, Snapshot: state}
	if err != nil {
		r.Error = oneLine(err)
	}
	if c.logFormat == "json" {
		c.log.Info("run ended", "report", r)
	}
	if state.Computed() && !errors.Is(err, pool.ErrFolderGone) {
		content, err := json.MarshalIndent(r, "", "  ")
		if err == nil {
			err = store.WriteReport(c.out, append(content, '\n'))
		}
		if err != nil {
			c.log.Warn("the report of the run cannot be written", "error", oneLine(err))
		}
	}
}
