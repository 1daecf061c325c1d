package weights

import (
	"fmt"
	"slices"
	"strings"
)

// maxListed is the maximum number of names in one part of an error message.
const maxListed = 5

// Spec describes a tensor that a model reads, under its canonical name.
type Spec struct {
	Name         string
	Shape        []int
	Optional     bool    // a checkpoint need not contain it; synthetic ones do not
	Scale, Shift float64 // in a synthetic checkpoint the values are spread evenly over Shift ± Scale
}

// Check compares the checkpoint with the tensors that a model expects. The error counts those that are missing,
// unknown, of another shape, or stored in a way that ReadRows cannot decode, and names the first of each kind.
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
			unreadable = append(unreadable, fmt.Sprintf("%s %v", spec.Name, t.unreadable))
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
		return nil
	}
	return fmt.Errorf("checkpoint %s does not fit the model; tensors: %s", c.Source, strings.Join(parts, "; "))
}

// listed joins the first maxListed names and counts the others.
func listed(names []string) string {
	if len(names) <= maxListed {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:maxListed], ", "), len(names)-maxListed)
}
