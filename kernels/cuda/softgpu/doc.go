// Package softgpu builds a software GPU: a libcuda.so.1 that runs the committed PTX on the host and refuses invalid
// calls as a real driver does, and a libcublasLt.so.13 of plain loops. A program that is started with their folder in
// LD_LIBRARY_PATH finds a GPU that is far slower than a real one. Tests on it can cover everything between
// the command line and the bytes of an output file, except for four things that need a real GPU: the compiler in the
// driver, the rounding inside matrix units, the algorithms that cuBLASLt chooses, and speed.
//
// The package parses PTX and translates it to C++; an unknown instruction is an error. The folder sim implements the
// devices, their streams and the threads of a block. sim/device.h lists the environment variables that set the number
// of devices, the order of their work, and faults.
//
// The package must not depend on package cuda.
package softgpu

import "errors"

// ErrNoCompiler is wrapped by the error for a missing C++ compiler.
var ErrNoCompiler = errors.New("the software GPU needs a C++ compiler")
