package main

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"seqembed/kernels"
	"seqembed/kernels/cpu"
	"seqembed/transformer"
)

// summary describes the speed of one engine, embed or another. The program that measures the engine prints the summary
// as a line of JSON.
type summary struct {
	Runner     string    `json:"runner"`
	Version    string    `json:"version"`
	How        string    `json:"how"`
	DType      string    `json:"dtype"` // of the operands of products: fp32, bf16 or int8
	Model      string    `json:"model"`
	Threads    int       `json:"threads"`
	Records    int       `json:"records"`
	Tokens     int       `json:"tokens"` // number of tokens including special tokens, without padding
	Padded     int       `json:"padded"` // number of tokens including padding
	Dim        int       `json:"dim"`
	Seconds    []float64 `json:"seconds"` // seconds of each round
	Best       float64   `json:"best"`    // tokens/s of the fastest round
	Median     float64   `json:"median"`  // tokens/s of the median round
	Embeddings string    `json:"embeddings"`
}

// measurement runs embed's engine over records of token ids several times. It times neither the loading of the weights
// nor a first pass over the records.
type measurement struct {
	model, input, out       string
	dtype                   string // fp32 or bf16
	threads, budget, rounds int
	step                    bool
}

func (m measurement) run(in io.Reader, out io.Writer) error {
	checkpoint, err := transformer.Families.Open(m.model)
	if err != nil {
		return err
	}
	defer checkpoint.Close()
	config := checkpoint.Config
	f, err := os.Open(m.input)
	if err != nil {
		return err
	}
	defer f.Close()
	records, err := readTokens(f, config.Vocabulary)
	if err != nil {
		return fmt.Errorf("%s: %w", m.input, err)
	}
	if len(records) == 0 {
		return fmt.Errorf("%s: no records", m.input)
	}

	backend := cpu.Open(cpu.Options{Threads: m.threads, BF16: m.dtype == "bf16"})
	defer backend.Close()
	model, err := transformer.Load(checkpoint, backend)
	if err != nil {
		return err
	}
	defer model.Close()
	plan, limits := pack(records, m.budget)
	encoder, err := transformer.NewEncoder(model, backend, limits, transformer.Columns([]int{config.Layers}, transformer.Mean))
	if err != nil {
		return err
	}
	defer encoder.Close()

	embeddings := make([]float32, len(records)*config.Hidden)
	if err := encodeAll(encoder, plan, len(records), embeddings); err != nil {
		return err
	}
	if m.out != "" {
		if err := writeFloats(m.out, embeddings); err != nil {
			return err
		}
	}
	s := summary{Runner: "embed", Version: backend.Name(), How: "packed batches", DType: m.dtype, Model: m.model, Threads: backend.Threads(),
		Records: len(records), Dim: config.Hidden, Embeddings: m.out}
	for _, r := range records {
		s.Tokens += len(r)
	}
	s.Padded = s.Tokens
	s.Seconds, err = m.measure(in, out, func() error { return encodeAll(encoder, plan, len(records), embeddings) })
	if err != nil {
		return err
	}
	if len(s.Seconds) > 0 {
		s.Best = float64(s.Tokens) / slices.Min(s.Seconds)
		s.Median = float64(s.Tokens) / median(s.Seconds)
	}
	return json.NewEncoder(out).Encode(s)
}

// measure calls the function work once per round and returns the seconds of each round. If m.step is set, there is one
// round for each line that is read from the argument in. Otherwise there are m.rounds rounds.
func (m measurement) measure(in io.Reader, out io.Writer, work func() error) (seconds []float64, err error) {
	round := func() error {
		start := time.Now()
		err := work()
		seconds = append(seconds, time.Since(start).Seconds())
		return err
	}
	if !m.step {
		for range m.rounds {
			if err := round(); err != nil {
				return nil, err
			}
		}
		return seconds, nil
	}
	fmt.Fprintln(out, "ready")
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		if err := round(); err != nil {
			return nil, err
		}
		fmt.Fprintf(out, "round %.3f\n", seconds[len(seconds)-1])
	}
	return seconds, lines.Err()
}

// packed is a batch with the indexes of its records.
type packed struct {
	kernels.Batch
	records []int
}

// pack puts the records, shortest first, into batches of at most budget tokens, or of a single longer record.
func pack(records [][]int32, budget int) (batches []packed, limits kernels.Limits) {
	order := make([]int, len(records))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return len(records[a]) - len(records[b]) })
	for _, i := range order {
		if last := len(batches) - 1; last < 0 || len(batches[last].IDs)+len(records[i]) > budget {
			batches = append(batches, packed{})
		}
		b := &batches[len(batches)-1]
		b.Append(records[i])
		b.records = append(b.records, i)
		limits.Tokens, limits.Sequences = max(limits.Tokens, len(b.IDs)), max(limits.Sequences, b.Sequences())
	}
	return batches, limits
}

// encodeAll computes the embeddings of all records. It stores the embedding of record i as row i of the argument
// embeddings.
func encodeAll(e *transformer.Encoder, batches []packed, records int, embeddings []float32) error {
	dim := len(embeddings) / records
	for _, b := range batches {
		layers, err := e.Encode(b.Batch)
		if err != nil {
			return err
		}
		for row, record := range b.records {
			copy(embeddings[record*dim:(record+1)*dim], layers[0][row*dim:])
		}
	}
	return nil
}

func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

func writeFloats(path string, values []float32) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := binary.Write(f, binary.LittleEndian, values); err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	return f.Close()
}
