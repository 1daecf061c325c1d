package store

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
)

// Pt is a folder of PyTorch files, one per record, in the layout of fair-esm's scripts/extract.py:
//
//	{'label': header, 'representations': {layer: tensor [residues, dim]},
//	 'mean_representations': {layer: tensor [dim]}, 'bos_representations': {layer: tensor [dim]}}
//
// A file has only the dictionaries for which there are columns.
const Pt Format = "pt"

// ptKeys are the poolings that a file of the format Pt can have, with their keys in the dictionary of the file, in the
// order of fair-esm's extract.py.
var ptKeys = []struct {
	pooling Pooling
	key     string
}{{Residues, "representations"}, {Mean, "mean_representations"}, {CLS, "bos_representations"}}

func checkPt(s *Spec) error {
	for _, c := range s.Columns {
		if c.Pooling == Max || c.Pooling == Tokens {
			return fmt.Errorf("format pt has no place for the pooling %s: it holds mean, residues and cls (use parquet, npy or safetensors)", c.Pooling)
		}
	}
	return nil
}

// ptEncoder writes a file per record. The name of the file is the record's header, escaped by EscapeName. The name,
// size and digest of each file, some 200 bytes, stay in memory until the end.
type ptEncoder struct {
	spec   *Spec
	folder *atomicFolder
	names  recordNames
	file   ptFile
	pickle pickle
	bytes  []byte // buffer for one tensor
}

// ptFile is a file that is made in memory.
type ptFile struct{ bytes.Buffer }

func (f *ptFile) written() int64 { return int64(f.Len()) }

func newPtEncoder(s *Spec, files *fileSet) (encoder, error) {
	folder, err := files.createFolder(s.Paths()[0], ".pt")
	return &ptEncoder{spec: s, folder: folder, names: recordNames{}}, err
}

// label returns the header of a record in its FASTA file: the id and the description.
func (e *ptEncoder) label(r *Row) string {
	if r.Description == "" {
		return r.ID
	}
	return r.ID + " " + r.Description
}

func (e *ptEncoder) check(r *Row) error { return e.names.check(r.ID, EscapeName(e.label(r))) }

func (e *ptEncoder) add(r *Row) error {
	label := e.label(r)
	e.names.add(EscapeName(label))
	e.file.Reset()
	archive, p := newZipArchive(&e.file), &e.pickle
	p.buf = p.buf[:0]
	p.op(opProto, 2, opEmptyDict, opMark)
	p.text("label")
	p.text(label)
	tensors := 0
	for _, k := range ptKeys {
		if !slices.ContainsFunc(e.spec.Columns, func(c Column) bool { return c.Pooling == k.pooling }) {
			continue
		}
		p.text(k.key)
		p.op(opEmptyDict, opMark)
		for i, c := range e.spec.Columns {
			if c.Pooling != k.pooling {
				continue
			}
			shape := []int{e.spec.Dim}
			if !c.Pooling.PerRecord() {
				shape = []int{len(r.Residues), e.spec.Dim}
			}
			e.bytes = appendFloats(e.bytes[:0], e.spec.DType, r.Embeddings[i])
			key := strconv.Itoa(tensors)
			if err := archive.add(torchRoot+"data/"+key, e.bytes, torchAlign); err != nil {
				return err
			}
			p.number(c.Layer)
			p.tensor(key, e.spec.DType, shape, tensors > 0)
			tensors++
		}
		p.op(opSetItems)
	}
	p.op(opSetItems, opStop)
	if err := archive.add(torchRoot+"data.pkl", p.buf, 1); err != nil {
		return err
	}
	if err := closeTorch(archive); err != nil {
		return err
	}
	return e.folder.add(EscapeName(label)+".pt", e.file.Bytes())
}

func (e *ptEncoder) finish() error { return nil }
