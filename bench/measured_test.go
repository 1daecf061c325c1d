package bench

import (
	"bufio"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"seqembed/kernels"
	"seqembed/kernels/cuda"
	"seqembed/transformer"
)

var (
	forwardJSON = flag.String("bench.json", "",
		"append the results of BenchmarkForward to this file, one line of JSON per run")
	recordsFolder = flag.String("bench.records", "",
		"folder to which TestRecords writes the records of BenchmarkForward as MODEL.tokens")
)

// measured is a line of JSON that describes several forward passes of one model over the same records. The script
// bench/gpu/table.py prints tables from such lines and from those that bench/gpu/peers.py writes for other engines.
type measured struct {
	Kind    string    `json:"kind"` // always "forward"
	Model   string    `json:"model"`
	Source  string    `json:"source"` // source of the records
	Records int       `json:"records"`
	Digest  string    `json:"digest"` // SHA-256 of the records
	Tokens  int       `json:"tokens"` // number of tokens in one pass, including special tokens
	FLOPs   float64   `json:"flops"`  // FLOPs of one pass
	Device  string    `json:"device"`
	DType   string    `json:"dtype"`
	Variant string    `json:"variant,omitempty"`
	Budget  int       `json:"budget"`  // maximum number of tokens in a batch
	Seconds []float64 `json:"seconds"` // seconds of each pass
	Median  float64   `json:"median"`
	Min     float64   `json:"min"`
	Max     float64   `json:"max"`
	Rate    float64   `json:"tokens_per_second"` // tokens per second in the median pass

	ProfileSeconds float64       `json:"profile_seconds,omitempty"` // seconds of the profiled pass
	Profile        []measuredOps `json:"profile,omitempty"`

	Products []cuda.ProductReport `json:"products,omitempty"` // algorithms of the matrix products in all passes so far
}

// measuredOps is the entry of an operation in the profile of a forward pass: how often it ran, and how long in total.
type measuredOps struct {
	Op      string  `json:"op"`
	Calls   int     `json:"calls"`
	Seconds float64 `json:"seconds"`
	FLOPs   float64 `json:"flops"`
}

// time sets Seconds, Median, Min, Max and Rate from the times of the passes.
func (m *measured) time(passes []time.Duration) {
	m.Seconds = nil
	for _, p := range passes {
		m.Seconds = append(m.Seconds, p.Seconds())
	}
	sorted := slices.Sorted(slices.Values(m.Seconds))
	half := len(sorted) / 2
	m.Min, m.Median, m.Max = sorted[0], sorted[half], sorted[len(sorted)-1]
	if len(sorted)%2 == 0 {
		m.Median = (sorted[half-1] + sorted[half]) / 2
	}
	m.Rate = float64(m.Tokens) / m.Median
}

func (m *measured) profile(p *kernels.Profile, took time.Duration) {
	m.Profile, m.ProfileSeconds = nil, took.Seconds()
	for _, o := range p.Ops() {
		m.Profile = append(m.Profile, measuredOps{o.Op, o.Calls, o.Took.Seconds(), o.FLOPs})
	}
}

// appendTo appends m to a file, as a line of JSON.
func (m measured) appendTo(path string) error {
	m.Kind = "forward"
	line, err := json.Marshal(m)
	if err != nil {
		return err
	}
	return appendTo(path, append(line, '\n'))
}

// appendTo appends text to a file.
func appendTo(path string, text []byte) error {
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o666)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	return errors.Join(err, f.Close())
}

// variant describes the settings of a measurement that have no field of their own in measured: the other flags of this
// package that were given, and whether the environment turns cuBLAS off.
func variant() string {
	fields := []string{"device", "dtype", "tokens", "total", "profile", "json", "records"}
	var parts []string
	flag.Visit(func(f *flag.Flag) {
		if name, ours := strings.CutPrefix(f.Name, "bench."); ours && !slices.Contains(fields, name) {
			parts = append(parts, name+" "+f.Value.String())
		}
	})
	if os.Getenv("EMBED_CUBLAS") == "none" {
		parts = append(parts, "without cuBLAS")
	}
	return strings.Join(parts, ", ")
}

// printRecords writes token ids, one record per line.
func printRecords(w io.Writer, records [][]int32) error {
	out := bufio.NewWriter(w)
	for _, ids := range records {
		for i, id := range ids {
			if i > 0 {
				out.WriteByte(' ')
			}
			out.WriteString(strconv.Itoa(int(id)))
		}
		out.WriteByte('\n')
	}
	return out.Flush() // returns the first error of all writes
}

