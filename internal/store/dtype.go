package store

import "fmt"

// DType is the type of the values in an output.
type DType string

// Types of values. FP16 rounds a float32 to the nearest float16, ties to even. A value beyond the range of float16
// becomes an infinity.
const (
	FP32 DType = "fp32"
	FP16 DType = "fp16"
)

// DTypes returns all types, the default first.
func DTypes() []DType { return []DType{FP32, FP16} }

// float16Overflow is the smallest absolute value that becomes an infinity in float16.
const float16Overflow = 65520

// size returns the number of bytes in a value.
func (d DType) size() int {
	if d == FP16 {
		return 2
	}
	return 4
}

// overflows returns the number of values that the type turns into infinities.
func (d DType) overflows(values []float32) (n int64) {
	if d != FP16 {
		return 0
	}
	for _, v := range values {
		if v >= float16Overflow || v <= -float16Overflow {
			n++
		}
	}
	return n
}

// checkDType returns an error for an unknown type. An empty type means FP32.
func (s *Spec) checkDType() error {
	if s.DType != FP32 && s.DType != FP16 && s.DType != "" {
		return fmt.Errorf("output of %q: unknown type of values %q", s.Base, s.DType)
	}
	return nil
}
