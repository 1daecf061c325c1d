package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

	"seqembed/internal/seqio"
	"seqembed/transformer"
)

// kinds maps model families to their names in the scripts that run the other engines.
var kinds = map[*transformer.Family]string{transformer.DNABERT: "dnabert-s", transformer.ESM2: "esm2"}

// tokens contains the flags of the subcommand tokens, which converts the records of a file to token ids.
type tokens struct {
	model, input, out, tokenizer string
	records, piece               int
	every, budget                int
}

// write writes the ids of each record, including special tokens, on a line of the output file. It writes the model's
// kind, "esm2" or "dnabert-s", to the writer status.
func (t tokens) write(status io.Writer) error {
	checkpoint, err := transformer.Families.Open(t.model)
	if err != nil {
		return err
	}
	defer checkpoint.Close()

	family := checkpoint.Config.Family
	tok, err := checkpoint.Tokenizer(t.tokenizer)
	if err != nil {
		return err
	}
	reader, err := seqio.Open(t.input, seqio.Options{Alphabet: family.Alphabet, Duplicates: seqio.DuplicateSuffix})
	if err != nil {
		return err
	}
	defer reader.Close()
	var records [][]int32
	for t.records == 0 || len(records) < t.records {
		record, err := reader.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		pieces := [][]byte{record.Seq[:min(len(record.Seq), family.MaxLength)]}
		if family.Alphabet == seqio.DNA {
			pieces = cut(record.Seq, t.piece)
		}
		for _, piece := range pieces {
			if t.records > 0 && len(records) == t.records {
				break
			}
			ids, _ := tok.Append(nil, piece)
			records = append(records, ids)
		}
	}
	if err := writeTokens(t.out, thin(records, t.budget, t.every)); err != nil {
		return fmt.Errorf("writing %s: %w", t.out, err)
	}
	fmt.Fprintln(status, kinds[family])
	return nil
}

// cut splits a sequence into pieces. The argument size is the number of letters of a piece; the last piece may be
// shorter. If size is 0, the whole sequence is one piece.
func cut(seq []byte, size int) (pieces [][]byte) {
	if size <= 0 {
		return [][]byte{seq}
	}
	for len(seq) > size {
		pieces, seq = append(pieces, seq[:size]), seq[size:]
	}
	return append(pieces, seq)
}

// thin keeps the records of every n-th batch, so that a comparison takes less time. It sorts the records by length and
// divides them into batches that are padded to at most budget tokens. Another engine that divides the kept records in
// the same way gets the same batches, so the share of padding stays about that of all records.
func thin(records [][]int32, budget, n int) (kept [][]int32) {
	if n <= 1 {
		return records
	}
	sorted := slices.Clone(records)
	slices.SortStableFunc(sorted, func(a, b []int32) int { return len(a) - len(b) })
	for batch := 0; len(sorted) > 0; batch++ {
		size := 1
		for size < len(sorted) && (size+1)*len(sorted[size]) <= budget {
			size++
		}
		if batch%n == n/2 {
			kept = append(kept, sorted[:size]...)
		}
		sorted = sorted[size:]
	}
	return kept
}

func writeTokens(path string, records [][]int32) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	w := bufio.NewWriter(f)
	for _, ids := range records {
		writeLine(w, ids)
	}
	return errors.Join(w.Flush(), f.Close())
}

// writeLine writes a line of ids. If writing fails, the Flush of w returns the error later.
func writeLine(w *bufio.Writer, ids []int32) {
	for i, id := range ids {
		if i > 0 {
			w.WriteByte(' ')
		}
		w.WriteString(strconv.Itoa(int(id)))
	}
	w.WriteByte('\n')
}

// readTokens reads a file that tokens.write has written, and checks the ids against the size of the vocabulary.
func readTokens(r io.Reader, vocabulary int) (records [][]int32, err error) {
	lines := bufio.NewReader(r)
	for {
		line, err := lines.ReadString('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, err
		}
		if line != "" {
			var ids []int32
			for _, field := range strings.Fields(line) {
				id, err := strconv.Atoi(field)
				if err != nil || id < 0 || id >= vocabulary {
					return nil, fmt.Errorf("line %d: %q is not an id below %d", len(records)+1, field, vocabulary)
				}
				ids = append(ids, int32(id))
			}
			if len(ids) == 0 {
				return nil, fmt.Errorf("line %d: a record without tokens", len(records)+1)
			}
			records = append(records, ids)
		}
		if err != nil {
			return records, nil
		}
	}
}
