package main

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"seqembed/internal/seqio"
	"seqembed/kernels"
	"seqembed/kernels/ref"
	"seqembed/transformer"
)

// publish returns a set of embeddings as a source might have published it: means by the model tiny, computed in
// float64.
func publish(t *testing.T) []publishedSet {
	t.Helper()
	checkpoint, err := transformer.Families.Open(tiny)
	if err != nil {
		t.Fatal(err)
	}
	defer checkpoint.Close()
	backend := ref.New()
	defer backend.Close()
	model, err := transformer.Load(checkpoint, backend)
	if err != nil {
		t.Fatal(err)
	}
	defer model.Close()
	encoder, err := transformer.NewEncoder(model, backend, kernels.Limits{Tokens: 64, Sequences: 1}, transformer.Columns([]int{checkpoint.Config.Layers}, transformer.Mean))
	if err != nil {
		t.Fatal(err)
	}
	defer encoder.Close()
	var records []string
	for i, seq := range []string{"MKVLLYIAASCLMLLALNVSAENTQQ", "MCADPSKCIYMYV", "M"} {
		ids, _ := checkpoint.Config.Family.NewTokenizer().Append(nil, []byte(seq))
		var batch kernels.Batch
		batch.Append(ids)
		result, err := encoder.Encode(batch)
		if err != nil {
			t.Fatal(err)
		}
		var bytes []byte
		for _, v := range result[0] {
			bytes = binary.LittleEndian.AppendUint32(bytes, math.Float32bits(v))
		}
		records = append(records, fmt.Sprintf(`{"id":"r%d","sequence":"%s","mean":"%s"}`, i, seq, base64.StdEncoding.EncodeToString(bytes)))
	}
	var sets []publishedSet
	text := `[{"model":"esm2-tiny","source":"somebody","precision":"float32","records":[` + strings.Join(records, ",") + `]}]`
	if err := json.Unmarshal([]byte(text), &sets); err != nil {
		t.Fatal(err)
	}
	return sets
}

// TestVerify checks that embed verify accepts the model of the published embeddings, as a folder and by name. It must
// not accept other weights, or embeddings that differ by more than the tolerance.
func TestVerify(t *testing.T) {
	workspace(t)
	writeCheckpoint(t, "net", tiny, nil)
	sets := publish(t)
	run := func(args ...string) result {
		t.Helper()
		var stdout, stderr strings.Builder
		code, err := verifyWith(t.Context(), noGPU, sets, args, nil, &stdout, &stderr)
		if err != nil {
			printError(&stderr, err)
		}
		return result{t, code, stdout.String(), stderr.String()}
	}
	wantVerdict := func(r result, code int, lines int, parts ...string) {
		t.Helper()
		r.wantCode(code)
		if n := strings.Count(r.stdout, "\nr"); n != lines {
			t.Errorf("%d records, want %d:\n%s", n, lines, r.stdout)
		}
		for _, part := range parts {
			if !strings.Contains(r.stdout, part) {
				t.Errorf("the output does not contain %q:\n%s", part, r.stdout)
			}
		}
	}
	wantVerdict(run("net"), exitDone, 6, "VERIFIED: these are the published weights of esm2-tiny", "float32", " fp32 ", "bf16", "somebody", "not known")
	wantVerdict(run("--dtype", "fp32", tiny), exitDone, 3, "VERIFIED", "the weights are synthetic")
	wantVerdict(run(tiny+"@1"), exitSome, 6, "NOT VERIFIED: these are not the published weights of esm2-tiny: 6 of 6", "FAR")

	refused := run("--dtype", "fp16,bf16", "net")
	wantVerdict(refused, exitSome, 3, "bf16", "VERIFIED: these are the published weights of esm2-tiny: all 3")
	refused.wantProblem("--dtype fp16 needs a GPU")
	sets[0].CheckpointSHA256 = strings.Repeat("0", 64)
	for i := range sets[0].Records[0].Mean { // an error of 0.5%, within the tolerance of bfloat16 only
		sets[0].Records[0].Mean[i] *= 1.005
	}
	wantVerdict(run("net"), exitSome, 6, "NOT VERIFIED: these weights give embeddings similar to those of esm2-tiny, but 1 of 6", "is not that of the published checkpoint")

	run("--dtype", "bf16,fp64", "net").wantCode(exitUsage).wantProblem("fp64")
	run("--dtype", "fp16", "net").wantCode(exitNothing).wantProblem("fp16")
	run("--dtype", "fp64", "net").wantCode(exitUsage).wantProblem("fp64")
	run().wantCode(exitUsage).wantProblem("one model")
	run("none").wantCode(exitNothing).wantProblem("none")
	run("synthetic:esm2-hd128").wantCode(exitNothing).wantProblem("esm2-hd128", "no published", "esm2-tiny")
	run("esm2-15b").wantCode(exitNothing).wantProblem("no published embeddings of esm2-15b are known; there are some of esm2-tiny")
	sets = append(sets, publishedSet{Model: "esm2-35m"})
	run("--offline", "esm2-35m").wantCode(exitNothing).wantProblem("esm2_t12_35M_UR50D", "hf download")
}

