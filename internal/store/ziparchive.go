package store

import (
	"archive/zip"
	"encoding/binary"
	"hash/crc32"
	"io"
)

// zipArchive writes a zip file whose entries are not compressed. NumPy and PyTorch can map or copy such entries
// directly, and compression would hardly make embeddings smaller.
type zipArchive struct {
	file countingWriter
	zip  *zip.Writer
}

// zipHeader is the size in bytes of an entry's header without the name and the extra field.
const zipHeader = 30

// countingWriter is a writer that knows the number of bytes written so far.
type countingWriter interface {
	io.Writer
	written() int64
}

func newZipArchive(f countingWriter) *zipArchive { return &zipArchive{f, zip.NewWriter(f)} }

// stream starts an entry of unknown size, which ends when the next entry starts or the archive is closed.
func (a *zipArchive) stream(name string) (io.Writer, error) {
	return a.zip.CreateHeader(&zip.FileHeader{Name: name, Method: zip.Store})
}

// add writes an entry whose content begins at a multiple of align, as PyTorch requires for storages. After a streamed
// entry align must be 1, because the end of that entry has not been written yet.
func (a *zipArchive) add(name string, content []byte, align int) error {
	if err := a.zip.Flush(); err != nil {
		return err
	}
	h := &zip.FileHeader{
		Name:               name,
		Method:             zip.Store,
		CRC32:              crc32.ChecksumIEEE(content),
		CompressedSize64:   uint64(len(content)),
		UncompressedSize64: uint64(len(content)),
	}
	if align > 1 {
		h.Extra = zipPadding(a.file.written()+zipHeader+int64(len(name)), align)
	}
	w, err := a.zip.CreateRaw(h)
	if err != nil {
		return err
	}
	_, err = w.Write(content)
	return err
}

// zipPadding returns an extra field for the header of a zip entry. Without the field the header would end at offset;
// with it, the header ends and the content begins at a multiple of align.
func zipPadding(offset int64, align int) []byte {
	const fieldHeader = 4 // tag and length, two bytes each
	length := (align - int((offset+fieldHeader)%int64(align))) % align
	extra := make([]byte, fieldHeader, fieldHeader+length)
	copy(extra, "FB") // the tag that PyTorch uses
	binary.LittleEndian.PutUint16(extra[2:], uint16(length))
	for range length {
		extra = append(extra, 'Z')
	}
	return extra
}

func (a *zipArchive) close() error { return a.zip.Close() }
