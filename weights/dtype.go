package weights

import (
	"encoding/binary"
	"math"

	"seqembed/internal/half"
)

// DType is the number format in which a tensor is stored.
type DType uint8

// The formats that a checkpoint can hold. ReadRows decodes F32, F16 and BF16;
// the others can only be listed (and I32 read through File.Int32s).
const (
	UnknownDType DType = iota
	F32
	F16
	BF16
	F64
	I64
	I32
	I16
	I8
	U64
	U32
	U16
	U8
	Bool
)

// dtypes gives each DType its name in a safetensors header and its bytes per element.
var dtypes = [...]struct {
	name string
	size int64
}{
	UnknownDType: {"unknown", 0},
	F32:          {"F32", 4},
	F16:          {"F16", 2},
	BF16:         {"BF16", 2},
	F64:          {"F64", 8},
	I64:          {"I64", 8},
	I32:          {"I32", 4},
	I16:          {"I16", 2},
	I8:           {"I8", 1},
	U64:          {"U64", 8},
	U32:          {"U32", 4},
	U16:          {"U16", 2},
	U8:           {"U8", 1},
	Bool:         {"BOOL", 1},
}

// String returns the name that a safetensors header uses, for example "BF16".
func (d DType) String() string {
	if int(d) < len(dtypes) {
		return dtypes[d].name
	}
	return dtypes[UnknownDType].name
}

// Size returns the bytes that one element takes, 0 for UnknownDType.
func (d DType) Size() int {
	if int(d) < len(dtypes) {
		return int(dtypes[d].size)
	}
	return 0
}

// dtypeNamed returns the DType that a safetensors header calls name,
// UnknownDType for a format that this package does not list.
func dtypeNamed(name string) DType {
	for d := F32; int(d) < len(dtypes); d++ {
		if dtypes[d].name == name {
			return d
		}
	}
	return UnknownDType
}

// decodable says whether decode accepts d.
func (d DType) decodable() bool { return d == F32 || d == F16 || d == BF16 }

// decode converts the little-endian elements in b, of a decodable format, to
// float32. Both conversions from 16 bits are exact. len(b) is len(dst) elements.
func (d DType) decode(dst []float32, b []byte) {
	switch d {
	case F32:
		b = b[:4*len(dst)]
		for i := range dst {
			dst[i] = math.Float32frombits(binary.LittleEndian.Uint32(b[4*i:]))
		}
	case F16:
		b = b[:2*len(dst)]
		for i := range dst {
			dst[i] = half.FromFP16(binary.LittleEndian.Uint16(b[2*i:]))
		}
	case BF16:
		b = b[:2*len(dst)]
		for i := range dst {
			dst[i] = half.FromBF16(binary.LittleEndian.Uint16(b[2*i:]))
		}
	}
}
