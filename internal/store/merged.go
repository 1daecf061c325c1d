package store

import (
	"archive/zip"
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
)

// MergeVirNucPro writes the file merged, from which the program VirNucPro makes its predictions. The file is a PyTorch
// file with the object {'ids': [id, …], 'data': float32 tensor [records, n]}. A row of the tensor has the values of one
// record: first those in the file dna, then those in the file protein. The files dna and protein must have the format
// VirNucPro, as this package writes it, and the same ids in the same order. Memory does not grow with the number of
// records, except for some 300 bytes for each tensor in the zip directory of the file protein.
func MergeVirNucPro(ctx context.Context, dna, protein, merged string) (File, error) {
	d, err := openVirNucPro(dna)
	if err != nil {
		return File{}, err
	}
	defer d.Close()
	p, err := openVirNucPro(protein)
	if err != nil {
		return File{}, err
	}
	defer p.Close()
	files := fileSet{fs: osFS{}}
	defer files.discard() // does nothing after commit
	m, err := newMergedEncoder(&files, merged)
	if err != nil {
		return File{}, err
	}
	for {
		if ctx.Err() != nil {
			return File{}, context.Cause(ctx)
		}
		id, values, err := d.nucleotide()
		other, more, otherErr := p.protein()
		switch {
		case err == io.EOF && otherErr == io.EOF:
			if err := d.rest(); err != nil {
				return File{}, fmt.Errorf("%s: %w", dna, err)
			}
			if err := p.rest(); err != nil {
				return File{}, fmt.Errorf("%s: %w", protein, err)
			}
			if err := m.finish(); err != nil {
				return File{}, err
			}
			written, err := files.commit()
			if err != nil {
				return File{}, err
			}
			return written[0], nil
		case err != nil && err != io.EOF:
			return File{}, fmt.Errorf("%s: %w", dna, err)
		case otherErr != nil && otherErr != io.EOF:
			return File{}, fmt.Errorf("%s: %w", protein, otherErr)
		case err != otherErr || id != other:
			return File{}, fmt.Errorf("record %d is %q in %s and %q in %s: the same records are needed", m.rows+1, id, dna, other, protein)
		}
		if err := m.add(id, append(values, more...)); err != nil {
			return File{}, err
		}
	}
}

// mergedEncoder writes the file that MergeVirNucPro describes. The values go to the zip archive at once, and the pickle
// with the ids follows at the end.
type mergedEncoder struct {
	archive     *zipArchive
	values      io.Writer   // zip entry of the tensor
	ids         *atomicFile // pickle code that appends each id to the list on top of the unpickler's stack
	pickle      pickle
	bytes       []byte // buffer for one row
	rows, width int
}

func newMergedEncoder(files *fileSet, path string) (*mergedEncoder, error) {
	f, err := files.create(path, false)
	if err != nil {
		return nil, err
	}
	m := &mergedEncoder{archive: newZipArchive(f)}
	if m.ids, err = files.createScratch(path); err != nil {
		return nil, err
	}
	name := torchRoot + "data/0"
	header := &zip.FileHeader{Name: name, Method: zip.Store, Extra: zipPadding(int64(zipHeader+len(name)), torchAlign)}
	m.values, err = m.archive.zip.CreateHeader(header)
	return m, err
}

func (m *mergedEncoder) add(id string, values []float32) error {
	if m.rows > 0 && len(values) != m.width {
		return fmt.Errorf("record %q has %d values, and those before it %d", id, len(values), m.width)
	}
	m.rows, m.width = m.rows+1, len(values)
	m.bytes = appendFloats(m.bytes[:0], FP32, values)
	if _, err := m.values.Write(m.bytes); err != nil {
		return err
	}
	m.pickle.text(id)
	m.pickle.op(opAppend)
	return m.flush(m.ids)
}

