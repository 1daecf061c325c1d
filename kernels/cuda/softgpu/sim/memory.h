// Device memory: allocations that end at an unreadable page, in a range of addresses that only the device has.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include <map>
#include <mutex>
#include <string>

namespace softgpu {

// filler is every byte of new memory: a NaN in every type, and far out of range as an index.
constexpr unsigned char filler = 0xff;

// Guarded is memory whose last byte lies before an unreadable page, and whose first lies behind at least a page of
// filler, in which a write is found by intact.
struct Guarded {
    unsigned char *pages; // the first readable one
    size_t readable;      // bytes of them
    unsigned char *address;
    size_t size;

    bool intact() const;
    void fill() const;
};

// Arena is the memory of one device. Its functions may be called from any thread of the host.
class Arena {
  public:
    Arena();
    Arena(const Arena &) = delete;

    // allocate gives null where the range is used up. An address is never used again, so that a use after release is
    // found.
    unsigned char *allocate(size_t size);
    // release reports whether the address was that of an allocation.
    bool release(const void *address);
    void release_all();

    // size gives the bytes from an address to the end of its allocation, 0 outside of all.
    size_t left(const void *address) const;
    // damaged describes an allocation beside which something was written, or is empty.
    std::string damaged() const;

    uint64_t begin() const { return reinterpret_cast<uint64_t>(range); }
    uint64_t bytes() const { return range_bytes; }
    size_t used() const;

  private:
    static constexpr size_t range_bytes = size_t(1) << 40;
    unsigned char *range;
    size_t next = 0, in_use = 0;
    std::map<uintptr_t, Guarded> list;
    mutable std::mutex lock;
};

// Scratch is shared memory of one block at a time.
class Scratch {
  public:
    Scratch() = default;
    Scratch(const Scratch &) = delete;
    ~Scratch();
    // resize makes room for that many bytes, which end at an unreadable page.
    void resize(size_t size);
    const Guarded &memory() const { return guarded; }

  private:
    Guarded guarded = {};
    size_t mapped = 0;
};

} // namespace softgpu
