package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/pflag"

	"seqembed/internal/seqio"
	"seqembed/internal/store"
	"seqembed/internal/translate"
	"seqembed/pool"
)

const translateUsage = `embed translate translates DNA into protein and prints FASTA.

Usage:
  embed translate [flags] INPUT...

Each record gives its six frames, ID_F1 to ID_F3 and, of the other strand, ID_R1 to ID_R3, with * for each stop.
With --orfs it gives its open reading frames instead, ID_orf1 and so on, whose headers name the frame and the
first and last letter in the record. An ambiguous codon is X unless all its meanings are one amino acid.

Flags:
      --code N            NCBI's number of the genetic code, such as 11 for bacteria (default 1)
      --orfs              open reading frames, from a stop or an end to the next
      --start             open reading frames begin with a start codon of the genetic code, read as M
      --min-length N      at least N amino acids (default 1, with --orfs 30)
  -o, --out FILE          write to FILE instead of standard output
      --gaps POLICY, --on-bad-record POLICY, --duplicates POLICY
                          as for embed: see embed --help
  -h, --help              this page
`

// translateFlags holds the flags of embed translate.
type translateFlags struct {
	settings
	code, least  int
	orfs, starts bool
	stderr       io.Writer
}

// declare declares the flags of embed translate and sets their defaults.
func (s *translateFlags) declare(flags *pflag.FlagSet) {
	flags.IntVar(&s.code, "code", 1, "")
	flags.BoolVar(&s.orfs, "orfs", false, "")
	flags.BoolVar(&s.starts, "start", false, "")
	flags.IntVar(&s.least, "min-length", 0, "")
	flags.StringVarP(&s.out, "out", "o", "", "")
	flags.StringVar(&s.gaps, "gaps", "error", "")
	flags.StringVar(&s.onBad, "on-bad-record", "error", "")
	flags.StringVar(&s.duplicates, "duplicates", "error", "")
}

// translateCommand is the command "embed translate".
func translateCommand(ctx context.Context, _ machine, args, environ []string, stdout, stderr io.Writer) (code int, err error) {
	s := &translateFlags{stderr: stderr}
	flags := pflag.NewFlagSet("embed translate", pflag.ContinueOnError)
	s.declare(flags)
	// The environment is not read: EMBED_OUT and the other variables are for the command embed itself.
	inputs, helped, err := parseSubcommand(flags, translateUsage, maxArguments, args, nil, stdout)
	if err != nil || helped {
		return exitCode(err, 0, 0), err
	}
	genetic, err := translate.ByNumber(s.code)
	switch {
	case err != nil:
		return exitUsage, usagef("--code: %w", err)
	case len(inputs) == 0:
		return exitUsage, usagef("embed translate takes at least one input")
	case s.starts && !s.orfs:
		return exitUsage, usagef("--start is about open reading frames: it needs --orfs")
	case s.least < 0:
		return exitUsage, usagef("--min-length: %d is negative", s.least)
	}
	if err := checkChoices(s.policies()); err != nil {
		return exitUsage, err
	}
	if !flags.Changed("min-length") {
		s.least = map[bool]int{false: 1, true: 30}[s.orfs]
	}
	s.least = max(s.least, 1) // a protein of no amino acid is no record
	if s.out == "" {
		err = s.translate(ctx, genetic, inputs, stdout)
	} else {
		_, err = store.WriteFiles([]string{s.out}, func(files []io.Writer) error { return s.translate(ctx, genetic, inputs, files[0]) })
	}
	return exitCode(err, 0, 0), err
}

// maxArguments is the maximum number of inputs. No command line can hold that many.
const maxArguments = 1 << 30

// translate translates all inputs and writes the proteins as FASTA.
func (s *translateFlags) translate(ctx context.Context, genetic *translate.Code, args []string, w io.Writer) error {
	options, out := s.reading(), bufio.NewWriterSize(w, 1<<16)
	for _, arg := range args {
		inputs, _, err := seqio.Expand(arg, seqio.DNA)
		if err != nil {
			return err
		}
		for _, in := range inputs {
			if s.out != "" && sameFile(in.Path, s.out) {
				return usagef("embed translate: %s would be read and written", in.Path)
			}
			if err := s.translateFile(ctx, genetic, in.Path, options, out); err != nil {
				return errors.Join(err, out.Flush())
			}
		}
	}
	return out.Flush()
}

func (s *translateFlags) translateFile(ctx context.Context, genetic *translate.Code, path string, options seqio.Options, out *bufio.Writer) error {
	options.Alphabet = seqio.DNA
	r, err := seqio.Open(path, options)
	if err != nil {
		return err
	}
	defer r.Close()
	for {
		record, err := r.Read()
		switch {
		case ctx.Err() != nil:
			return pool.ErrInterrupted
		case err == io.EOF:
			printSkipped(s.stderr, "embed: ", path, r.SkipCounts())
			if r.CutShort() {
				fmt.Fprintf(s.stderr, "embed: %s: %s\n", plain(path), cutShort)
			}
			return nil
		case err != nil:
			return err
		}
		s.write(genetic, record, out)
		if _, err := out.Write(nil); err != nil { // returns the error of an earlier write, such as a full disk
			return err
		}
	}
}

// write writes the proteins of a record.
func (s *translateFlags) write(genetic *translate.Code, record seqio.Record, out *bufio.Writer) {
	if !s.orfs {
		for _, f := range genetic.SixFrames(record.Seq) {
			if len(f.Protein) >= s.least {
				writeFASTA(out, record.ID+"_"+f.Name, f.Protein, lineLetters)
			}
		}
		return
	}
	for i, o := range genetic.ORFs(record.Seq, s.least, s.starts) {
		writeFASTA(out, fmt.Sprintf("%s_orf%d %s %d-%d", record.ID, i+1, o.Frame, o.Start, o.End), o.Protein, lineLetters)
	}
}