// flush writes the pickle code that is in memory to w.
func (m *mergedEncoder) flush(w io.Writer) error {
	_, err := w.Write(m.pickle.buf)
	m.pickle.buf = m.pickle.buf[:0]
	return err
}

func (m *mergedEncoder) finish() error {
	entry, err := m.archive.stream(torchRoot + "data.pkl")
	if err != nil {
		return err
	}
	p := &m.pickle
	p.op(opProto, 2, opEmptyDict, opMark)
	p.text("ids")
	p.op(opEmptyList)
	if err := m.flush(entry); err != nil {
		return err
	}
	if err := m.ids.copyTo(entry); err != nil {
		return err
	}
	p.text("data")
	p.tensor("0", FP32, []int{m.rows, m.width}, false)
	p.op(opSetItems, opStop)
	if err := m.flush(entry); err != nil {
		return err
	}
	return closeTorch(m.archive)
}

// ErrForeignPt is wrapped by the error for a PyTorch file that this package cannot have written in the format
// VirNucPro.
var ErrForeignPt = errors.New("not a file of the format virnucpro that this program has written")

// virNucProFile reads a PyTorch file of the format VirNucPro record by record. It understands only files that this
// package has written.
type virNucProFile struct {
	io.Closer
	pickle  *bufio.Reader // content of data.pkl
	storage map[string]*zip.File
	tensors int       // number of tensors that were read
	ended   bool      // whether the list of ids has ended, in a file of proteins
	stopped bool      // whether the pickle has ended
	matrix  *matrix   // tensor of a file that MergeVirNucPro has written, else nil
	rows    int       // number of rows of matrix that are left to be read
	values  []float32 // buffer for one record
	operand []byte    // buffer for the operand of one instruction
}

