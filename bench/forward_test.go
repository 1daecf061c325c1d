package bench

import (
	"bytes"
	"cmp"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"seqembed/bench/peak"
	"seqembed/internal/seqio"
	"seqembed/kernels"
	"seqembed/kernels/cuda"
	"seqembed/tokenizer"
	"seqembed/transformer"
)

var (
	forwardTokens = flag.Int("bench.tokens", 0,
		"tokens in a batch of BenchmarkForward; 0 means 2048 on a CPU, 32768 on a GPU")
	forwardTotal = flag.Int("bench.total", 0,
		"tokens in all batches of BenchmarkForward; 0 means one batch on a CPU, eight on a GPU")
	forwardProfile = flag.String("bench.profile", "",
		"append the times by operation and the cuBLAS algorithms of BenchmarkForward to this file; "+
			"- is standard error")
)

// models lists the models for BenchmarkForward, and the devices on which each runs by default. Models that are too
// large for most machines, or too small for a meaningful rate, run only if the flag -bench contains their name.
var models = []struct {
	name string
	on   onDevice
}{
	{"dnabert-s", anyDevice}, {"esm2-8m", anyDevice}, {"esm2-35m", anyDevice}, {"esm2-150m", anyDevice},
	{"esm2-650m", anyDevice}, {"esm2-3b", gpuOnly}, {"esm2-15b", namedOnly},
	{"esm2-tiny", namedOnly}, {"esm2-hd128", namedOnly}, {"dnabert-s-2l", namedOnly},
}

// onDevice selects the devices on which a model is measured even if the flag -bench does not contain its name.
type onDevice uint8

const (
	namedOnly onDevice = iota
	gpuOnly
	anyDevice
)

// named reports whether the value of an option of go test contains the name of a model. option is "bench" or "run".
func named(option, model string) bool {
	return strings.Contains(flag.Lookup("test."+option).Value.String(), model)
}

// BenchmarkForward measures forward passes at the models' real sizes with synthetic weights. Run it with
//
//	go test ./bench -run '^$' -bench Forward
//	go test ./bench -run '^$' -bench Forward/esm2-3b
//
// The records are a random sample of real records if these are available, and random letters otherwise; the name of the
// benchmark tells which. The benchmark reports tokens/s, the GFLOP/s of matrix products and attention
// (transformer.Config.FLOPs) and, on a CPU, their share of the measured peak of all cores. Loading the weights is not
// measured. A model that does not fit in the device's memory is skipped. With -bench.json the results are also written
// to a file.
func BenchmarkForward(b *testing.B) {
	at, err := benchmarkTarget()
	if err != nil {
		b.Fatal(err)
	}
	for _, m := range models {
		if m.on != anyDevice && (m.on != gpuOnly || at.gpu == noOrdinal) && !named("bench", m.name) {
			continue
		}
		b.Run(m.name, func(b *testing.B) {
			config, _ := transformer.Families.Config(m.name)
			records, source := sampleRecords(b, config, at.totalTokens())
			b.Run(source, func(b *testing.B) { benchmarkForward(b, at, m.name, source, records) })
		})
	}
}

