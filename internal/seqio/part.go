package seqio

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"os"
)

// Part is a part of a file that several processes divide among them: the records that belong to a range of the bytes of
// the stored, possibly compressed file. The parts with the ranges [0, a), [a, b), …, [y, Size) together have each
// record exactly once. The zero value is the whole file.
//
// A plain file, or one that bgzip has compressed, is cut: a part begins with the first record at or after From and ends
// before the first record at or after To (see cut). Bytes outside the part are read only to find its beginning and its
// end. Any other compressed file is interleaved: each part reads all of it and returns only some groups of partBlock
// consecutive records (see share).
//
// All parts have the alphabet of the whole file. A Reader compares ids only within its part. The type IDs compares the
// ids of several parts.
type Part struct {
	From, To   int64 // 0 ≤ From ≤ To ≤ Size
	Size       int64 // size of the whole file in bytes
	Compressed bool

	blocked  bool // compressed by bgzip
	fastq    bool
	decision decision
}

// partBlock is the number of consecutive records of an interleaved file that belong to the same part.
const partBlock = 64

// Whole returns the part that is the whole file of r, which must have been opened by Open. The caller may change the
// range of the part.
func Whole(r *Reader) Part {
	return Part{To: r.size, Size: r.size, Compressed: r.source.compression != "", blocked: r.source.blocked,
		fastq: r.parser.fastq, decision: r.decision}
}

// IsZero reports whether p is the zero value.
func (p Part) IsZero() bool { return p.Size == 0 }

// Interleaved reports whether groups of records of the file alternate between the parts. If it is false, the records of
// a part are consecutive.
func (p Part) Interleaved() bool { return p.Compressed && !p.blocked }

// isCut reports whether p is not the zero value and its records are consecutive, so that a Reader of p need not read
// the whole file.
func (p Part) isCut() bool { return !p.IsZero() && !p.Interleaved() }

// Name returns the name of the part of a file in messages. If lines are counted from the first record of the part and
// not from the beginning of the file, the name says so. The offset that it gives is one of the stored, possibly
// compressed file.
func (p Part) Name(file string) string {
	if p.From == 0 || p.Interleaved() {
		return file
	}
	return fmt.Sprintf("%s (lines from the first record after byte %d)", file, p.From)
}

// has reports whether a record belongs to the part. index is the number of records that the part's reader has read
// before this record.
func (p *Part) has(index int64) bool {
	if !p.Interleaved() {
		return true
	}
	at := p.share(index)
	return p.From <= at && at < p.To
}

// share returns a number that assigns a record of an interleaved file to the part with From ≤ share < To. All records
// of a group of partBlock records have the same share. The share is Size times the fractional part of a multiple of the
// golden ratio. These fractions are spread evenly for any number of groups (Knuth, The Art of Computer Programming,
// volume 3, section 6.4), so the number of a part's groups is nearly proportional to To − From.
func (p *Part) share(index int64) int64 {
	const golden = 0x9e3779b97f4a7c15 // 2⁶⁴ divided by the golden ratio
	high, _ := bits.Mul64(uint64(index/partBlock)*golden, uint64(p.Size))
	return int64(high)
}

// source returns the decompressed content that a Reader of the part needs: that of the whole file if p is the zero
// value or interleaved, and only that of the part if p is cut.
func (p *Part) source(f *os.File) (*source, error) {
	if !p.isCut() {
		return newSource(f)
	}
	from, to, err := p.limits(f)
	switch {
	case err != nil:
		return nil, err
	case p.blocked:
		return newPartSource(f, from, to, to.offset == p.Size)
	}
	return newSource(io.NewSectionReader(f, from.offset, to.offset-from.offset))
}

// Open returns those bytes of the file at path that a Reader of the part reads, without decompressing them.
func (p *Part) Open(path string) (io.ReadCloser, error) {
	f, err := os.Open(path)
	if err != nil || !p.isCut() {
		return f, err
	}
	from, to, err := p.limits(f)
	if err != nil {
		f.Close()
		return nil, err
	}
	return struct {
		io.Reader
		io.Closer
	}{io.NewSectionReader(f, from.offset, to.after()-from.offset), f}, nil
}

// limits returns the place in the file where the part begins and the place where it ends.
func (p *Part) limits(f io.ReaderAt) (from, to place, err error) {
	if from, err = p.cut(f, p.From); err == nil {
		to, err = p.cut(f, p.To)
	}
	return from, to, err
}

