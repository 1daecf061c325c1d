package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// fieldFile returns the path of a file in testdata/field, a folder of inputs as they occur in practice.
func fieldFile(t *testing.T, name string) string {
	t.Helper()
	path, err := filepath.Abs(filepath.Join("..", "..", "testdata", "field", name))
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// TestFieldInputs checks runs on inputs as they occur in practice. A readable input must give the listed rows, with the
// model for its alphabet. Any other input must cause one line of error that contains the listed parts.
func TestFieldInputs(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds under the race detector; other tests run the same goroutines")
	}
	const skip, suffix = "--on-bad-record skip", "--duplicates suffix"
	for _, c := range []struct {
		args string // arguments; the last one is the name of a file in testdata/field
		dna  bool
		rows string   // expected rows of the output, each as "id length"; empty if the input is refused
		says []string // expected parts of the error, besides the name of the file
	}{
		// Inputs whose alphabet is hard to tell.
		{"all_n.fna", true, "all 16", nil},
		{"degenerate_primers.fna", true, "926F 20, 1392R 15", nil},
		{"rm_xmasked.fna", true, "NC_045512.2 2945", nil},
		{"interleaved_slash.fastq", true, "r1/1 4, r1/2 4", nil},
		{"rare.faa", false, "sel 5, pyl 5, amb 6, low 6, mix 6", nil},
		{"one_inosine.fna", false, "", []string{`:1: record "NC_045512.2": letter 1001: "I" is not a letter of the DNA alphabet`, "made the input DNA", skip, "--dna or --protein says"}},
		{"samtools_consensus_del.fa", false, "", []string{`:1: record "NC_045512.2": letter 501: "*" is not a letter of the DNA alphabet`, skip, "--dna or --protein says"}},
		{"dna_then_prot.fa", false, "", []string{`:201: record "prot1": this record looks like protein, and others before it like DNA`, "--dna or --protein"}},
		{"prot_then_dna.fa", false, "", []string{`:201: record "dna1": this record looks like DNA, and others before it like protein`, "--dna or --protein"}},
		{skip + " prot_then_dna.fa", false, "", []string{`:201: record "dna1": this record looks like DNA`}},
		{"--protein one_inosine.fna", false, "NC_045512.2 1022", nil},
		// Inputs with gaps or stops.
		{"dna_gap.fna", false, "", []string{`:1: record "gap": letter 4: "-" is a gap`, "--gaps remove"}},
		{"--gaps remove dna_gap.fna", true, "gap 8", nil},
		{"fq_dot_N.fastq", true, "r1 4", nil},
		{"gffread_no_dot.faa", false, "t1 8", nil},
		{"gffread_trailing_dot.faa", false, "t1 8", nil},
		{"hits.a3m", false, "", []string{": 3 bad records: ", `line 3: record "h1": letter 3: "-" is a gap`, `line 7: record "h3": no sequence, only gaps`, "--gaps remove", skip}},
		{skip + " hits.a3m", false, "q 8", nil},
		{"--gaps remove hits.a3m", false, "", []string{`:7: record "h3": no sequence`, skip}},
		{"--gaps remove " + skip + " hits.a3m", false, "q 8, h1 9, h2 4", nil},
		{"stop_first.faa", false, "", []string{`:1: record "st": letter 1: "*" is a stop inside the protein`, skip}},
		{"stop_mid.faa", false, "", []string{`:1: record "stop": letter 4: "*" is a stop inside the protein`, skip}},
		{"stop_only.faa", false, "", []string{`:1: record "only": no sequence`, skip}},
		// Inputs with unusual headers or ids.
		{"latin1_id.faa", false, "ARBRE_Géné_1 3", nil},
		{"latin1_two_ids.faa", false, "café 3, cafè 3", nil},
		{"odd_headers.faa", false, "s1 3, s2 4, s3|a/b:c*?\"<>| 3, ../../etc/passwd 3, s5 3, s6 3, s7été 3, Белок 3, s9\x01ctrlA 3, s10\x00nul 3", nil},
		{"dup.fna", false, "", []string{`:3: record "d": the record on line 1 has the same id`, suffix}},
		{suffix + " dup.fna", true, "d 4, d_2 4", nil},
		{"seqkit550.faa", false, "", []string{":3: a header without an id", skip}},
		{skip + " seqkit550.faa", false, "a 3, b 3", nil},
		// Inputs with illegal letters, or with several bad records.
		{"bad1.faa", false, "", []string{`:1: record "x": letter 3: "1" is not a letter of the protein alphabet`, skip}},
		{"bad2.faa", false, "", []string{`:1: record "x": letter 3: "2" is not a letter of the protein alphabet`, skip}},
		{"many_bad.faa", false, "", []string{": 5 bad records: ", `line 3: record "bad1"`, `line 5: record "empty"`, "line 7: a header without an id",
			`line 9: record "good": the record on line 1 has the same id`, `line 11: record "st"`, skip, suffix}},
		{skip + " " + suffix + " many_bad.faa", false, "good 3, good_2 3", nil},
		{"genbank_numbers.fna", false, "", []string{`:1: record "a": letter 1: "1" is not a letter of the DNA alphabet`}},
		// Inputs with unusual line ends, encodings or formats.
		{"one.faa", false, "a 3", nil},
		{"bom.faa", false, "bom1 4, bom2 3", nil},
		{"oldmac.faa", false, "m1 7, m2 3", nil},
		{"multimember.faa.gz", false, "m1 3, m2 3, m3 3", nil},
		{"utf16.faa", false, "", []string{":1: this is not FASTA or FASTQ", "UTF-16"}},
		{"semicolon.faa", false, "", []string{`:1: this is not FASTA or FASTQ: it starts with "; comment"`, "comments have to be removed"}},
		{"pearson_old.faa", false, "", []string{`:1: this is not FASTA or FASTQ: it starts with ";P1 old pearson"`}},
		{"records.pir", false, "", []string{`:1: record "DL;SEQ1": this is PIR (NBRF), not FASTA`}},
		{"actually_sam.fastq", false, "", []string{":1: this is SAM, not FASTQ"}},
	} {
		t.Run(c.args, func(t *testing.T) {
			args := strings.Fields(c.args)
			name := args[len(args)-1]
			args[len(args)-1] = fieldFile(t, name)
			workspace(t)
			r := embed(t, append([]string{"--esm-model", tiny, "--dnabert-model", tinyDNA, "--gpus", "none", "-o", "out"}, args...)...)
			if c.rows == "" {
				r.wantCode(exitNothing).wantProblem(append(c.says, name)...)
				wantFiles(t, "out", "failed_files.txt")
				return
			}
			r.wantCode(0)
			stem := strings.TrimSuffix(strings.TrimSuffix(name, ".gz"), filepath.Ext(strings.TrimSuffix(name, ".gz")))
			if filepath.Ext(name) == ".a3m" {
				stem = name
			}
			model := "esm2-tiny"
			if c.dna {
				model = "dnabert-tiny"
			}
			if got := strings.Join(rowsOf(t, "out/"+stem+"."+model+".parquet"), ", "); got != c.rows {
				t.Errorf("rows %q, want %q", got, c.rows)
			}
		})
	}
}

