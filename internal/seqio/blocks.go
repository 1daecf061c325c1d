package seqio

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"math"
)

// bgzip compresses a text in blocks. A block is a gzip member of at most 64 KiB whose header gives its size (BGZF, in
// section 4.1 of the specification of SAM). So the next block can be found from any offset in a file, without reading
// the file from its beginning.

const (
	blockHeader = 18      // length in bytes of the header of a block
	maxBlock    = 1 << 16 // maximum length in bytes of a compressed block
)

// blockLength returns the length of the block that begins with a header of blockHeader bytes, or 0 if the header is not
// one of a block.
func blockLength(header []byte) int64 {
	const (
		begin = gzipMagic + "\x08\x04" // compression by deflate, and a flag for extra fields
		field = "\x06\x00BC\x02\x00"   // length of all extra fields, then name and length of the only one
	)
	if string(header[:4]) != begin || string(header[10:16]) != field {
		return 0
	}
	return int64(binary.LittleEndian.Uint16(header[16:])) + 1
}

// findBlock returns the offset of the first block of a file that begins at the offset at or later. If there is no such
// block, it returns size, which is the length of the file. Compressed bytes may look like a header by chance. So
// findBlock accepts a block only if another block, or the end of the file, follows it.
func findBlock(f io.ReaderAt, at, size int64) (int64, error) {
	buf := make([]byte, maxBlock)
	for at+blockHeader <= size {
		window := buf[:min(int64(len(buf)), size-at)]
		if _, err := f.ReadAt(window, at); err != nil && err != io.EOF {
			return 0, err
		}
		for i := 0; i+blockHeader <= len(window); i++ {
			next := bytes.IndexByte(window[i:len(window)-blockHeader+1], gzipMagic[0])
			if next < 0 {
				break
			}
			i += next
			length := blockLength(window[i : i+blockHeader])
			if length == 0 {
				continue
			}
			follows, err := beginsBlock(f, at+int64(i)+length, size)
			if err != nil || follows {
				return at + int64(i), err
			}
		}
		at += int64(len(window) - blockHeader + 1)
	}
	return size, nil
}

// beginsBlock reports whether a block begins at an offset, or the file ends there.
func beginsBlock(f io.ReaderAt, at, size int64) (bool, error) {
	if at+blockHeader > size {
		return at == size, nil
	}
	var header [blockHeader]byte
	if _, err := f.ReadAt(header[:], at); err != nil && err != io.EOF {
		return false, err
	}
	return blockLength(header[:]) > 0, nil
}

// place is a position in a file: the beginning or the end of the file, or the beginning of a record. In a plain file,
// offset is the position, and the other fields are 0. In a file of bgzip, the beginning of a record is a position in
// the decompressed text of a block.
type place struct {
	offset int64 // in a file of bgzip, the offset at which the block with the record begins, or the size of the file
	within int64 // offset of the record in the decompressed text of the block
	end    int64 // offset in the file at which the block ends; 0 if within is 0
}

// after returns the offset up to which the file must be read to get all text before p.
func (p place) after() int64 { return max(p.offset, p.end) }

// blocks decompresses consecutive gzip members of a file. It stores the offset in the file of the current member. The
// decompressed bytes are called text.
type blocks struct {
	*members
	disk  *diskReader
	base  int64           // offset of the first member in the file
	at    int64           // offset of the current member in the file
	end   int64           // offset in the file at which the last member that was read completely ends
	text  int64           // number of bytes of text that Read has returned
	limit int64           // number of bytes of text after which Read returns io.EOF
	began func(b *blocks) // called when a member other than the first begins
}

// newBlocks returns a reader for the text of the gzip members of a file that begin at the offset base or later. disk
// must read the file from this offset on. began is called at the beginning of each member except the first.
func newBlocks(disk *diskReader, base int64, began func(*blocks)) (*blocks, error) {
	m, err := newMembers(bufio.NewReaderSize(disk, streamBuffer))
	return &blocks{members: m, disk: disk, base: base, at: base, limit: math.MaxInt64, began: began}, err
}

// offset returns the offset in the file up to which the decompressor has taken bytes.
func (b *blocks) offset() int64 { return b.base + b.disk.size - int64(b.packed.Buffered()) }

