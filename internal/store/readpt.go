package store

import (
	"archive/zip"
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
)

// virNucProKeys maps the first key in the pickle of a VirNucPro file, which tells the three kinds of such files apart,
// to the function that reads the next record of the file.
var virNucProKeys = map[string]func(*virNucProFile) (id string, values []float32, err error){
	"nucleotide": (*virNucProFile).nucleotide, "proteins": (*virNucProFile).protein, "ids": (*virNucProFile).mergedRow,
}

// readPt opens a PyTorch file of the format VirNucPro: of DNA, of proteins, or one that MergeVirNucPro has written. For
// any other file the error wraps ErrForeignPt.
func readPt(f *os.File, size int64) (*Table, error) {
	archive, err := zip.NewReader(f, size)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrForeignPt, err)
	}
	t := &Table{Format: VirNucPro, DType: FP32, Dim: 1, IDs: true}
	t.setColumns([]string{"embeddings"}, Mean)
	first, next, err := openAny(archive)
	if err != nil {
		return nil, err
	}
	switch _, values, err := next(first); {
	case err == nil:
		t.Dim = len(values)
	case err != io.EOF:
		return nil, err
	}
	t.Read = func(yield func(*Row) error) error {
		file, next, err := openAny(archive)
		for err == nil {
			var r Row
			values := []float32(nil)
			if r.ID, values, err = next(file); err != nil {
				break
			}
			if len(values) != t.Dim {
				return fmt.Errorf("record %q has %d values, the first one %d", r.ID, len(values), t.Dim)
			}
			r.Tokens, r.Embeddings = 1, [][]float32{values}
			err = yield(&r)
		}
		if err != io.EOF {
			return err
		}
		return file.rest()
	}
	return t, nil
}

// openAny finds out which of VirNucPro's three kinds of files an archive is (see virNucProKeys). It returns a reader at
// the first record, and the function that reads the next record.
func openAny(archive *zip.Reader) (f *virNucProFile, next func(*virNucProFile) (string, []float32, error), err error) {
	if f, err = newVirNucProFile(archive); err != nil {
		return nil, nil, err
	}
	start, _ := f.pickle.Peek(64) // fewer bytes if the pickle is shorter
	for key, next := range virNucProKeys {
		var p pickle
		p.op(opProto, 2, opEmptyDict, opMark)
		p.text(key)
		if !bytes.HasPrefix(start, p.buf) {
			continue
		}
		if key == "ids" {
			err = f.openMerged(archive)
		}
		return f, next, err
	}
	return nil, nil, ErrForeignPt
}

// rest reads the remainder of a file, after its last record. It returns an error if an instruction of the pickle is
// unknown, if a checksum is wrong, or if there is a tensor that belongs to no record.
func (f *virNucProFile) rest() error {
	for !f.stopped {
		if _, _, err := f.instruction(); err != nil {
			return err
		}
	}
	if _, err := io.Copy(io.Discard, f.pickle); err != nil {
		return err
	}
	tensors := 0
	for name := range f.storage {
		if strings.HasPrefix(name, torchRoot+"data/") {
			tensors++
		}
	}
	if f.tensors != tensors {
		return fmt.Errorf("%d tensors, of which the records have %d", tensors, f.tensors)
	}
	if f.matrix != nil {
		_, err := io.Copy(io.Discard, f.matrix.from) // reads no bytes, but makes package zip compare the checksum
		return err
	}
	return nil
}

// openMerged opens the tensor of a file that MergeVirNucPro has written. The pickle has the tensor's shape after all
// ids, so a second reader of the pickle looks ahead.
func (f *virNucProFile) openMerged(archive *zip.Reader) error {
	ahead, err := newVirNucProFile(archive)
	if err != nil {
		return err
	}
	ids := -1 // the first text is a key, not an id
	for op := byte(0); op != opGlobal; {
		if op, _, err = ahead.instruction(); err != nil {
			return err
		}
		if op == opBinUnicode {
			ids++
		}
	}
	ids-- // the last text before the tensor is a key, not an id
	numbers, err := ahead.numbers()
	if err != nil {
		return err
	}
	entry := f.storage[torchRoot+"data/0"]
	// numbers has the integers that pickle.tensor writes: the number of values, offset, rows, width, and two strides.
	if entry == nil || len(numbers) != 6 || numbers[1] != 0 || numbers[2] != int64(ids) || numbers[3] < 0 || numbers[3] > maxDim ||
		numbers[0] != numbers[2]*numbers[3] || uint64(numbers[0])*4 != entry.UncompressedSize64 {
		return fmt.Errorf("%w: %d ids, and a tensor of another size", ErrForeignPt, ids)
	}
	values, err := entry.Open()
	if err != nil {
		return err
	}
	f.rows, f.tensors, f.matrix = ids, 1, newMatrix(values, FP32, int(numbers[3]))
	return nil
}

// numbers returns the integers in the rest of a pickle, at most 8 of them.
func (f *virNucProFile) numbers() (list []int64, err error) {
	for {
		op, operand, err := f.instruction()
		if err != nil || op == opStop {
			return list, err
		}
		if slices.Contains([]byte{opBinInt, opBinInt1, opBinInt2, opLong1}, op) && len(operand) <= 8 && len(list) < 8 {
			var full [8]byte
			copy(full[:], operand) // the rest stays zero, because no number is negative
			list = append(list, int64(binary.LittleEndian.Uint64(full[:])))
		}
	}
}

// mergedRow returns the id and the values of the next record of a file that MergeVirNucPro has written, or io.EOF. The
// values are valid until the next call.
func (f *virNucProFile) mergedRow() (id string, values []float32, err error) {
	if f.rows == 0 {
		return "", nil, io.EOF
	}
	f.rows--
	for {
		op, operand, err := f.instruction()
		switch {
		case err != nil:
			return "", nil, err
		case op == opBinUnicode:
			id = string(operand)
		case op == opAppend:
			values, err := f.matrix.next(1)
			return id, values, err
		}
	}
}
