package tokenizer

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
)

// sharedFile returns the path of a reference file in a folder beside the repository. It skips the test if the file does
// not exist.
func sharedFile(tb testing.TB, elements ...string) string {
	tb.Helper()
	path := filepath.Join(append([]string{"..", "..", "shared"}, elements...)...)
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		tb.Skipf("the reference file %s does not exist", path)
	}
	return path
}

// dnabert2File returns the tokenizer.json of DNABERT-2 and DNABERT-S.
func dnabert2File(tb testing.TB) []byte {
	tb.Helper()
	text, err := os.ReadFile(sharedFile(tb, "tokenizer", "dnabert2_tokenizer.json"))
	if err != nil {
		tb.Fatal(err)
	}
	return text
}

// dnabert2 reads the tokenizer of DNABERT-2 and DNABERT-S.
func dnabert2(tb testing.TB) *BPE {
	tb.Helper()
	t, err := ParseBPE(dnabert2File(tb))
	if err != nil {
		tb.Fatal(err)
	}
	return t
}

// ecoli reads the genome of Escherichia coli as one sequence.
func ecoli(tb testing.TB) []byte {
	tb.Helper()
	file, err := os.Open(sharedFile(tb, "seq", "MG1655-K12.fasta.gz"))
	if err != nil {
		tb.Fatal(err)
	}
	defer file.Close()
	text, err := gzip.NewReader(file)
	if err != nil {
		tb.Fatal(err)
	}
	var genome []byte
	lines := bufio.NewScanner(text)
	for lines.Scan() {
		if line := lines.Bytes(); !bytes.HasPrefix(line, []byte(">")) {
			genome = append(genome, bytes.ToUpper(line)...)
		}
	}
	if err := lines.Err(); err != nil {
		tb.Fatal(err)
	}
	return genome
}

// randomLetters returns length random letters of alphabet.
func randomLetters(rng *rand.Rand, alphabet string, length int) []byte {
	letters := make([]byte, length)
	for i := range letters {
		letters[i] = alphabet[rng.IntN(len(alphabet))]
	}
	return letters
}
