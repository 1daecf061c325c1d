package store

import (
	"archive/zip"
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"net/url"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// npyArray is a two-dimensional float32 array.
type npyArray struct {
	rows, dim int
	values    []float32
}

func (a npyArray) row(i int) []float32 { return a.values[i*a.dim : (i+1)*a.dim] }

var npyDict = regexp.MustCompile(`^\{'descr': '<f4', 'fortran_order': False, 'shape': \((\d+), (\d+)\), \} *\n$`)

// parseNpy reads a float32 matrix from a .npy file, according to NumPy's description of the format.
func parseNpy(content []byte) (npyArray, error) {
	if !bytes.HasPrefix(content, []byte("\x93NUMPY\x01\x00")) || len(content) < 10 {
		return npyArray{}, fmt.Errorf("starts with %q", content[:min(10, len(content))])
	}
	start := 10 + int(binary.LittleEndian.Uint16(content[8:]))
	if start%64 != 0 {
		return npyArray{}, fmt.Errorf("the values start at byte %d", start)
	}
	match := npyDict.FindSubmatch(content[10:start])
	if match == nil {
		return npyArray{}, fmt.Errorf("header %q", content[10:start])
	}
	var a npyArray
	a.rows, _ = strconv.Atoi(string(match[1]))
	a.dim, _ = strconv.Atoi(string(match[2]))
	a.values = floatsOf(content[start:])
	if len(a.values) != a.rows*a.dim {
		return npyArray{}, fmt.Errorf("%d values for shape (%d, %d)", len(a.values), a.rows, a.dim)
	}
	return a, nil
}

// floatsOf decodes little-endian float32 values.
func floatsOf(b []byte) []float32 {
	values := make([]float32, len(b)/4)
	for i := range values {
		values[i] = math.Float32frombits(binary.LittleEndian.Uint32(b[4*i:]))
	}
	return values
}

// checkIDList checks that the text file of ids lists the ids of the rows.
func checkIDList(t *testing.T, path string, rows []Row) {
	t.Helper()
	lines := strings.SplitAfter(string(readFile(t, path)), "\n")
	if last := lines[len(lines)-1]; last != "" {
		t.Errorf("the last line %q has no end", last)
	}
	lines = lines[:len(lines)-1]
	if len(lines) != len(rows) {
		t.Fatalf("%d lines for %d records", len(lines), len(rows))
	}
	for i, r := range rows {
		if got := strings.TrimSuffix(lines[i], "\n"); got != r.ID {
			t.Errorf("line %d is %q, want %q", i+1, got, r.ID)
		}
	}
}

func TestNpyHoldsOneArrayPerLayer(t *testing.T) {
	for _, layers := range [][]int{{33}, {0, 7, 33}} {
		for _, count := range []int{0, 1, 40} {
			s := spec(t, Npy, layers...)
			rows := makeRows(s, count)
			files := writeAll(t, s, rows)
			for l := range layers {
				a, err := parseNpy(readFile(t, files[l].Path))
				if err != nil {
					t.Fatalf("%s: %v", files[l].Path, err)
				}
				if a.rows != count || a.dim != s.Dim {
					t.Fatalf("shape (%d, %d), want (%d, %d)", a.rows, a.dim, count, s.Dim)
				}
				for i, r := range rows {
					if !sameBits(a.row(i), r.Embeddings[l]) {
						t.Errorf("layer %d, row %d: %v, want %v", layers[l], i, a.row(i), r.Embeddings[l])
					}
				}
			}
			checkIDList(t, files[len(layers)].Path, rows)
		}
	}
}

func TestNpyHeaderHasRoomForTheLargestShape(t *testing.T) {
	h := npyHeader(FP32.npy(), math.MaxInt, math.MaxInt)
	if len(h) != npyHeaderSize || npyDict.Find(h[10:]) == nil {
		t.Errorf("%d bytes: %q", len(h), h)
	}
}

func TestNpzHoldsOneArrayPerRecord(t *testing.T) {
	for _, layers := range [][]int{{33}, {0, 33}} {
		for _, count := range []int{0, 1, 40} {
			s := spec(t, Npy)
			s.Columns = columnsOf(layers, Tokens)
			rows := makeRows(s, count)
			files := writeAll(t, s, rows)
			for l := range layers {
				content := readFile(t, files[l].Path)
				archive, err := zip.NewReader(bytes.NewReader(content), int64(len(content)))
				if err != nil {
					t.Fatal(err)
				}
				if len(archive.File) != count {
					t.Fatalf("%d arrays for %d records", len(archive.File), count)
				}
				for i, entry := range archive.File {
					r := rows[i]
					name, ok := strings.CutSuffix(entry.Name, ".npy")
					if !ok || !filepath.IsLocal(entry.Name) || filepath.Base(entry.Name) != entry.Name {
						t.Errorf("record %q is called %q in the archive", r.ID, entry.Name)
					}
					if plain, err := url.PathUnescape(name); len(r.ID) < 50 && r.ID != "" && (err != nil || plain != r.ID) {
						t.Errorf("record %q is called %q, which means %q", r.ID, name, plain)
					}
					if entry.Method != zip.Store {
						t.Errorf("%q is compressed", entry.Name)
					}
					stream, err := entry.Open()
					if err != nil {
						t.Fatal(err)
					}
					array, err := io.ReadAll(stream) // at the end of the entry, package zip checks the CRC-32
					if err != nil {
						t.Fatal(err)
					}
					a, err := parseNpy(array)
					if err != nil {
						t.Fatal(err)
					}
					if a.rows != r.Tokens || a.dim != s.Dim || !sameBits(a.values, r.Embeddings[l]) {
						t.Errorf("record %q, layer %d: shape (%d, %d), values %v", r.ID, layers[l], a.rows, a.dim, a.values)
					}
				}
			}
			checkIDList(t, files[len(layers)].Path, rows)
		}
	}
}

func TestIDListKeepsOneLinePerID(t *testing.T) {
	s := spec(t, Npy, 33)
	rows := makeRows(s, 3)
	rows[0].ID, rows[1].ID, rows[2].ID = "a\nb", "c\r\td\u2028e\u0085", "f%0A"
	path := writeAll(t, s, rows)[1].Path
	if got, want := string(readFile(t, path)), "a%0Ab\nc%0D%09d%E2%80%A8e%C2%85\nf%250A\n"; got != want {
		t.Errorf("ids %q, want %q", got, want)
	}
}