func benchmarkForward(b *testing.B, at target, name, source string, records [][]int32) {
	backend := openDevice(b)
	defer backend.Close()
	model, config, err := openModel(name, backend)
	fits(b, err)
	defer model.Close()
	batches, limits := pack(records, at.batchTokens())
	watched := &profiler{Backend: backend}
	e, err := transformer.NewEncoder(model, watched, limits, transformer.Columns([]int{config.Layers}, transformer.Mean))
	fits(b, err)
	defer e.Close()
	// As in package pool, each batch is started before the benchmark waits for the previous one.
	pass := func() {
		var finish []func() ([][]float32, error)
		for i := range len(batches) + 1 {
			if i < len(batches) {
				finish = append(finish, e.Start(batches[i]))
			}
			if i > 0 {
				_, err := finish[i-1]()
				fits(b, err)
			}
		}
	}
	tokens, flops := 0, 0.0
	for _, r := range records {
		tokens += len(r)
		flops += config.FLOPs(len(r))
	}
	pass() // a first pass, which touches every page of memory, is not timed
	top := corePeak(backend)
	var passes []time.Duration
	for b.Loop() {
		start := time.Now()
		pass()
		passes = append(passes, time.Since(start))
		b.StopTimer()
		top = max(top, corePeak(backend))
		b.StartTimer()
	}
	report(b, float64(tokens), flops)
	top *= float64(runtime.GOMAXPROCS(0))
	if top > 0 {
		b.ReportMetric(100*flops*float64(b.N)/b.Elapsed().Seconds()/1e9/top, "%peak")
	}
	var profile kernels.Profile
	var profiled time.Duration
	if (*forwardProfile != "" || *forwardJSON != "") && watched.add(&profile) {
		start := time.Now()
		pass()
		profiled = time.Since(start)
		watched.add(nil)
	}
	products := productsOf(backend)
	if *forwardProfile != "" && profiled > 0 {
		var table bytes.Buffer
		printProfile(&table, name, &profile, profiled, top)
		for _, p := range products {
			fmt.Fprintf(&table, "  %s\n", p)
		}
		if *forwardProfile == "-" {
			os.Stderr.Write(table.Bytes())
		} else if err := appendTo(*forwardProfile, table.Bytes()); err != nil {
			b.Fatal(err)
		}
	}
	if *forwardJSON != "" {
		m := measured{Model: name, Source: source, Records: len(records), Digest: digest(records), Tokens: tokens,
			FLOPs: flops, Device: backend.Name(), DType: at.dtype, Variant: variant(), Budget: at.batchTokens(), Products: products}
		m.time(passes)
		m.profile(&profile, profiled)
		if err := m.appendTo(*forwardJSON); err != nil {
			b.Fatal(err)
		}
	}
}

// fits skips the benchmark if err wraps kernels.ErrOutOfMemory, and fails it for any other error.
func fits(b *testing.B, err error) {
	b.Helper()
	if errors.Is(err, kernels.ErrOutOfMemory) {
		b.Skipf("it does not fit: %v", err)
	}
	if err != nil {
		b.Fatal(err)
	}
}

// productsOf returns, for a backend on a GPU, a report about the cuBLAS algorithms of all matrix products that the
// backend has computed so far. It returns nil for other backends.
func productsOf(backend kernels.Backend) []cuda.ProductReport {
	if gpu, ok := backend.(*cuda.Backend); ok {
		return gpu.Products()
	}
	return nil
}

// corePeak returns the peak of one core in GFLOP/s with the instructions of a CPU backend, and 0 for other backends.
func corePeak(backend kernels.Backend) float64 {
	name := strings.Fields(backend.Name())
	if name[0] != "cpu" {
		return 0
	}
	if strings.HasSuffix(backend.Name(), " bf16") {
		return peak.Rate("bf16")
	}
	return peak.Rate(name[1])
}

// printProfile writes a table with a row for each operation of a forward pass. The argument passed is the time of the
// whole pass. The argument top is the peak rate of the device in GFLOP/s, or 0 if it is unknown. A row has the
// operation's share of the time of the pass. For an operation with FLOPs it also has the rate in GFLOP/s and, if the
// peak rate is known, the share of the peak rate.
func printProfile(w io.Writer, title string, profile *kernels.Profile, passed time.Duration, top float64) {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(table, "\n%s\tcalls\tms\ttime\tGFLOP/s\tpeak\t\n", title)
	rest := passed
	for _, o := range profile.Ops() {
		rest -= o.Took
		rate, share := "-", "-"
		if o.FLOPs > 0 {
			gflops := o.FLOPs / o.Took.Seconds() / 1e9
			rate = fmt.Sprintf("%.0f", gflops)
			if top > 0 {
				share = fmt.Sprintf("%.0f%%", 100*gflops/top)
			}
		}
		fmt.Fprintf(table, "%s\t%d\t%.2f\t%.1f%%\t%s\t%s\t\n", o.Op, o.Calls, ms(o.Took), 100*ms(o.Took)/ms(passed), rate, share)
	}
	fmt.Fprintf(table, "between operations\t\t%.2f\t%.1f%%\t\t\t\n", ms(rest), 100*ms(rest)/ms(passed))
	table.Flush()
}

func ms(d time.Duration) float64 { return d.Seconds() * 1e3 }

func loadModel(t testing.TB, name string, backend kernels.Backend) (*transformer.Model, transformer.Config) {
	t.Helper()
	model, config, err := openModel(name, backend)
	if err != nil {
		t.Fatal(err)
	}
	return model, config
}

