// Blocks of a launch: fibers for their threads, barriers, operations of a warp, asynchronous copies, shared memory.
#pragma once

#include "kernel.h"
#include "memory.h"

#include <functional>
#include <string>
#include <thread>

namespace softgpu {

// Launch is a kernel with its geometry and the values of its parameters, eight bytes each.
struct Launch {
    const Kernel *kernel;
    Index grid;
    unsigned threads; // of a block
    uint32_t dynamic_shared;
    const uint64_t *slots;
    const Arena *memory;
    // order draws the order in which threads and blocks run, and when asynchronous copies arrive:
    //
    //   0  lowest warp first, as far as it comes; copies arrive when they are waited for
    //   1  highest warp first, highest lane first; copies arrive at once
    //   n  warps and lanes are drawn; even numbers copy late, odd ones at once
    uint64_t order;
};

// Fault is the end of a faulty kernel; code is the CUresult that a driver reports, 0 for none.
struct Fault {
    int code = 0;
    std::string text;
};

// run executes every block of a launch, several at a time, and returns the first fault.
Fault run(const Launch &launch);

// parallel calls work with each number below count, on several threads of the host where no other launch has them.
void parallel(uint64_t count, const std::function<void(uint64_t)> &work);

// quiet_thread starts a thread that gets no signals but those of its own faults, as the threads of a driver do.
std::thread quiet_thread(std::function<void()> work);

// catch_faults makes a bad access of a kernel its fault, and hands every other signal to the handler that was there.
void catch_faults();

} // namespace softgpu
