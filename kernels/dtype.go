package kernels

import "fmt"

// DType is a type of weights and matrix operands. The residual stream is float32 with every one of them.
type DType uint8

const (
	// Auto is what suits a backend: BF16 on a GPU, FP32 on a CPU.
	Auto DType = iota
	// FP32 is float32, without TF32.
	FP32
	// BF16 is bfloat16.
	BF16
	// FP16 is IEEE half precision.
	FP16
)

// dtypes are the names that --dtype takes, which also end the names of the kernels of a type.
var dtypes = [...]string{Auto: "auto", FP32: "fp32", BF16: "bf16", FP16: "fp16"}

// String gives the name in lower case.
func (t DType) String() string { return dtypes[t] }

// ParseDType reads a name.
func ParseDType(s string) (DType, error) {
	for t, name := range dtypes {
		if name == s {
			return DType(t), nil
		}
	}
	return 0, fmt.Errorf("dtype %q is none of auto, fp32, bf16, fp16", s)
}
