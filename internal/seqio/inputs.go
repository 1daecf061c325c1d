package seqio

import (
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// Input is one file to read, or standard input.
type Input struct {
	Path     string   // as the user reaches it; "-" for standard input
	Name     string   // output base name: the file name without its sequence and compression extensions, or "stdin"
	Dir      string   // slash-separated folder of the file below the folder argument it came from; empty otherwise
	Alphabet Alphabet // forced, or Unknown
}

var (
	compressionExtensions = []string{".gz", ".bz2", ".xz", ".zst"}
	sequenceExtensions    = []string{".fa", ".fasta", ".fna", ".ffn", ".faa", ".frn", ".fas", ".fq", ".fastq"}
)

// Expand turns arguments of the command line into inputs: "-" is standard input, a folder stands for the FASTA and FASTQ
// files below it (told by their extensions, links followed, hidden ones left out), a glob that the shell left alone for
// what it matches, anything else for itself. The result is sorted by path; CheckPaths and CheckNames say what is wrong with it. An
// argument that leads to no file is an ErrNoInput.
func Expand(args []string, forced Alphabet) ([]Input, error) {
	var inputs []Input
	for _, arg := range args {
		found, err := expand(arg)
		if err != nil {
			return nil, err
		}
		inputs = append(inputs, found...)
	}
	for i := range inputs {
		inputs[i].Alphabet = forced
	}
	slices.SortStableFunc(inputs, func(a, b Input) int { return strings.Compare(a.Path, b.Path) })
	return inputs, nil
}

// CheckPaths returns an ErrInputName that names a file that comes twice.
func CheckPaths(inputs []Input) error {
	given := make(map[string]bool, len(inputs))
	for _, in := range inputs {
		clean := filepath.Clean(in.Path)
		if given[clean] {
			return fmt.Errorf("%w: %s was given twice", ErrInputName, in.Path)
		}
		given[clean] = true
	}
	return nil
}

// CheckNames returns an ErrInputName that names two inputs of one alphabet, and so of one model, whose outputs would have
// the same name. s.fna and s.faa may stand side by side: it takes their alphabets to know.
func CheckNames(inputs []Input) error {
	type output struct {
		name  string
		model Alphabet
	}
	owner := make(map[output]string, len(inputs))
	for _, in := range inputs {
		out := output{path.Join(in.Dir, in.Name), in.Alphabet}
		if first, taken := owner[out]; taken {
			return fmt.Errorf("%w: the outputs of %s and %s would both be named %q", ErrInputName, first, in.Path, out.name)
		}
		owner[out] = in.Path
	}
	return nil
}

// expand finds the inputs of one argument. A file whose name looks like a glob is that file.
func expand(arg string) ([]Input, error) {
	if arg == "-" {
		return []Input{{Path: "-", Name: "stdin"}}, nil
	}
	info, err := os.Stat(arg)
	if err == nil {
		return expandPath(arg, info)
	}
	if !strings.ContainsAny(arg, "*?[") {
		return nil, fmt.Errorf("%w: %w", ErrNoInput, err)
	}
	matches, err := filepath.Glob(arg)
	if err != nil {
		return nil, fmt.Errorf("%w: glob %q: %w", ErrNoInput, arg, err)
	}
	if len(matches) == 0 {
		return nil, fmt.Errorf("%w: nothing matches the glob %q", ErrNoInput, arg)
	}
	var inputs []Input
	for _, match := range matches {
		info, err := os.Stat(match)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrNoInput, err)
		}
		found, err := expandPath(match, info)
		if err != nil {
			return nil, err
		}
		inputs = append(inputs, found...)
	}
	return inputs, nil
}

// spelling gives a path its usual form, so that ./x.fa is known to a rerun that says x.fa. What ".." means depends on
// links, and "-" is standard input: those stay.
func spelling(p string) string {
	clean := filepath.Clean(p)
	if clean == "-" || slices.Contains(strings.Split(filepath.ToSlash(p), "/"), "..") {
		return p
	}
	return clean
}

func expandPath(p string, info fs.FileInfo) ([]Input, error) {
	p = spelling(p)
	if !info.IsDir() {
		return []Input{{Path: p, Name: baseName(p)}}, nil
	}
	inputs, err := expandFolder(p, "", nil)
	if err != nil {
		return nil, err
	}
	if len(inputs) == 0 {
		return nil, fmt.Errorf("%w: the folder %s holds no FASTA or FASTQ files (%s, also with %s)", ErrNoInput, p,
			strings.Join(sequenceExtensions, " "), strings.Join(compressionExtensions, " "))
	}
	return inputs, nil
}

// expandFolder collects the sequence files of root/dir and below. Links are followed, because workflow managers stage
// inputs as links; above holds the folders on the way down, so that a link to one of them ends there.
func expandFolder(root, dir string, above []fs.FileInfo) ([]Input, error) {
	folder := filepath.Join(root, filepath.FromSlash(dir))
	self, err := os.Stat(folder)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoInput, err)
	}
	for _, upper := range above {
		if os.SameFile(upper, self) {
			return nil, nil
		}
	}
	above = append(slices.Clip(above), self)

	entries, err := os.ReadDir(folder)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoInput, err)
	}
	var inputs []Input
	for _, entry := range entries {
		name := entry.Name()
		if strings.HasPrefix(name, ".") {
			continue
		}
		file := filepath.Join(folder, name)
		wanted := isSequenceName(name)
		info, err := os.Stat(file)
		if err != nil {
			if !wanted {
				continue
			}
			return nil, fmt.Errorf("%w: %w", ErrNoInput, err)
		}
		if info.IsDir() {
			below, err := expandFolder(root, path.Join(dir, name), above)
			if err != nil {
				return nil, err
			}
			inputs = append(inputs, below...)
		} else if wanted {
			inputs = append(inputs, Input{Path: file, Name: baseName(file), Dir: dir})
		}
	}
	return inputs, nil
}

// isSequenceName reports whether a file name has one of the sequence extensions, in either case.
func isSequenceName(name string) bool {
	stem := trimExtension(name, compressionExtensions)
	return trimExtension(stem, sequenceExtensions) != stem
}

// baseName is the file name without a compression extension and then without a sequence extension.
func baseName(file string) string {
	name := trimExtension(filepath.Base(file), compressionExtensions)
	return trimExtension(name, sequenceExtensions)
}

// trimExtension removes one of the extensions, unless nothing would be left.
func trimExtension(name string, extensions []string) string {
	ext := filepath.Ext(name)
	if len(ext) < len(name) && slices.Contains(extensions, strings.ToLower(ext)) {
		return strings.TrimSuffix(name, ext)
	}
	return name
}
