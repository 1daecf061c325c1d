package translate

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestCodes checks that each genetic code has 64 codons, a start codon, and only amino acids and stops. It compares the
// standard code with an independent list of codons, and some codons of other codes with their known amino acids.
func TestCodes(t *testing.T) {
	for _, c := range codes {
		if len(c.amino) != 64 || len(c.starts) != 64 || !strings.Contains(c.starts, "M") ||
			strings.Trim(c.starts, "M-") != "" || strings.Trim(c.amino, "ACDEFGHIKLMNPQRSTVWY*") != "" {
			t.Errorf("code %d: %q, %q", c.number, c.amino, c.starts)
		}
	}
	standard, err := ByNumber(1)
	if err != nil {
		t.Fatal(err)
	}
	for amino, codons := range map[byte]string{'A': "GCA GCC GCG GCT", 'C': "TGC TGT", 'D': "GAC GAT", 'E': "GAA GAG", 'F': "TTC TTT",
		'G': "GGA GGC GGG GGT", 'H': "CAC CAT", 'I': "ATA ATC ATT", 'K': "AAA AAG", 'L': "CTA CTC CTG CTT TTA TTG", 'M': "ATG",
		'N': "AAC AAT", 'P': "CCA CCC CCG CCT", 'Q': "CAA CAG", 'R': "AGA AGG CGA CGC CGG CGT", 'S': "AGC AGT TCA TCC TCG TCT",
		'T': "ACA ACC ACG ACT", 'V': "GTA GTC GTG GTT", 'W': "TGG", 'Y': "TAC TAT", '*': "TAA TAG TGA"} {
		for _, codon := range strings.Fields(codons) {
			if got := standard.Translate([]byte(codon)); string(got) != string(amino) {
				t.Errorf("%s is %s, want %c", codon, got, amino)
			}
		}
	}
	for number, want := range map[int]string{2: "W*MK", 4: "WRIK", 11: "*RIK", 12: "*RIK", 14: "WSIN", 25: "GRIK"} {
		c, err := ByNumber(number)
		if err != nil {
			t.Fatal(err)
		}
		if got := string(c.Translate([]byte("TGAAGAATAAAA"))); got != want {
			t.Errorf("code %d: %s, want %s", number, got, want)
		}
	}
	if _, err := ByNumber(7); err == nil || !strings.Contains(err.Error(), "11") {
		t.Errorf("code 7: %v", err)
	}
}

// TestAmbiguousCodons checks codons with ambiguous IUPAC codes, each of which stands for several plain codons. Such a
// codon must have the amino acid of the plain codons if they all have the same one, and X if not. It must be a start
// codon only if all of the plain codons are. The test also checks the complement of each IUPAC code.
func TestAmbiguousCodons(t *testing.T) {
	c, err := ByNumber(11)
	if err != nil {
		t.Fatal(err)
	}
	for codon, want := range map[string]string{"GCN": "A", "YTR": "L", "YTN": "X", "TAR": "*", "TRA": "*", "NNN": "X", "MGR": "R",
		"RAY": "X", "A-G": "X", "ACGT": "T", "AC": ""} {
		if got := string(c.Translate([]byte(codon))); got != want {
			t.Errorf("%s is %q, want %q", codon, got, want)
		}
	}
	if !c.starts[codonIndex([]byte("RTG"))] || c.starts[codonIndex([]byte("NTA"))] || c.starts[codonIndex([]byte("A-G"))] {
		t.Error("the start codons with ambiguous letters are wrong")
	}
	if got := string(ReverseComplement([]byte("ACGTRYKMSWBDHVN"))); got != "NBDHVWSKMRYACGT" {
		t.Errorf("the reverse complement is %s", got)
	}
}

