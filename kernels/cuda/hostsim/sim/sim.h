// A GPU for one block at a time on a host: the words of CUDA C++ and the
// functions of src/ptx.cuh, so that a host compiler builds the kernel files
// as they are (with -DHOSTSIM). Threads of a block are fibers that a seeded
// scheduler runs in an order chosen to expose missing synchronisation.
#pragma once

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <tuple>
#include <utility>

#define __device__
#define __global__
#define __forceinline__ inline

struct alignas(8) int2 {
    int x, y;
};
struct alignas(8) uint2 {
    uint32_t x, y;
};
struct alignas(16) uint4 {
    uint32_t x, y, z, w;
};
struct alignas(8) float2 {
    float x, y;
};
struct alignas(16) float4 {
    float x, y, z, w;
};
inline uint2 make_uint2(uint32_t x, uint32_t y) { return {x, y}; }
inline uint4 make_uint4(uint32_t x, uint32_t y, uint32_t z, uint32_t w) { return {x, y, z, w}; }
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline int min(int a, int b) { return a < b ? a : b; }
inline int max(int a, int b) { return a > b ? a : b; }

struct bf16 {
    uint16_t bits;
};
struct fp16 {
    uint16_t bits;
};

namespace hostsim {

struct Index {
    unsigned x, y, z;
};

// A Launch is what a kernel may know about its launch.
struct Launch {
    Index grid, block, index;
    Index thread; // of the fiber that runs
    unsigned char *shared;
};
extern Launch launch;

// An Entry registers a kernel under its name.
class Entry {
  public:
    template <class... A>
    Entry(const char *name, int threads, void (*kernel)(A...))
        : name(name), threads(threads), arity(sizeof...(A)), kernel(reinterpret_cast<void (*)()>(kernel)),
          call(&apply<A...>), next(first) {
        first = this;
    }

    const char *const name;
    const int threads;
    const size_t arity;
    void (*const kernel)();
    void (*const call)(void (*kernel)(), const uint64_t *slots);
    Entry *const next;
    static Entry *first;

  private:
    template <class T>
    static T read(uint64_t slot) {
        T value;
        memcpy(&value, &slot, sizeof value);
        return value;
    }
    template <class... A, size_t... I>
    static void spread(void (*kernel)(A...), const uint64_t *slots, std::index_sequence<I...>) {
        kernel(read<A>(slots[I])...);
    }
    template <class... A>
    static void apply(void (*kernel)(), const uint64_t *slots) {
        spread(reinterpret_cast<void (*)(A...)>(kernel), slots, std::index_sequence_for<A...>());
    }
};

// fail ends the process with a message for whoever launched.
[[noreturn]] void fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

// barrier waits for every thread of the block.
void barrier();

// together waits for the 32 lanes of the warp, then runs step once over what
// they brought. operation tells operations apart: lanes must agree.
void together(const void *operation, void *brought, void (*step)(void *(&lanes)[32]));

// array gives the block's shared array of one place in the source.
void *array(const char *file, int line, size_t bytes);

void begin_copy(void *to, const void *from, int bytes);
void commit_copies();
void wait_copies(int groups);
void check_shared(const void *address, size_t bytes, size_t alignment);

float widen_bf16(uint16_t bits);
float widen_fp16(uint16_t bits);
uint16_t round_bf16(float v);
uint16_t round_fp16(float v);

void shuffle_step(void *(&lanes)[32]);
void ldmatrix_step(void *(&lanes)[32]);
void ldmatrix_transposed_step(void *(&lanes)[32]);
void mma_bf16_step(void *(&lanes)[32]);
void mma_fp16_step(void *(&lanes)[32]);

struct Shuffle {
    uint32_t value, result;
    int mask;
};
struct Matrices {
    uint32_t *r;
    const void *row;
};
struct Product {
    float *c;
    const uint32_t *a;
    uint32_t b[2];
};

inline void meet(void *(&)[32]) {}

} // namespace hostsim