func openVirNucPro(path string) (*virNucProFile, error) {
	archive, err := zip.OpenReader(path)
	if err != nil {
		return nil, ioError("read", path, err)
	}
	f, err := newVirNucProFile(&archive.Reader)
	if err != nil {
		archive.Close()
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	f.Closer = archive
	return f, nil
}

// newVirNucProFile returns a reader of the file whose zip archive is given.
func newVirNucProFile(archive *zip.Reader) (*virNucProFile, error) {
	f := &virNucProFile{storage: map[string]*zip.File{}}
	for _, entry := range archive.File {
		f.storage[entry.Name] = entry
	}
	code, err := archive.Open(torchRoot + "data.pkl")
	if err != nil {
		return nil, errors.Join(ErrForeignPt, errWithoutPath(err))
	}
	f.pickle = bufio.NewReaderSize(code, bufferSize)
	return f, nil
}

// errWithoutPath returns err without the path that an os.PathError adds to its cause.
func errWithoutPath(err error) error {
	var pathErr *os.PathError
	if errors.As(err, &pathErr) {
		return pathErr.Err
	}
	return err
}

// nucleotide returns the id and the values of the next record of a DNA file, or io.EOF. The values are valid until the
// next call.
func (f *virNucProFile) nucleotide() (id string, values []float32, err error) {
	last := "" // last text that is not in the memo. It is the id, because only the keys of a record are in the memo
	f.values = f.values[:0]
	for {
		op, operand, err := f.instruction()
		switch {
		case err != nil:
			return "", nil, err
		case op == opStop:
			return "", nil, io.EOF
		case op == opBinUnicode:
			id, last = last, string(operand)
		case op == opBinPut:
			last = id
		case op == opBinFloat && len(f.values) == maxDim:
			return "", nil, fmt.Errorf("%w: a record of more than %d values", ErrForeignPt, maxDim)
		case op == opBinFloat:
			f.values = append(f.values, float32(math.Float64frombits(binary.BigEndian.Uint64(operand))))
		case op == opAppends:
			return last, f.values, nil
		}
	}
}

// protein returns the id and the values of the next record of a protein file, or io.EOF. The values are valid until the
// next call.
func (f *virNucProFile) protein() (id string, values []float32, err error) {
	for !f.ended {
		op, operand, err := f.instruction()
		switch {
		case err != nil:
			return "", nil, err
		case op == opBinUnicode:
			id = string(operand)
		case op == opAppend:
			err = f.tensor(torchRoot + "data/" + strconv.Itoa(f.tensors))
			f.tensors++
			return id, f.values, err
		case op == opEmptyList && id == "data", op == opStop:
			f.ended = true
		}
	}
	return "", nil, io.EOF
}

// tensor reads the float32 values of the tensor in the zip entry called name into f.values.
func (f *virNucProFile) tensor(name string) error {
	entry, ok := f.storage[name]
	if !ok || entry.UncompressedSize64%4 != 0 || entry.UncompressedSize64/4 > maxDim {
		return fmt.Errorf("%w: there is no tensor %s", ErrForeignPt, name)
	}
	r, err := entry.Open()
	if err != nil {
		return err
	}
	defer r.Close()
	content, err := io.ReadAll(r) // at the end of the entry, package zip checks the CRC-32
	if err != nil {
		return err
	}
	f.values = appendValues(f.values[:0], FP32, content)
	return nil
}

// operands has the number of bytes that follow each opcode in the pickles which this package writes. opBinUnicode,
// opLong1 and opGlobal are missing, because the number of bytes that follow them varies.
var operands = map[byte]int{opProto: 1, opBinGet: 1, opBinPut: 1, opBinFloat: 8, opBinInt: 4, opBinInt1: 1, opBinInt2: 2,
	opStop: 0, opMark: 0, opNewFalse: 0, opEmptyDict: 0, opSetItems: 0, opEmptyList: 0, opAppend: 0, opAppends: 0, opEmptyTuple: 0,
	opTuple1: 0, opTuple2: 0, opTuple: 0, opReduce: 0, opBinPersistentID: 0}

// instruction reads an instruction of the pickle and the bytes that belong to it, which are valid until the next call.
func (f *virNucProFile) instruction() (op byte, operand []byte, err error) {
	if op, err = f.pickle.ReadByte(); err != nil {
		return 0, nil, errors.Join(ErrForeignPt, err)
	}
	size, known := operands[op]
	switch op {
	case opStop:
		f.stopped = true
	case opGlobal:
		return op, nil, f.global()
	case opLong1:
		length, err := f.pickle.ReadByte()
		if err != nil {
			return 0, nil, errors.Join(ErrForeignPt, err)
		}
		size, known = int(length), true
	case opBinUnicode:
		length, err := f.pickle.Peek(4)
		if err != nil {
			return 0, nil, errors.Join(ErrForeignPt, err)
		}
		size, known = int(binary.LittleEndian.Uint32(length)), true
		_, _ = f.pickle.Discard(4) // cannot fail, because Peek has read the 4 bytes
	}
	if !known || size > maxText {
		return 0, nil, fmt.Errorf("%w: instruction %#x", ErrForeignPt, op)
	}
	f.operand = slices.Grow(f.operand[:0], size)[:size]
	if _, err := io.ReadFull(f.pickle, f.operand); err != nil {
		return 0, nil, errors.Join(ErrForeignPt, err)
	}
	return op, f.operand, nil
}

// global reads the name of a Python class or function, which must be one of those that this package writes into
// VirNucPro files.
func (f *virNucProFile) global() error {
	var names [2]string
	for i := range names {
		line, err := f.pickle.ReadSlice('\n')
		if err != nil {
			return errors.Join(ErrForeignPt, err)
		}
		names[i] = strings.TrimSuffix(string(line), "\n")
	}
	switch name := names[0] + "." + names[1]; name {
	case "torch._utils._rebuild_tensor_v2", "torch.FloatStorage", "collections.OrderedDict":
		return nil
	default:
		return fmt.Errorf("%w: it refers to %.200q", ErrForeignPt, name)
	}
}