// digest returns the SHA-256 of the text that printRecords writes for the records.
func digest(records [][]int32) string {
	h := sha256.New()
	if err := printRecords(h, records); err != nil {
		panic(err) // writing to a hash never fails
	}
	return fmt.Sprintf("%x", h.Sum(nil))
}

// TestRecords writes the records of BenchmarkForward to files, so that other engines can be measured with the same
// records. The flag -run selects the models, and -bench.total the number of tokens.
func TestRecords(t *testing.T) {
	if *recordsFolder == "" {
		t.Skip("-bench.records names no folder")
	}
	at, err := testTarget()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range models {
		t.Run(m.name, func(t *testing.T) {
			config, _ := transformer.Families.Config(m.name)
			records, source := sampleRecords(t, config, at.totalTokens())
			t.Logf("%s: %s", source, writeRecords(t, *recordsFolder, m.name, records))
		})
	}
}

// writeRecords writes the token ids of a model's records to the file MODEL.tokens in dir. It returns a text for the log
// with the number of records and the path.
func writeRecords(t testing.TB, dir, model string, records [][]int32) string {
	t.Helper()
	path := filepath.Join(dir, model+".tokens")
	if err := os.MkdirAll(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(printRecords(f, records), f.Close()); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%d records in %s", len(records), path)
}

// TestMeasured checks that the file of writeRecords contains the token ids of the records and has the SHA-256 that
// digest returns. It also checks that the lines of measured.appendTo can be read back, and that the median, the
// minimum, the maximum and the rate in them are correct.
func TestMeasured(t *testing.T) {
	config, _ := transformer.Families.Config("esm2-tiny")
	records := randomRecords(config, 500)
	dir := filepath.Join(t.TempDir(), "records")
	writeRecords(t, dir, "esm2-tiny", records)
	file, err := os.ReadFile(filepath.Join(dir, "esm2-tiny.tokens"))
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprintf("%x", sha256.Sum256(file)); got != digest(records) {
		t.Errorf("the digest of the file is %s, of the records %s", got, digest(records))
	}
	lines := strings.Split(strings.TrimSuffix(string(file), "\n"), "\n")
	if len(lines) != len(records) {
		t.Fatalf("%d lines for %d records", len(lines), len(records))
	}
	for i, line := range lines {
		var ids []int32
		for _, field := range strings.Fields(line) {
			id, err := strconv.ParseInt(field, 10, 32)
			if err != nil {
				t.Fatal(err)
			}
			ids = append(ids, int32(id))
		}
		if !slices.Equal(ids, records[i]) {
			t.Errorf("line %d is not record %d", i, i)
		}
	}

	m := measured{Model: "esm2-tiny", Tokens: 600, Digest: digest(records), Products: []cuda.ProductReport{
		{Product: cuda.Product{N: 3840, K: 1280, Bias: true}, AskedRows: 4096, Calls: 5, Rows: 9,
			Algorithm: "algorithm 66"},
		{Product: cuda.Product{N: 320, K: 320}, Refusal: "there is none", OwnCalls: 2, OwnRows: 8},
	}}
	path := filepath.Join(dir, "out.jsonl")
	for _, seconds := range [][]time.Duration{{3, 1, 2}, {4, 1, 3, 2}} {
		for i := range seconds {
			seconds[i] *= time.Second
		}
		m.time(seconds)
		if err := m.appendTo(path); err != nil {
			t.Fatal(err)
		}
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	stored := json.NewDecoder(f)
	for _, want := range []measured{{Median: 2, Min: 1, Max: 3, Rate: 300}, {Median: 2.5, Min: 1, Max: 4, Rate: 240}} {
		var got measured
		if err := stored.Decode(&got); err != nil {
			t.Fatal(err)
		}
		if got.Kind != "forward" || got.Model != m.Model || got.Median != want.Median || got.Min != want.Min || got.Max != want.Max || got.Rate != want.Rate {
			t.Errorf("read %+v, want %+v", got, want)
		}
		if !reflect.DeepEqual(got.Products, m.Products) {
			t.Errorf("the products are %v, want %v", got.Products, m.Products)
		}
	}
	if stored.More() {
		t.Error("the file has more than two lines")
	}
}
