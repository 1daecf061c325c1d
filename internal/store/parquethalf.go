package store

import (
	"encoding/binary"
	"fmt"

	"github.com/parquet-go/parquet-go/encoding/thrift"
	"github.com/parquet-go/parquet-go/format"

	"seqembed/internal/half"
)

// A struct that parquet-go writes cannot have a float16. A field of type [][2]byte becomes a list of
// FIXED_LEN_BYTE_ARRAY(2), with the bytes of a FLOAT16
// (https://github.com/apache/parquet-format/blob/master/LogicalTypes.md#float16). In the footer, the annotation of the
// column as FLOAT16 is missing. annotateFloat16 adds it.

// appendHalves appends values as little-endian float16.
func appendHalves(dst [][2]byte, values []float32) [][2]byte {
	for _, v := range values {
		var b [2]byte
		binary.LittleEndian.PutUint16(b[:], half.ToFP16(v))
		dst = append(dst, b)
	}
	return dst
}

// annotateFloat16 annotates every FIXED_LEN_BYTE_ARRAY in the schema of a complete Parquet file as FLOAT16. To do so,
// it replaces the end of the file: the metadata, their size and a magic number.
func annotateFloat16(f *atomicFile) error {
	const magic = "PAR1"
	tail := make([]byte, 4+len(magic))
	at := f.size - int64(len(tail))
	if err := f.readAt(tail, at); err != nil {
		return err
	}
	encoded := make([]byte, binary.LittleEndian.Uint32(tail))
	at -= int64(len(encoded))
	if err := f.readAt(encoded, at); err != nil {
		return err
	}
	var metadata format.FileMetaData
	if err := thrift.Unmarshal(new(thrift.CompactProtocol), encoded, &metadata); err != nil {
		return fmt.Errorf("footer of Parquet: %w", err)
	}
	for i := range metadata.Schema {
		if e := &metadata.Schema[i]; e.Type.Valid && e.Type.V == format.FixedLenByteArray {
			e.LogicalType = format.LogicalType{Value: new(format.Float16Type)}
		}
	}
	encoded, err := thrift.Marshal(new(thrift.CompactProtocol), &metadata)
	if err != nil {
		return fmt.Errorf("footer of Parquet: %w", err)
	}
	encoded = binary.LittleEndian.AppendUint32(encoded, uint32(len(encoded)))
	return f.writeAt(append(encoded, magic...), at)
}
