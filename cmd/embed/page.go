package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"seqembed/internal/htmlreport"
	"seqembed/internal/monitor"
	"seqembed/internal/seqio"
	"seqembed/internal/store"
	"seqembed/pool"
)

// maxShownID and maxShownCommand bound the characters of an id and of the command line on the page of --report.
const (
	maxShownID      = 80
	maxShownCommand = 1000
)

// shortID returns an id with escapes for characters that do not print, shortened to maxShownID characters.
func shortID(id string) string {
	if len(id) > 4*maxShownID {
		id = id[:4*maxShownID] // a character has at most four bytes, and the rest is not shown
	}
	shown := []rune(plain(id))
	if len(shown) > maxShownID {
		return string(shown[:maxShownID]) + "…"
	}
	return string(shown)
}

// checkPage returns a usage error if --report is given with --dry-run, or does not name a file that can become the
// page. The name must end in .html or .htm: if the user forgets the name, the argument after --report is an input,
// which the page would replace. The folder of the page must exist, unless it is the output folder, which the run makes.
func (s *settings) checkPage() error {
	if !s.given("report") {
		return nil
	}
	if ext := strings.ToLower(filepath.Ext(s.page)); ext != ".html" && ext != ".htm" {
		return usagef("--report: %q does not end in .html", s.page)
	}
	if s.dryRun {
		return usagef("--report and --dry-run exclude each other: a dry run computes nothing")
	}
	if sameFile(s.page, s.out) {
		return usagef("--report and --out: both are %s", s.page)
	}
	dir := filepath.Dir(s.page)
	if info, err := os.Stat(dir); !sameFile(dir, s.out) && (err != nil || !info.IsDir()) {
		return usagef("--report %s: there is no folder %s", s.page, dir)
	}
	if info, err := os.Stat(s.page); err == nil && !info.Mode().IsRegular() {
		return usagef("--report: %s is not a file", s.page)
	}
	return nil
}

// checkPageIsNoInput returns an error if the page of --report would replace an input.
func (s *settings) checkPageIsNoInput(inputs []seqio.Input) error {
	page, err := os.Stat(s.page)
	if s.page == "" || err != nil {
		return nil // there is no page, or no file that it would replace
	}
	for _, in := range inputs {
		if info, err := os.Stat(in.Path); err == nil && os.SameFile(page, info) {
			return usagef("--report: the page would replace the input %s", plain(in.Path))
		}
	}
	return nil
}

// writePage writes the page of --report. It writes no page after a mistake on the command line or if the output folder
// has disappeared. A run that has computed nothing does not replace an earlier page.
func writePage(c *command, code int, err error) error {
	if c.page == "" || code == exitUsage || errors.Is(err, pool.ErrFolderGone) {
		return nil
	}
	r := newReport(c, code, err)
	if _, statErr := os.Stat(c.page); statErr == nil && r.ComputedTokens() == 0 {
		c.log.Info("nothing was computed: the page of an earlier run stays", "page", c.page)
		return nil
	}
	p := newPage(c, r)
	if _, err := store.WriteFiles([]string{c.page}, func(files []io.Writer) error { return p.Write(files[0]) }); err != nil {
		return fmt.Errorf("the page of the run: %w", err)
	}
	c.log.Info("the page of the run is written", "page", c.page)
	return nil
}

// newPage returns the content of the page of --report.
func newPage(c *command, r report) *htmlreport.Page {
	o := c.progress.observations
	o.mu.Lock()
	defer o.mu.Unlock()
	p := &htmlreport.Page{Title: pageTitle(r), Bad: r.ExitStatus != exitDone, Outcome: outcome(r), Facts: pageFacts(c, r), Figures: figures(o, r)}
	for i, through := range c.progress.Throughput() {
		if state := r.Models[i]; state.State != monitor.Waiting && state.Tokens > 0 {
			p.Sections = append(p.Sections, o.models[i].section(c.settings, state, through))
		}
	}
	for _, t := range []htmlreport.Table{failureTable(o, r), fileTable(o, r), cutTable(o, r), skippedTable(o, r)} {
		if len(t.Rows) > 0 {
			p.Tables = append(p.Tables, t)
		}
	}
	p.Notes = []string{"Times are those of the devices; the bits of an embedding depend on none of them."}
	if r.ComputedTokens() > 0 {
		p.Notes[0] += " report.json in the output folder has the same figures for programs, manifest.jsonl the origin of every output."
	}
	if slices.ContainsFunc(o.models, func(m *observedModel) bool { return m.checkpoint.Synthetic }) {
		p.Notes = append(p.Notes, "The weights of a synthetic model are computed from a seed: its embeddings carry no biology.")
	}
	return p
}

