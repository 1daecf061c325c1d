package seqio

import (
	"bufio"
	"fmt"
	"io"

	"github.com/klauspost/compress/gzip"
)

// members reads gzip data of one or more members, as bgzip and cat produce it. It skips zeros after a member, because
// data from tapes and block devices is padded with zeros. Other bytes after the last member are a trailingBytes error.
type members struct {
	packed *bufio.Reader
	member *gzip.Reader
	read   int64 // number of decompressed bytes of the current member that were read
	empty  bool  // whether the last member that has ended was empty
}

// ended notes that the current member has ended.
func (m *members) ended() { m.empty, m.read = m.read == 0, 0 }

func newMembers(packed *bufio.Reader) (*members, error) {
	m := &members{packed: packed}
	var err error
	m.member, err = gzip.NewReader(packed) // does not read beyond a member if the source is a bufio.Reader
	if err == nil {
		m.member.Multistream(false)
	}
	return m, err
}

func (m *members) Read(p []byte) (int, error) {
	for {
		n, err := m.member.Read(p)
		m.read += int64(n)
		if err != io.EOF {
			return n, err
		}
		m.ended()
		if err = m.skipPadding(); err == nil {
			err = m.open()
		}
		if err != nil || n > 0 {
			return n, err
		}
	}
}

// skipPadding skips zeros after a member. It returns io.EOF at the end of the input.
func (m *members) skipPadding() error {
	for {
		b, err := m.packed.Peek(1)
		if err != nil {
			return err
		}
		if b[0] != 0 {
			return nil
		}
		if _, err := m.packed.Discard(1); err != nil {
			return err
		}
	}
}

// open opens the next gzip member. If other data follows instead, it returns a trailingBytes error.
func (m *members) open() error {
	if magic, err := m.packed.Peek(len(gzipMagic)); err != nil && err != io.EOF {
		return err
	} else if string(magic) != gzipMagic {
		n, err := io.Copy(io.Discard, m.packed)
		if err != nil {
			return err
		}
		return &trailingBytes{n}
	}
	if err := m.member.Reset(m.packed); err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return err
	}
	m.member.Multistream(false)
	return nil
}

// trailingBytes is the error for bytes that follow compressed data.
type trailingBytes struct{ n int64 }

func (e *trailingBytes) Error() string {
	if e.n == 1 {
		return "1 byte follows its end"
	}
	return fmt.Sprintf("%d bytes follow its end", e.n)
}
