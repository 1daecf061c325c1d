// Package cuda runs the operations of kernels on an NVIDIA GPU.
//
// It needs no toolkit and no C compiler: the binary carries its kernels as PTX, which the driver compiles for the
// device at hand, and finds libcuda and libcublasLt when it runs. Without libcublasLt its own matrix products serve.
// Weights and matrix operands are bfloat16, float16 or float32; accumulation, softmax, LayerNorm statistics, pooling
// and the residual stream are always float32.
//
// README.md beside this file lists the files; src/README.md describes the kernels, of which contracts is the Go side.
// Below are package gpu, which is one device, and package driver, C.
//
// The package must not know which model it runs, and it never times anything to choose between two ways of computing:
// the same batch gives the same bits.
package cuda
