package weights

import (
	"slices"
	"strings"
	"testing"
)

func TestCheckNamesWhatDoesNotFit(t *testing.T) {
	c, err := Open(writeFile(t, t.TempDir(), "x.safetensors", safetensorsOf(
		f32Tensor("right", []int{2, 1}, 1, 2),
		f32Tensor("turned", []int{1, 2}, 1, 2),
		f32Tensor("stranger", []int{1}, 1),
		stored{"double", "F64", []int{1}, make([]byte, 8)},
		stored{"prefix.number", "I64", []int{1}, make([]byte, 8)},
	)))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Rename(func(stored string) (string, bool) { return stored, !strings.HasSuffix(stored, "number") }); err != nil {
		t.Fatal(err)
	}
	if got := c.LeftOut; !slices.Equal(got, []string{"prefix.number"}) {
		t.Errorf("left out: %q", got)
	}
	specs := []Spec{
		{Name: "right", Shape: []int{2, 1}}, {Name: "turned", Shape: []int{2, 1}}, {Name: "absent", Shape: []int{1}},
		{Name: "double", Shape: []int{1}}, {Name: "freq", Shape: []int{1}, Optional: true},
	}
	wantError(t, c.Check(specs), c.Source, "1 missing (absent)", "1 unknown (stranger)", "1 of another shape (turned: [1 2], not [2 1])", "1 unreadable (double is stored as F64")
	many := Synthetic("any", 0, nil, nil)
	for _, letter := range "abcdefghij" {
		specs = append(specs, Spec{Name: string(letter), Shape: []int{1}})
	}
	wantError(t, many.Check(specs), "14 missing (right, turned, absent and 11 more)")
}
