// Device memory: allocations that end at an unreadable page, in a range of addresses reserved for one device.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include <map>
#include <mutex>
#include <string>

namespace softgpu {

// filler is the value of every byte of new memory: a NaN in every floating-point type, and the index -1.
constexpr unsigned char filler = 0xff;

// Guarded is memory between an unreadable page after it and at least one page of filler before it. The function intact
// detects writes to the filler.
struct Guarded {
    unsigned char *pages; // the first readable page
    size_t readable;      // size of the readable pages in bytes
    unsigned char *address;
    size_t size;

    bool intact() const;
    void fill() const;
};

// new_pinned returns memory of the host with `size` bytes of filler, at the beginning of a page, or null.
void *new_pinned(size_t size);
void delete_pinned(void *address, size_t size);

// Arena is the memory of one device. Its functions may be called from any host thread.
class Arena {
  public:
    Arena();
    Arena(const Arena &) = delete;

    // allocate returns null when the range or the host's memory is used up. It never returns the same address twice, so
    // that an access after release is detected.
    unsigned char *allocate(size_t size);
    // release returns whether the address was that of an allocation.
    bool release(const void *address);
    void release_all();

    // left returns the number of bytes from an address to the end of its allocation, or 0 outside of all allocations.
    size_t left(const void *address) const;
    // damaged describes an allocation with a write right before or after it. It is empty if there is none.
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

// Scratch is the shared memory of one block at a time.
class Scratch {
  public:
    Scratch() = default;
    Scratch(const Scratch &) = delete;
    ~Scratch();
    // resize provides `size` bytes that end at an unreadable page.
    void resize(size_t size);
    const Guarded &memory() const { return guarded; }

  private:
    Guarded guarded = {};
    unsigned char *end = nullptr; // the unreadable page
    size_t most = 0;              // number of readable bytes before end
};

} // namespace softgpu
