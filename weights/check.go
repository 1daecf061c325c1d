package weights

import (
	"fmt"
	"slices"
	"strings"
)

// maxListed is how many names one part of an error message lists.
const maxListed = 5

// Spec is a tensor that a model expects, under its canonical name.
type Spec struct {
	Name         string
	Shape        []int
	Optional     bool    // it may be missing, and is not part of a synthetic checkpoint
	Scale, Shift float64 // the values of a synthetic one are spread evenly over Shift ± Scale
}

// MismatchError says how a checkpoint differs from what a model expects. The lists are complete and in the order of the
// specs (Unknown: of the names); the message shows the first few of each.
type MismatchError struct {
	Source     string   // the checkpoint
	Missing    []string // expected, not there
	Unknown    []string // there, not expected
	WrongShape []string // the name with both shapes
	Unreadable []string // the name with the reason why its values cannot be decoded
}

// Error is one line with counts and the first names of each kind.
func (e *MismatchError) Error() string {
	var parts []string
	for _, list := range []struct {
		what  string
		names []string
	}{
		{"missing", e.Missing},
		{"unknown", e.Unknown},
		{"of another shape", e.WrongShape},
		{"unreadable", e.Unreadable},
	} {
		if len(list.names) > 0 {
			parts = append(parts, fmt.Sprintf("%d %s (%s)", len(list.names), list.what, listed(list.names)))
		}
	}
	return fmt.Sprintf("checkpoint %s does not fit the model; tensors: %s", e.Source, strings.Join(parts, "; "))
}

// listed joins the first names of a list and counts the others.
func listed(names []string) string {
	if len(names) <= maxListed {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:maxListed], ", "), len(names)-maxListed)
}

// Check compares the checkpoint with what an architecture expects. It returns nil, or a *MismatchError with every
// tensor that is missing, unknown, of another shape, or stored in a way that ReadRows cannot decode.
func (c *Checkpoint) Check(specs []Spec) error {
	e := &MismatchError{Source: c.source}
	expected := make(map[string]bool, len(specs))
	for _, spec := range specs {
		expected[spec.Name] = true
		t, ok := c.tensors[spec.Name]
		switch {
		case !ok:
			if !spec.Optional {
				e.Missing = append(e.Missing, spec.Name)
			}
		case !slices.Equal(t.shape, spec.Shape):
			e.WrongShape = append(e.WrongShape, fmt.Sprintf("%s: %v, not %v", spec.Name, t.shape, spec.Shape))
		default:
			if err := t.values.usable(); err != nil {
				e.Unreadable = append(e.Unreadable, fmt.Sprintf("%s %v", spec.Name, err))
			}
		}
	}
	for _, name := range c.Names() {
		if !expected[name] {
			e.Unknown = append(e.Unknown, name)
		}
	}
	if len(e.Missing)+len(e.Unknown)+len(e.WrongShape)+len(e.Unreadable) > 0 {
		return e
	}
	return nil
}
