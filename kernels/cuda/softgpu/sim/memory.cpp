#include "memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

namespace softgpu {

namespace {

// alignment is the alignment of allocations in bytes, as vector loads and cp.async need it. With the 256 bytes of a
// real cuMemAlloc, an access up to 255 bytes past the end of an allocation would not reach the unreadable page after
// it.
constexpr size_t alignment = 16;

size_t page() { return static_cast<size_t>(sysconf(_SC_PAGESIZE)); }

// readable_bytes returns the size of the readable pages for an allocation of `size` bytes, with at least one page
// before it.
size_t readable_bytes(size_t size) { return (size + page() - 1) / page() * page() + page(); }

// filler_bytes is the size of a file whose bytes all have the value filler. New memory is a private mapping of this
// file, so that pages that are never written, for instance most pages of a 32 MB workspace, take no memory.
constexpr size_t filler_bytes = 4 << 20;

int filler_file() {
    static const int file = [] {
        const int f = memfd_create("softgpu", MFD_CLOEXEC);
        void *at = f < 0 || ftruncate(f, filler_bytes) != 0 ? MAP_FAILED : mmap(nullptr, filler_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, f, 0);
        if (at == MAP_FAILED) {
            fprintf(stderr, "softgpu: no host memory for %zu bytes\n", filler_bytes);
            abort();
        }
        memset(at, filler, filler_bytes);
        munmap(at, filler_bytes);
        return f;
    }();
    return file;
}

// map_filler makes a range of addresses readable, writable and filled with filler.
bool map_filler(unsigned char *from, size_t bytes) {
    for (size_t at = 0; at < bytes; at += filler_bytes) {
        const size_t part = bytes - at < filler_bytes ? bytes - at : filler_bytes;
        if (mmap(from + at, part, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED, filler_file(), 0) == MAP_FAILED) return false;
    }
    return true;
}

Guarded guard(unsigned char *pages, size_t readable, size_t size) {
    const size_t usable = (size + alignment - 1) / alignment * alignment;
    return {pages, readable, pages + readable - usable, size};
}

// filled returns whether all bytes of a range are filler.
bool filled(const unsigned char *from, const unsigned char *to) {
    return from == to || (*from == filler && memcmp(from, from + 1, to - from - 1) == 0);
}

} // namespace

void *new_pinned(size_t size) {
    void *at = mmap(nullptr, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return at != MAP_FAILED && map_filler(static_cast<unsigned char *>(at), size) ? at : nullptr;
}

void delete_pinned(void *address, size_t size) { munmap(address, size); }

bool Guarded::intact() const {
    return filled(pages, address) && filled(address + size, pages + readable);
}

void Guarded::fill() const { memset(pages, filler, readable); }

Arena::Arena() {
    void *at = mmap(nullptr, range_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (at == MAP_FAILED) {
        fprintf(stderr, "softgpu: no range of addresses for a device's memory\n");
        abort();
    }
    range = static_cast<unsigned char *>(at);
}

unsigned char *Arena::allocate(size_t size) {
    const size_t readable = readable_bytes(size);
    const std::lock_guard<std::mutex> guarded(lock);
    if (readable + page() > range_bytes - next) return nullptr;
    unsigned char *pages = range + next;
    if (!map_filler(pages, readable)) return nullptr;
    next += readable + page();
    const Guarded made = guard(pages, readable, size);
    list[reinterpret_cast<uintptr_t>(made.address)] = made;
    in_use += size;
    return made.address;
}

bool Arena::release(const void *address) {
    const std::lock_guard<std::mutex> guarded(lock);
    const auto found = list.find(reinterpret_cast<uintptr_t>(address));
    if (found == list.end()) return false;
    const Guarded &m = found->second;
    mmap(m.pages, m.readable, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
    in_use -= m.size;
    list.erase(found);
    return true;
}

void Arena::release_all() {
    std::map<uintptr_t, Guarded> all;
    {
        const std::lock_guard<std::mutex> guarded(lock);
        all = list;
    }
    for (const auto &entry : all) release(reinterpret_cast<void *>(entry.first));
}

size_t Arena::left(const void *address) const {
    const uintptr_t at = reinterpret_cast<uintptr_t>(address);
    const std::lock_guard<std::mutex> guarded(lock);
    auto found = list.upper_bound(at);
    if (found == list.begin()) return 0;
    --found;
    const size_t offset = at - found->first;
    return offset < found->second.size ? found->second.size - offset : 0;
}

size_t Arena::used() const {
    const std::lock_guard<std::mutex> guarded(lock);
    return in_use;
}

std::string Arena::damaged() const {
    const std::lock_guard<std::mutex> guarded(lock);
    for (const auto &entry : list) {
        if (entry.second.intact()) continue;
        return "a write beside an allocation of " + std::to_string(entry.second.size) + " bytes";
    }
    return "";
}

Scratch::~Scratch() {
    if (most > 0) munmap(end - most, most + page());
}

void Scratch::resize(size_t size) {
    const size_t readable = readable_bytes(size);
    if (readable > most) {
        if (most > 0) munmap(end - most, most + page());
        most = readable;
        void *at = mmap(nullptr, most + page(), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (at == MAP_FAILED || mprotect(static_cast<unsigned char *>(at) + most, page(), PROT_NONE) != 0) {
            fprintf(stderr, "softgpu: no host memory for shared memory\n");
            abort();
        }
        end = static_cast<unsigned char *>(at) + most;
    }
    guarded = guard(end - readable, readable, size);
}

} // namespace softgpu