// cut returns the place of the first record of a plain file that begins at or after an offset, or the end of the file
// if there is no such record. In a file of bgzip, cut takes the first block that begins at or after the offset, and
// returns the place of the first record after the beginning of the block's text. A record that begins with the first
// byte of this text does not count, because only the previous block tells whether a record begins there.
func (p *Part) cut(f io.ReaderAt, at int64) (place, error) {
	switch {
	case at <= 0 || at >= p.Size:
		return place{offset: min(max(at, 0), p.Size)}, nil
	case p.blocked:
		return p.cutBlocks(f, at)
	}
	// The search begins one byte earlier, because the byte before the offset tells whether a line begins at the offset.
	found, err := p.findRecord(io.NewSectionReader(f, at-1, p.Size-(at-1)))
	switch {
	case err == io.EOF:
		return place{offset: p.Size}, nil
	case err != nil:
		return place{}, fmt.Errorf("reading failed: %w", err)
	}
	return place{offset: at - 1 + found}, nil
}

// findRecord returns the offset in r of the first record that begins after the first byte, or io.EOF.
func (p *Part) findRecord(r io.Reader) (int64, error) {
	if p.fastq {
		return findFASTQ(r)
	}
	return findFASTA(r)
}

// findFASTA returns the offset in r of the first line that begins with '>', or io.EOF. A line that begins with the
// first byte of r does not count.
func findFASTA(r io.Reader) (int64, error) {
	buf := newChunk()
	defer buf.free()
	last := byte(0)
	for base := int64(0); ; {
		n, err := io.ReadFull(r, buf[:])
		for i := 0; i < n; i++ {
			next := bytes.IndexByte(buf[i:n], '>')
			if next < 0 {
				break
			}
			i += next
			before := last
			if i > 0 {
				before = buf[i-1]
			}
			if before == '\n' || before == '\r' {
				return base + int64(i), nil
			}
		}
		if err == io.ErrUnexpectedEOF {
			err = io.EOF
		}
		if err != nil {
			return 0, err
		}
		last = buf[n-1]
		base += int64(n)
	}
}

// fastqLine describes a line of a FASTQ file.
type fastqLine struct {
	at      int64 // offset of the line
	first   byte
	length  int  // length without the line end
	letters bool // whether the line is not empty and has only letters, gaps and stops
}

// findFASTQ returns the offset in r of the first FASTQ record of exactly four lines, or io.EOF if there is none. It
// ignores the first line of r, which may be incomplete. It looks for four lines in a row: a header that begins with
// '@', a line of letters, a line that begins with '+', and a line of the same length as the letters. The end of r, or a
// line that begins with '@', must follow. A line of quality values that begins with '@' is not mistaken for a header,
// because the line after it is a header, whose '@' is not a letter.
//
// If records have more than four lines, findFASTQ may return an offset inside a record. The reader of the part of the
// file before this offset then returns an error, because the part ends inside that record.
func findFASTQ(r io.Reader) (int64, error) {
	in := bufio.NewReaderSize(r, streamBuffer)
	at := int64(0)
	if _, err := readFASTQLine(in, &at); err != nil {
		return 0, err
	}
	var lines [4]fastqLine
	for n := 1; ; n++ {
		line, err := readFASTQLine(in, &at)
		if err != nil {
			return 0, err
		}
		copy(lines[:], lines[1:])
		lines[3] = line
		next, err := in.Peek(1)
		if err != nil && err != io.EOF {
			return 0, err
		}
		if n >= len(lines) && lines[0].first == '@' && lines[1].letters && lines[2].first == '+' &&
			lines[3].length == lines[1].length && (err == io.EOF || next[0] == '@') {
			return lines[0].at, nil
		}
	}
}

// readFASTQLine reads a line, which begins at the offset *at, and adds its length to *at. It returns io.EOF at the end
// of the input.
func readFASTQLine(in *bufio.Reader, at *int64) (fastqLine, error) {
	line := fastqLine{at: *at, letters: true}
	for {
		part, err := in.ReadSlice('\n')
		if *at == line.at && len(part) > 0 {
			line.first = part[0]
		}
		*at += int64(len(part))
		for _, b := range part {
			switch {
			case b == '\r' || b == '\n': // not counted: the line end, and also a '\r' inside a line
				continue
			case b&^0x20 >= 'A' && b&^0x20 <= 'Z', b == '-', b == '.', b == '*':
			default:
				line.letters = false
			}
			line.length++
		}
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		case err == io.EOF && *at > line.at, err == nil:
			line.letters = line.letters && line.length > 0
			return line, nil
		default:
			return line, err
		}
	}
}