// rowsOf returns the rows of a Parquet output, each as "id length". The length is the number of letters that were
// embedded.
func rowsOf(t *testing.T, path string) (list []string) {
	t.Helper()
	for _, row := range readParquet[parquetRow](t, path) {
		list = append(list, fmt.Sprint(row.ID, " ", row.Length))
	}
	return list
}

// TestFieldStopsChangeNothing checks that a stop at the end of a protein, which gffread writes as a dot, does not
// change the embedding of the protein.
func TestFieldStopsChangeNothing(t *testing.T) {
	no, trailing := fieldFile(t, "gffread_no_dot.faa"), fieldFile(t, "gffread_trailing_dot.faa")
	workspace(t)
	embed(t, "--esm-model", tiny, "-o", "out", no, trailing).wantCode(0)
	without := readParquet[parquetRow](t, "out/gffread_no_dot.esm2-tiny.parquet")
	with := readParquet[parquetRow](t, "out/gffread_trailing_dot.esm2-tiny.parquet")
	if !slices.Equal(without[0].Embedding, with[0].Embedding) {
		t.Error("the embeddings differ")
	}
}

// TestFieldDamage checks runs on damaged files of 200 records. Zeros after the gzip data must do no harm. Truncated
// gzip data, other bytes after the gzip data, and bad records at the end must each cause one line that names the fault.
func TestFieldDamage(t *testing.T) {
	workspace(t)
	var text strings.Builder
	for i := range 200 {
		fmt.Fprintf(&text, ">p%d\n%s\n", i, strings.Repeat("MKVLAAGWQEFDSTIKN", 1+i%40))
	}
	zipped := gzipped(t, text.String())
	write(t, "padded.faa.gz", zipped+strings.Repeat("\x00", 512))
	write(t, "cut.faa.gz", zipped[:len(zipped)/2])
	write(t, "garbage.faa.gz", zipped+"garbage")
	write(t, "last.faa", text.String()+">last_bad\nMKV1\n>p7\nMKV\n")
	run := func(name string) result {
		return embed(t, "--esm-model", tiny, "--max-length", "100", "--gpus", "none", "-o", "out", name)
	}
	if run("padded.faa.gz").wantCode(0); len(rowsOf(t, "out/padded.esm2-tiny.parquet")) != 200 {
		t.Error("padded.faa.gz: rows are missing")
	}
	run("cut.faa.gz").wantCode(exitNothing).wantProblem("cut.faa.gz:", "record", "gzip data is damaged, cut short or empty: unexpected EOF")
	run("garbage.faa.gz").wantCode(exitNothing).wantProblem("garbage.faa.gz:", "the gzip data is complete, but 7 bytes follow its end")
	run("last.faa").wantCode(exitNothing).wantProblem("last.faa: 2 bad records: ", `line 401: record "last_bad": letter 4: "1"`,
		`line 403: record "p7": the record on line 15 has the same id`, "--on-bad-record skip", "--duplicates suffix")
}