// Read returns text. When the text reaches the limit, Read reads the current member to its end before it returns
// io.EOF, so that the checksum of this member is verified.
func (b *blocks) Read(p []byte) (int, error) {
	for {
		left := b.limit - b.text
		if left <= 0 {
			if _, err := io.Copy(io.Discard, b.member); err != nil {
				return 0, b.damaged(err)
			}
			return 0, io.EOF
		}
		n, err := b.member.Read(p[:min(int64(len(p)), left)])
		b.text += int64(n)
		b.read += int64(n)
		if err == io.EOF && b.text < b.limit {
			err = b.next()
		}
		if err != nil && err != io.EOF {
			err = b.damaged(err)
		}
		if n > 0 || err != nil {
			return n, err
		}
	}
}

// next opens the next gzip member and calls b.began. It returns io.EOF after the last member.
func (b *blocks) next() error {
	b.end = b.offset()
	b.ended()
	if err := b.skipPadding(); err != nil {
		return err
	}
	b.at = b.offset()
	if err := b.open(); err != nil {
		return err
	}
	b.began(b)
	return nil
}

// damaged adds the offset of the current gzip member to an error.
func (b *blocks) damaged(err error) error {
	return fmt.Errorf("in the block at byte %d: %w", b.at, err)
}

// cutBlocks does the work of cut for a file of bgzip. It returns the place of the first record in the text of the
// blocks that begin at the offset at or later. A record that begins with the first byte of this text does not count.
func (p *Part) cutBlocks(f io.ReaderAt, at int64) (place, error) {
	at, err := findBlock(f, at, p.Size)
	if err != nil || at == p.Size {
		return place{offset: p.Size}, err
	}
	disk := &diskReader{r: io.NewSectionReader(f, at, p.Size-at)}
	src := source{disk: disk, compression: "gzip"}
	found, err := p.cutText(disk, at)
	if err != nil {
		return place{}, src.explain(err)
	}
	return found, nil
}

// cutText decompresses the blocks of the file from the offset at on, where disk begins to read, and returns the place
// of the first record in their text. A record that begins with the first byte of the text does not count.
func (p *Part) cutText(disk *diskReader, at int64) (place, error) {
	type block struct{ at, text, end int64 } // the fields of type blocks, as they are when the block begins
	begun := []block{{at: at}}               // the blocks that were read so far; each takes 24 bytes
	b, err := newBlocks(disk, at, func(b *blocks) { begun = append(begun, block{b.at, b.text, b.end}) })
	if err != nil {
		return place{}, err
	}
	found, err := p.findRecord(b)
	if err == io.EOF {
		return place{offset: p.Size}, nil
	}
	if err != nil {
		return place{}, err
	}
	i := len(begun) - 1
	for begun[i].text > found {
		i--
	}
	cut := place{offset: begun[i].at, within: found - begun[i].text}
	if cut.within == 0 {
		return cut, nil
	}
	for err = nil; b.end <= cut.offset && err == nil; { // reads to the end of the record's block, where the checksum is
		_, err = io.CopyN(io.Discard, b, maxBlock)
	}
	if cut.end = b.end; len(begun) > i+1 {
		cut.end = begun[i+1].end
	}
	if cut.end <= cut.offset {
		return place{}, err
	}
	return cut, nil
}

// newPartSource returns a source for the text of a file of bgzip between two places. last says that the second one is
// the end of the file.
func newPartSource(f io.ReaderAt, from, to place, last bool) (*source, error) {
	s := &source{close: func() {}, compression: "gzip",
		disk: &diskReader{r: io.NewSectionReader(f, from.offset, to.after()-from.offset), hash: sha256.New()}}
	if from.offset == to.after() {
		s.content = new(bytes.Reader)
		return s, nil
	}
	limit := func(b *blocks) {
		if b.at == to.offset {
			b.limit = b.text + to.within
		}
	}
	b, err := newBlocks(s.disk, from.offset, limit)
	if err == nil {
		limit(b)
		_, err = io.CopyN(io.Discard, b, from.within)
	}
	if err != nil {
		return nil, s.explain(err)
	}
	s.content, s.packed = b, b.packed
	if last {
		s.lastBlock = b.members
	}
	return s, nil
}
