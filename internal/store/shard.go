package store

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
)

// ShardSuffix is the text in the file name of a shard between the name of the output and Spec.Shard, as in
// x.parquet.shard-1-of-8.
const ShardSuffix = ".shard-"

// shardLayout returns the layout of shards: a line with a shardHeader, the rows, and a byte that ends the rows. Values
// are float32 whatever Spec.DType is.
func shardLayout() layout { return layout{names: shardName, open: newShardEncoder} }

func shardName(s *Spec, stem string) []string {
	return []string{stem + "." + string(s.Format) + ShardSuffix + s.Shard}
}

// shardVersion is the version of the layout of shards.
const shardVersion = 1

// shardHeader is the first line of a shard, in JSON. It describes the whole output.
type shardHeader struct {
	Version     int
	Base, Model []byte // Spec.Base and Spec.Model, as bytes because text in JSON must be UTF-8
	Spec        Spec
}

// Bytes that mark the rows of a shard and their end.
const (
	shardRow = 1 // the byte before each row
	shardEnd = 0 // the byte after the last row
)

type shardEncoder struct {
	file   *atomicFile
	floats floatWriter
	buf    []byte
}

func newShardEncoder(s *Spec, files *fileSet) (encoder, error) {
	f, err := files.create(s.Paths()[0], false)
	if err != nil {
		return nil, err
	}
	h := shardHeader{shardVersion, []byte(s.Base), []byte(s.Model), *s}
	h.Spec.Dir, h.Spec.Base, h.Spec.Model, h.Spec.Shard = "", "", "", ""
	h.Spec.Meta = map[string]string{}
	for key, value := range s.Meta {
		h.Spec.Meta[ValidText(key)] = ValidText(value)
	}
	line, err := json.Marshal(h)
	if err != nil {
		return nil, err
	}
	_, err = f.Write(append(line, '\n'))
	return &shardEncoder{file: f, floats: floatWriter{dtype: FP32}}, err
}

// add writes the integers of a row as varints, texts as they are, letters as int32, and values as float32.
func (e *shardEncoder) add(r *Row) error {
	b := append(e.buf[:0], shardRow)
	for _, text := range []string{r.ID, r.Description} {
		b = append(binary.AppendUvarint(b, uint64(len(text))), text...)
	}
	truncated := 0
	if r.Truncated {
		truncated = 1
	}
	for _, n := range []int{int(r.Index), r.Length, r.Tokens, truncated, r.RecordLength, r.Start, r.End, len(r.Residues)} {
		b = binary.AppendUvarint(b, uint64(n))
	}
	b = appendLetters(b, r.Residues)
	for _, values := range r.Embeddings {
		b = binary.AppendUvarint(b, uint64(len(values)))
		if _, err := e.file.Write(b); err != nil {
			return err
		}
		if err := e.floats.write(e.file, values); err != nil {
			return err
		}
		b = b[:0]
	}
	e.buf = b
	return nil
}

func (e *shardEncoder) finish() error {
	_, err := e.file.Write([]byte{shardEnd})
	return err
}

// Shard is a file with a part of an output (see Spec.Shard), open for reading.
type Shard struct {
	Spec   Spec   // the Spec of the whole output, without Dir and Shard
	Header string // first line of the file, which is equal in all shards of an output
	path   string
	file   *os.File
	from   *bufio.Reader
	hash   hash.Hash
	left   int64 // size of the file in bytes, which bounds the lengths in it
	values matrix
}

// shardBuffer is the size in bytes of the buffer of a Shard. It is small because all shards of an input may be open at
// the same time.
const shardBuffer = 64 << 10

// OpenShard opens a shard for reading.
func OpenShard(path string) (*Shard, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, ioError("read", path, err)
	}
	s := &Shard{path: path, file: f, hash: sha256.New()}
	s.from = bufio.NewReaderSize(io.TeeReader(f, s.hash), shardBuffer)
	if err := s.readHeader(); err != nil {
		f.Close()
		return nil, fmt.Errorf("%s %w as a shard: %w", path, ErrNoTable, err)
	}
	return s, nil
}