// TestFieldFolder checks that the files of a folder are recognized by their extensions, and that one line of the log
// counts the files that are not recognized. An extension that clearly contradicts the letters of the file must cause a
// warning.
func TestFieldFolder(t *testing.T) {
	workspace(t)
	const content = ">x\nMKVLLLAAAW\n"
	for ext := range strings.FieldsSeq("FASTA a2m a3m aa contigs fa fa.zip faa fas fast fasta fasta.Z fasta.gzip fasta.lz4 fastq ffn fna fnn fq frn " +
		"fsa fst mfa mfasta mpfa nt pep pro prot seq txt") {
		write(t, "in/f_"+strings.ReplaceAll(ext, ".", "_")+"."+ext, content)
	}
	write(t, "in/f_bgz.fa.bgz", gzipped(t, content))
	write(t, "in/f_GZ.FA.GZ", gzipped(t, content))
	r := embed(t, "--esm-model", tiny, "-o", "out", "in").wantCode(0)
	for _, want := range []string{`left_out="15 files: .a2m 1, .a3m 1, .fast 1, .fnn 1, .fst 1, .gzip 1, .lz4 1, .mfasta 1, .mpfa 1, .nt 1, .pro 1, .prot 1, .txt 1, .z 1, .zip 1"`, "the letters are those of protein, whatever the extension .fna says",
		"read as protein  input=in/f_pep.pep by=letters"} {
		if !strings.Contains(r.stderr, want) {
			t.Errorf("the log does not say %q:\n%s", want, r.stderr)
		}
	}
	if n := strings.Count(r.stdout, " -> "); n != 18 {
		t.Errorf("%d outputs, want 18:\n%s", n, r.stdout)
	}
}

