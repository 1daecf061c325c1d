// The interface between translated kernels and the software GPU: a kernel is a function of one Thread and calls its
// methods for all operations that involve other threads. All other PTX operations are inline functions here.
#pragma once

#include <fenv.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

namespace softgpu {

struct Index {
    unsigned x, y, z;
};

// Types of matrix operands for mma.sync.
enum Half { bf16, fp16 };

// most_products is the largest number of products that a warp computes together. Fewer switches between threads make
// kernels faster.
constexpr unsigned most_products = 16;

// shared_base is the address of the first byte of shared memory in its own address space. It is not 0, so that a null
// pointer is invalid.
constexpr uint32_t shared_base = 1024;

// Thread is one CUDA thread of a running block. Shared memory is one range that begins with the static arrays. Global
// memory is a range of the host's address space that belongs to the device.
class Thread {
  public:
    Index tid, ctaid, ntid, nctaid;
    // dropped is the number of the barrier or wait for copies that has no effect, or 0. Barriers and waits are numbered
    // from 1, in the order of the kernel's text.
    uint32_t dropped = 0;

    // shared and global return the host address of `bytes` bytes. They end the kernel with a fault if the bytes are
    // outside of shared memory or of the device's memory, or if they are misaligned.
    unsigned char *shared(uint32_t address, unsigned bytes) {
        const uint32_t offset = address - shared_base;
        if (offset > shared_bytes || shared_bytes - offset < bytes) shared_fault(address, bytes);
        if (address % bytes != 0) misaligned_fault("shared", address, bytes);
        return shared_memory + offset;
    }
    unsigned char *global(uint64_t address, unsigned bytes) {
        if (address - global_begin >= global_bytes) global_fault(address, bytes);
        if (address % bytes != 0) misaligned_fault("global", address, bytes);
        return reinterpret_cast<unsigned char *>(address);
    }

    // barrier waits for all threads of the block, warp_barrier for the 32 lanes of the warp.
    virtual void barrier() = 0;
    virtual void warp_barrier() = 0;
    // shuffle returns the value of lane (this lane ^ mask).
    virtual uint32_t shuffle(uint32_t value, uint32_t mask) = 0;
    // ldmatrix loads four 8x8 matrices of 16-bit elements. Each lane passes the address of one row.
    virtual void ldmatrix(uint32_t (&r)[4], uint32_t address, bool transposed) = 0;
    // mma computes `count` products, at most most_products. It adds the product of the 16x16 matrix a[i] and the 16x8
    // matrix b[i] to c[i].
    virtual void mma(unsigned count, float (*c)[4], const uint32_t (*a)[4], const uint32_t (*b)[2], Half type) = 0;
    // copy_async starts a copy to 16 bytes of shared memory. It copies only the first `bytes` bytes and sets the rest
    // to zero.
    virtual void copy_async(uint32_t to, uint64_t from, uint32_t bytes) = 0;
    virtual void copy_commit() = 0;
    virtual void copy_wait(int groups) = 0;
    // unsupported ends the kernel at an instruction that is valid PTX but not simulated.
    [[noreturn]] virtual void unsupported(const char *what) = 0;

  protected:
    unsigned char *shared_memory = nullptr;
    uint32_t shared_bytes = 0;
    uint64_t global_begin = 0, global_bytes = 0;

    [[noreturn]] virtual void shared_fault(uint32_t address, unsigned bytes) = 0;
    [[noreturn]] virtual void global_fault(uint64_t address, unsigned bytes) = 0;
    [[noreturn]] virtual void misaligned_fault(const char *space, uint64_t address, unsigned bytes) = 0;
    ~Thread() = default;
};

// Kernel is one kernel of a module. sizes contains the size of each parameter in bytes; run receives the values in
// slots of eight bytes.
struct Kernel {
    const char *name;
    unsigned max_threads;   // maximum number of threads in a block, from .maxntid
    uint32_t static_shared; // in bytes
    bool dynamic_shared;    // whether the kernel declares dynamic shared memory
    unsigned parameters;
    const unsigned char *sizes;
    void (*run)(Thread &t, const uint64_t *slots);
};

struct Module {
    unsigned count;
    const Kernel *kernels;
};

template <class T, class F>
inline T bits_as(F from) {
    static_assert(sizeof(T) == sizeof(F), "sizes differ");
    T to;
    memcpy(&to, &from, sizeof to);
    return to;
}

template <class T>
inline T parameter(uint64_t slot) {
    T value;
    memcpy(&value, &slot, sizeof value);
    return value;
}

// Conversions to 16 bits round to nearest, ties to even. NaN becomes the canonical NaN of PTX.
inline float from_bf16(uint16_t bits) { return bits_as<float>(static_cast<uint32_t>(bits) << 16); }
inline uint16_t to_bf16(float v) {
    const uint32_t bits = bits_as<uint32_t>(v);
    return v != v ? 0x7fff : static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}
inline float from_fp16(uint16_t bits) { return static_cast<float>(bits_as<_Float16>(bits)); }
inline uint16_t to_fp16(float v) { return v != v ? 0x7fff : bits_as<uint16_t>(static_cast<_Float16>(v)); }

// flush replaces a subnormal number by zero, as .ftz does.
inline float flush(float v) { return fabsf(v) < 0x1p-126f ? copysignf(0.f, v) : v; }

// ex2_approx and rcp_approx have errors of at most about 1 ulp; a GPU guarantees 2 ulp and 1 ulp.
inline float ex2_approx(float v) { return flush(exp2f(flush(v))); }
inline float rcp_approx(float v) { return flush(1.f / flush(v)); }

// fma_down is fma.rm: it rounds toward minus infinity.
__attribute__((noinline)) inline float fma_down(float a, float b, float c) {
    volatile float x = a, y = b, z = c;
    fesetround(FE_DOWNWARD);
    volatile float r = fmaf(x, y, z);
    fesetround(FE_TONEAREST);
    return r;
}

inline float saturate(float v) { return v > 0.f ? v < 1.f ? v : 1.f : 0.f; } // NaN becomes 0

// min_f32 and max_f32 ignore a single NaN. -0 is less than +0.
inline float min_f32(float a, float b) { return a < b || (a == b && signbit(a)) || b != b ? a : b; }
inline float max_f32(float a, float b) { return a > b || (a == b && signbit(b)) || b != b ? a : b; }

// bfi inserts the low `length` bits of a into b at `position`.
inline uint32_t bfi(uint32_t a, uint32_t b, uint32_t position, uint32_t length) {
    position &= 255, length &= 255;
    if (position > 31 || length == 0) return b;
    const uint32_t field = (length > 31 ? ~0u : (1u << length) - 1) << position;
    return (b & ~field) | (a << position & field);
}

// In PTX, unlike in C++, shifts by the width of the type or more are defined.
template <class T>
inline T shift_left(T v, uint32_t by) {
    return by >= 8 * sizeof(T) ? T(0) : static_cast<T>(v << by);
}
template <class T>
inline T shift_right(T v, uint32_t by) {
    constexpr uint32_t last = 8 * sizeof(T) - 1;
    if (by > last) return v < T(0) ? T(-1) : T(0);
    return static_cast<T>(v >> by);
}

} // namespace softgpu
