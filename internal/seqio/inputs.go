package seqio

import (
	"cmp"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// Input is one file to read, or standard input. TellApart may change Name and Dir.
type Input struct {
	Path     string   // path of the file, which may be below a folder that the user gave; "-": standard input
	Name     string   // start of the output's name: file name without sequence and compression extensions, or "stdin"
	Dir      string   // folder of the output, with slashes: the file's, relative to a folder that the user gave; or ""
	Alphabet Alphabet // alphabet that the user gave, or Unknown
}

var (
	compressionExtensions = []string{".gz", ".bgz", ".bz2", ".xz", ".zst"}
	sequenceExtensions    = []string{".fa", ".fasta", ".fna", ".ffn", ".faa", ".frn", ".fas", ".fsa", ".mfa", ".pep",
		".aa", ".seq", ".contigs", ".fq", ".fastq"}
)

// LeftOut counts, by extension, the files in and below a folder that are not inputs. Hidden files are not counted.
type LeftOut struct {
	Folder     string
	Extensions map[string]int // in lower case; ".txt.gz" for a compressed file, "" for a file without extension
	Pipes      int            // number of pipes and devices with the extension of a sequence file
}

// String returns a text such as "3 files: .txt 2, .zip 1", with the most frequent extensions first.
func (l LeftOut) String() string {
	extensions := slices.SortedFunc(maps.Keys(l.Extensions), func(a, b string) int {
		return cmp.Or(cmp.Compare(l.Extensions[b], l.Extensions[a]), strings.Compare(a, b))
	})
	total, list := l.Pipes, make([]string, len(extensions))
	for i, extension := range extensions {
		total += l.Extensions[extension]
		list[i] = fmt.Sprintf("%s %d", cmp.Or(extension, "none"), l.Extensions[extension])
	}
	if l.Pipes > 0 {
		list = append(list, fmt.Sprintf("pipes and devices %d", l.Pipes))
	}
	files := "files"
	if total == 1 {
		files = "file"
	}
	return fmt.Sprintf("%d %s: %s", total, files, strings.Join(list, ", "))
}

// Expand returns the inputs that an argument of the command line stands for. "-" is standard input. A folder stands for
// the FASTA and FASTQ files in it and below. Expand recognises these files by their extensions, follows links and
// ignores hidden files. A glob that the shell has not expanded stands for its matches, and any other argument for the
// file of that path. The inputs are sorted by path. The Alphabet of each input is the argument forced. If arg, or a
// match of the glob arg, is a folder with files that are not inputs, Expand also returns a LeftOut for this folder. If
// arg leads to no file, the error wraps ErrNoInput. CheckPaths and CheckNames find conflicts between the inputs of
// several arguments.
func Expand(arg string, forced Alphabet) ([]Input, []LeftOut, error) {
	var e expansion
	if err := e.expand(arg); err != nil {
		return nil, nil, err
	}
	for i := range e.inputs {
		e.inputs[i].Alphabet = forced
	}
	slices.SortStableFunc(e.inputs, func(a, b Input) int { return strings.Compare(a.Path, b.Path) })
	return e.inputs, e.leftOut, nil
}

// CheckPaths returns an error that wraps ErrGivenTwice if two inputs have the same path, or are the same pipe, of which
// each would get a part.
func CheckPaths(inputs []Input) error {
	given := make(map[string]bool, len(inputs))
	var pipes []fs.FileInfo
	for _, in := range inputs {
		clean := filepath.Clean(in.Path)
		if given[clean] {
			return fmt.Errorf("%w: %s: name it, or the folder or glob that leads to it, once", ErrGivenTwice, in.Path)
		}
		given[clean] = true
		info, err := os.Stat(in.Path)
		if in.Path == "-" {
			info, err = os.Stdin.Stat()
		}
		if err != nil || info.Mode().IsRegular() || info.IsDir() {
			continue
		}
		if slices.ContainsFunc(pipes, func(other fs.FileInfo) bool { return os.SameFile(info, other) }) {
			return fmt.Errorf("%w: %s is the pipe or device to which another argument leads, too", ErrGivenTwice, in.Path)
		}
		pipes = append(pipes, info)
	}
	return nil
}

// expansion is the result of Expand under construction.
type expansion struct {
	inputs  []Input
	leftOut []LeftOut
}

// expand adds the inputs of one argument. If a file or folder has exactly this name, the argument stands for it even if
// the name looks like a glob.
func (e *expansion) expand(arg string) error {
	if arg == "-" {
		e.inputs = append(e.inputs, Input{Path: "-", Name: "stdin"})
		return nil
	}
	if _, err := os.Stat(arg); err == nil || !strings.ContainsAny(arg, "*?[") {
		return e.path(arg)
	}
	matches, err := filepath.Glob(arg)
	if err != nil {
		return fmt.Errorf("%w: glob %q: %w", ErrNoInput, arg, err)
	}
	matches = slices.DeleteFunc(matches, func(match string) bool { return hidesFrom(arg, match) })
	if len(matches) == 0 {
		return fmt.Errorf("%w: nothing matches the glob %q", ErrNoInput, arg)
	}
	for _, match := range matches {
		if err := e.path(match); err != nil {
			return err
		}
	}
	return nil
}

// hidesFrom reports whether a match of a glob is hidden, or in a hidden folder, although the glob does not name the
// dot. In a shell, too, * does not stand for a dot at the beginning of a name.
func hidesFrom(glob, match string) bool {
	names, patterns := strings.Split(filepath.ToSlash(filepath.Clean(match)), "/"), strings.Split(filepath.ToSlash(filepath.Clean(glob)), "/")
	for i := range min(len(names), len(patterns)) {
		if strings.HasPrefix(names[i], ".") && !strings.HasPrefix(strings.TrimPrefix(patterns[i], `\`), ".") {
			return true
		}
	}
	return false
}

// spelling returns the usual form of a path, so that a rerun recognises ./x.fa as x.fa. It does not change a path with
// "..", because the folder to which ".." leads depends on symbolic links. It does not shorten "./-" to "-", which would
// be standard input.
func spelling(p string) string {
	clean := filepath.Clean(p)
	if clean == "-" || slices.Contains(strings.Split(filepath.ToSlash(p), "/"), "..") {
		return p
	}
	return clean
}

// path adds the file p, or the sequence files of the folder p, to the inputs.
func (e *expansion) path(p string) error {
	info, err := os.Stat(p)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNoInput, err)
	}
	p = spelling(p)
	if !info.IsDir() {
		e.inputs = append(e.inputs, Input{Path: p, Name: baseName(p)})
		return nil
	}
	before := len(e.inputs)
	left := LeftOut{Folder: p, Extensions: make(map[string]int)}
	if err := e.folder(&left, "", nil); err != nil {
		return err
	}
	if len(left.Extensions)+left.Pipes > 0 {
		e.leftOut = append(e.leftOut, left)
	}
	if len(e.inputs) == before {
		found := ""
		if len(left.Extensions)+left.Pipes > 0 {
			found = "; it holds " + left.String()
		}
		return fmt.Errorf("%w: the folder %s holds no FASTA or FASTQ files (%s, also with %s)%s", ErrNoInput, p,
			strings.Join(sequenceExtensions, " "), strings.Join(compressionExtensions, " "), found)
	}
	return nil
}

// folder adds the sequence files in the folder root.Folder/dir and below. It adds the other files to the counts of
// root. It follows symbolic links, because workflow managers link to their inputs. above contains the folders that lead
// to dir; a link to one of them is not followed, because it would lead back to dir. A sequence file or subfolder that
// cannot be read becomes an input all the same, so that only this input fails, when it is opened.
func (e *expansion) folder(root *LeftOut, dir string, above []fs.FileInfo) error {
	folder := filepath.Join(root.Folder, filepath.FromSlash(dir))
	self, err := os.Stat(folder)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNoInput, err)
	}
	for _, upper := range above {
		if os.SameFile(upper, self) {
			return nil
		}
	}
	above = append(slices.Clip(above), self)

	entries, err := os.ReadDir(folder)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNoInput, err)
	}
	for _, entry := range entries {
		name := entry.Name()
		if strings.HasPrefix(name, ".") {
			continue
		}
		file := filepath.Join(folder, name)
		wanted := isSequenceName(name)
		info, err := os.Stat(file)
		switch {
		case err == nil && info.IsDir():
			if e.folder(root, path.Join(dir, name), above) != nil { // opening this input returns the error again
				e.inputs = append(e.inputs, Input{Path: file, Name: name, Dir: dir})
			}
		case wanted && (err != nil || info.Mode().IsRegular()): // also a link to a missing file: only this input fails
			e.inputs = append(e.inputs, Input{Path: file, Name: baseName(file), Dir: dir})
		case wanted:
			root.Pipes++
		default:
			root.Extensions[extensionOf(name)]++
		}
	}
	return nil
}

// extensionOf returns the extension of a file name in lower case. If that is the extension of a compression, the result
// includes the extension before it.
func extensionOf(name string) string {
	stem := trimExtension(name, compressionExtensions)
	return strings.ToLower(filepath.Ext(stem) + strings.TrimPrefix(name, stem))
}

// isSequenceName reports whether a file name has a sequence extension, perhaps followed by a compression extension.
// Case does not matter.
func isSequenceName(name string) bool {
	stem := trimExtension(name, compressionExtensions)
	return trimExtension(stem, sequenceExtensions) != stem
}

// baseName returns the file name without a compression extension and a sequence extension.
func baseName(file string) string {
	name := trimExtension(filepath.Base(file), compressionExtensions)
	return trimExtension(name, sequenceExtensions)
}

// trimExtension removes one of the extensions from a name, unless the name consists of the extension only.
func trimExtension(name string, extensions []string) string {
	ext := filepath.Ext(name)
	if len(ext) < len(name) && slices.Contains(extensions, strings.ToLower(ext)) {
		return strings.TrimSuffix(name, ext)
	}
	return name
}
