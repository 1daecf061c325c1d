package seqio

import (
	"fmt"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// output is the name of an output together with the alphabet of its input. The alphabet determines the model, whose
// name becomes part of the name of the file. So the outputs of s.fna (DNA) and s.faa (protein) may both have the name
// "s". Two inputs of the same alphabet, or of unknown alphabet, must have outputs with different values of name.
type output struct {
	name  string
	model Alphabet
}

func (in *Input) output() output { return output{path.Join(in.Dir, in.Name), in.Alphabet} }

// CheckNames returns an error that wraps ErrInputName if the outputs of two inputs of the same alphabet would have the
// same name.
func CheckNames(inputs []Input) error {
	owner := make(map[output]string, len(inputs))
	for _, in := range inputs {
		out := in.output()
		if first, taken := owner[out]; taken {
			return fmt.Errorf("%w: the outputs of %s and %s would both be named %q", ErrInputName, first, in.Path, out.name)
		}
		owner[out] = in.Path
	}
	return nil
}

// TellApart changes the Dir or Name of inputs whose outputs would have the same name. If the inputs are in different
// folders, the differing part of the paths of the folders becomes part of each Dir: S1/final.contigs.fa and
// S2/final.contigs.fa get the Dirs S1 and S2. If the inputs are in the same folder, each Name becomes the file name
// with its extensions, such as x.fna and x.ffn.gz. Inputs are not changed if standard input is among those whose
// outputs would have the same name. Some outputs may still have the same name afterwards; CheckNames reports them.
func TellApart(inputs []*Input) {
	for _, same := range sameNames(inputs) {
		if slices.ContainsFunc(same, func(in *Input) bool { return in.Path == "-" }) {
			continue
		}
		addFolders(same)
		for _, still := range sameNames(same) {
			for _, in := range still {
				in.Name = filepath.Base(in.Path)
			}
		}
	}
}

// sameNames returns the groups of two and more inputs whose outputs would have the same name.
func sameNames(inputs []*Input) (groups [][]*Input) {
	byName := make(map[output][]*Input, len(inputs))
	for _, in := range inputs {
		byName[in.output()] = append(byName[in.output()], in)
	}
	for _, group := range byName {
		if len(group) > 1 {
			groups = append(groups, group)
		}
	}
	return groups
}

// addFolders makes the Dirs of inputs in different folders different. The Dirs must be equal before the call.
// addFolders takes the path of each input's folder, removes the folders at the start and at the end that all these
// paths have in common, and puts the rest before the input's Dir. Inputs in the same folder still have the same Dir
// afterwards.
func addFolders(inputs []*Input) {
	folders := make([][]string, len(inputs))
	for i, in := range inputs {
		folders[i] = in.above()
	}
	for range 2 { // removes folders first at the start, then at the end
		for len(folders[0]) > 0 && !slices.ContainsFunc(folders, func(f []string) bool { return len(f) == 0 || f[0] != folders[0][0] }) {
			for i, f := range folders {
				folders[i] = f[1:]
			}
		}
		for _, f := range folders {
			slices.Reverse(f)
		}
	}
	for i, in := range inputs {
		in.Dir = path.Join(path.Join(folders[i]...), in.Dir)
	}
}

// above returns the names of the folders that lead from the root of the file system to the file, without the folders in
// Dir.
func (in *Input) above() []string {
	folder := filepath.Dir(in.Path)
	if absolute, err := filepath.Abs(folder); err == nil {
		folder = absolute
	}
	folder = filepath.ToSlash(strings.TrimPrefix(folder, filepath.VolumeName(folder)))
	folder = strings.TrimSuffix(folder, in.Dir)
	return strings.FieldsFunc(folder, func(r rune) bool { return r == '/' })
}

// Names returns the two values that Name can have after TellApart: the file name without its extensions, and with them.
// Which one it is depends on the other inputs.
func (in *Input) Names() []string { return []string{baseName(in.Path), filepath.Base(in.Path)} }

// Dirs returns all values that Dir can have after Expand and TellApart. Which one it is depends on the other inputs and
// on the arguments of the command line.
func (in *Input) Dirs() []string {
	folders := (&Input{Path: in.Path}).above()
	var list []string
	for end := len(folders); end >= 0; end-- { // folders[end:] is a Dir that Expand may have given to the file
		dir := path.Join(folders[end:]...)
		list = append(list, dir)
		for from := range end {
			for to := from + 1; to < end; to++ {
				list = append(list, path.Join(path.Join(folders[from:to]...), dir))
			}
		}
	}
	return list
}
