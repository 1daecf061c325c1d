// Execution of the blocks of a launch: fibers for threads, barriers, warp operations, asynchronous copies, shared
// memory.
#pragma once

#include "kernel.h"
#include "memory.h"

#include <functional>
#include <string>
#include <thread>

namespace softgpu {

// Launch is a kernel with its grid and the values of its parameters, in slots of eight bytes.
struct Launch {
    const Kernel *kernel;
    Index grid;
    unsigned threads; // number of threads in a block
    uint32_t dynamic_shared;
    const uint64_t *slots;
    const Arena *memory;
    // order determines the order in which threads and blocks run, and the time of asynchronous copies:
    //
    //   0  the lowest warp runs until it must wait; copies are made when they are waited for
    //   1  the highest warp and lane run first; copies are made at once
    //   n  for n > 1, warps and lanes run in random order; copies are made as for 0 if n is even, as for 1 if n is odd
    uint64_t order;
    uint32_t dropped; // number of the barrier or wait that has no effect, or 0; see Thread::dropped
};

// Fault is the error that ended a kernel. code is the CUresult that a driver reports, or 0.
struct Fault {
    int code = 0;
    std::string text;
};

// run executes the blocks of a launch, several at a time, until one fails, and returns the first fault.
Fault run(const Launch &launch);

// parallel calls work with each number below count, on several host threads unless another launch is using them.
void parallel(uint64_t count, const std::function<void(uint64_t)> &work);

// quiet_thread starts a thread that receives only the signals of its own faults, like the threads of a driver.
std::thread quiet_thread(std::function<void()> work);

// catch_faults installs signal handlers that turn an invalid access or a division by zero in a kernel into a Fault. The
// handlers pass a signal from other code to the handler that was installed before.
void catch_faults();

} // namespace softgpu
