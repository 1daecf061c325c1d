package kernels

import "fmt"

// DType is the type of the operands of matrix products. A backend that cannot multiply values of the type may store
// only the weights of products in the type and compute in float32. The residual stream is float32 whatever the type is.
type DType uint8

const (
	// Auto selects the backend's default: BF16 on a GPU, FP32 on a CPU.
	Auto DType = iota
	// FP32 is float32, never TF32.
	FP32
	// BF16 is bfloat16.
	BF16
	// FP16 is IEEE half precision.
	FP16
)

// dtypes lists the values of the flag --dtype. All but auto are also suffixes in the names of GPU kernels.
var dtypes = [...]string{Auto: "auto", FP32: "fp32", BF16: "bf16", FP16: "fp16"}

// String returns the name in lower case.
func (t DType) String() string { return dtypes[t] }

// ParseDType returns the type named s.
func ParseDType(s string) (DType, error) {
	for t, name := range dtypes {
		if name == s {
			return DType(t), nil
		}
	}
	return 0, fmt.Errorf("unknown dtype %q: use auto, fp32, bf16 or fp16", s)
}
