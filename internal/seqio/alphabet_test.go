package seqio

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
)

func TestLettersOfOneRecord(t *testing.T) {
	genome := strings.Repeat("ACGTTGCATTACGGA", 200)
	for _, tt := range []struct {
		name, letters string
		want          Alphabet
		sure          bool
	}{
		{"short", "ACGT", DNA, false},
		{"plain", "ACGTUNacgtunACGTACGT", DNA, true},
		{"nearly long enough", "ACGTUNacgtunACGTACG", DNA, false},
		{"RNA", "ACGUUGCAUUACGGAUCGGA", DNA, true},
		{"genome", genome, DNA, true},
		{"soft-masked", strings.ToLower(genome), DNA, true},
		{"masked with X", genome + strings.Repeat("X", 5000), DNA, true},
		{"masked with x", genome + strings.Repeat("x", 5000), DNA, true},
		{"masked with N", genome + strings.Repeat("N", 50000), DNA, true},
		{"one inosine", genome + "I", DNA, true},
		{"four odd letters in a hundred", strings.Repeat("ACGTTGCATTACGGAACGTTGCATTACGGAACGTTGCATTACGGAACG", 2) + "ELQZ", DNA, true},
		{"deletions as stops", genome + "**", DNA, true},
		{"some codes", strings.Repeat("ACGT", 25) + "RYSWKMBDHV", DNA, true},
		{"primer 926F", "AAACTYAAAKGAATTGRCGG", DNA, true},
		{"primer 1392R", "ACGGGCGGTGTGTRC", DNA, false},
		{"primer 515F-Y", "GTGYCAGCMGCCGCGGTAA", DNA, false},
		{"primer 806RB", "GGACTACNVGGGTWTCTAAT", DNA, true},
		{"primer mlCOIintF", "GGWACWGGWTGAACWGTWTAYCCYCC", DNA, false},
		{"primer jgHCO2198 with inosine", "TAIACYTCIGGRTGICCRAARAAYCA", DNA, false},
		{"repeat of a virus", "CASTCASTCASTGASTCADTNVDTCASTCA", DNA, false},
		{"gaps in an alignment", "ACGTACG--GT..ACTTACGTACT", DNA, true},
		{"numbered lines", "1 ACGTACGTAC 5 ACGTACGTAC", DNA, true},
		{"peptide", "MKVLAAGWQ", Protein, true},
		{"short peptide", "MKV", Protein, false},
		{"D S Y G H K", "DSYGHKDSYGHK", Protein, true},
		{"metallothionein", "MDPNCSCATGDSCTCASSCKCKECKCTSCKKSCCSCCPVGCAKCAQGCICKGASDKCSCCA", Protein, true},
		{"linker", "GGGGSGGGGSGGGGSGGGGS", Protein, true},
		{"converted by bisulfite", strings.Repeat("ATTGGATTAGTTGAG", 20), DNA, false},
		{"silk", strings.Repeat("GAGAGS", 20), Protein, true},
		{"collagen", strings.Repeat("GPPGAP", 20), Protein, true},
		{"polyglutamine", strings.Repeat("Q", 40), Protein, true},
		{"polylysine", strings.Repeat("K", 40), Protein, true},
		{"antifreeze protein", "DTASDAAAAAALTAANAKAAAELTAANAAAAAAATAR", Protein, true},
		{"protein masked with X", "MKVLAAGWQ" + strings.Repeat("X", 500), Protein, true},
		{"alanine or adenine", strings.Repeat("A", 40), Unknown, false},
		{"Thr-Gly or microsatellite", strings.Repeat("TG", 40), Unknown, false},
		{"N or asparagine", strings.Repeat("N", 40), Unknown, false},
		{"only X", "XXXX", Unknown, false},
		{"between", "ACGTACGTAL", Unknown, false},
		{"stop", "*", Unknown, false},
		{"nothing", "", Unknown, false},
	} {
		var c composition
		c.add([]byte(tt.letters))
		if got, sure := c.judge(); got != tt.want || sure != tt.sure {
			t.Errorf("%s: %.40q is %s, sure %t; want %s, %t", tt.name, tt.letters, got, sure, tt.want, tt.sure)
		}
	}
}

