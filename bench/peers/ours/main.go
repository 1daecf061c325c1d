// Command ours is the Go side of the comparison of embed with other engines: it writes the token ids that all of them
// read, measures embed, and compares the results.
//
//	ours tokens -model M -input FILE -out FILE   token ids, one record per line
//	ours run -model M -input FILE                one line of JSON with embed's speed
//	ours table FILE.json...                      the table; the first file is embed's
//
// The script ../compare.sh runs these three subcommands.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
)

func main() {
	if err := run(os.Args[1:], os.Stdin, os.Stdout); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			os.Exit(64)
		}
		fmt.Fprintln(os.Stderr, "ours:", err)
		os.Exit(1)
	}
}

func run(args []string, in io.Reader, out io.Writer) error {
	if len(args) == 0 {
		return errors.New("no command: use tokens, run or table")
	}
	command, args := args[0], args[1:]
	f := flag.NewFlagSet("ours "+command, flag.ContinueOnError)
	switch command {
	case "tokens":
		var t tokens
		f.StringVar(&t.model, "model", "", "synthetic:NAME[@SEED] or the folder of a checkpoint")
		f.StringVar(&t.input, "input", "", "FASTA or FASTQ, of the model's alphabet")
		f.StringVar(&t.out, "out", "", "file to write")
		f.StringVar(&t.tokenizer, "tokenizer", "", "vocabulary instead of the checkpoint's")
		f.IntVar(&t.records, "records", 0, "number of records (pieces) from the start of the input; 0 means all")
		f.IntVar(&t.piece, "piece", 500, "length of the pieces into which DNA is cut; 0 means whole records")
		f.IntVar(&t.every, "every", 1, "keep every n-th padded batch")
		f.IntVar(&t.budget, "tokens", 4096, "tokens in a batch")
		if err := f.Parse(args); err != nil {
			return err
		}
		return t.write(out)
	case "run":
		var m measurement
		f.StringVar(&m.model, "model", "", "synthetic:NAME[@SEED] or the folder of a checkpoint")
		f.StringVar(&m.input, "input", "", "token ids, one record a line")
		f.StringVar(&m.dtype, "dtype", "fp32", "operands of products: fp32 or bf16")
		f.IntVar(&m.threads, "threads", 0, "CPU threads; 0 means all cores")
		f.IntVar(&m.budget, "tokens", 4096, "tokens in a batch")
		f.IntVar(&m.rounds, "rounds", 3, "timed passes over the records")
		f.StringVar(&m.out, "out", "", "file for the embeddings, float32 [records, dim]")
		f.BoolVar(&m.step, "step", false, "print ready, then run one round for each line of standard input")
		if err := f.Parse(args); err != nil {
			return err
		}
		if m.dtype != "fp32" && m.dtype != "bf16" {
			return fmt.Errorf("-dtype: %q is neither fp32 nor bf16", m.dtype)
		}
		return m.run(in, out)
	case "table":
		bar := f.Float64("bar", 2e-5, "largest relative L2 between our embedding of a record and that of a peer in fp32")
		if err := f.Parse(args); err != nil {
			return err
		}
		return table(out, f.Args(), *bar)
	}
	return fmt.Errorf("unknown command %q: use tokens, run or table", command)
}
