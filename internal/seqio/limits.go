package seqio

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz/lzma"
)

// Limits of an input. They keep a small file from taking all memory of the machine.
const (
	// maxLetters is the longest record, longer than any chromosome in the public archives.
	maxLetters = 1 << 30
	// maxZstdWindow is the largest window that zstd itself writes and, with --long=31, reads. The decoder reserves as
	// much address space, but uses only as much memory as the content needs.
	maxZstdWindow = 1 << 31
	// maxXZDictionary is the largest dictionary that xz itself writes. The decoder reserves it in the same way.
	maxXZDictionary = 1536 << 20
)

// limitError is an error of compressed data. It wraps ErrLimit.
type limitError struct{ msg string }

func (e *limitError) Error() string        { return e.msg }
func (e *limitError) Is(target error) bool { return target == ErrLimit }

// zstdLimit returns the limitError for a window that is too large, and any other error as it is.
func zstdLimit(err error) error {
	if errors.Is(err, zstd.ErrWindowSizeExceeded) {
		return &limitError{fmt.Sprintf("the zstd data asks for a window of more than %d MiB, which is the limit", maxZstdWindow>>20)}
	}
	return err
}

// xzLimit returns a limitError if the first block of the data asks for a dictionary that is too large. It ignores
// damage, which the decoder reports.
func xzLimit(packed *bufio.Reader) error {
	const streamHeader, filterLZMA2 = 12, 0x21
	head, _ := packed.Peek(streamHeader + 1)
	if len(head) <= streamHeader {
		return nil
	}
	head, _ = packed.Peek(streamHeader + 4*(int(head[streamHeader])+1))
	block := head[streamHeader+1:] // flags, two optional sizes, filters
	if len(block) == 0 {
		return nil
	}
	flags, at := block[0], 1
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
				return &limitError{fmt.Sprintf("the xz data asks for a dictionary of %d MiB, and %d MiB are the limit",
					capacity>>20, maxXZDictionary>>20)}
			}
		}
		at += int(min(size, uint64(len(block))))
	}
	return nil
}
