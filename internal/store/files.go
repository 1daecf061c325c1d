package store

import "io"

// WriteFiles writes files of any content as a Writer writes an output: the function write receives a writer for each
// path, and no file has its path before all are complete and synced. After an error of write, which WriteFiles returns,
// no path has changed. The folders must exist.
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
