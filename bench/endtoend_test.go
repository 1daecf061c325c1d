package bench

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/parquet-go/parquet-go"

	"seqembed/transformer"
)

// TestEndToEnd checks the whole path from FASTA to Parquet: it builds the program, runs it on the sequences of two
// golden files, and compares its embeddings with those files. A golden file contains the results of a model's original
// PyTorch code.
func TestEndToEnd(t *testing.T) {
	if testing.Short() {
		t.Skip("the program is not built in short mode")
	}
	goldenDir := filepath.Join(shared, "goldens/synthetic")
	if _, err := os.Stat(goldenDir); err != nil {
		t.Skipf("no goldens: %v", err)
	}
	dir := t.TempDir()
	program := filepath.Join(dir, "embed")
	if out, err := exec.Command("go", "build", "-o", program, "seqembed/cmd/embed").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	cmd := exec.Command(program, "-dnabert-model", "synthetic:dnabert-s-2l", "-esm-model", "synthetic:esm2-8m",
		"-dnabert-tokenizer", filepath.Join(shared, "tokenizer/dnabert2_tokenizer.json"), "-o", filepath.Join(dir, "out"),
		"-dnabert-batch-size", "1000", "-esm-batch-size", "700", "-on-bad-record", "skip",
		filepath.Join(goldenDir, "proteins.faa"), filepath.Join(goldenDir, "dna.fna"))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	compareOutput(t, filepath.Join(dir, "out/proteins.esm2-8m.parquet"), filepath.Join(goldenDir, "esm2_t6_8M.safetensors"), "esm2-8m",
		"rare_letters") // this record has gaps, which the model has tokens for but the program refuses
	compareOutput(t, filepath.Join(dir, "out/dna.dnabert-s-2l.parquet"), filepath.Join(goldenDir, "dnabert_s_2layers.safetensors"), "dnabert-s-2l")
}

// compareOutput compares the number of tokens and the embedding in each row of a Parquet file with those of the same
// record in a golden file. It also checks that the number of rows is the number of records in the golden file minus
// the number of skipped records.
func compareOutput(t *testing.T, output, goldenPath, model string, skipped ...string) {
	t.Helper()
	config, _ := transformer.Families.Config(model)
	bar := barsOf(*dtypeFlag, model, config).pooled
	rows, err := parquet.ReadFile[struct {
		ID        string    `parquet:"id"`
		Tokens    int64     `parquet:"tokens"`
		Embedding []float32 `parquet:"embedding,list"`
	}](output)
	if err != nil {
		t.Fatal(err)
	}
	golden := readGolden(t, goldenPath)
	if records := len(golden.Records()) - len(skipped); len(rows) != records {
		t.Errorf("%s has %d rows for %d records", output, len(rows), records)
	}
	for _, row := range rows {
		if ids := golden.Int32s(row.ID + "/ids"); int64(len(ids)) != row.Tokens {
			t.Errorf("%s: %d tokens, the golden has %d", row.ID, row.Tokens, len(ids))
		}
		if e := relativeL2(row.Embedding, golden.Float32s(row.ID+"/mean")); !(e <= bar) {
			t.Errorf("%s errs by %.3g (relative L2), the bar is %.3g", row.ID, e, bar)
		}
	}
}
