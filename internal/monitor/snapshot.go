package monitor

import (
	"fmt"
	"time"
)

// Snapshot is the state of a run at a moment. Logs and reports contain it as JSON. The JSON name of a quantity contains
// its unit.
type Snapshot struct {
	Elapsed     Value   `json:"elapsed_seconds"`
	Left        Value   `json:"left_seconds"`      // estimated time until the end of the run
	LeftAtLeast bool    `json:"left_is_a_minimum"` // whether Left lacks the time of models that have not begun
	FilesFailed int     `json:"-"`                 // number of failed inputs, including those that belong to no model
	Models      []Model `json:"models"`
}

// Model is the state of one model.
type Model struct {
	Name            string   `json:"model"`
	State           State    `json:"state"`
	Files           int      `json:"files"`
	FilesDone       int      `json:"files_done"` // files that have finished, have failed or were complete before
	FilesFailed     int      `json:"files_failed"`
	Percent         Value    `json:"percent"` // done part of the bytes of all input files
	Sequences       int64    `json:"sequences"`
	Tokens          int64    `json:"tokens"`
	Seconds         Value    `json:"seconds"` // time from the first ready device until now or the end
	TokensPerSecond Value    `json:"tokens_per_second"`
	Left            Value    `json:"left_seconds"`
	Fill            Value    `json:"packing_efficiency_percent"` // tokens in the batches, in percent of their limit
	Halvings        int      `json:"out_of_memory_halvings"`
	Skipped         int64    `json:"records_skipped"`
	Reading         Stage    `json:"reading"`
	Computing       Stage    `json:"computing"`
	Writing         Stage    `json:"writing"`
	HeldBackBy      string   `json:"held_back_by"` // stage that waits least; empty until a stage was busy for a second
	Devices         []Device `json:"devices"`
}

// Device is the state of one device, for one model.
type Device struct {
	Name            string `json:"device"`
	State           State  `json:"state"`
	File            string `json:"file"` // input file of the last batch
	Sequences       int64  `json:"sequences"`
	Tokens          int64  `json:"tokens"`
	TokensPerSecond Value  `json:"tokens_per_second"`     // mean since the device was ready
	Now             Value  `json:"tokens_per_second_now"` // rate in about the last ten seconds
	Batch           int    `json:"batch_tokens"`          // maximum number of tokens in a batch of several sequences
	LongPercent     Value  `json:"long_record_percent"`   // computed share of a long record, if there is one
	Stage
	Utilization Value `json:"utilization_percent"`
	MemoryUsed  Value `json:"memory_used_bytes"`
	MemoryTotal Value `json:"memory_total_bytes"`
	Temperature Value `json:"temperature_celsius"`
	Power       Value `json:"power_watts"`
	Clock       Value `json:"clock_megahertz"`
	// The means and the peaks cover only the time in which the device computed.
	MeanUtilization Value `json:"mean_utilization_percent"`
	MeanPower       Value `json:"mean_power_watts"`
	PeakMemory      Value `json:"peak_memory_bytes"`
	PeakTemperature Value `json:"peak_temperature_celsius"`
}

// Stage contains the times of one stage of a run: reading, computing or writing. The times of all goroutines of the
// stage are added up.
type Stage struct {
	Busy    Value `json:"busy_seconds"`
	Waiting Value `json:"waiting_seconds"` // time in which the stage waited for other stages
}

func (s *Stage) add(busy, waiting time.Duration) {
	s.Busy, s.Waiting = s.Busy+Value(busy.Seconds()), s.Waiting+Value(waiting.Seconds())
}

// waits returns the percentage of its time that a stage has waited.
func (s Stage) waits() Value { return 100 * s.Waiting / (s.Busy + s.Waiting) }

// stale is the largest age at which a sample of a GPU's sensors is shown.
const stale = 5 * sampleEvery

// Snapshot returns the present state of the run.
func (r *Run) Snapshot() Snapshot {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.now()
	s := Snapshot{Elapsed: Value(now.Sub(r.began).Seconds()), Left: unknown, FilesFailed: r.failed, Models: []Model{}}
	for i, m := range r.models {
		s.Models = append(s.Models, m.snapshot(now, i < r.next))
		if m == r.m && m.ended.IsZero() {
			s.Left = s.Models[i].Left
		}
		s.LeftAtLeast = s.LeftAtLeast || i >= r.next
	}
	return s
}

// ComputedTokens returns the number of tokens that the devices have computed, for all models.
func (s Snapshot) ComputedTokens() (n int64) {
	for _, m := range s.Models {
		n += m.Tokens
	}
	return n
}

