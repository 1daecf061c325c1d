package store

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// awkwardIDs are ids that naive quoting, escaping or handling of paths would damage.
var awkwardIDs = []string{
	"sp|P12345|NAME_HUMAN",
	`quote"d`,
	"apo'strophe",
	"../../../etc/passwd",
	"/absolute/path",
	`back\slash\n`,
	"100%25",
	"{'shape': (1,)}",
	"Ünïcode-蛋白質-🧬",
	"<html>&amp;",
	".hidden",
	"..",
	"",
	"__metadata__x",
	strings.Repeat("long", 5000),
	strings.Repeat("long", 4999) + "lonG",
}

// awkwardValues are floats whose bits would change in a conversion to another type or to text.
var awkwardValues = []float32{
	0, float32(math.Copysign(0, -1)), math.SmallestNonzeroFloat32, -math.SmallestNonzeroFloat32,
	math.MaxFloat32, -math.MaxFloat32, math.Float32frombits(0x007fffff), 1.0 / 3, 16777217, 0.1,
}

// makeRows returns count rows with random finite values. The first rows have awkwardIDs, and the first values of each
// embedding are awkwardValues.
func makeRows(s Spec, count int) []Row {
	rng := rand.New(rand.NewPCG(1, uint64(count)))
	rows := make([]Row, count)
	for i := range rows {
		r := &rows[i]
		r.ID = fmt.Sprintf("record_%d", i)
		if i < len(awkwardIDs) {
			r.ID = awkwardIDs[i]
		}
		r.Description = r.ID + " description of\t" + r.ID
		r.Length, r.RecordLength, r.Tokens, r.Truncated = 10*i, 12*i, i%4, i%3 == 1
		for residue := range int32(i % 5) {
			r.Residues = append(r.Residues, Letters{3*residue + 1, 3*residue + 2})
		}
		for _, c := range s.Columns {
			one := Spec{Columns: []Column{c}}
			e := make([]float32, one.rows(r)*s.Dim)
			for j := range e {
				if j < len(awkwardValues) {
					e[j] = awkwardValues[(i+j)%len(awkwardValues)]
					continue
				}
				bits := rng.Uint32()
				if bits&0x7f800000 == 0x7f800000 {
					bits &^= 0x40000000
				}
				e[j] = math.Float32frombits(bits)
			}
			r.Embeddings = append(r.Embeddings, e)
		}
	}
	return rows
}