func TestSixFrames(t *testing.T) {
	c, err := ByNumber(1)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, f := range c.SixFrames([]byte("ATGGCCTAAR")) {
		got = append(got, fmt.Sprintf("%s:%s:%s", f.Name, f.DNA, f.Protein))
	}
	if want := strings.Fields("F1:ATGGCCTAA:MA* F2:TGGCCTAAR:WPK F3:GGCCTA:GL R1:YTTAGGCCA:XRP R2:TTAGGCCAT:LGH R3:TAGGCC:*A"); !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	if frames := c.SixFrames([]byte("ATGG")); len(frames) != 4 {
		t.Errorf("four letters have the frames %v", frames)
	}
	if frames := c.SixFrames(nil); len(frames) != 0 {
		t.Errorf("a sequence without letters has the frames %v", frames)
	}
}

// TestORFs checks each open reading frame that ORFs returns for a sequence. The letters from Start to End must code for
// Protein, which must not contain a stop codon. With fromStart, the first codon must be a start codon. Two known open
// reading frames must be among the results.
func TestORFs(t *testing.T) {
	c, err := ByNumber(11)
	if err != nil {
		t.Fatal(err)
	}
	seq := []byte("CCATGAAATTGTAAGTGCCCTTTTAGCATCCNGATTACAGGGCTAATCAT")
	for _, fromStart := range []bool{false, true} {
		list := c.ORFs(seq, 2, fromStart)
		if len(list) < 4 {
			t.Fatalf("only %d reading frames", len(list))
		}
		for _, o := range list {
			dna := seq[o.Start-1 : o.End]
			if o.Frame[0] == 'R' {
				dna = ReverseComplement(dna)
			}
			protein := c.Translate(dna)
			if fromStart {
				if !c.starts[codonIndex(dna)] {
					t.Errorf("%+v begins with %s", o, dna[:3])
				}
				protein[0] = 'M'
			}
			if string(protein) != string(o.Protein) || strings.Contains(string(protein), "*") || len(dna) != 3*len(protein) || len(protein) < 2 {
				t.Errorf("%+v, and its letters code for %s", o, protein)
			}
		}
	}
	var found []string
	for _, o := range c.ORFs(seq, 3, true) {
		found = append(found, fmt.Sprintf("%s %d-%d %s", o.Frame, o.Start, o.End, o.Protein))
	}
	for _, want := range []string{"F3 3-11 MKL", "F3 15-23 MPF"} { // ATG AAA TTG before TAA; GTG CCC TTT before TAG
		if !slices.Contains(found, want) {
			t.Errorf("%q, want %q among them", found, want)
		}
	}
	if list := c.ORFs([]byte("TAATAA"), 0, false); slices.ContainsFunc(list, func(o ORF) bool { return len(o.Protein) == 0 }) {
		t.Errorf("an empty reading frame in %+v", list)
	}
}

// TestChunks compares Chunks with the function split_fasta_chunk in VirNucPro's units.py
// (broadinstitute/virnucpro-broad, commit a8d3e4b). For sequences of some lengths, the expected chunks are written as
// start+length. For chunks of 300 and of 500 letters and sequences of all lengths from 1 to 6,000, the test compares
// one SHA-256 of all chunks.
func TestChunks(t *testing.T) {
	text := func(n, size int) string {
		var parts []string
		for _, c := range Chunks(n, size) {
			parts = append(parts, fmt.Sprintf("%d+%d", c.From, c.To-c.From))
		}
		return strings.Join(parts, " ")
	}
	for _, c := range []struct {
		n, size int
		want    string
	}{
		{0, 500, ""},
		{1, 500, "0+1"},
		{500, 500, "0+500"},
		{501, 500, "0+500 250+251"},
		{900, 500, "0+500 449+451"},
		{1000, 500, "0+500 500+500"},
		{1234, 500, "0+500 411+500 822+412"},
		{1499, 500, "0+500 499+500 999+500"},
		{2000, 300, "0+300 285+300 570+300 855+300 1140+300 1425+300 1710+290"},
		{10, 4, "0+4 3+4 6+4"},
	} {
		if got := text(c.n, c.size); got != c.want {
			t.Errorf("%d letters in chunks of %d: %s, want %s", c.n, c.size, got, c.want)
		}
	}
	sum := sha256.New()
	for _, size := range []int{300, 500} {
		for n := 1; n <= 6000; n++ {
			for _, c := range Chunks(n, size) {
				fmt.Fprintf(sum, "%d %d\n", c.From, c.To-c.From)
			}
		}
	}
	if got := hex.EncodeToString(sum.Sum(nil)); got != "81dbca3ef35bce53fc029bb1f29f1725ac2ce70451aef49a9c346178a5aada7e" {
		t.Errorf("the SHA-256 of all chunks is %s", got)
	}
}