func (m *model) snapshot(now time.Time, begun bool) Model {
	if !m.ended.IsZero() {
		now = m.ended
	}
	s := Model{Name: m.name, Files: m.files, FilesDone: m.settled, FilesFailed: m.failed, Percent: m.percent(), Left: m.remaining(now),
		State: m.state(begun), Seconds: unknown, TokensPerSecond: unknown,
		Fill: m.fill.percent(), Halvings: m.halvings, Skipped: m.skipped, Reading: m.reading, Writing: m.writing, Devices: []Device{}}
	for _, d := range m.devices {
		s.Devices = append(s.Devices, d.snapshot(now))
		if !m.ended.IsZero() && d.state == Computing {
			s.Devices[len(s.Devices)-1].State = s.State
		}
		s.Sequences, s.Tokens = s.Sequences+d.sequences, s.Tokens+d.tokens
		s.Computing.Busy, s.Computing.Waiting = s.Computing.Busy+d.stage.Busy, s.Computing.Waiting+d.stage.Waiting
	}
	if !m.began.IsZero() {
		s.Seconds = Value(now.Sub(m.began).Seconds())
		s.TokensPerSecond = perSecond(s.Tokens, now.Sub(m.began))
	}
	s.HeldBackBy = s.heldBackBy()
	return s
}

func (m *model) state(begun bool) State {
	switch {
	case !begun:
		return Waiting
	case !m.ended.IsZero() && m.settled < m.files:
		return Stopped
	case !m.ended.IsZero():
		return Done
	case m.began.IsZero():
		return Loading
	}
	return Computing
}

func (d *device) snapshot(now time.Time) Device {
	sampled := d.sample
	if now.Sub(d.sampled) > stale {
		sampled = noSample
	}
	if d.state == Lost {
		now = d.lost
	}
	s := Device{Name: d.name, State: d.state, File: d.file, Sequences: d.sequences, Tokens: d.tokens, TokensPerSecond: unknown,
		Now: d.rate(now), Batch: d.budget, LongPercent: unknown, Stage: d.stage, MeanUtilization: d.utilization.mean(),
		MeanPower: d.power.mean(), PeakMemory: d.peakMemory, PeakTemperature: d.peakHeat}
	if !d.ready.IsZero() {
		s.TokensPerSecond = perSecond(d.tokens, now.Sub(d.ready))
	}
	if d.inside != nil {
		s.LongPercent = Value(100 * d.inside())
	}
	s.Utilization, s.MemoryUsed, s.MemoryTotal = sampled.Utilization, sampled.MemoryUsed, sampled.MemoryTotal
	s.Temperature, s.Power, s.Clock = sampled.Temperature, sampled.Power, sampled.Clock
	return s
}

// percent returns the percentage of the bytes on disk that is done, or unknown if the size of an input is not known.
func (m *model) percent() Value {
	if !m.sized {
		return unknown
	}
	return Value(min(100, 100*m.allDone/max(m.allSize, 1)))
}

// remaining estimates the remaining seconds from the bytes per second of this run.
func (m *model) remaining(now time.Time) Value {
	switch {
	case m.settled == m.files:
		return 0
	case !m.sized || m.computed == 0 || m.allDone >= m.allSize:
		return unknown
	}
	return Value(now.Sub(m.began).Seconds() / float64(m.computed) * float64(m.allSize-m.allDone))
}

// heldBackBy returns the stage that waits the smallest part of its time, among the stages that were busy for a second.
// The other stages wait for it.
func (m Model) heldBackBy() string {
	name, least := "", unknown
	for _, s := range m.stages() {
		if s.Busy >= 1 && !(s.waits() >= least) {
			name, least = s.name, s.waits()
		}
	}
	return name
}

// namedStage is a stage with its name.
type namedStage struct {
	name string
	Stage
}

func (m Model) stages() []namedStage {
	return []namedStage{{"reading", m.Reading}, {"computing", m.Computing}, {"writing", m.Writing}}
}

// Attributes returns the state of the run as keys and values for a structured log.
func (s Snapshot) Attributes() []any {
	return []any{"elapsed_seconds", s.Elapsed, "left_seconds", s.Left, "left_is_a_minimum", s.LeftAtLeast, "files_failed", s.FilesFailed, "models", s.Models}
}

// Attributes returns the most important fields of a model as keys and values for a log that people read.
func (m Model) Attributes() []any {
	list := []any{"model", m.Name, "files", fmt.Sprintf("%d/%d", m.FilesDone, m.Files), "sequences", m.Sequences,
		"tokens_per_second", m.TokensPerSecond.Text("%.0f")}
	if m.Left.known() && m.Percent.known() {
		list = append(list, "percent", m.Percent.Text("%.0f"), "left", duration(m.Left))
	}
	if m.HeldBackBy != "" {
		list = append(list, "held_back_by", m.HeldBackBy)
	}
	for _, d := range m.Devices {
		switch {
		case d.LongPercent.known():
			list = append(list, d.Name, d.LongPercent.Text("%.0f%% of a long record"))
		case d.Utilization.known():
			list = append(list, d.Name, fmt.Sprintf("%.0f%%, %.1f GiB", d.Utilization, d.MemoryUsed/(1<<30)))
		}
	}
	return list
}