// TestForcedAlphabetHoldsForAllFiles checks that --protein applies to all files and folders that follow it, as in
// --protein *.fa, which the shell expands to one flag and many files.
func TestForcedAlphabetHoldsForAllFiles(t *testing.T) {
	workspace(t)
	for _, name := range []string{"a.fa", "b.fa", "folder/c.fa"} {
		write(t, name, ">x\nTGTGTGTG\n") // T and G are letters of DNA and of proteins
	}
	r := embed(t, "--esm-model", tiny, "-o", "none", "a.fa", "b.fa").wantCode(exitNothing)
	for i, problem := range r.problems() {
		if !strings.Contains(problem, "cannot tell whether this is DNA or protein") || !strings.Contains(problem, "--dna or --protein") {
			t.Errorf("problem %d: %q", i, problem)
		}
	}
	embed(t, "--esm-model", tiny, "-o", "out", "--protein", "a.fa", "b.fa", "folder").wantCode(0)
	wantFiles(t, "out", "a.esm2-tiny.parquet", "b.esm2-tiny.parquet", "c.esm2-tiny.parquet", "manifest.jsonl")
	embed(t, "--esm-model", tiny, "-o", "glob", "--protein", "?.fa").wantCode(0)
	wantFiles(t, "glob", "a.esm2-tiny.parquet", "b.esm2-tiny.parquet", "manifest.jsonl")
}

// TestTruncatedRecordsAreNamed checks that a line of the log names the first truncated records and their lengths before
// truncation.
func TestTruncatedRecordsAreNamed(t *testing.T) {
	workspace(t)
	letters := strings.Repeat("MKVLAAGWQE", 600)
	write(t, "p.faa", ">p1022\n"+letters[:1022]+"\n>p1023\n"+letters[:1023]+"\n>p5000\n"+letters[:5000]+"\n>short\nMKV\n")
	r := embed(t, "--esm-model", tiny, "-o", "out", "p.faa").wantCode(0)
	if want := `records=2 first="p1023 (line 3, 1023 letters), p5000 (line 5, 5000 letters)"`; !strings.Contains(r.stderr, want) {
		t.Errorf("the log does not say %s:\n%s", want, r.stderr)
	}
	if !strings.Contains(r.stdout, "truncated 2 records") {
		t.Errorf("the summary does not count them:\n%s", r.stdout)
	}
	if got := strings.Join(rowsOf(t, "out/p.esm2-tiny.parquet"), ", "); got != "p1022 1022, p1023 1022, p5000 1022, short 3" {
		t.Errorf("rows %s", got)
	}
}

// TestNamesInTwoEncodings checks that files and folders with the same name in Latin-1 and in UTF-8 are different
// inputs, and that a rerun finds all of them complete.
func TestNamesInTwoEncodings(t *testing.T) {
	workspace(t)
	if err := os.WriteFile("caf\xe9.faa", nil, 0o666); err != nil {
		t.Skip("this file system takes only UTF-8:", err)
	}
	paths := []string{"caf\xe9.faa", "café.faa", "in/caf\xe9/x.faa", "in/café/x.faa", "in/caf%E9/x.faa"}
	for i, path := range paths {
		write(t, path, fmt.Sprintf(">r%d\nMKVLAAGWQ\n", i))
	}
	embed(t, "--esm-model", tiny, "-o", "out", "caf\xe9.faa", "café.faa", "in").wantCode(0)
	wantFiles(t, "out", "caf%E9.esm2-tiny.parquet", "café.esm2-tiny.parquet", "caf%E9/x.esm2-tiny.parquet", "café/x.esm2-tiny.parquet",
		"caf%25E9/x.esm2-tiny.parquet", "manifest.jsonl")
	for i, path := range []string{"caf%E9", "café", "caf%E9/x", "café/x", "caf%25E9/x"} {
		if got, want := rowsOf(t, "out/"+path+".esm2-tiny.parquet"), []string{fmt.Sprintf("r%d 9", i)}; !slices.Equal(got, want) {
			t.Errorf("%s holds %q, want %q", path, got, want)
		}
	}
	r := embed(t, "--esm-model", tiny, "-o", "out", "caf\xe9.faa", "café.faa", "in").wantCode(0)
	if n := strings.Count(r.stdout, "was complete already"); n != 5 {
		t.Errorf("%d files were complete already, want 5:\n%s", n, r.stdout)
	}
}