// TestVirNucPro compares the frames that the function VirNucPro returns with those of identify_seq in VirNucPro's
// units.py. Expected frames are written as name:DNA:protein.
func TestVirNucPro(t *testing.T) {
	for seq, want := range map[string]string{
		"":                     "",
		"AC":                   "",
		"NNNNNN":               "",
		"ATGGCC":               "F1:ATGGCC:MA F2:TGGC:W F3:GGCC:G R1:GGCCAT:GH R2:GCCA:A R3:CCAT:P",
		"ATGNNNGCA":            "F1:ATGNNNG:MA R1:TGCNNNC:CH",
		"ACGTRYACGTNACG":       "F1:ACGTRYA:TT F2:CGTRYAC:RR F3:GTRY:T R1:CGTN:R R2:GTNACGT:TT R3:TNACGTY:RR",
		"TTRCAACCGGTNNNNNNAAC": "F1:TTRCAAC:QP F2:TRCAACC:NR F3:RCAACCGGTN:TGN R1:GTTNNNNNNA:VTG R2:TTNNNNN:PV R3:TNNNNNN:RL",
		"CTACTACTA":            "F1:CTACTACTA:LLL F2:TACTACT:YY F3:ACTACTA:TT R2:AGTAGTA:SS R3:GTAGTAG:VV",
		"TCAWACGATACCGGK":      "F1:TCAWACGATA:SDT F2:CAWACGATAC:TIP F3:AWACGATACC:RYR R2:CCGGTATCGT:PVS R3:CGGTATCGTW:RYR",
	} {
		var got []string
		for _, f := range VirNucPro([]byte(seq)) {
			got = append(got, fmt.Sprintf("%s:%s:%s", f.Name, f.DNA, f.Protein))
		}
		if text := strings.Join(got, " "); text != want {
			t.Errorf("%q: %s, want %s", seq, text, want)
		}
	}
}

// TestVirNucProPublished compares the frames of two sequences of 500 letters with the frames that VirNucPro's authors
// have published. The authors have not published the sequences; the test puts them together from the published frames
// R1 and R3.
func TestVirNucProPublished(t *testing.T) {
	folder := filepath.Join("..", "..", "..", "shared", "goldens", "published", "virnucpro")
	if _, err := os.Stat(folder); err != nil {
		t.Skip("../shared/goldens/published/virnucpro does not exist")
	}
	dna, protein := published(t, folder, "fixed_500bp_nucleotide.fa"), published(t, folder, "fixed_500bp_protein.faa")
	for _, id := range []string{"fixed_500bp_seq1_chunk_1", "fixed_500bp_seq2_chunk_1"} {
		first, third := dna[id+"R1"], dna[id+"R3"]
		other := first + third[len(third)-1:]
		if len(other) != 500 || other[2:] != third {
			t.Fatalf("%s: the frames do not overlap", id)
		}
		frames := VirNucPro(ReverseComplement([]byte(other)))
		for _, f := range frames {
			if string(f.DNA) != dna[id+f.Name] || string(f.Protein) != protein[id+f.Name] {
				t.Errorf("%s%s is not the published frame:\n%s\n%s", id, f.Name, f.DNA, f.Protein)
			}
		}
		if len(frames) != 2 {
			t.Errorf("%s has %d frames, and 2 are published", id, len(frames))
		}
	}
}

// published reads a FASTA file in which each sequence has one line. It returns the sequences by header.
func published(t *testing.T, folder, name string) map[string]string {
	t.Helper()
	f, err := os.Open(filepath.Join(folder, name))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	records := map[string]string{}
	for lines := bufio.NewScanner(f); lines.Scan(); {
		id := strings.TrimPrefix(lines.Text(), ">")
		lines.Scan()
		records[id] = lines.Text()
	}
	return records
}