func pageTitle(r report) string {
	switch {
	case r.Files == 0 && r.Resumed > 0 && r.Failed == 0 && r.ExitStatus == exitDone:
		return "A run of embed with nothing to do"
	case r.Files == 0:
		return "A run of embed without a finished file"
	}
	return fmt.Sprintf("Embeddings of %s, %s", counted(int64(r.Files), "file"), counted(r.Records, "record"))
}

// counted returns a number with a noun that forms its plural with s.
func counted(n int64, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return grouped(n) + " " + noun + "s"
}

// outcome returns one or two sentences about how the run has ended.
func outcome(r report) string {
	before := ""
	if r.Resumed > 0 {
		verb := "were"
		if r.Resumed == 1 {
			verb = "was"
		}
		before = fmt.Sprintf(" This page does not cover %s that %s complete before.", counted(int64(r.Resumed), "file"), verb)
	}
	switch {
	case r.ExitStatus == exitDone:
		return "Everything is done." + before
	case r.ExitStatus == exitInterrupted:
		return "The run was interrupted: the same command continues it." + before
	case r.Error != "":
		return "The run has ended with an error: " + r.Error + before
	}
	return fmt.Sprintf("%s failed.", counted(int64(r.Failed), "file")) + before
}

func pageFacts(c *command, r report) []htmlreport.Fact {
	var models, devices []string
	for i, m := range r.Models {
		entry := c.progress.models[i].job.Output.Template
		models = append(models, fmt.Sprintf("%s in %s for %s", plain(m.Name), entry.DType, c.progress.models[i].Alphabet))
		for _, d := range m.Devices {
			if !slices.Contains(devices, d.Name) {
				devices = append(devices, d.Name)
			}
		}
	}
	stamp := func(t time.Time) string { return t.Format("2006-01-02 15:04:05 MST") }
	command := []rune(plain(commandLine()))
	if len(command) > maxShownCommand {
		command = append(command[:maxShownCommand:maxShownCommand], '…')
	}
	facts := []htmlreport.Fact{{Name: "Command", Value: string(command)}}
	if len(models) > 0 {
		facts = append(facts, htmlreport.Fact{Name: "Models", Value: strings.Join(models, "; ")})
	}
	if len(devices) > 0 {
		facts = append(facts, htmlreport.Fact{Name: "Devices", Value: strings.Join(devices, ", ")})
	}
	return append(facts, htmlreport.Fact{Name: "Time", Value: stamp(r.Started) + " to " + stamp(r.Finished)},
		htmlreport.Fact{Name: "Output", Value: plain(c.out) + ", " + c.formatParameter()},
		htmlreport.Fact{Name: "Version", Value: strings.TrimPrefix(versionLine(), "embed ")})
}

// figures returns the key figures of the page of --report, such as numbers of records and tokens.
func figures(o *observations, r report) []htmlreport.Fact {
	computing := 0.0
	for _, m := range r.Models {
		if m.Seconds > 0 { // NaN until the first device is ready
			computing += float64(m.Seconds)
		}
	}
	var list []htmlreport.Fact
	add := func(name, value string) { list = append(list, htmlreport.Fact{Name: name, Value: value}) }
	add("records", grouped(r.Records))
	add("tokens", grouped(r.Tokens))
	add("time", rounded(r.Finished.Sub(r.Started)).String())
	if computing > 0 {
		add("tokens/s", grouped(int64(float64(r.ComputedTokens())/computing)))
	}
	add("unknown letters", percent(o.unknown, o.letters))
	add("records truncated", grouped(r.Truncated))
	add("records skipped", grouped(r.Skipped))
	if o.repeated > 0 {
		add("equal to earlier ones", grouped(o.repeated))
	}
	add("files failed", grouped(int64(r.Failed)))
	if r.Resumed > 0 {
		add("files complete before", grouped(int64(r.Resumed)))
	}
	return list
}