func (s *Shard) readHeader() error {
	info, err := s.file.Stat()
	if err != nil {
		return err
	}
	s.left = info.Size()
	line, err := s.from.ReadBytes('\n')
	if err != nil {
		return noEOF(err)
	}
	var h shardHeader
	if err := json.NewDecoder(bytes.NewReader(line)).Decode(&h); err != nil {
		return err
	}
	if h.Version != shardVersion {
		return fmt.Errorf("its version is %d, not %d", h.Version, shardVersion)
	}
	if h.Spec.Dim < 1 || h.Spec.Dim > maxDim {
		return fmt.Errorf("rows of %d values", h.Spec.Dim)
	}
	s.values = matrix{from: s.from, dtype: FP32, bytes: make([]byte, FP32.size()*h.Spec.Dim)}
	s.Header, s.Spec = string(line), h.Spec
	s.Spec.Base, s.Spec.Model = string(h.Base), string(h.Model)
	return nil
}

// Next returns the next row, which is valid until the next call, or io.EOF after the last row.
func (s *Shard) Next() (*Row, error) {
	r, err := s.next()
	if err != nil && err != io.EOF {
		return nil, fmt.Errorf("%s %w as a shard: %w", s.path, ErrNoTable, err)
	}
	return r, err
}

func (s *Shard) next() (*Row, error) {
	switch mark, err := s.from.ReadByte(); {
	case err != nil:
		return nil, noEOF(err)
	case mark == shardEnd:
		if _, err := s.from.ReadByte(); err != io.EOF {
			return nil, errors.New("bytes follow its end")
		}
		return nil, io.EOF
	case mark != shardRow:
		return nil, fmt.Errorf("a row begins with %#x", mark)
	}
	r := &Row{}
	var err error
	for _, text := range []*string{&r.ID, &r.Description} {
		if *text, err = s.text(); err != nil {
			return nil, err
		}
	}
	var index, truncated, residues int
	for _, n := range []*int{&index, &r.Length, &r.Tokens, &truncated, &r.RecordLength, &r.Start, &r.End, &residues} {
		if *n, err = s.number(1 << 62); err != nil {
			return nil, err
		}
	}
	r.Index, r.Truncated = int64(index), truncated == 1
	if err := s.letters(r, residues); err != nil {
		return nil, err
	}
	for range s.Spec.Columns {
		n, err := s.number(s.left / int64(FP32.size()))
		if err != nil {
			return nil, err
		}
		s.values.values = nil // the row keeps the slice with the values of the previous column
		values, err := s.values.next(n / s.Spec.Dim)
		if err != nil {
			return nil, err
		}
		r.Embeddings = append(r.Embeddings, values)
	}
	return r, nil
}

// number reads a varint. It returns an error if the number is greater than limit.
func (s *Shard) number(limit int64) (int, error) {
	n, err := binary.ReadUvarint(s.from)
	if err == nil && n > uint64(limit) {
		err = fmt.Errorf("a number is %d", n)
	}
	return int(n), noEOF(err)
}

func (s *Shard) text() (string, error) {
	n, err := s.number(min(maxText, s.left))
	if err != nil {
		return "", err
	}
	b := make([]byte, n)
	_, err = io.ReadFull(s.from, b)
	return string(b), noEOF(err)
}

// letters reads the first and the last letter of a number of residues, and appends them to r.Residues.
func (s *Shard) letters(r *Row, residues int) error {
	var pair [8]byte
	for range residues {
		if _, err := io.ReadFull(s.from, pair[:]); err != nil {
			return noEOF(err)
		}
		r.Residues = append(r.Residues, Letters{int32(binary.LittleEndian.Uint32(pair[:])), int32(binary.LittleEndian.Uint32(pair[4:]))})
	}
	return nil
}

// SHA256 returns the digest of the file in hexadecimal. Next must have returned io.EOF before.
func (s *Shard) SHA256() string { return hex.EncodeToString(s.hash.Sum(nil)) }

// Close closes the file.
func (s *Shard) Close() error { return s.file.Close() }
