// What the parts of the simulator share with each other and not with kernels.
#pragma once

#include "sim.h"

namespace hostsim {

// An Order is a way to schedule the fibers of a block and to land the copies
// that cp.async began.
//
//   0  lowest warp first, as far as it comes; copies land when waited for
//   1  highest warp first, highest lane first; copies land at once
//   n  warps and lanes drawn from seed n; even seeds copy late, odd at once
void set_order(uint64_t seed);

// run executes every block of a launch, in an order drawn from the seed.
void run(const Entry &kernel, Index grid, unsigned threads, size_t shared, const uint64_t *slots);

// allocate gives size bytes of global memory, filled with NaN, that end at an
// unreadable page; release gives them back.
void *allocate(size_t size);
void release(void *address);

// check_global fails unless the bytes lie in one allocation.
void check_global(const void *address, size_t bytes, const char *what);

// check_zones fails when a kernel has written beside an allocation.
void check_zones(const char *kernel);

// A Guarded is memory that ends at an unreadable page.
struct Guarded {
    unsigned char *pages;   // mapped
    size_t mapped;          // bytes, the unreadable page included
    unsigned char *address; // of the first usable byte
    size_t size;
};
Guarded map_guarded(size_t size);
void poison(const Guarded &memory);
bool intact(const Guarded &memory);

} // namespace hostsim