// percent returns a part of a whole as a percentage. It has one decimal from 1% on and three decimals below 1%, except
// for 0% and <0.001%.
func percent(part, whole int64) string {
	v := 100 * float64(part) / float64(max(whole, 1))
	switch {
	case part == 0:
		return "0%"
	case v < 0.001:
		return "<0.001%"
	case v < 1:
		return fmt.Sprintf("%.3f%%", v)
	}
	return fmt.Sprintf("%.1f%%", v)
}

// section returns the section about a model on the page of --report: a sentence and the charts.
func (m *observedModel) section(s *settings, state monitor.Model, through monitor.Throughput) htmlreport.Section {
	label := m.checkpoint.Label
	text := fmt.Sprintf("%s, %s of %s finished", counted(state.Tokens, "token"), grouped(int64(state.FilesDone-state.FilesFailed-m.resumed)), counted(int64(m.files), "file"))
	if m.resumed > 0 {
		text += fmt.Sprintf(", %s complete before", grouped(int64(m.resumed)))
	}
	if state.Fill > 0 {
		text += "; the batches were filled to " + filled(float64(state.Fill))
	}
	if state.HeldBackBy != "" {
		text += "; " + state.HeldBackBy + " held back the other stages"
	}
	scatter := m.mapChart()
	charts := []htmlreport.Chart{throughputChart(state, through), scatter, m.lengthChart(s)}
	if len(scatter.Groups) == 0 { // without points the map is only a sentence, and comes last
		charts[1], charts[2] = charts[2], charts[1]
	}
	return htmlreport.Section{Title: "Embeddings of " + m.Alphabet.String() + " by " + plain(label), Text: text + ".", Charts: charts}
}

// filled formats a percentage as a whole number, or as "less than 1%" where that would be 0.
func filled(percent float64) string {
	if percent < 0.5 {
		return "less than 1%"
	}
	return fmt.Sprintf("%.0f%%", percent)
}

func throughputChart(state monitor.Model, through monitor.Throughput) htmlreport.Chart {
	names := make([]string, len(through.Devices))
	for i, d := range through.Devices {
		names[i] = d
		if len(state.Devices) == len(names) && state.Devices[i].TokensPerSecond > 0 {
			names[i] += fmt.Sprintf(" (%s tokens/s on average)", grouped(int64(state.Devices[i].TokensPerSecond)))
		}
	}
	return htmlreport.Areas{Title: "Throughput by device", Unit: "tokens", Width: through.Width, Time: through.Time, Names: names, Amounts: through.Tokens,
		Text: "Tokens that the devices have computed, since the first one had loaded the weights. Equal sequences of a file are computed once."}
}

func (m *observedModel) lengthChart(s *settings) htmlreport.Chart {
	chart := htmlreport.Histogram{Title: "Lengths of the records", Unit: "records", XLabel: "letters of a record, logarithmic", Lengths: m.lengths,
		Plain: "whole", Mark: "truncated", Text: "All records that were written, before truncation."}
	if m.rows == 0 {
		chart.Text = "No file has finished."
	}
	if limit := m.job.MaxLength; limit > 0 && s.long == string(pool.LongTruncate) {
		chart.Limit = limit
		chart.Text += fmt.Sprintf(" Of longer ones the first %s letters are used.", grouped(int64(limit)))
	}
	return chart
}

