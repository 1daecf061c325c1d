package store

import (
	"math"
	"reflect"
	"testing"
)

func TestSurvey(t *testing.T) {
	nan, inf := float32(math.NaN()), float32(math.Inf(-1))
	rows := []Row{
		{ID: "a", Embeddings: [][]float32{{1, 2, 3, 4}}},                       // two rows of two values, as of two tokens
		{ID: "w", Start: 1, End: 4, Embeddings: [][]float32{{nan, nan, 7, 8}}}, // the windows of a record have the same id
		{ID: "w", Start: 4, End: 9, Embeddings: [][]float32{{inf, 1}}},
		{ID: "c", Embeddings: [][]float32{{0, float32(math.Copysign(0, -1)), 5, 5}}},
		{ID: "a", Embeddings: [][]float32{{5, 5, 1, 2}}},
	}
	table := Table{Dim: 2, Columns: columnsOf([]int{0}, Tokens), IDs: true, Read: func(yield func(*Row) error) error {
		for i := range rows {
			if err := yield(&rows[i]); err != nil {
				return err
			}
		}
		return nil
	}}
	got, err := table.Survey()
	want := Survey{Records: 5, RepeatedIDs: 1, Counted: 5, Columns: []ColumnSurvey{{Rows: 9, NaN: 2, Infinite: 1, Zero: 1, Constant: 2,
		Repeated: 2, FirstNaN: "w:1-4", FirstInf: "w:4-9", FirstZero: "c", FirstSame: "c"}}}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%v, %v, want %v", got, err, want)
	}
}

// TestSurveyOfEveryFormat checks that Survey finds the one repeated row in a file of each format that OpenTable reads.
func TestSurveyOfEveryFormat(t *testing.T) {
	for _, f := range []Format{Parquet, Npy, Safetensors, H5, TSV, VirNucPro} {
		s := spec(t, f, 33)
		rows := plainRows(s, 30)
		rows[20].Embeddings = rows[10].Embeddings
		table, err := OpenTable(writeAll(t, s, rows)[0].Path)
		if err != nil {
			t.Fatal(err)
		}
		got, err := table.Survey()
		table.Close()
		want := Survey{Records: 30, Counted: 30, Columns: []ColumnSurvey{{Rows: 30, Repeated: 1}}}
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %v, %v, want %v", f, got, err, want)
		}
	}
}
