package weights

import (
	"archive/zip"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

// This file builds the checkpoints that the tests read. It makes safetensors files from a list of tensors, and PyTorch
// zip archives with a small encoder of pickles.

// wantError fails the test unless err is an error of a single line that contains every part.
func wantError(t *testing.T, err error, parts ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error; wanted one with %q", parts)
	}
	if strings.Contains(err.Error(), "\n") {
		t.Errorf("error of several lines: %q", err)
	}
	for _, part := range parts {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("error %q does not mention %q", err, part)
		}
	}
}

// bounded runs f, which parses an input of n bytes. It fails the test if f takes more than 20 seconds, or if all
// goroutines together allocate more than 1 MiB plus 1 KiB for each byte of the input while f runs.
func bounded(t testing.TB, n int, f func()) {
	t.Helper()
	var before, after runtime.MemStats
	start := time.Now()
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	if got := after.TotalAlloc - before.TotalAlloc; got > 1<<20+1<<10*uint64(n) {
		t.Errorf("%d bytes are allocated for an input of %d", got, n)
	}
	if d := time.Since(start); d > 20*time.Second {
		t.Errorf("an input of %d bytes takes %v", n, d)
	}
}

func readAll(t testing.TB, c *Checkpoint, name string) []float32 {
	t.Helper()
	tensor, ok := c.Tensor(name)
	if !ok {
		t.Fatalf("no tensor %q", name)
	}
	values, err := tensor.Float32s()
	if err != nil {
		t.Fatal(err)
	}
	return values
}

func benchmarkRows(b *testing.B, c *Checkpoint, name string) {
	tensor, _ := c.Tensor(name)
	dst := make([]float32, tensor.count)
	b.SetBytes(int64(4 * len(dst)))
	for b.Loop() {
		if err := tensor.ReadRows(dst, 0); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(len(dst)), "ns/element")
}

func writeFile(t testing.TB, folder, name string, content []byte) string {
	t.Helper()
	path := filepath.Join(folder, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, content, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// stored is a tensor with its bytes, to be written to a file.
type stored struct {
	name  string
	dtype dtype
	shape []int
	bytes []byte
}

func f32Tensor(name string, shape []int, values ...float32) stored {
	s := stored{name: name, dtype: f32, shape: shape}
	for _, v := range values {
		s.bytes = binary.LittleEndian.AppendUint32(s.bytes, math.Float32bits(v))
	}
	return s
}

func u16Tensor(name string, dtype dtype, shape []int, bits ...uint16) stored {
	s := stored{name: name, dtype: dtype, shape: shape}
	for _, v := range bits {
		s.bytes = binary.LittleEndian.AppendUint16(s.bytes, v)
	}
	return s
}

// safetensorsOf returns a valid safetensors file. Its header is padded like that of the original library.
func safetensorsOf(tensors ...stored) []byte {
	header := map[string]any{"__metadata__": map[string]string{"format": "pt"}}
	var values []byte
	for _, s := range tensors {
		header[s.name] = map[string]any{
			"dtype":        string(s.dtype),
			"shape":        append([]int{}, s.shape...),
			"data_offsets": []int{len(values), len(values) + len(s.bytes)},
		}
		values = append(values, s.bytes...)
	}
	text, err := json.Marshal(header)
	if err != nil {
		panic(err)
	}
	for len(text)%8 != 0 {
		text = append(text, ' ')
	}
	return append(withLength(string(text)), values...)
}

// withLength returns a safetensors header with its length, 8 bytes, in front.
func withLength(header string) []byte {
	return append(binary.LittleEndian.AppendUint64(nil, uint64(len(header))), header...)
}

// pickler writes pickles of protocol 2, as torch.save does.
type pickler struct{ bytes.Buffer }

func (p *pickler) op(codes ...byte) *pickler {
	p.Write(codes)
	return p
}

func (p *pickler) u32(op byte, n int) *pickler {
	p.WriteByte(op)
	p.Write(binary.LittleEndian.AppendUint32(nil, uint32(n)))
	return p
}

func (p *pickler) str(s string) *pickler {
	p.u32(opBinUnicode, len(s))
	p.WriteString(s)
	return p
}

func (p *pickler) int(n int) *pickler { return p.u32(opBinInt, n) }

func (p *pickler) long(n int64) *pickler {
	p.op(opLong1, 8)
	p.Write(binary.LittleEndian.AppendUint64(nil, uint64(n)))
	return p
}

func (p *pickler) float(v float64) *pickler {
	p.op(opBinFloat)
	p.Write(binary.BigEndian.AppendUint64(nil, math.Float64bits(v)))
	return p
}

func (p *pickler) global(module, name string) *pickler {
	p.op(opGlobal)
	p.WriteString(module + "\n" + name + "\n")
	return p
}

func (p *pickler) tuple(numbers ...int) *pickler {
	p.op(opMark)
	for _, n := range numbers {
		p.long(int64(n))
	}
	return p.op(opTuple)
}

// storage writes instructions that push a storage of count elements. Its bytes are in the entry data/KEY of the
// archive.
func (p *pickler) storage(class, key string, count int) *pickler {
	p.op(opMark).str("storage").global("torch", class).str(key).str("cpu").long(int64(count))
	return p.op(opTuple, opBinPersID)
}

// view writes instructions that push a tensor whose elements are in a storage of count elements. The argument first is
// the index of the tensor's first element in the storage.
func (p *pickler) view(class, key string, count, first int, shape, stride []int) *pickler {
	p.global("torch._utils", "_rebuild_tensor_v2").op(opMark)
	p.storage(class, key, count).long(int64(first)).tuple(shape...).tuple(stride...)
	p.op(opNewFalse)
	p.orderedDict()
	return p.op(opTuple, opReduce)
}

// tensor writes instructions that push a contiguous tensor that consists of all elements of a storage.
func (p *pickler) tensor(class, key string, shape ...int) *pickler {
	count := 1
	stride := make([]int, len(shape))
	for i := len(shape) - 1; i >= 0; i-- {
		stride[i] = count
		count *= shape[i]
	}
	return p.view(class, key, count, 0, shape, stride)
}

func (p *pickler) orderedDict() *pickler {
	return p.global("collections", "OrderedDict").op(opEmptyTuple, opReduce)
}

// done ends the pickle, which must have begun with newPickler.
func (p *pickler) done() []byte { return p.op(opStop).Bytes() }

func newPickler() *pickler { return new(pickler).op(opProto, 2) }

// zipOf returns an archive as torch.save writes it, with one entry for each storage.
func zipOf(pickle []byte, storages map[string][]byte) []byte {
	entries := map[string][]byte{"archive/data.pkl": pickle, "archive/byteorder": []byte("little"), "archive/version": []byte("3\n")}
	for key, b := range storages {
		entries["archive/data/"+key] = b
	}
	return zipEntries(zip.Store, entries)
}

func zipEntries(method uint16, entries map[string][]byte) []byte {
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for name, content := range entries {
		entry, err := w.CreateHeader(&zip.FileHeader{Name: name, Method: method})
		if err != nil {
			panic(err)
		}
		if _, err := entry.Write(content); err != nil {
			panic(err)
		}
	}
	if err := w.Close(); err != nil {
		panic(err)
	}
	return b.Bytes()
}
