package store

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Convert writes the rows of a table into an output of one or more files. The format and its options are the fields
// Format, DType, Compress, Matrix and Windows of s. The files are in folder dir, and their names begin with stem. If t
// is not Full, a new Parquet file has no columns for descriptions, counts and truncation. If OpenTable could not tell
// residues from tokens, Convert writes the residues as tokens. overflows is the number of values that became infinities
// in float16.
func (t *Table) Convert(s Spec, dir, stem string) (files []File, overflows int64, err error) {
	if !t.IDs {
		return nil, 0, fmt.Errorf("%s: there are no ids: an array needs its list beside it, %s%s", t.Path,
			strings.TrimSuffix(filepath.Base(t.Path), filepath.Ext(t.Path)), idsSuffix)
	}
	s.Dir, s.stem, s.Base, s.Model = dir, stem, stem, "converted"
	s.Kind, s.Dim, s.Columns, s.Meta, s.IDsOnly = Nucleotide, t.Dim, t.Columns, t.Meta, !t.Full
	if s.DType == "" {
		s.DType = t.DType
	}
	w, err := Create(s)
	if err != nil {
		return nil, 0, err
	}
	defer w.Abort()
	err = t.Read(func(r *Row) error {
		if r.Start > 0 && !s.Windows {
			r.ID = r.Region()
		}
		return w.Write(*r)
	})
	if err != nil {
		return nil, 0, err
	}
	files, err = w.Commit()
	return files, w.Overflows(), err
}

// ConvertedPaths returns the paths of the files that Convert would write, the main file first.
func (t *Table) ConvertedPaths(s Spec, dir, stem string) []string {
	s.Dir, s.stem, s.Columns = dir, stem, t.Columns
	return s.Paths()
}

// Orphans returns the NumPy files, other than those at the given paths, whose list of ids is at one of the paths.
func Orphans(paths []string) (list []string) {
	for _, ids := range paths {
		stem, ok := strings.CutSuffix(ids, idsSuffix)
		if !ok {
			continue
		}
		entries, _ := os.ReadDir(filepath.Dir(ids)) // the folder may not exist yet
		for _, entry := range entries {
			path := filepath.Join(filepath.Dir(ids), entry.Name())
			if !strings.HasPrefix(path, filepath.Clean(stem)+".") || slices.Contains(paths, path) {
				continue
			}
			exists := func(list string) bool {
				_, err := os.Lstat(list)
				return list == filepath.Clean(ids) || err == nil
			}
			if listOf(path, exists) == filepath.Clean(ids) {
				list = append(list, path)
			}
		}
	}
	return list
}

// FormatOf splits the path of a file that Convert shall write: it returns the format that the extension stands for, the
// folder, and the name without the extension.
func FormatOf(path string) (f Format, dir, stem string, err error) {
	ext := filepath.Ext(path)
	f = Format(strings.TrimPrefix(ext, "."))
	if ext == ".npz" {
		f = Npy
	}
	written := slices.DeleteFunc(ReadableExtensions(), func(ext string) bool { return ext == ".pt" })
	if !slices.Contains(written, ext) {
		return "", "", "", fmt.Errorf("%s: the extension is none of %s", path, strings.Join(written, ", "))
	}
	if stem = strings.TrimSuffix(filepath.Base(path), ext); stem == "" {
		return "", "", "", fmt.Errorf("%s: there is no name before the extension", path)
	}
	return f, filepath.Dir(path), stem, nil
}
