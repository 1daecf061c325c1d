// Package softgpu builds a software GPU: a libcuda.so.1 that runs the committed PTX on the host and refuses like a real
// driver, and a libcublasLt.so.13 of plain loops. A program that is started with their folder in
// LD_LIBRARY_PATH finds a GPU, some 10⁵ times slower than one. It is a test of everything between the command line and
// the bytes of an output file but for four things that only a GPU shows: the driver's compiler, the rounding inside its
// matrix units, cuBLASLt's choice of algorithms, and speed.
//
// PTX is parsed and translated to C++ here, an unknown instruction being an error; folder sim has the devices, their
// streams and the threads of a block. sim/device.h lists the variables of the environment: several devices, the order of
// their work, faults.
//
// The package knows PTX and C++, and nothing of package cuda.
package softgpu

import "errors"

// ErrNoCompiler is in the chain of an error that says that there is no C++ compiler.
var ErrNoCompiler = errors.New("the software GPU needs a C++ compiler")