// TestFinding checks the Finding of a Reader for whole inputs: the alphabet, the reason for it, and the extension that
// contradicts it. A given alphabet must always be used. If the alphabet cannot be told, the error must be ErrAlphabet.
func TestFinding(t *testing.T) {
	const gene, protein = "ACGTTGCATTACGGAACGTT", "MKVLAAGWQEFDSTIKN"
	fasta := func(records ...string) string {
		var b strings.Builder
		for i, letters := range records {
			fmt.Fprintf(&b, ">r%d\n%s\n", i, letters)
		}
		return b.String()
	}
	for _, tt := range []struct {
		name, text string
		want       Finding
	}{
		{"x.fa", fasta(gene), Finding{DNA, BecauseLetters, ""}},
		{"x.fa", fasta(protein), Finding{Protein, BecauseLetters, ""}},
		{"x.fna.gz", fasta(protein), Finding{Protein, BecauseLetters, ".fna"}},
		{"x.FAA", fasta(gene), Finding{DNA, BecauseLetters, ".FAA"}},
		{"x.fna", fasta(gene), Finding{DNA, BecauseLetters, ""}},
		{"x.ffn.bgz", fasta("NNNN"), Finding{DNA, BecauseExtension, ""}},
		{"x.frn", fasta("MKV"), Finding{DNA, BecauseExtension, ""}},
		{"x.faa", fasta("ACGT"), Finding{Protein, BecauseExtension, ""}},
		{"x.pep", fasta("A", "G"), Finding{Protein, BecauseExtension, ""}},
		{"x.aa", fasta("NNNN"), Finding{Protein, BecauseExtension, ""}},
		{"x.fa", fasta("ACGT"), Finding{DNA, BecauseLetters, ""}},
		{"x", fasta("MKV"), Finding{Protein, BecauseLetters, ""}},
		{"x", fasta("A", "C", "GT"), Finding{DNA, BecauseLetters, ""}},
		{"a folder.faa/x", fasta("ACGT"), Finding{DNA, BecauseLetters, ""}},
		// AAG, CAT and GAT are peptides here, because their letters are amino acids, too.
		{"x.fna", fasta("AAG", "CAT", "MKL", "GAT", protein), Finding{Protein, BecauseLetters, ".fna"}},
		{"x.faa", fasta("A", gene, "MKL"), Finding{DNA, BecauseLetters, ".faa"}},
		{"x", fasta("", "", ""), Finding{DNA, BecauseLetters, ""}},
		{"x.faa", "@a\nMKVLAAGWQ\n+\nIIIIIIIII\n", Finding{DNA, BecauseFASTQ, ""}},
		{"x", "@a\nRYSWKMBDHV\n+\nIIIIIIIIII\n", Finding{DNA, BecauseFASTQ, ""}},
	} {
		r, err := NewReader(strings.NewReader(tt.text), tt.name, Options{})
		if err != nil {
			t.Errorf("%s, %q: %v", tt.name, tt.text, err)
			continue
		}
		if got := r.Finding(); got != tt.want || r.Alphabet() != tt.want.Alphabet {
			t.Errorf("%s, %q: %v, want %v", tt.name, tt.text, got, tt.want)
		}
		r.Close()
		for _, given := range []Alphabet{DNA, Protein} {
			if r, err := NewReader(strings.NewReader(tt.text), tt.name, Options{Alphabet: given}); err != nil || r.Finding() != (Finding{given, "", ""}) {
				t.Errorf("%s, %q, given %s: %v, error %v", tt.name, tt.text, given, r.Finding(), err)
			}
		}
	}
	for _, text := range []string{fasta("A"), fasta("NNNNNNNN"), fasta("XXXX"), fasta("TGTGTGTGTGTGTGTGTG"), fasta("ACGTACGTAL")} {
		if r, err := NewReader(strings.NewReader(text), "x.fa", Options{}); !errors.Is(err, ErrAlphabet) {
			t.Errorf("%q: %v, error %v, want %v", text, r.Finding(), err, ErrAlphabet)
		}
	}
}

// manyRecords returns FASTA with n records that have the same letters and different ids.
func manyRecords(n int, letters string) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, ">%s%d\n%s\n", letters[:2], i, letters)
	}
	return b.String()
}

