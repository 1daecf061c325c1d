package store

import (
	"crypto/sha256"
	"errors"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"testing"
)

// partKey returns the key in a part log for a sequence that the test calls name.
func partKey(name string) PartKey {
	sum := sha256.Sum256([]byte(name))
	return PartKey(sum[:])
}

// partOf is an entry of a part log, the file with the results of an unfinished output (see Parts).
type partOf struct {
	name   string      // name of the sequence, see partKey
	values [][]float32 // nil if the sequence has no result
}

var (
	testParts    = []partOf{{"a", [][]float32{{1, 2}, {3, 4, 5, 6}}}, {"b", nil}, {"c", [][]float32{{-1, 0}, {7, 8}}}, {"d", [][]float32{{9, 9}, {}}}}
	testSettings = []byte(`{"model":"m"}`)
)

// sizes returns the numbers of values that a reader of the log expects for the entry. The list is not empty for a
// sequence without a result, because the reader does not know that the result is missing.
func (e partOf) sizes() (list []int) {
	if e.values == nil {
		return []int{2, 2}
	}
	for _, v := range e.values {
		list = append(list, len(v))
	}
	return list
}

func openParts(t testing.TB, main string) *Parts {
	t.Helper()
	p, err := OpenParts(main, testSettings)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// addParts adds entries to a part log, writes them to the file and closes the log.
func addParts(t testing.TB, p *Parts, entries []partOf) {
	t.Helper()
	for _, e := range entries {
		if err := p.Add(partKey(e.name), e.values); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.Flush(); err != nil {
		t.Fatal(err)
	}
	p.Close()
}

// readParts reads the given entries from a part log until the first error, and checks their values. It returns the
// number of entries that were read, and the error.
func readParts(t testing.TB, p *Parts, entries []partOf) (n int, err error) {
	t.Helper()
	for _, e := range entries {
		values, err := p.Next(partKey(e.name), e.sizes()...)
		if err != nil {
			if _, again := p.Next(partKey(e.name), e.sizes()...); again != io.EOF {
				t.Errorf("after %v: %v", err, again)
			}
			return n, err
		}
		if !reflect.DeepEqual(values, e.values) {
			t.Errorf("entry %d is %v, want %v", n, values, e.values)
		}
		n++
	}
	return n, nil
}

// writtenParts writes a new part log of all testParts. It returns the main file of the log's output and the content of
// the log.
func writtenParts(t testing.TB) (main string, content []byte) {
	t.Helper()
	main = filepath.Join(t.TempDir(), "a.m.npy")
	p := openParts(t, main)
	if err := p.Add(partKey(testParts[0].name), testParts[0].values); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(p.Flush(), p.Sync(), p.Sync()); err != nil {
		t.Fatal(err)
	}
	addParts(t, p, testParts[1:])
	return main, readFile(t, partsPath(main))
}

// TestPartsOfAnyLength cuts a part log after any number of bytes, as a killed run may leave it. All whole entries must
// be read. If the missing entries are then added, the log must equal one that was written at once.
func TestPartsOfAnyLength(t *testing.T) {
	main, content := writtenParts(t)
	ends := []int{0} // ends[i] is the number of bytes in the first i entries
	for _, e := range testParts {
		n := 16 + 1 + 4
		for _, v := range e.values {
			n += 4 * len(v)
		}
		ends = append(ends, ends[len(ends)-1]+n)
	}
	if want := len(testSettings) + 1 + ends[len(testParts)]; len(content) != want {
		t.Fatalf("%d bytes, want %d", len(content), want)
	}
	for size := range len(content) + 1 {
		if err := os.WriteFile(partsPath(main), content[:size], 0o666); err != nil {
			t.Fatal(err)
		}
		whole := 0
		for whole < len(testParts) && len(testSettings)+1+ends[whole+1] <= size {
			whole++
		}
		p := openParts(t, main)
		if n, err := readParts(t, p, testParts); n != whole || n < len(testParts) && err != io.EOF {
			t.Errorf("%d bytes: %d entries, want %d: %v", size, n, whole, err)
		}
		addParts(t, p, testParts[whole:])
		if now := readFile(t, partsPath(main)); !slices.Equal(now, content) {
			t.Fatalf("%d bytes: a continued log differs from one that was written at once", size)
		}
	}
}

// TestDamagedParts checks that Parts.Next returns no values of a damaged entry or of the entries after it. The test
// changes each bit of a log, replaces an entry by one of another log, and inserts an entry a second time.
func TestDamagedParts(t *testing.T) {
	main, content := writtenParts(t)
	read := func(what string, content []byte, most int) {
		t.Helper()
		if err := os.WriteFile(partsPath(main), content, 0o666); err != nil {
			t.Fatal(err)
		}
		p, err := OpenParts(main, testSettings)
		if err != nil {
			if !errors.Is(err, ErrOtherParts) || p == nil {
				t.Fatalf("%s: %v", what, err)
			}
			return
		}
		defer p.Close()
		if n, _ := readParts(t, p, testParts); n > most {
			t.Errorf("%s: %d entries are read, at most %d can be intact", what, n, most)
		}
	}
	first := len(testSettings) + 1
	for at := range content {
		for bit := range 8 {
			damaged := slices.Clone(content)
			damaged[at] ^= 1 << bit
			most := len(testParts) - 1
			if at < first+16+1+6*4+4 {
				most = 0
			}
			read("a bit is changed", damaged, most)
		}
	}

	// An entry that was copied from another place has a wrong checksum, even if it belongs to the expected sequence.
	main = filepath.Join(t.TempDir(), "b.m.npy")
	addParts(t, openParts(t, main), []partOf{testParts[2], testParts[0]})
	other := readFile(t, partsPath(main))
	entry := other[first : first+16+1+4*4+4]
	read("an entry of another log", slices.Concat(content[:first+16+1+6*4+4], entry), 1)
	twice := append([]partOf{testParts[0]}, testParts...)
	main, content = writtenParts(t)
	content = slices.Insert(content, first, content[first:first+16+1+6*4+4]...)
	if err := os.WriteFile(partsPath(main), content, 0o666); err != nil {
		t.Fatal(err)
	}
	p := openParts(t, main)
	defer p.Close()
	if n, err := readParts(t, p, twice); n != 1 || !errors.Is(err, ErrPart) {
		t.Errorf("%d entries of one that comes twice: %v", n, err)
	}
}

// TestPartsOfOtherSequences reads a part log for an input in which one sequence has changed. The entries before the
// changed sequence must be read, and it must be possible to continue the log with new entries from there.
func TestPartsOfOtherSequences(t *testing.T) {
	main, _ := writtenParts(t)
	changed := slices.Clone(testParts)
	changed[2].name = "x"
	p := openParts(t, main)
	if n, err := readParts(t, p, changed); n != 2 || !errors.Is(err, ErrPart) {
		t.Errorf("%d entries, %v", n, err)
	}
	addParts(t, p, changed[2:])
	p = openParts(t, main)
	defer p.Close()
	if n, err := readParts(t, p, changed); n != len(changed) || err != nil {
		t.Errorf("the continued log: %d entries, %v", n, err)
	}
}

// TestPartsOfOtherSettings checks that OpenParts removes a log that was made with other settings, and that a new log
// can be written in its place.
func TestPartsOfOtherSettings(t *testing.T) {
	main, _ := writtenParts(t)
	p, err := OpenParts(main, []byte(`{"model":"n"}`))
	if !errors.Is(err, ErrOtherParts) {
		t.Fatal(err)
	}
	if _, err := os.Stat(partsPath(main)); !os.IsNotExist(err) || p.Exists() {
		t.Errorf("the log is still there: %v", err)
	}
	if _, err := p.Next(partKey("a"), 2, 4); err != io.EOF {
		t.Errorf("an entry is read: %v", err)
	}
	addParts(t, p, testParts)
	p.Remove() // keeps the file: addParts has closed the log, which another run may use
	if _, err := os.Stat(partsPath(main)); err != nil {
		t.Error(err)
	}
}

// TestPartsAreOfOneRun checks that the part log of a run that is alive can be neither opened nor removed by another
// run, and that only one of two runs can create a log.
func TestPartsAreOfOneRun(t *testing.T) {
	skipWithoutLocks(t)
	main, _ := writtenParts(t)
	p := openParts(t, main)
	if _, err := OpenParts(main, testSettings); !errors.Is(err, ErrLocked) {
		t.Errorf("a log that another run uses is opened: %v", err)
	}
	if state := partsState(partsPath(main)); state != "parts of an output that a run is making" {
		t.Errorf("its state is %q", state)
	}
	RemoveParts(main)
	if !p.Exists() {
		t.Error("it is gone")
	}
	p.Remove()
	if _, err := os.Stat(partsPath(main)); !os.IsNotExist(err) {
		t.Error("it remains")
	}

	// Of two runs that have found no log, only one can create it.
	first, second := openParts(t, main), openParts(t, main)
	if err := first.Add(partKey("a"), nil); err != nil {
		t.Fatal(err)
	}
	if err := second.Add(partKey("a"), nil); !errors.Is(err, ErrLocked) {
		t.Errorf("both create it: %v", err)
	}
	second.Remove()
	first.Close()
	RemoveParts(main)
	if list, err := os.ReadDir(filepath.Dir(main)); len(list) > 0 || err != nil {
		t.Errorf("%v are left, %v", list, err)
	}
	RemoveParts(main) // there is no log: nothing happens
}

// failingParts is the file of a part log, except that one operation fails.
type failingParts struct {
	partsFile
	op string // the operation that fails: "truncate", "write" or "sync"
}

var errFailingParts = errors.New("no space left")

func (f failingParts) Truncate(size int64) error {
	if f.op == "truncate" {
		return errFailingParts
	}
	return f.partsFile.Truncate(size)
}

func (f failingParts) WriteAt(b []byte, at int64) (int, error) {
	if f.op == "write" {
		return 0, errFailingParts
	}
	return f.partsFile.WriteAt(b, at)
}

func (f failingParts) Sync() error {
	if f.op == "sync" {
		return errFailingParts
	}
	return f.partsFile.Sync()
}

// TestPartsThatCannotBeWritten checks that the error of a part log that cannot be written names the log, and that the
// log can be removed afterwards.
func TestPartsThatCannotBeWritten(t *testing.T) {
	for _, op := range []string{"truncate", "write", "sync"} {
		main, _ := writtenParts(t)
		p := openParts(t, main)
		p.file = failingParts{p.file, op}
		err := p.Add(partKey("e"), nil)
		if err == nil {
			err = p.Flush()
		}
		if err == nil {
			err = p.Sync()
		}
		if !errors.Is(err, errFailingParts) {
			t.Errorf("%s: %v", op, err)
		}
		wantError(t, err, partsPath(main))
		p.Remove()
		if _, err := os.Stat(partsPath(main)); !os.IsNotExist(err) {
			t.Errorf("%s: the log is left", op)
		}
	}
	main := filepath.Join(t.TempDir(), "gone", "a.npy")
	wantError(t, openParts(t, main).Add(partKey("a"), nil), partsPath(main))
}

// FuzzParts reads part logs of any content. Entries that are read must have the expected values, and it must be
// possible to continue the log after them.
func FuzzParts(f *testing.F) {
	_, content := writtenParts(f)
	f.Add(content)
	f.Add(content[:len(content)-3])
	f.Add([]byte("{}\n"))
	f.Fuzz(func(t *testing.T, content []byte) {
		main := filepath.Join(t.TempDir(), "a.npy")
		if err := os.WriteFile(partsPath(main), content, 0o666); err != nil {
			t.Fatal(err)
		}
		p, err := OpenParts(main, testSettings)
		if err != nil && !errors.Is(err, ErrOtherParts) {
			t.Fatal(err)
		}
		n, _ := readParts(t, p, testParts)
		addParts(t, p, testParts[n:])
		p = openParts(t, main)
		defer p.Close()
		if n, err := readParts(t, p, testParts); n != len(testParts) || err != nil {
			t.Errorf("after it was continued: %d entries, %v", n, err)
		}
	})
}
