package seqio

import (
	"reflect"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"
)

func TestDuplicatesGetSuffixes(t *testing.T) {
	for _, tt := range []struct{ ids, want string }{
		{"a b c", "a b c"},
		{"a a a b a", "a a_2 a_3 b a_4"},
		{"r1 r1 r2 r2", "r1 r1_2 r2 r2_2"},
		{"a_2 a a", "a_2 a a_3"},
		{"a a a_2 a", "a a_2 a_2_2 a_3"},
		{"a a_2 a_2 a a", "a a_2 a_2_2 a_3 a_4"},
	} {
		var input strings.Builder
		for id := range strings.FieldsSeq(tt.ids) {
			input.WriteString("@" + id + " mate\nAC\n+\nII\n")
		}
		records, _, err := readAll(strings.NewReader(input.String()), Options{Duplicates: DuplicateSuffix})
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, r := range records {
			got = append(got, r.ID)
		}
		if want := strings.Fields(tt.want); !reflect.DeepEqual(got, want) {
			t.Errorf("%s became %v, want %v", tt.ids, got, want)
		}
	}
}

func TestSuffixedIDsAreUnique(t *testing.T) {
	s := newIDSet()
	seen := make(map[string]bool)
	for i := range 5000 {
		id := "a" + strings.Repeat("_2", i%7) + strings.Repeat("_3", i%3)
		got := s.unique(id)
		if seen[got] {
			t.Fatalf("%s was given twice", got)
		}
		seen[got] = true
	}
}

// TestManyEqualIDsTakeLinearTime checks that a hundred thousand equal ids get the suffixes _2, _3 and so on within
// seconds. A search for the next free suffix that began at _2 each time would take five thousand million steps.
func TestManyEqualIDsTakeLinearTime(t *testing.T) {
	s := newIDSet()
	began := time.Now()
	for range 100_000 {
		s.unique("a")
	}
	if got := s.unique("a"); got != "a_100001" {
		t.Errorf("the last is %s", got)
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("it took %v", took)
	}
}

func TestIDSetMemory(t *testing.T) {
	const n, bytesEach = 200_000, 80 // measured: 35 to 56, depending on n; a map of these ids takes over 100
	heap := func() uint64 {
		var m runtime.MemStats
		for range 3 {
			runtime.GC() // memory that other tests left in pools is freed by the second collection
		}
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	s := newIDSet()
	for i := range n {
		s.claim("an identifier of the length that Illumina reads have:"+strconv.Itoa(i), int64(i))
	}
	per := float64(heap()-before) / n
	runtime.KeepAlive(s)
	t.Logf("%.0f bytes an id", per)
	if per > bytesEach {
		t.Errorf("%.0f bytes an id, want at most %d", per, bytesEach)
	}
}
