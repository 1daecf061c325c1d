package store

import (
	"errors"
	"fmt"
	"io"
	"strconv"
)

// VirNucPro is the format of the PyTorch files that the program VirNucPro reads.
const VirNucPro Format = "virnucpro"

// A VirNucPro file is a PyTorch zip file that contains one of these objects:
//
//	{'nucleotide': [id, …], 'data': [{'label': id, 'mean_representation': [float, …]}, …]}   DNA
//	{'proteins': [id, …], 'data': [float32 tensor [dim], …]}                                 protein

// torchRoot is the folder with which the names of all entries in the zip archive of a PyTorch file begin. PyTorch
// accepts any folder.
const torchRoot = "archive/"

// torchAlign is the alignment in bytes that PyTorch requires of storages, the zip entries with the values of tensors.
const torchAlign = 64

func virNucProNames(s *Spec, _ string) []string {
	return []string{escape(s.Base, maxBaseName) + "_" + escape(s.Model, maxModelName) + ".pt"}
}

func checkVirNucPro(s *Spec) error {
	switch {
	case len(s.Columns) > 1:
		return fmt.Errorf("format virnucpro supports one embedding of a record, not %d (use parquet, npy or safetensors)", len(s.Columns))
	case s.DType == FP16:
		return errors.New("format virnucpro holds float32 values (use parquet, npy or safetensors for float16)")
	case !s.perRecord():
		return errors.New("format virnucpro does not support embeddings per token (use parquet, npy or safetensors)")
	}
	return nil
}

// virNucProEncoder writes a VirNucPro file. In the pickle the list of ids comes before the data, but both grow with
// every record, so each is collected in a scratch file. Tensors are written to the archive immediately, before the
// pickle that refers to them by number. The archive's directory, some 300 bytes per tensor, stays in memory until the
// end.
type virNucProEncoder struct {
	kind      Kind
	archive   *zipArchive
	ids, data *atomicFile // pickle code that appends an item per record to the list on top of the unpickler's stack
	rows      int
	pickle    pickle
	bytes     []byte // buffer for one tensor
}

func newVirNucProEncoder(s *Spec, files *fileSet) (encoder, error) {
	path := s.Paths()[0]
	f, err := files.create(path, false)
	if err != nil {
		return nil, err
	}
	e := &virNucProEncoder{kind: s.Kind, archive: newZipArchive(f)}
	if e.ids, err = files.createScratch(path); err != nil {
		return nil, err
	}
	e.data, err = files.createScratch(path)
	return e, err
}

func (e *virNucProEncoder) add(r *Row) error {
	e.pickle.text(r.ID)
	e.pickle.op(opAppend)
	if err := e.flush(e.ids); err != nil {
		return err
	}
	if e.kind == Protein {
		key := strconv.Itoa(e.rows)
		e.bytes = appendFloats(e.bytes[:0], FP32, r.Embeddings[0])
		if err := e.archive.add(torchRoot+"data/"+key, e.bytes, torchAlign); err != nil {
			return err
		}
		e.pickle.tensor(key, FP32, []int{len(r.Embeddings[0])}, e.rows > 0)
	} else {
		e.pickle.labelled(r.ID, r.Embeddings[0], e.rows > 0)
	}
	e.pickle.op(opAppend)
	e.rows++
	return e.flush(e.data)
}

// flush writes the pickle code that is in memory to w.
func (e *virNucProEncoder) flush(w io.Writer) error {
	_, err := w.Write(e.pickle.buf)
	e.pickle.buf = e.pickle.buf[:0]
	return err
}

func (e *virNucProEncoder) finish() error {
	entry, err := e.archive.stream(torchRoot + "data.pkl")
	if err != nil {
		return err
	}
	key := "nucleotide"
	if e.kind == Protein {
		key = "proteins"
	}
	p := &e.pickle
	p.op(opProto, 2, opEmptyDict, opMark)
	p.text(key)
	p.op(opEmptyList)
	if err := e.flush(entry); err != nil {
		return err
	}
	if err := e.ids.copyTo(entry); err != nil {
		return err
	}
	p.text("data")
	p.op(opEmptyList)
	if err := e.flush(entry); err != nil {
		return err
	}
	if err := e.data.copyTo(entry); err != nil {
		return err
	}
	p.op(opSetItems, opStop)
	if err := e.flush(entry); err != nil {
		return err
	}
	return closeTorch(e.archive)
}

// closeTorch completes a PyTorch file: it adds two small entries, which describe the format of the other entries.
func closeTorch(a *zipArchive) error {
	if err := a.add(torchRoot+"byteorder", []byte("little"), 1); err != nil {
		return err
	}
	if err := a.add(torchRoot+"version", []byte("3\n"), 1); err != nil {
		return err
	}
	return a.close()
}

// Numbers, in the memo of the unpickler, of the values that all records share.
const (
	memoLabel byte = iota
	memoMean
	memoRebuild
	memoStorage
	memoFloatStorage
	memoCPU
	memoOrderedDict
)

// constant pushes a value that all records share onto the unpickler's stack. If known is set, constant takes the value
// from the unpickler's memo. If known is not set, the function build pushes the value, and constant stores it in the
// memo.
func (p *pickle) constant(memo byte, known bool, build func()) {
	if known {
		p.get(memo)
		return
	}
	build()
	p.put(memo)
}

// labelled pushes {'label': id, 'mean_representation': values}. constants tells whether the memo has the constant
// texts, because the pickle already contains a record.
func (p *pickle) labelled(id string, values []float32, constants bool) {
	p.op(opEmptyDict, opMark)
	p.constant(memoLabel, constants, func() { p.text("label") })
	p.text(id)
	p.constant(memoMean, constants, func() { p.text("mean_representation") })
	p.floats(values)
	p.op(opSetItems)
}

// tensor pushes a tensor of one or two dimensions over the storage called key: torch._utils._rebuild_tensor_v2(storage,
// offset, shape, strides, requires_grad, backward_hooks). All tensors of a pickle have the same dtype. constants tells
// whether the memo has the values that all tensors share, because the pickle already contains a tensor.
func (p *pickle) tensor(key string, dtype DType, shape []int, constants bool) {
	storage, values, strides := "FloatStorage", 1, []int{1}
	if dtype == FP16 {
		storage = "HalfStorage"
	}
	for _, n := range shape {
		values *= n
	}
	if len(shape) == 2 {
		strides = []int{shape[1], 1}
	}
	p.constant(memoRebuild, constants, func() { p.global("torch._utils", "_rebuild_tensor_v2") })
	p.op(opMark)

	p.op(opMark)
	p.constant(memoStorage, constants, func() { p.text("storage") })
	p.constant(memoFloatStorage, constants, func() { p.global("torch", storage) })
	p.text(key)
	p.constant(memoCPU, constants, func() { p.text("cpu") })
	p.number(values)
	p.op(opTuple, opBinPersistentID)

	p.number(0)
	p.tuple(shape)
	p.tuple(strides)
	p.op(opNewFalse)
	p.constant(memoOrderedDict, constants, func() { p.global("collections", "OrderedDict") })
	p.op(opEmptyTuple, opReduce)

	p.op(opTuple, opReduce)
}
