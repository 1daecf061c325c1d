// Global memory with guards: every allocation ends at an unreadable page, and
// what lies between its page and its first byte is checked after a launch.
#include "block.h"

#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include <map>

namespace hostsim {

// filler is 0xff everywhere: a NaN in every type, and far out of range as an
// index.
constexpr unsigned char filler = 0xff;

static std::map<uintptr_t, Guarded> allocations;

// The border is what vector loads and cp.async need; cuMemAlloc gives more,
// and with more an overrun of up to that many bytes would stay unseen.
constexpr size_t border = 16;

Guarded map_guarded(size_t size) {
    const size_t page = sysconf(_SC_PAGESIZE);
    const size_t usable = (size + border - 1) / border * border;
    const size_t readable = (usable + page - 1) / page * page + page;
    Guarded m;
    m.mapped = readable + page;
    m.size = size;
    void *pages = mmap(nullptr, m.mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (pages == MAP_FAILED) fail("out of host memory for %zu bytes", size);
    m.pages = static_cast<unsigned char *>(pages);
    if (mprotect(m.pages + readable, page, PROT_NONE) != 0) fail("cannot protect a guard page");
    m.address = m.pages + readable - usable;
    poison(m);
    return m;
}

void poison(const Guarded &m) {
    const size_t page = sysconf(_SC_PAGESIZE);
    memset(m.pages, filler, m.mapped - page);
}

bool intact(const Guarded &m) {
    const size_t page = sysconf(_SC_PAGESIZE);
    for (const unsigned char *p = m.pages; p < m.address; p++)
        if (*p != filler) return false;
    for (const unsigned char *p = m.address + m.size; p < m.pages + m.mapped - page; p++)
        if (*p != filler) return false;
    return true;
}

void *allocate(size_t size) {
    const Guarded m = map_guarded(size);
    allocations[reinterpret_cast<uintptr_t>(m.address)] = m;
    return m.address;
}

void release(void *address) {
    const auto found = allocations.find(reinterpret_cast<uintptr_t>(address));
    if (found == allocations.end()) fail("%p was not allocated", address);
    munmap(found->second.pages, found->second.mapped);
    allocations.erase(found);
}

void check_global(const void *address, size_t bytes, const char *what) {
    const uintptr_t at = reinterpret_cast<uintptr_t>(address);
    auto found = allocations.upper_bound(at);
    if (found != allocations.begin()) {
        --found;
        if (at - found->first + bytes <= found->second.size) return;
    }
    fail("%s: %zu bytes at %p are outside every allocation", what, bytes, address);
}

void check_zones(const char *kernel) {
    for (const auto &entry : allocations)
        if (!intact(entry.second)) fail("%s has written beside an allocation of %zu bytes", kernel, entry.second.size);
}

} // namespace hostsim
