package store

import "io"

// WriteFiles writes files under temporary names and renames them to paths when all are complete and synced. The
// function write receives a writer for each path. If it returns an error, WriteFiles returns the error, and no file at
// paths has changed. The folders of the files must exist.
func WriteFiles(paths []string, write func(files []io.Writer) error) ([]File, error) {
	set := fileSet{fs: osFS{}}
	var files []io.Writer
	for _, path := range paths {
		f, err := set.create(path, false)
		if err != nil {
			_ = set.discard() // err is the error that matters
			return nil, err
		}
		files = append(files, f)
	}
	err := write(files)
	if err == nil {
		var written []File
		if written, err = set.commit(); err == nil {
			return written, nil
		}
	}
	_ = set.discard()
	return nil, err
}
