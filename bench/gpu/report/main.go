// Command report joins what BenchmarkForward and peers.py have measured on a
// GPU into one JSON file and one Markdown file.
//
//	report -date 2026-11-23 -dir bench/results forward.jsonl peers.jsonl
//
// It writes <date>-<gpu>.json and <date>-<gpu>.md and prints the Markdown.
// What is missing, failed or does not belong together is listed in both; the
// exit status is 1 then, and 2 where nothing could be written.
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"
)

func main() {
	date := flag.String("date", time.Now().UTC().Format(time.DateOnly), "of the measurements")
	dir := flag.String("dir", ".", "where the files go")
	flag.Usage = func() {
		fmt.Fprintln(flag.CommandLine.Output(), "usage: report [-date YYYY-MM-DD] [-dir DIR] FILE.jsonl...")
		flag.PrintDefaults()
	}
	flag.Parse()
	if flag.NArg() == 0 {
		flag.Usage()
		os.Exit(2)
	}
	problems, err := run(os.Stdout, *dir, *date, flag.Args())
	if err != nil {
		fmt.Fprintln(os.Stderr, "report:", err)
		os.Exit(2)
	}
	if problems {
		os.Exit(1)
	}
}

// run reads the files, writes the two others and says whether there were
// problems.
func run(out io.Writer, dir, date string, paths []string) (problems bool, err error) {
	if _, err := time.Parse(time.DateOnly, date); err != nil {
		return false, fmt.Errorf("-date: %w", err)
	}
	var lines []line
	for _, path := range paths {
		f, err := os.Open(path)
		if err != nil {
			return false, err
		}
		read, err := readLines(f)
		f.Close()
		if err != nil {
			return false, fmt.Errorf("%s: %w", path, err)
		}
		lines = append(lines, read...)
	}
	r, err := join(date, lines)
	if err != nil {
		return false, err
	}
	data, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return false, err
	}
	var page bytes.Buffer
	r.markdown(&page)
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return false, err
	}
	base := filepath.Join(dir, date+"-"+slug(r.GPU))
	if err := errors.Join(os.WriteFile(base+".json", append(data, '\n'), 0o666), os.WriteFile(base+".md", page.Bytes(), 0o666)); err != nil {
		return false, err
	}
	_, err = out.Write(page.Bytes())
	return len(r.Problems) > 0, err
}

// slug makes a part of a file's name of a GPU's.
func slug(name string) string {
	return strings.Join(strings.FieldsFunc(strings.ToLower(name), func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < '0' || r > '9')
	}), "-")
}