// TestMixedInputIsAnError checks that an input with records of both alphabets is an error unless the user gave the
// alphabet. The first record of the other alphabet may be anywhere in the input. It must be an error even if bad
// records are skipped.
func TestMixedInputIsAnError(t *testing.T) {
	const gene, protein = "ACGTTGCATTACGGAACGTTACG", "MKVLAAGWQEFDSTIKN"
	for _, tt := range []struct {
		name, text, first, then string
		line                    int64
	}{
		{"at once", manyRecords(1, gene) + manyRecords(1, protein), "DNA", "protein", 3},
		{"the other way round", manyRecords(1, protein) + manyRecords(1, gene), "protein", "DNA", 3},
		{"record 100", manyRecords(99, gene) + manyRecords(1, protein), "DNA", "protein", 199},
		{"record 101", manyRecords(100, gene) + manyRecords(1, protein), "DNA", "protein", 201},
		{"a gene as record 3001", manyRecords(3000, protein) + manyRecords(1, gene), "protein", "DNA", 6001},
		{"a linker as record 101", manyRecords(100, gene) + manyRecords(1, strings.Repeat("GGGGS", 8)), "DNA", "protein", 201},
		{"silk as record 101", manyRecords(100, gene) + manyRecords(1, strings.Repeat("GAGAGS", 9)), "DNA", "protein", 201},
		{"X before a protein", manyRecords(100, gene) + manyRecords(1, strings.Repeat("X", 20)+strings.Repeat(protein, 2)), "DNA", "protein", 201},
		{"a primer as record 101", manyRecords(100, protein) + manyRecords(1, "RYSWKMBRYSWKMB"+strings.Repeat("ACGT", 40)), "protein", "DNA", 201},
		{"a soft-masked gene", manyRecords(300, protein) + strings.ToLower(manyRecords(1, gene)), "protein", "DNA", 601},
	} {
		want := fmt.Sprintf("this record looks like %s, and others before it like %s", tt.then, tt.first)
		for _, policy := range []Policy{BadError, BadSkip} {
			_, _, err := readAll(strings.NewReader(tt.text), Options{OnBad: policy})
			var where *FormatError
			if !errors.Is(err, ErrAlphabet) || !errors.As(err, &where) || where.Line != tt.line || where.Msg != want {
				t.Errorf("%s: error %v, want one for line %d: %s", tt.name, err, tt.line, want)
			}
		}
		records, r, err := readAll(strings.NewReader(tt.text), Options{Alphabet: Protein, Duplicates: DuplicateSuffix})
		if err != nil || int64(len(records)) != r.Records() {
			t.Errorf("%s, given as protein: %d of %d records, error %v", tt.name, len(records), r.Records(), err)
		}
	}
	// A short record such as GATTACA is no evidence for DNA, because its letters are amino acids, too.
	records, _, err := readAll(strings.NewReader(manyRecords(120, protein)+">x\nGATTACA\n"), Options{})
	if err != nil || len(records) != 121 {
		t.Errorf("a peptide of bases: %d records, error %v", len(records), err)
	}
	_, r, err := readAll(strings.NewReader(manyRecords(120, gene)+">x\nACGL\n>y\nMKL\n"), Options{OnBad: BadSkip})
	if err != nil || r.SkipCounts()[ReasonIllegalLetter] != 2 {
		t.Errorf("bad DNA: skipped %v, error %v", r.SkipCounts(), err)
	}
}

// TestRecordsWithoutAHeaderDoNotDecide checks that a record with an empty header is no evidence for an alphabet.
func TestRecordsWithoutAHeaderDoNotDecide(t *testing.T) {
	records, r, err := readAll(strings.NewReader(">\nMKVLAAGWQEF\n>b\nACGTACGTACGTACGTACGT\n"), Options{OnBad: BadSkip})
	if err != nil || len(records) != 1 || r.Alphabet() != DNA {
		t.Errorf("%s, %d records, error %v", r.Alphabet(), len(records), err)
	}
}

func TestDetectionReadsABoundedNumberOfX(t *testing.T) {
	long := ">x\n" + strings.Repeat("X", maxAhead/2) + "\n"
	r, err := NewReader(strings.NewReader(strings.Repeat(long, 4)), "in.faa", Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if len(r.pending) != 2 {
		t.Errorf("%d records in memory, want 2", len(r.pending))
	}
}

func TestDetectionReportsDamage(t *testing.T) {
	gz := compressions(t)[".gz"](">a\nTGTGTG\n>b\nTGTGTG\n")
	_, err := NewReader(bytes.NewReader(gz[:len(gz)-9]), "in", Options{})
	if !errors.Is(err, ErrDamaged) {
		t.Errorf("error %v, want damage, because a given alphabet would not mend it", err)
	}
}

// TestDNAThatBeginsWithGaps checks that a record of DNA in a file of protein is found even if it begins with gaps.
func TestDNAThatBeginsWithGaps(t *testing.T) {
	var text strings.Builder
	for i := range detectRecords + 1 {
		fmt.Fprintf(&text, ">p%d\nMKVLWAGTREDQNHFYMKVLWAGTRE\n", i)
	}
	fmt.Fprintf(&text, ">d\n%s%s\n", strings.Repeat("-", 40), strings.Repeat("ACGTTGCA", 8))
	_, _, err := readAll(strings.NewReader(text.String()), Options{Gaps: GapsRemove})
	if !errors.Is(err, ErrAlphabet) {
		t.Errorf("error %v, want ErrAlphabet", err)
	}
}

func TestDetectionReadsABoundedNumberOfLetters(t *testing.T) {
	long := strings.Repeat("ACGT", detectLetters/4)
	r, err := NewReader(strings.NewReader(">a\n"+long+"\n>b\nMKL\n"), "in", Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if r.Alphabet() != DNA || len(r.pending) != 1 {
		t.Errorf("%s from %d records, want DNA from 1", r.Alphabet(), len(r.pending))
	}
}

func TestAlphabetNames(t *testing.T) {
	for a, want := range map[Alphabet]string{Unknown: "unknown", DNA: "DNA", Protein: "protein"} {
		if a.String() != want {
			t.Errorf("%d is %q, want %q", a, a, want)
		}
	}
}
