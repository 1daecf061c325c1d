// The 16-bit operand types, macros that declare kernels and shared memory, and functions for single PTX instructions.
#pragma once

#include <stdint.h>

// bf16 and fp16 contain only the bits of a value. The kernels do without the types of cuda_bf16.h and cuda_fp16.h,
// because not every installation has these headers and the kernels need few conversions.
struct bf16 {
    uint16_t bits;
};
struct fp16 {
    uint16_t bits;
};

// KERNEL begins the definition of a kernel whose blocks have the given number of threads. The compiler limits the
// registers so that blocks_per_sm blocks fit on a multiprocessor. extern "C" keeps the name in the PTX, because the
// host looks the kernel up by name.
#define KERNEL(threads, blocks_per_sm, name, ...) \
    extern "C" __global__ void __launch_bounds__(threads, blocks_per_sm) name(__VA_ARGS__)

// SHARED declares name as the dynamic shared memory of the block. The launch sets its size.
#define SHARED(name) extern __shared__ __align__(128) unsigned char name[]

// SHARED_ARRAY declares an array in shared memory whose size is known at compile time.
#define SHARED_ARRAY(type, name, size) __shared__ type name[size]

// pack2 rounds two values to T, to nearest with ties to even, and returns both in one word, lo in the low 16 bits.
template <class T>
__device__ __forceinline__ uint32_t pack2(float lo, float hi);

template <>
__device__ __forceinline__ uint32_t pack2<bf16>(float lo, float hi) {
    uint32_t pair;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(hi), "f"(lo));
    return pair;
}

template <>
__device__ __forceinline__ uint32_t pack2<fp16>(float lo, float hi) {
    uint32_t pair;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(hi), "f"(lo));
    return pair;
}

__device__ __forceinline__ float to_float(float v) { return v; }
__device__ __forceinline__ float to_float(bf16 v) { return __uint_as_float(static_cast<uint32_t>(v.bits) << 16); }
__device__ __forceinline__ float to_float(fp16 v) {
    float wide;
    asm("cvt.f32.f16 %0, %1;" : "=f"(wide) : "h"(v.bits));
    return wide;
}

__device__ __forceinline__ void set(float &to, float v) { to = v; }
__device__ __forceinline__ void set(bf16 &to, float v) { asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(to.bits) : "f"(v)); }
__device__ __forceinline__ void set(fp16 &to, float v) { asm("cvt.rn.f16.f32 %0, %1;" : "=h"(to.bits) : "f"(v)); }

template <class T>
__device__ __forceinline__ float2 unpack2(uint32_t pair) {
    const T lo = {static_cast<uint16_t>(pair)}, hi = {static_cast<uint16_t>(pair >> 16)};
    return make_float2(to_float(lo), to_float(hi));
}

// shuffle_xor returns the value v of the lane whose number is this lane's number XOR mask. All 32 lanes of the warp
// must call it together.
__device__ __forceinline__ float shuffle_xor(float v, int mask) { return __shfl_xor_sync(0xffffffffu, v, mask); }
__device__ __forceinline__ uint32_t shuffle_xor(uint32_t v, int mask) { return __shfl_xor_sync(0xffffffffu, v, mask); }

// exp2_fast returns 2^x with an error of at most 2 ulp, and 0 instead of results below 2^-126.
__device__ __forceinline__ float exp2_fast(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

// copy_async begins to write 16 bytes to shared memory. It copies as many of them as the argument bytes says (0 to 16)
// from global memory, and sets the rest to zero.
__device__ __forceinline__ void copy_async(void *to, const void *from, int bytes) {
    const uint32_t shared = static_cast<uint32_t>(__cvta_generic_to_shared(to));
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared), "l"(from), "r"(bytes) : "memory");
}

// copy_commit makes one group of the copies that this thread has begun since its previous copy_commit.
__device__ __forceinline__ void copy_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// copy_wait returns when all groups of copies of this thread are complete, except possibly the last N groups.
template <int N>
__device__ __forceinline__ void copy_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}

// ldmatrix reads four 8×8 matrices of 16-bit elements from shared memory into the registers of a warp. Lane 8i + j
// passes the address of row j of matrix i. Each lane receives in r[i] two elements of row lane/4 of matrix i: those of
// columns 2·(lane mod 4) and 2·(lane mod 4) + 1.
__device__ __forceinline__ void ldmatrix(uint32_t (&r)[4], const void *row) {
    const uint32_t shared = static_cast<uint32_t>(__cvta_generic_to_shared(row));
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared)
                 : "memory");
}

// ldmatrix_transposed does the same as ldmatrix, but transposes each matrix before it gives the elements to the lanes.
__device__ __forceinline__ void ldmatrix_transposed(uint32_t (&r)[4], const void *row) {
    const uint32_t shared = static_cast<uint32_t>(__cvta_generic_to_shared(row));
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared)
                 : "memory");
}

// mma adds the product of the 16×16 matrix a and the 16×8 matrix b to the 16×8 matrix c, in float32. The lanes of a
// warp call it together; each has its part of the matrices in the layout of the PTX instruction mma.m16n8k16.
template <class T>
__device__ __forceinline__ void mma(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1);

template <>
__device__ __forceinline__ void mma<bf16>(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

template <>
__device__ __forceinline__ void mma<fp16>(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