// TestVerifyOnSeveralGPUs checks that a GPU that fails does not keep the GPUs after it from being compared.
func TestVerifyOnSeveralGPUs(t *testing.T) {
	workspace(t)
	writeCheckpoint(t, "net", tiny, nil)
	f := &fakeMachine{names: []string{"H", "H"}, budget: 4096, broken: true}
	var stdout, stderr strings.Builder
	code, err := verifyWith(t.Context(), f.machine(), publish(t), []string{"--gpus", "0,1", "--dtype", "fp32", "net"}, nil, &stdout, &stderr)
	if n := strings.Count(stdout.String(), "cuda:1"); code != exitSome || n != 3 || err == nil || !strings.Contains(err.Error(), "cuda:0") {
		t.Errorf("exit code %d, error %v, %d records on the second GPU:\n%s", code, err, n, stdout.String())
	}
}

// TestVerifyPublished checks that embed verify compares a model with the embeddings that come with the program, and
// does not accept synthetic weights.
func TestVerifyPublished(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds under the race detector; other tests run the same goroutines")
	}
	workspace(t)
	writeCheckpoint(t, "net", "synthetic:esm2-8m", nil)
	var sets []publishedSet
	if err := json.Unmarshal(publishedJSON, &sets); err != nil {
		t.Fatal(err)
	}
	sets = slices.DeleteFunc(sets, func(s publishedSet) bool { return s.Model != "esm2-8m" || len(s.Records) > 3 })
	var stdout, stderr strings.Builder
	code, err := verifyWith(t.Context(), noGPU, sets, []string{"--dtype", "fp32", "net"}, nil, &stdout, &stderr)
	if want := "these are not the published weights of esm2-8m: 3 of 3 comparisons disagree"; code != exitSome || !strings.Contains(stdout.String(), want) {
		t.Errorf("exit code %d, error %v:\n%s", code, err, stdout.String())
	}
}

// TestPublishedEmbeddings checks the published embeddings that come with the program. Each set must be of a known
// model, with as many values as the model has columns, and have legal letters, finite values, a licence, and a
// precision with a tolerance.
func TestPublishedEmbeddings(t *testing.T) {
	var sets []struct {
		publishedSet
		Licence string `json:"licence"`
	}
	if err := json.Unmarshal(publishedJSON, &sets); err != nil {
		t.Fatal(err)
	}
	var models []string
	for _, set := range sets {
		models = append(models, set.Model)
		config, ok := transformer.Families.Config(set.Model)
		if !ok || set.Licence == "" || set.Source == "" || publishedTolerance[set.Precision] == 0 || len(set.Records) == 0 {
			t.Errorf("a set of %s: source %q, licence %q, precision %q", set.Model, set.Source, set.Licence, set.Precision)
		}
		letters := map[seqio.Alphabet]string{seqio.DNA: "ACGT", seqio.Protein: "ACDEFGHIKLMNPQRSTVWY"}[config.Family.Alphabet]
		for _, r := range set.Records {
			norm, _ := distances(make([]float32, len(r.Mean)), r.Mean)
			if len(r.Mean) != config.Hidden || strings.Trim(r.Sequence, letters) != "" || r.Sequence == "" || norm != 1 {
				t.Errorf("%s of %s: %d values, sequence %s", r.ID, set.Model, len(r.Mean), r.Sequence)
			}
		}
	}
	slices.Sort(models)
	if got, want := slices.Compact(models), []string{"dnabert-s", "esm2-150m", "esm2-35m", "esm2-3b", "esm2-650m", "esm2-8m"}; !slices.Equal(got, want) {
		t.Errorf("there are embeddings of %q, want %q", got, want)
	}
}
