package seqio

import (
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// realFile returns the path of a file in the folder shared/seq beside the repository. It skips the test if the file
// does not exist.
func realFile(t testing.TB, name string) string {
	t.Helper()
	path := filepath.Join("..", "..", "..", "shared", "seq", name)
	if _, err := os.Stat(path); err != nil {
		t.Skipf("the real file %s is not here: %v", name, err)
	}
	return path
}

func TestReadsRealFiles(t *testing.T) {
	for _, tt := range []struct {
		file     string
		alphabet Alphabet
		format   string
		records  int64
		letters  int64
		first    string
		last     string
	}{
		{"SRR059298_subset.fastq.gz", DNA, "FASTQ", 100_000, 7_200_000, "SRR059298.1.1", "SRR059298.50000.2"},
		{"uniprot_500.faa.gz", Protein, "FASTA", 500, 0, "tr|A7TBS3|A7TBS3_NEMVE", ""},
		{"NC_045512.2.fasta", DNA, "FASTA", 1, 29_903, "NC_045512.2", "NC_045512.2"},
		{"lambda_virus.fa.gz", DNA, "FASTA", 1, 48_502, "", ""},
		{"MG1655-K12.fasta.gz", DNA, "FASTA", 1, 4_639_675, "", ""},
	} {
		t.Run(tt.file, func(t *testing.T) {
			path := realFile(t, tt.file)
			r, err := Open(path, Options{})
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			var letters int64
			var first, last string
			for {
				record, err := r.Read()
				if err == io.EOF {
					break
				}
				if err != nil {
					t.Fatal(err)
				}
				if record.Index == 0 {
					first = record.ID
				}
				last = record.ID
				letters += int64(len(record.Seq))
			}
			if r.Alphabet() != tt.alphabet || formatOf(r) != tt.format || r.Records() != tt.records {
				t.Errorf("%d records of %s in %s", r.Records(), r.Alphabet(), formatOf(r))
			}
			if tt.letters != 0 && letters != tt.letters {
				t.Errorf("%d letters, want %d", letters, tt.letters)
			}
			if tt.first != "" && first != tt.first || tt.last != "" && last != tt.last {
				t.Errorf("from %q to %q, want from %q to %q", first, last, tt.first, tt.last)
			}
			sum, size, err := r.Digest()
			content, readErr := os.ReadFile(path)
			want := fmt.Sprintf("%x", sha256.Sum256(content))
			if sum != want || size != int64(len(content)) || err != nil || readErr != nil {
				t.Errorf("digest %s, %d, %v; the file has %s, %d, %v", sum, size, err, want, len(content), readErr)
			}
		})
	}
}

// TestRealLettersAreNotMistaken divides real sequences into short stretches. judge must not be certain that a stretch
// of a genome is protein. Of 200,000 stretches of 20 residues of proteins it may take two for DNA; these are short
// repeats, such as glycine and alanine in EBNA1 of the Epstein-Barr virus.
func TestRealLettersAreNotMistaken(t *testing.T) {
	for file, wrong := range map[string]Alphabet{"uniprot_20000.faa.gz": DNA, "MG1655-K12.fasta.gz": Protein} {
		r, err := Open(realFile(t, file), Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		mistaken := map[int]int{}
		for letters := 0; letters < 4_000_000; {
			record, err := r.Read()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			letters += len(record.Seq)
			for _, size := range []int{sureProtein, sureDNA, 30, 100} {
				for stretch := range slices.Chunk(record.Seq, size) {
					var c composition
					c.add(stretch)
					if a, sure := c.judge(); sure && a == wrong {
						t.Logf("%s: %s is taken for %s", record.ID, stretch, wrong)
						mistaken[size]++
					}
				}
			}
		}
		if mistaken[sureDNA] > 2 || mistaken[sureProtein]+mistaken[30]+mistaken[100] > 0 {
			t.Errorf("%s: stretches mistaken, by length: %v", file, mistaken)
		}
	}
}