// openModel loads a model with synthetic weights.
func openModel(name string, backend kernels.Backend) (*transformer.Model, transformer.Config, error) {
	checkpoint, err := transformer.Families.Open("synthetic:" + name)
	if err != nil {
		return nil, transformer.Config{}, err
	}
	defer checkpoint.Close()
	model, err := transformer.Load(checkpoint, backend)
	return model, checkpoint.Config, err
}

// pack sorts records by length, the longest first, and packs them into batches of at most budget tokens. A longer
// record is a batch of its own.
func pack(records [][]int32, budget int) (batches []kernels.Batch, limits kernels.Limits) {
	records = slices.SortedStableFunc(slices.Values(records), func(x, y []int32) int { return cmp.Compare(len(y), len(x)) })
	for _, r := range records {
		if n := len(batches); n == 0 || len(batches[n-1].IDs)+len(r) > budget {
			batches = append(batches, kernels.Batch{})
		}
		batches[len(batches)-1].Append(r)
	}
	for _, b := range batches {
		limits.Tokens, limits.Sequences = max(limits.Tokens, len(b.IDs)), max(limits.Sequences, b.Sequences())
	}
	return batches, limits
}

// sampleRecords returns the token ids of records that together have about the given number of tokens, and the source of
// the records. The records are proteins of UniProt or pieces of 500 nt of E. coli, if their file is available, and
// random otherwise.
func sampleRecords(t testing.TB, c transformer.Config, tokens int) (records [][]int32, source string) {
	t.Helper()
	file, tokenizerFile, piece := "uniprot_500.faa.gz", "", 0
	if c.Family == transformer.DNABERT {
		file, tokenizerFile, piece = "MG1655-K12.fasta.gz", "tokenizer/dnabert2_tokenizer.json", 500
	}
	input := filepath.Join(shared, "seq", file)
	if _, err := os.Stat(input); err != nil {
		return randomRecords(c, tokens), "random"
	}
	var tok tokenizer.Tokenizer = transformer.ESM2.NewTokenizer()
	if tokenizerFile != "" {
		text, err := os.ReadFile(filepath.Join(shared, tokenizerFile))
		if err == nil {
			tok, err = tokenizer.ParseBPE(text)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	all := tokenRecords(t, input, tok, piece)
	rng := rand.New(rand.NewPCG(1, 2))
	for _, i := range rng.Perm(len(all)) {
		if left := tokens - len(all[i]); left >= 0 {
			records, tokens = append(records, all[i]), left
		}
	}
	return records, strings.SplitN(file, ".", 2)[0]
}

// tokenRecords tokenizes a file. It truncates proteins to 1,022 letters, as the program does by default, and cuts DNA
// into pieces of the given length.
func tokenRecords(t testing.TB, input string, tok tokenizer.Tokenizer, piece int) (all [][]int32) {
	reader, err := seqio.Open(input, seqio.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	for {
		record, err := reader.Read()
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		parts := [][]byte{record.Seq[:min(1022, len(record.Seq))]}
		if piece > 0 {
			parts = slices.Collect(slices.Chunk(record.Seq, piece))
		}
		for _, part := range parts {
			ids, _ := tok.Append(nil, part)
			all = append(all, ids)
		}
	}
}

// sampleBatch returns one batch of random records.
func sampleBatch(c transformer.Config, tokens int) (b kernels.Batch, lengths []int) {
	for _, r := range randomRecords(c, tokens) {
		b.Append(r)
		lengths = append(lengths, len(r))
	}
	return b, lengths
}

// randomRecords returns random records that together have about the given number of tokens. A record of DNA has 500 nt,
// which are about 110 tokens. The lengths of proteins are distributed as in UniProt, with a mean of 350 residues.
func randomRecords(c transformer.Config, tokens int) (records [][]int32) {
	rng := rand.New(rand.NewPCG(1, 2))
	for left := tokens; left > 0; {
		n := 105 + rng.IntN(11)
		if c.Family == transformer.ESM2 {
			n = 2 + min(1022, max(20, int(300*math.Exp(0.55*rng.NormFloat64()))))
		}
		n = min(n, max(3, left))
		left -= n
		ids := make([]int32, n)
		for i := range ids {
			ids[i] = int32(4 + rng.IntN(min(c.Vocabulary, 4096)-13))
		}
		records = append(records, ids)
	}
	return records
}
