package seqio

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
)

// benchmarkReader measures the time to read input, which may be compressed. decompressed is the length in bytes of its
// text. The benchmark reports MB/s of the text and the memory that is allocated to read the whole input.
func benchmarkReader(b *testing.B, input []byte, decompressed int, o Options) {
	b.Helper()
	b.SetBytes(int64(decompressed))
	b.ReportAllocs()
	for b.Loop() {
		r, err := NewReader(bytes.NewReader(input), "in", o)
		if err != nil {
			b.Fatal(err)
		}
		for {
			if _, err := r.Read(); err == io.EOF {
				break
			} else if err != nil {
				b.Fatal(err)
			}
		}
		r.Close()
	}
}

func genome(letters, width int, eol string) []byte {
	rng := rand.New(rand.NewPCG(1, 1))
	var text bytes.Buffer
	text.WriteString(">chromosome" + eol)
	for n := 0; n < letters; n += width {
		text.Write(randomLetters(rng, "ACGT", min(width, letters-n)))
		text.WriteString(eol)
	}
	return text.Bytes()
}

func reads(n int) []byte {
	rng := rand.New(rand.NewPCG(1, 1))
	var text bytes.Buffer
	for i := range n {
		fmt.Fprintf(&text, "@SRR059298.%d.1 HWUSI-EAS591:1:1:4:%d length=72\n%s\n+\n%s\n", i, i, randomLetters(rng, "ACGTN", 72),
			randomLetters(rng, "@ABC!#I>+?", 72))
	}
	return text.Bytes()
}

func gzipped(b *testing.B, text []byte) []byte {
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	if _, err := w.Write(text); err != nil {
		b.Fatal(err)
	}
	if err := w.Close(); err != nil {
		b.Fatal(err)
	}
	return out.Bytes()
}

func BenchmarkReader(b *testing.B) {
	fastaText, fastqText := genome(8<<20, 70, "\n"), reads(50_000)
	windows := genome(8<<20, 70, "\r\n")
	proteins := []byte(strings.Repeat(">p\n"+strings.Repeat("MKLVAGDERS", 35)+"*\n", 20_000))
	b.Run("fasta", func(b *testing.B) { benchmarkReader(b, fastaText, len(fastaText), Options{}) })
	b.Run("fasta-crlf", func(b *testing.B) { benchmarkReader(b, windows, len(windows), Options{}) })
	b.Run("fasta-gz", func(b *testing.B) { benchmarkReader(b, gzipped(b, fastaText), len(fastaText), Options{}) })
	b.Run("proteins", func(b *testing.B) {
		benchmarkReader(b, proteins, len(proteins), Options{Duplicates: DuplicateSuffix})
	})
	b.Run("fastq72", func(b *testing.B) { benchmarkReader(b, fastqText, len(fastqText), Options{}) })
	b.Run("fastq72-gz", func(b *testing.B) { benchmarkReader(b, gzipped(b, fastqText), len(fastqText), Options{}) })
}

// BenchmarkRealFiles reads each file in two forms: as plain text, which is decompressed before the measurement, and
// compressed with gzip. The files are in the folder shared/seq beside the repository.
func BenchmarkRealFiles(b *testing.B) {
	for _, tt := range []struct{ name, file string }{
		{"lambda", "lambda_virus.fa.gz"},
		{"MG1655", "MG1655-K12.fasta.gz"},
		{"illumina", "SRR059298_subset.fastq.gz"},
		{"uniprot", "uniprot_20000.faa.gz"},
	} {
		packed, err := os.ReadFile(realFile(b, tt.file))
		if err != nil {
			b.Fatal(err)
		}
		z, err := gzip.NewReader(bytes.NewReader(packed))
		if err != nil {
			b.Fatal(err)
		}
		text, err := io.ReadAll(z)
		if err != nil {
			b.Fatal(err)
		}
		b.Run(tt.name, func(b *testing.B) { benchmarkReader(b, text, len(text), Options{}) })
		b.Run(tt.name+"-gz", func(b *testing.B) { benchmarkReader(b, packed, len(text), Options{}) })
	}
}

// BenchmarkChromosomeFASTQ reads one FASTQ record of many lines, as programs write it for a whole chromosome. About
// every tenth line of quality values begins with '@'. A parser that started over at each of these lines would take
// quadratic time. The rate in MB/s must be about the same for all lengths of the record.
func BenchmarkChromosomeFASTQ(b *testing.B) {
	for _, letters := range []int{1 << 20, 1 << 22, 1 << 24} {
		text := genome(letters, 60, "\n")
		text[0] = '@'
		rng := rand.New(rand.NewPCG(1, 1))
		text = append(text, "+\n"...)
		for n := 0; n < letters; n += 60 {
			text = append(append(text, randomLetters(rng, "@ABCDEFGHI", min(60, letters-n))...), '\n')
		}
		b.Run(fmt.Sprintf("%dMb", letters>>20), func(b *testing.B) { benchmarkReader(b, text, len(text), Options{}) })
	}
}

func BenchmarkClean(b *testing.B) {
	seq := randomLetters(rand.New(rand.NewPCG(1, 1)), "ACGTacgt", 1<<20)
	for _, a := range []Alphabet{DNA, Protein} {
		c := newCleaner(a, Options{}, false)
		b.Run(a.String(), func(b *testing.B) {
			b.SetBytes(int64(len(seq)))
			for b.Loop() {
				if _, err := c.clean(seq); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