#define threadIdx (hostsim::launch.thread)
#define blockIdx (hostsim::launch.index)
#define blockDim (hostsim::launch.block)
#define gridDim (hostsim::launch.grid)

#define KERNEL(threads, blocks_per_sm, name, ...)                     \
    static void name(__VA_ARGS__);                                    \
    static const hostsim::Entry entry_##name(#name, threads, &name);  \
    static void name(__VA_ARGS__)
#define SHARED(name) unsigned char *const name = hostsim::launch.shared
#define SHARED_ARRAY(type, name, size) \
    type *const name = static_cast<type *>(hostsim::array(__FILE__, __LINE__, sizeof(type) * (size)))

inline void __syncthreads() { hostsim::barrier(); }
inline void __syncwarp() {
    static const char operation = 0;
    hostsim::together(&operation, nullptr, hostsim::meet);
}

template <class T>
uint32_t pack2(float lo, float hi);
template <>
inline uint32_t pack2<bf16>(float lo, float hi) {
    return hostsim::round_bf16(lo) | static_cast<uint32_t>(hostsim::round_bf16(hi)) << 16;
}
template <>
inline uint32_t pack2<fp16>(float lo, float hi) {
    return hostsim::round_fp16(lo) | static_cast<uint32_t>(hostsim::round_fp16(hi)) << 16;
}

inline float to_float(float v) { return v; }
inline float to_float(bf16 v) { return hostsim::widen_bf16(v.bits); }
inline float to_float(fp16 v) { return hostsim::widen_fp16(v.bits); }
inline void set(float &to, float v) { to = v; }
inline void set(bf16 &to, float v) { to.bits = hostsim::round_bf16(v); }
inline void set(fp16 &to, float v) { to.bits = hostsim::round_fp16(v); }

template <class T>
float2 unpack2(uint32_t pair) {
    const T lo = {static_cast<uint16_t>(pair)}, hi = {static_cast<uint16_t>(pair >> 16)};
    return make_float2(to_float(lo), to_float(hi));
}

inline uint32_t shuffle_xor(uint32_t v, int mask) {
    hostsim::Shuffle lane = {v, 0, mask};
    hostsim::together(reinterpret_cast<void *>(hostsim::shuffle_step), &lane, hostsim::shuffle_step);
    return lane.result;
}
inline float shuffle_xor(float v, int mask) {
    uint32_t bits;
    memcpy(&bits, &v, 4);
    bits = shuffle_xor(bits, mask);
    memcpy(&v, &bits, 4);
    return v;
}

inline float exp2_fast(float x) {
    const float y = exp2f(x);
    return y < 0x1p-126f ? 0.f : y;
}

inline void copy_async(void *to, const void *from, int bytes) { hostsim::begin_copy(to, from, bytes); }
inline void copy_commit() { hostsim::commit_copies(); }
template <int N>
inline void copy_wait() {
    hostsim::wait_copies(N);
}

inline void ldmatrix(uint32_t (&r)[4], const void *row) {
    hostsim::Matrices lane = {r, row};
    hostsim::together(reinterpret_cast<void *>(hostsim::ldmatrix_step), &lane, hostsim::ldmatrix_step);
}
inline void ldmatrix_transposed(uint32_t (&r)[4], const void *row) {
    hostsim::Matrices lane = {r, row};
    hostsim::together(reinterpret_cast<void *>(hostsim::ldmatrix_transposed_step), &lane,
                      hostsim::ldmatrix_transposed_step);
}

template <class T>
void mma(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1);
template <>
inline void mma<bf16>(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    hostsim::Product lane = {c, a, {b0, b1}};
    hostsim::together(reinterpret_cast<void *>(hostsim::mma_bf16_step), &lane, hostsim::mma_bf16_step);
}
template <>
inline void mma<fp16>(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    hostsim::Product lane = {c, a, {b0, b1}};
    hostsim::together(reinterpret_cast<void *>(hostsim::mma_fp16_step), &lane, hostsim::mma_fp16_step);
}