// mapChart returns the map of embeddings: a sample of rows on their first two principal components, colored by file.
func (m *observedModel) mapChart() htmlreport.Scatter {
	chart := htmlreport.Scatter{Title: "Map of the embeddings"}
	files := m.largestFirst()
	var rows [][]float32
	for _, f := range files {
		for _, r := range f.sample {
			rows = append(rows, r.values)
		}
	}
	switch {
	case m.column < 0:
		chart.Text = "There is no map: no pooling of this run has one row a record. --pool mean, max or cls has."
		return chart
	case len(rows) < 3:
		chart.Text = "There is no map of fewer than three rows."
		return chart
	}
	points, shares := htmlreport.Project(rows)
	for i, f := range files {
		g := htmlreport.Group{Name: plain(f.path)}
		for k, r := range f.sample {
			g.Points = append(g.Points, htmlreport.Point{X: points[k][0], Y: points[k][1], Tip: r.id + "\n" + plain(f.path)})
		}
		if points = points[len(f.sample):]; i == htmlreport.MaxColors {
			g.Name = "all others"
		}
		chart.Groups = append(chart.Groups, g)
	}
	column := m.storedColumns()[m.column]
	chart.XLabel = fmt.Sprintf("first principal component, %.1f%% of the variance", 100*shares[0])
	chart.YLabel = fmt.Sprintf("second component, %.1f%%", 100*shares[1])
	chart.Text = fmt.Sprintf("%s of %s of this run (%s, layer %d) on the first two principal components, colored by file. Near points are similar as far as "+
		"these two show it.", grouped(int64(len(rows))), counted(m.rows, "row"), column.Pooling, column.Layer)
	return chart
}

func failureTable(o *observations, r report) htmlreport.Table {
	t := htmlreport.Table{Title: "Failures", Columns: []htmlreport.Column{{Name: "File"}, {Name: "Kind"}, {Name: "Error"}}}
	for _, f := range o.failures {
		t.Rows = append(t.Rows, []string{plain(f.Path), string(f.Type), oneLine(withHint(f.Err))})
	}
	t.More = more(int64(r.Failed)-int64(len(t.Rows)), "failed_files.txt in the output folder lists all")
	return t
}

func fileTable(o *observations, r report) htmlreport.Table {
	t := htmlreport.Table{Title: "Files", Columns: []htmlreport.Column{{Name: "File"}, {Name: "Records", Number: true}, {Name: "Tokens", Number: true},
		{Name: "Unknown letters", Number: true, Bar: true}, {Name: "Truncated", Number: true, Bar: true}, {Name: "Skipped", Number: true}}}
	for _, f := range slices.SortedFunc(slices.Values(o.reports), func(a, b pool.FileReport) int { return cmp.Compare(a.Path, b.Path) }) {
		t.Rows = append(t.Rows, []string{plain(f.Path), grouped(f.Records), grouped(f.Tokens), percent(f.Unknown, f.Letters),
			percent(f.Truncated, f.Records), grouped(skippedRecords(f.Skipped))})
	}
	t.More = more(int64(r.Files)-int64(len(t.Rows)), "these are the first that were finished; manifest.jsonl has all")
	return t
}

func cutTable(o *observations, r report) htmlreport.Table {
	t := htmlreport.Table{Title: "Truncated records", Text: "Of these records only the beginning was embedded: --long window or --max-length uses more of them.",
		Columns: []htmlreport.Column{{Name: "Record"}, {Name: "File"}, {Name: "Line", Number: true}, {Name: "Letters", Number: true}, {Name: "Used", Number: true}}}
	for _, c := range o.cut {
		t.Rows = append(t.Rows, []string{c.id, plain(c.path), grouped(c.line), grouped(int64(c.letters)), grouped(int64(c.used))})
	}
	t.More = more(r.Truncated-int64(len(t.Rows)), "")
	return t
}

func skippedTable(o *observations, r report) htmlreport.Table {
	t := htmlreport.Table{Title: "Skipped records", Text: "These records have no row.",
		Columns: []htmlreport.Column{{Name: "Record"}, {Name: "File"}, {Name: "Line", Number: true}, {Name: "Reason"}}}
	for _, s := range o.skipped {
		t.Rows = append(t.Rows, []string{s.id, plain(s.path), grouped(s.line), plain(s.reason)})
	}
	t.More = more(r.Skipped-int64(len(t.Rows)), "manifest.jsonl counts them by reason")
	return t
}

// more returns a sentence about the rows of a table that are left out, or "" if there are none.
func more(n int64, where string) string {
	switch {
	case n <= 0:
		return ""
	case where == "":
		return fmt.Sprintf("And %s more.", grouped(n))
	}
	return fmt.Sprintf("And %s more; %s.", grouped(n), where)
}
