package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/pflag"
)

const usage = `embed turns FASTA and FASTQ files of DNA and of proteins into embeddings.

Usage:
  embed [flags] INPUT...
  embed devices [-v]       devices that can compute here; -v: also the places searched
  embed profile [MODEL]    measure which batch size is fast on this machine, and keep it as the default
  embed models             the models with a short name, and which of them are in the local cache
  embed pull MODEL         download a model into the local cache
  embed verify MODEL       compare a model's weights with embeddings that others have published
  embed translate INPUT... proteins of DNA: six frames or open reading frames
  embed inspect DIR        which outputs in a folder are complete, changed, missing or foreign
  embed inspect FILE       NaN, equal, constant and zero rows of an output
  embed convert IN OUT     an output in another format
  embed merge DIR...       one output for each input, of the shards of runs with --shard
  embed completion SHELL   a script that completes this command line in bash, zsh or fish
  embed man                this page as a manual page
  embed help [SUBCOMMAND]  this page, or that of a subcommand
  embed version            the version, also --version

An INPUT is a file (plain, .gz, .bz2, .xz or .zst), a folder, a glob, or - for standard input. DNA runs first,
to completion, then protein. Every input gives one output, DIR/<name>.<model>.<format>. A rerun continues
where an earlier one ended, and refuses to mix outputs of other settings or of inputs that have changed.

The alphabet of each input is shown. FASTQ is DNA. Other files are what their first 100 records are: DNA, if
95% of the letters are A, C, G, T, U or N, or 80% and the rest IUPAC codes; protein, if they have letters that
DNA never has (E, F, J, L, O, P, Q, Z) or too few bases. Where records cannot tell, the extension does. A file
of both alphabets, or without a clue, is an error that --dna or --protein cures.

Proteins are truncated at 1022 residues unless --max-length or --long says otherwise; DNA has no limit.

Examples:
  embed -o out contigs.fna proteins.faa
  embed -gpus 0,1,2,3 -dnabert-batch-size 4096 -o out samples/
  zcat reads.fastq.gz | embed --dnabert-model ./DNABERT-S -o out --dna -
  embed --esm-model synthetic:esm2-8m --format npy -o try proteins.faa
`

const footer = `
Every long flag works with one dash, too, and can be given as an environment variable: EMBED_ESM_MODEL is
--esm-model; the command line wins.

Exit codes: 0 all done, 1 nothing could be done, 2 some inputs failed and the rest is written, 64 a mistake on
the command line, 75 interrupted: the same command continues.
`

// helpWidth is the maximum number of characters in a line of the help; longer descriptions of flags continue on the
// next line.
const helpWidth = 110

// printHelp writes the help page: the flags in their groups, all descriptions in one column.
func printHelp(w io.Writer, groups []group) {
	column := 0
	for _, g := range groups {
		g.flags.VisitAll(func(f *pflag.Flag) { column = max(column, len(synopsis(f))+2) })
	}
	fmt.Fprint(w, usage)
	for _, g := range groups {
		fmt.Fprintf(w, "\n%s:\n", g.title)
		g.flags.VisitAll(func(f *pflag.Flag) {
			left := synopsis(f)
			for _, line := range wrap(description(f), helpWidth-column) {
				fmt.Fprintf(w, "%-*s%s\n", column, left, line)
				left = ""
			}
		})
	}
	fmt.Fprint(w, footer)
}

// synopsis returns a flag as the user types it, with the name of its value.
func synopsis(f *pflag.Flag) string {
	s := "      --" + f.Name
	if f.Shorthand != "" {
		s = "  -" + f.Shorthand + ", --" + f.Name
	}
	if value, _ := pflag.UnquoteUsage(f); f.Value.Type() != "bool" {
		s += " " + value
	}
	return s
}

// description returns the text for a flag, and its default unless that is empty, 0 or false.
func description(f *pflag.Flag) string {
	_, text := pflag.UnquoteUsage(f)
	switch value := strings.Trim(f.DefValue, "[]"); value {
	case "", "0", "false":
		return text
	default:
		return fmt.Sprintf("%s (default %s)", text, value)
	}
}

// wrap breaks text between words into lines of at most width bytes. A longer word gets a line of its own.
func wrap(text string, width int) []string {
	var lines []string
	for _, word := range strings.Fields(text) {
		last := len(lines) - 1
		if last < 0 || len(lines[last])+1+len(word) > width {
			lines = append(lines, word)
			continue
		}
		lines[last] += " " + word
	}
	return lines
}
