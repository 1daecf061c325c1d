package store

import (
	"encoding/base64"
	"encoding/binary"
)

// arrowSchemaKey is the key of the Parquet metadata under which Arrow stores its own schema of the columns, with types
// that Parquet does not have, such as lists of a fixed size.
const arrowSchemaKey = "ARROW:schema"

// arrowField is a column of an Arrow schema.
type arrowField struct {
	name     string
	kind     flatTable   // type of the column, such as arrowInt64
	elements *arrowField // the type of the elements of a list; nil for any other column
}

// Types of Arrow. The first element is the number of the type in the union Type of Arrow's Schema.fbs. The second
// element is the FlatBuffers table with the parameters of the type.
var (
	arrowInt64 = flatTable{2, flatTable{64, 1}} // 64 bits, signed
	arrowHalf  = flatTable{3, flatTable{0}}
	arrowFloat = flatTable{3, flatTable{1}}
	arrowText  = flatTable{5, flatTable{}}
	arrowBool  = flatTable{6, flatTable{}}
)

// arrowList returns a column of lists, each of n elements of the type element.
func arrowList(name string, element flatTable, n int) arrowField {
	return arrowField{name, flatTable{16, flatTable{n}}, &arrowField{name: "element", kind: element}}
}

// arrowSchema returns the metadata value for the key arrowSchemaKey. It is a Schema message in the encapsulated form of
// Arrow's IPC format (https://arrow.apache.org/docs/format/Columnar.html#encapsulated-message-format), in base64. The
// schema declares that no column has nulls.
func arrowSchema(columns []arrowField) string {
	const version5, schema = 4, 1
	message := flatTable{version5, schema, flatTable{nil, arrowFields(columns)}}
	b := appendFlatTable(make([]byte, 4), message, 0)
	for len(b)%8 != 0 {
		b = append(b, 0)
	}
	prefix := binary.LittleEndian.AppendUint32([]byte{0xff, 0xff, 0xff, 0xff}, uint32(len(b)))
	return base64.StdEncoding.EncodeToString(append(prefix, b...))
}

func arrowFields(columns []arrowField) []flatTable {
	fields := []flatTable{}
	for _, c := range columns {
		children := []flatTable{}
		if c.elements != nil {
			children = arrowFields([]arrowField{*c.elements})
		}
		fields = append(fields, flatTable{c.name, nil, c.kind[0], c.kind[1], nil, children})
	}
	return fields
}

// flatTable lists the fields of a table in a FlatBuffers message (https://flatbuffers.dev/internals/). A field is an
// int of at most 32 bits, a string, a flatTable, a []flatTable, or nil for its default value.
type flatTable []any

// appendFlatTable appends a table to the FlatBuffers message b, and stores the offset of the table at the position
// from. The table must come after that position, because offsets are unsigned.
func appendFlatTable(b []byte, t flatTable, from int) []byte {
	const fieldSize, tableHeader = 4, 4 // in bytes; a field that is nil takes none
	b = align4(b)
	vtable := len(b)
	size := tableHeader
	b = append(b, byte(4+2*len(t)), 0, 0, 0)
	for _, field := range t {
		offset := 0
		if field != nil {
			offset = size
			size += fieldSize
		}
		b = binary.LittleEndian.AppendUint16(b, uint16(offset))
	}
	binary.LittleEndian.PutUint16(b[vtable+2:], uint16(size))
	b = align4(b)
	table := len(b)
	linkFlat(b, from, table)
	b = binary.LittleEndian.AppendUint32(b, uint32(table-vtable))
	b = append(b, make([]byte, size-tableHeader)...)
	at := table + tableHeader
	for _, field := range t {
		if field != nil {
			b = appendFlat(b, field, at)
			at += fieldSize
		}
	}
	return b
}

// appendFlat sets the field at the position at of the FlatBuffers message b. An int is stored in the field itself. A
// string, a table or a list of tables is appended to the message, and the field gets the offset of the appended object.
func appendFlat(b []byte, field any, at int) []byte {
	switch v := field.(type) {
	case int:
		binary.LittleEndian.PutUint32(b[at:], uint32(v))
	case string:
		b = align4(b)
		linkFlat(b, at, len(b))
		b = binary.LittleEndian.AppendUint32(b, uint32(len(v)))
		b = append(append(b, v...), 0)
	case flatTable:
		b = appendFlatTable(b, v, at)
	case []flatTable:
		b = align4(b)
		linkFlat(b, at, len(b))
		b = binary.LittleEndian.AppendUint32(b, uint32(len(v)))
		entries := len(b)
		b = append(b, make([]byte, 4*len(v))...)
		for i, t := range v {
			b = appendFlatTable(b, t, entries+4*i)
		}
	}
	return b
}

// linkFlat sets an offset in the FlatBuffers message b. The offset has the position at and refers to the object with
// the position object. An offset is relative to its own position.
func linkFlat(b []byte, at, object int) { binary.LittleEndian.PutUint32(b[at:], uint32(object-at)) }

func align4(b []byte) []byte { return append(b, make([]byte, -len(b)&3)...) }
