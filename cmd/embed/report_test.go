package main

import (
	"bytes"
	"encoding/json"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestReport checks report.json after a run on two GPUs in which one input fails. The last event of the JSON log must
// have a report with the same fields. A rerun that computes nothing must leave report.json as it is.
func TestReport(t *testing.T) {
	args := manyFiles(t)
	write(t, "in/bad.faa", ">x\nMK1\n")
	f := &fakeMachine{names: []string{"GPU", "GPU"}, budget: 300, sensors: true}
	run := func() result {
		return f.embed(t, "--log-format json --gpus 0,1 -o out"+args).wantCode(exitSome)
	}
	r := run()
	type fields = map[string]any
	read := func() (report fields, text []byte) {
		t.Helper()
		text, err := os.ReadFile("out/report.json")
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(text, &report); err != nil {
			t.Fatal(err)
		}
		return report, text
	}
	report, text := read()
	want := fields{"report_version": 1., "exit_status": 2., "files_finished": 10., "files_failed": 1., "files_complete_before": 0., "records": 20.}
	for name, value := range want {
		if report[name] != value {
			t.Errorf("%s is %v, want %v", name, report[name], value)
		}
	}
	models := report["models"].([]any)
	tokens, sequences := 0., 0.
	for _, m := range models {
		m := m.(fields)
		if fill := m["packing_efficiency_percent"].(float64); m["state"] != "done" || fill <= 0 || fill > 100 || m["percent"] != 100. {
			t.Errorf("%v", m)
		}
		for _, d := range m["devices"].([]any) {
			d := d.(fields)
			tokens, sequences = tokens+d["tokens"].(float64), sequences+d["sequences"].(float64)
			if d["tokens"] == 0. {
				continue // the other GPU has computed all batches
			}
			if want := map[any]float64{"cuda:0": 50, "cuda:1": 51}[d["device"]]; d["mean_utilization_percent"] != want || d["peak_memory_bytes"] != float64(1<<30) {
				t.Errorf("utilization and memory of %v: %v, %v", d["device"], d["mean_utilization_percent"], d["peak_memory_bytes"])
			}
		}
	}
	if len(models) != 2 || tokens != report["tokens"] || sequences != 20 {
		t.Errorf("%d models, %v tokens in %v sequences, want %v tokens", len(models), tokens, sequences, report["tokens"])
	}
	if started, err := time.Parse(time.RFC3339, report["started"].(string)); err != nil || time.Since(started) > time.Hour {
		t.Errorf("started: %v, %v", report["started"], err)
	}

	var last struct {
		Msg    string
		Report fields
	}
	lines := strings.Split(strings.TrimSpace(r.stderr), "\n")
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &last); err != nil || last.Msg != "run ended" {
		t.Fatalf("the last event is %s: %v", lines[len(lines)-1], err)
	}
	if !slices.Equal(slices.Sorted(maps.Keys(last.Report)), slices.Sorted(maps.Keys(report))) || last.Report["exit_status"] != 2. {
		t.Errorf("the closing event has other fields than the report: %v", last.Report)
	}
	if !strings.Contains(r.stdout, "computing") || !strings.Contains(r.stdout, "1.0 GiB") {
		t.Errorf("no table of devices:\n%s", r.stdout)
	}
	run()
	if _, again := read(); !bytes.Equal(text, again) {
		t.Error("a run that has computed nothing has replaced the report")
	}
}
