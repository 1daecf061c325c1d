package seqio

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz/lzma"
)

// Limits of an input. They keep a small compressed file from taking all memory of the machine.
const (
	// MaxLetters is the maximum number of letters in a record, unless Options.Longest gives another.
	MaxLetters = 1 << 30
	// maxZstdWindow is the maximum window in bytes. It is the largest that the program zstd writes. The program itself
	// reads data with this window only with the option --long=31. The decoder reserves address space for the whole
	// window, but uses only as much memory as the content needs.
	maxZstdWindow = 1 << 31
	// maxXZDictionary is the maximum dictionary in bytes: the largest that the program xz writes. The decoder reserves
	// address space for the whole dictionary.
	maxXZDictionary = 1536 << 20
)

// limitError is the error for compressed data that asks for too much memory. It matches ErrLimit in errors.Is.
type limitError struct{ msg string }

func (e *limitError) Error() string        { return e.msg }
func (e *limitError) Is(target error) bool { return target == ErrLimit }

// zstdLimit returns a limitError if err is about a window that is too large. It returns any other error unchanged.
func zstdLimit(err error) error {
	if errors.Is(err, zstd.ErrWindowSizeExceeded) {
		return &limitError{fmt.Sprintf("the zstd data asks for a window of more than %d MiB, which is the limit: decompress it first", maxZstdWindow>>20)}
	}
	return err
}

// xzBlocks passes xz data on to its decoder. If a block asks for a dictionary larger than maxXZDictionary, xzBlocks
// returns a limitError instead of the header of the block. It recognises a header by the way in which the decoder
// reads: first one byte, which gives the length of the header, and then exactly the rest of that length. The decoder
// reads nothing else in this way.
type xzBlocks struct {
	packed *bufio.Reader
	first  byte    // the byte that the last Read returned, if it was asked for one byte; otherwise 0
	tail   [2]byte // the last two bytes that were read, without zeros at the end
}

func (x *xzBlocks) Read(p []byte) (n int, err error) {
	if rest := 4*(int(x.first)+1) - 1; x.first > 0 && len(p) == rest {
		if n, err = io.ReadFull(x.packed, p); err == nil {
			err = xzLimit(p)
		}
		if err != nil {
			return 0, err // the decoder ignores an error that comes with all bytes that it asked for
		}
	} else {
		n, err = x.packed.Read(p)
	}
	if x.first = 0; len(p) == 1 && n == 1 {
		x.first = p[0]
	}
	for _, b := range lastBytes(bytes.TrimRight(p[:n], "\x00"), len(x.tail)) {
		x.tail = [2]byte{x.tail[1], b}
	}
	return n, err
}

// xzLimit returns a limitError if a block asks for a dictionary that is too large. block is the header of the block
// without its first byte. xzLimit ignores damage, which the decoder reports.
func xzLimit(block []byte) error {
	const filterLZMA2 = 0x21
	flags, at := block[0], 1 // after the flags the header has two optional sizes and the filters
	number := func() (n uint64) {
		n, size := binary.Uvarint(block[min(at, len(block)):])
		at += max(size, 1)
		return n
	}
	for _, present := range []byte{0x40, 0x80} {
		if flags&present != 0 {
			number()
		}
	}
	for range flags&3 + 1 {
		id, size := number(), number()
		if id == filterLZMA2 && size == 1 && at < len(block) {
			if capacity, err := lzma.DecodeDictCap(block[at]); err == nil && capacity > maxXZDictionary {
				return &limitError{fmt.Sprintf("the xz data asks for a dictionary of %d MiB, and %d MiB are the limit: decompress it first",
					capacity>>20, maxXZDictionary>>20)}
			}
		}
		at += int(min(size, uint64(len(block))))
	}
	return nil
}
