package weights

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// maxListed is the maximum number of names in a list in an error message. The message gives only the number of the
// other names.
const maxListed = 3

// Spec describes a tensor that a model reads. Name is its name after Checkpoint.Rename.
type Spec struct {
	Name         string
	Shape        []int
	Optional     bool    // a checkpoint may lack the tensor; synthetic checkpoints do
	Nonzero      bool    // whether the file is damaged if all values of the tensor are 0
	Scale, Shift float64 // in a synthetic checkpoint the values are spread evenly over Shift ± Scale
}

// ErrDamaged is wrapped by the error for a file with a wrong digest or checksum, or with only zeros in a tensor that
// must have other values.
var ErrDamaged = errors.New("the file is damaged")

// Check compares the checkpoint with the tensors that a model expects. Its error counts the tensors that are missing,
// unknown, of another shape, or stored in a way that ReadRows cannot decode, and names the first three of each kind. If
// all tensors fit, Check reads each tensor for which Spec.Nonzero is set, up to the first row with a value other than
// 0. If a tensor has no such row, the error wraps ErrDamaged.
func (c *Checkpoint) Check(specs []Spec) error {
	var missing, unknown, misshapen, unreadable []string
	expected := make(map[string]bool, len(specs))
	for _, spec := range specs {
		expected[spec.Name] = true
		t, ok := c.tensors[spec.Name]
		switch {
		case !ok && !spec.Optional:
			missing = append(missing, spec.Name)
		case !ok:
		case !slices.Equal(t.shape, spec.Shape):
			misshapen = append(misshapen, fmt.Sprintf("%s: %v, not %v", spec.Name, t.shape, spec.Shape))
		case t.unreadable != nil:
			name := spec.Name
			if unreadable == nil { // the reason is given once, because it is most often the same for all
				name = fmt.Sprintf("%s %v", name, t.unreadable)
			}
			unreadable = append(unreadable, name)
		}
	}
	for _, name := range c.Names() {
		if !expected[name] {
			unknown = append(unknown, name)
		}
	}
	var parts []string
	for _, list := range []struct {
		kind  string
		names []string
	}{{"missing", missing}, {"unknown", unknown}, {"of another shape", misshapen}, {"unreadable", unreadable}} {
		if len(list.names) > 0 {
			parts = append(parts, fmt.Sprintf("%d %s (%s)", len(list.names), list.kind, listed(list.names)))
		}
	}
	if parts == nil {
		return c.checkZeros(specs)
	}
	return fmt.Errorf("checkpoint %s does not fit the model; tensors: %s", c.Source, strings.Join(parts, "; "))
}

// checkZeros returns an error if a tensor for which Spec.Nonzero is set contains only zeros. Downloads and copies that
// have failed may leave such tensors.
func (c *Checkpoint) checkZeros(specs []Spec) error {
	var zeros []string
	for _, spec := range specs {
		t, ok := c.tensors[spec.Name]
		if !ok || !spec.Nonzero {
			continue
		}
		zero, err := t.allZero()
		if err != nil {
			return fmt.Errorf("checkpoint %s: %w", c.Source, err)
		}
		if zero {
			zeros = append(zeros, spec.Name)
		}
	}
	if zeros == nil {
		return nil
	}
	return fmt.Errorf("checkpoint %s: %w: all values are 0 in %d tensors (%s); copy or download it again",
		c.Source, ErrDamaged, len(zeros), listed(zeros))
}

// listed returns the first maxListed names and the number of the others.
func listed(names []string) string {
	if len(names) <= maxListed {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:maxListed], ", "), len(names)-maxListed)
}