// spec returns a Spec of the given format with a new folder. Its columns are the means of the given layers.
func spec(t testing.TB, format Format, layers ...int) Spec {
	dir := filepath.Join(t.TempDir(), "folder")
	if err := os.Mkdir(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	return Spec{
		Dir: dir, Base: "sample.A", Model: "esm2-8m", Kind: Protein,
		Format: format, Dim: 24, Columns: columnsOf(layers, Mean),
		Meta: map[string]string{"model": "esm2-8m", "revision": `"quoted" / ünïcode`, "pooling": "mean"},
	}
}

// columnsOf returns a column for each pooling and layer.
func columnsOf(layers []int, poolings ...Pooling) (list []Column) {
	for _, p := range poolings {
		for _, layer := range layers {
			list = append(list, Column{p, layer})
		}
	}
	return list
}

// everySpec returns Specs that together have all formats and, where a format writes them differently, all kinds of
// columns. The keys are names for subtests.
func everySpec(t testing.TB) map[string]Spec {
	all := make(map[string]Spec)
	for _, format := range Formats() {
		for _, layers := range [][]int{{33}, {0, 7, 33}} {
			for _, poolings := range [][]Pooling{{Mean}, {Residues}, {Tokens}, {CLS, Max}, {Tokens, Mean, Residues}} {
				s := spec(t, format)
				s.Columns = columnsOf(layers, poolings...)
				simple := len(layers) == 1 && poolings[0] != CLS
				if slices.Contains([]Format{H5, TSV, Pt}, format) && !simple {
					continue // these formats write every column in the same way
				}
				if _, err := s.validate(); err == nil {
					all[fmt.Sprintf("%s, %d layers, %v", format, len(layers), poolings)] = s
				}
			}
		}
	}
	matrix, compressed := spec(t, H5, 0, 33), spec(t, Parquet, 33)
	matrix.Matrix, compressed.Compress = true, true
	all["h5, matrix"], all["parquet, compressed"] = matrix, compressed
	dna := spec(t, VirNucPro, 12)
	dna.Kind = Nucleotide
	all["virnucpro, DNA"] = dna
	return all
}

// writeAll writes rows to the output described by s and returns the finished files.
func writeAll(t testing.TB, s Spec, rows []Row) []File {
	t.Helper()
	w, err := Create(s)
	if err != nil {
		t.Fatal(err)
	}
	scratch := make([][]float32, len(s.Columns))
	for _, r := range rows {
		// The embeddings of all rows are in the same memory, so a test fails if the writer retains a slice.
		kept := r.Embeddings
		r.Embeddings = make([][]float32, len(kept))
		for l, e := range kept {
			scratch[l] = append(scratch[l][:0], e...)
			r.Embeddings[l] = scratch[l]
		}
		if err := w.Write(r); err != nil {
			t.Fatal(err)
		}
	}
	files, err := w.Commit()
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// sameBits reports whether a and b are equal to the last bit.
func sameBits(a, b []float32) bool {
	return slices.EqualFunc(a, b, func(x, y float32) bool { return math.Float32bits(x) == math.Float32bits(y) })
}

// filesIn returns the paths of all files below dir.
func filesIn(t testing.TB, dir string) []string {
	t.Helper()
	var names []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			names = append(names, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func readFile(t testing.TB, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func wantError(t testing.TB, err error, parts ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want one with %q", parts)
	}
	for _, part := range parts {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("error %q does not mention %q", err, part)
		}
	}
	if strings.Contains(err.Error(), "\n") {
		t.Errorf("error %q has more than one line", err)
	}
}

func TestParseFormat(t *testing.T) {
	for _, f := range Formats() {
		if got, err := ParseFormat(string(f)); err != nil || got != f {
			t.Errorf("ParseFormat(%q) = %q, %v", f, got, err)
		}
	}
	for _, name := range []string{"", "Parquet", "hdf5"} {
		_, err := ParseFormat(name)
		wantError(t, err, fmt.Sprintf("%q", name), "parquet", "npy", "safetensors", "virnucpro")
	}
}

func TestPaths(t *testing.T) {
	for _, c := range []struct {
		format  Format
		columns []Column
		want    []string
	}{
		{Parquet, columnsOf([]int{33}, Mean), []string{"s.A.m.parquet"}},
		{Parquet, columnsOf([]int{1, 33}, Tokens), []string{"s.A.m.parquet"}},
		{Parquet, columnsOf([]int{33}, Tokens, Mean, Residues, Max), []string{"s.A.m.parquet", "s.A.m.residues.parquet", "s.A.m.tokens.parquet"}},
		{Npy, columnsOf([]int{33}, Mean), []string{"s.A.m.npy", "s.A.m.ids.txt"}},
		{Npy, columnsOf([]int{1, 33}, Mean), []string{"s.A.m.layer1.npy", "s.A.m.layer33.npy", "s.A.m.ids.txt"}},
		{Npy, columnsOf([]int{33}, Mean, Max), []string{"s.A.m.mean.npy", "s.A.m.max.npy", "s.A.m.ids.txt"}},
		{Npy, []Column{{Mean, 1}, {Max, 33}}, []string{"s.A.m.mean.layer1.npy", "s.A.m.max.layer33.npy", "s.A.m.ids.txt"}},
		{Npy, columnsOf([]int{1, 33}, Tokens), []string{"s.A.m.layer1.npz", "s.A.m.layer33.npz", "s.A.m.ids.txt"}},
		{Npy, columnsOf([]int{33}, Mean, Residues), []string{"s.A.m.npy", "s.A.m.ids.txt", "s.A.m.residues.npz", "s.A.m.residues.ids.txt"}},
		{Safetensors, columnsOf([]int{1, 33}, Mean), []string{"s.A.m.safetensors"}},
		{VirNucPro, columnsOf([]int{33}, Mean), []string{"s.A_m.pt"}},
	} {
		s := Spec{Dir: "out", Base: "s.A", Model: "m", Format: c.format, Dim: 1, Columns: c.columns}
		var got []string
		for _, path := range s.Paths() {
			got = append(got, filepath.Base(path))
			if filepath.Dir(path) != "out" {
				t.Errorf("%s is not in the output folder", path)
			}
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: paths %q, want %q", c.format, got, c.want)
		}
	}
}

func TestCommitReportsWhatIsOnDisk(t *testing.T) {
	for name, s := range everySpec(t) {
		t.Run(name, func(t *testing.T) {
			files := writeAll(t, s, makeRows(s, 40))
			var paths []string
			for _, f := range files {
				paths = append(paths, f.Path)
				if size, sum := describe(t, f.Path); f.Size != size || f.SHA256 != sum {
					t.Errorf("%s: size %d and digest %s, the file has %d and %s", f.Path, f.Size, f.SHA256, size, sum)
				}
			}
			if !slices.Equal(paths, s.Paths()) {
				t.Errorf("committed %q, announced %q", paths, s.Paths())
			}
			got := filesIn(t, s.Dir)
			if s.Format == Pt {
				if len(got) != 40 {
					t.Errorf("%d files for 40 records", len(got))
				}
				for i, path := range got {
					got[i] = filepath.Dir(path)
				}
				got = slices.Compact(got)
			}
			slices.Sort(paths)
			if !slices.Equal(got, paths) {
				t.Errorf("the folder holds %q, want %q", got, paths)
			}
		})
	}
}

// TestOutputIsDeterministic checks that writing the same records twice gives the same bytes. A run that continues an
// interrupted one relies on equal bytes.
func TestOutputIsDeterministic(t *testing.T) {
	for name, s := range everySpec(t) {
		first := writeAll(t, s, makeRows(s, 40))
		if second := writeAll(t, s, makeRows(s, 40)); !slices.Equal(first, second) {
			t.Errorf("%s: %v, then %v", name, first, second)
		}
	}
}

// describe returns the size and the digest of an output. For a folder it returns the total size of its files, and the
// digest of the text that sha256sum prints for them.
func describe(t *testing.T, path string) (size int64, digest string) {
	t.Helper()
	text := ""
	if list, err := os.ReadDir(path); err == nil {
		for _, entry := range list {
			content := readFile(t, filepath.Join(path, entry.Name()))
			size += int64(len(content))
			text += fmt.Sprintf("%x  %s\n", sha256.Sum256(content), entry.Name())
		}
	} else {
		text = string(readFile(t, path))
		size = int64(len(text))
	}
	return size, fmt.Sprintf("%x", sha256.Sum256([]byte(text)))
}

func TestExistingOutputIsReplacedOnlyByCommit(t *testing.T) {
	for name, s := range everySpec(t) {
		t.Run(name, func(t *testing.T) {
			old := make(map[string]string)
			for _, f := range writeAll(t, s, makeRows(s, 3)) {
				old[f.Path] = f.SHA256
			}
			w, err := Create(s)
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range makeRows(s, 30) {
				if err := w.Write(r); err != nil {
					t.Fatal(err)
				}
			}
			for path, digest := range old {
				if _, sum := describe(t, path); sum != digest {
					t.Errorf("%s changed before Commit", path)
				}
			}
			files, err := w.Commit()
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range files {
				if f.SHA256 == old[f.Path] {
					t.Errorf("%s did not change", f.Path)
				}
			}
		})
	}
}

func TestAbortLeavesNothing(t *testing.T) {
	for name, s := range everySpec(t) {
		t.Run(name, func(t *testing.T) {
			w, err := Create(s)
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range makeRows(s, 30) {
				if err := w.Write(r); err != nil {
					t.Fatal(err)
				}
			}
			if len(filesIn(t, s.Dir)) == 0 {
				t.Error("no temporary file was being written")
			}
			for range 2 {
				if err := w.Abort(); err != nil {
					t.Error(err)
				}
			}
			if left := filesIn(t, s.Dir); left != nil {
				t.Errorf("Abort left %q", left)
			}
			if _, err := w.Commit(); err == nil {
				t.Error("an aborted output was committed")
			}
		})
	}
}

func TestWriterEndsWithCommit(t *testing.T) {
	s := spec(t, Parquet, 33)
	w, err := Create(s)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Commit(); err != nil {
		t.Fatal(err)
	}
	if err := w.Abort(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(s.Paths()[0]); err != nil {
		t.Errorf("Abort after Commit changed the output: %v", err)
	}
	wantError(t, w.Write(makeRows(s, 1)[0]), s.Paths()[0], "already complete")
	_, err = w.Commit()
	wantError(t, err, s.Paths()[0], "already complete")
}

func TestBadRecordsAreErrorsNotRows(t *testing.T) {
	nan, inf := float32(math.NaN()), float32(math.Inf(-1))
	for name, s := range everySpec(t) {
		t.Run(name, func(t *testing.T) {
			good := makeRows(s, 8)[7:]
			want := writeAll(t, s, good)

			w, err := Create(s)
			if err != nil {
				t.Fatal(err)
			}
			bad := func(change func(r *Row)) Row {
				r := makeRows(s, 8)[7]
				r.ID = "the bad one"
				change(&r)
				return r
			}
			last := len(s.Columns) - 1
			for what, r := range map[string]Row{
				"NaN":            bad(func(r *Row) { r.Embeddings[last][s.Dim-1] = nan }),
				"zeros":          bad(func(r *Row) { clear(r.Embeddings[last][:s.Dim]) }),
				"infinity":       bad(func(r *Row) { r.Embeddings[0][0] = inf }),
				"a layer short":  bad(func(r *Row) { r.Embeddings = r.Embeddings[1:] }),
				"a value short":  bad(func(r *Row) { r.Embeddings[last] = r.Embeddings[last][1:] }),
				"a vector extra": bad(func(r *Row) { r.Embeddings[0] = append(r.Embeddings[0], make([]float32, s.Dim)...) }),
				"endless text":   bad(func(r *Row) { r.Description = strings.Repeat("x", maxText) }),
				"tokens below 0": bad(func(r *Row) { r.Tokens = -1 }),
			} {
				err := w.Write(r)
				wantError(t, err, `"the bad one"`)
				if !errors.Is(err, ErrRecord) {
					t.Errorf("%s: %v is not ErrRecord", what, err)
				}
				if notFinite := what == "NaN" || what == "infinity"; errors.Is(err, ErrNotFinite) != notFinite {
					t.Errorf("%s: errors.Is(%v, ErrNotFinite) = %v", what, err, !notFinite)
				}
			}
			if err := w.Write(good[0]); err != nil {
				t.Fatalf("a valid record after invalid ones: %v", err)
			}
			got, err := w.Commit()
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(got, want) {
				t.Errorf("invalid records changed the output: %v, want %v", got, want)
			}
		})
	}
}

func TestCreateRefusesImpossibleSpecs(t *testing.T) {
	for what, change := range map[string]func(s *Spec){
		"no folder":              func(s *Spec) { s.Dir = "" },
		"no model":               func(s *Spec) { s.Model = "" },
		"unknown output format":  func(s *Spec) { s.Format = "hdf5" },
		"unknown kind":           func(s *Spec) { s.Kind = 7 },
		"no values":              func(s *Spec) { s.Dim = 0 },
		"too many values":        func(s *Spec) { s.Dim = maxDim + 1 },
		"no columns":             func(s *Spec) { s.Columns = nil },
		"column listed twice":    func(s *Spec) { s.Columns = columnsOf([]int{1, 2, 1}, Mean) },
		"layer from the end":     func(s *Spec) { s.Columns = columnsOf([]int{1, -1}, Mean) },
		"unknown pooling":        func(s *Spec) { s.Columns = columnsOf([]int{1}, "none") },
		"virnucpro, layers":      func(s *Spec) { s.Format, s.Columns = VirNucPro, columnsOf([]int{1, 2}, Mean) },
		"virnucpro, poolings":    func(s *Spec) { s.Format, s.Columns = VirNucPro, columnsOf([]int{1}, Mean, Residues) },
		"virnucpro, per token":   func(s *Spec) { s.Format, s.Columns = VirNucPro, columnsOf([]int{1}, Tokens) },
		"parquet, 65 layers":     func(s *Spec) { s.Columns = columnsOf(makeLayers(maxParquetColumns+1), Tokens, Mean) },
		"safetensors, ids taken": func(s *Spec) { s.Format, s.Meta = Safetensors, map[string]string{"ids": "x"} },
	} {
		s := spec(t, Parquet, 33)
		dir := s.Dir
		change(&s)
		w, err := Create(s)
		if err == nil {
			w.Abort()
			t.Errorf("%s: no error", what)
			continue
		}
		wantError(t, err)
		if _, err := os.Stat(dir); err == nil {
			if left := filesIn(t, dir); left != nil {
				t.Errorf("%s: left %q", what, left)
			}
		}
	}
}

func makeLayers(n int) []int {
	layers := make([]int, n)
	for i := range layers {
		layers[i] = i
	}
	return layers
}

func BenchmarkWrite(b *testing.B) {
	for _, format := range Formats() {
		for _, c := range []struct {
			pooling Pooling
			dtype   DType
		}{{Mean, FP32}, {Tokens, FP32}, {Mean, FP16}, {Tokens, FP16}} {
			s := spec(b, format)
			s.Dim, s.Columns, s.DType = 768, columnsOf([]int{12}, c.pooling), c.dtype
			perToken := c.pooling == Tokens
			if _, err := s.validate(); err != nil {
				continue
			}
			b.Run(fmt.Sprintf("%s/perToken=%v/%s", format, perToken, c.dtype), func(b *testing.B) {
				r := Row{Description: "description of a read", Length: 150, Tokens: 32}
				values := s.Dim
				if perToken {
					values *= r.Tokens
				}
				embedding := make([]float32, values)
				for i := range embedding {
					embedding[i] = float32(i%97) * 0.013
				}
				r.Embeddings = [][]float32{embedding}
				const records = 20000
				count := records
				if perToken {
					count /= r.Tokens
				}
				b.SetBytes(int64(count) * int64(values) * 4)
				for b.Loop() {
					w, err := Create(s)
					if err != nil {
						b.Fatal(err)
					}
					for i := range count {
						r.ID = fmt.Sprintf("SRR059298.%d", i)
						if err := w.Write(r); err != nil {
							b.Fatal(err)
						}
					}
					// finish does not sync the files. Commit does, so with Commit the benchmark would measure the disk.
					if err := w.(*output).tables[0].enc.finish(); err != nil {
						b.Fatal(err)
					}
					if err := w.Abort(); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
