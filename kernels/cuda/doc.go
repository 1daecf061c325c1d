// Package cuda runs the operations of kernels on an NVIDIA GPU.
//
// It needs no toolkit and no C compiler. The program contains its kernels as PTX, which the driver compiles for the
// device, and it searches for libcuda and libcublasLt when it runs. Without libcublasLt the package's own kernels
// multiply. Weights and matrix operands are bfloat16, float16 or float32; accumulation, softmax, LayerNorm statistics,
// pooling and the residual stream are always float32.
//
// docs/design.md lists the files. src/README.md and the variable contracts describe the kernels.
// The package uses package gpu, which represents one device, and package driver, which calls C.
//
// The package must not know which model it runs. It never times anything to choose between two ways of computing, so
// that the same batch always gives the same bits.
package cuda
