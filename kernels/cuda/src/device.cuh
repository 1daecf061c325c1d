// Common parts of the kernel files: the operand types, the pitch of a matrix, vector loads and warp sums.
#pragma once

#include "ptx.cuh"

// pitch is the number of elements from one row of a matrix to the next: rows
// begin on 16-byte borders in every type.
__device__ __forceinline__ constexpr int pitch(int cols) { return (cols + 7) & ~7; }

__device__ __forceinline__ constexpr int ceil_div(int a, int b) { return (a + b - 1) / b; }

// row_at is the first element of a row; offsets pass 2^31 in large batches.
template <class T>
__device__ __forceinline__ T *row_at(T *matrix, int row, int cols) {
    return matrix + static_cast<size_t>(row) * pitch(cols);
}

// load4 and store4 move four elements that begin on a border of four.
template <class T>
__device__ __forceinline__ void load4(float (&v)[4], const T *from) {
    const uint2 raw = *reinterpret_cast<const uint2 *>(from);
    const float2 a = unpack2<T>(raw.x), b = unpack2<T>(raw.y);
    v[0] = a.x, v[1] = a.y, v[2] = b.x, v[3] = b.y;
}

template <>
__device__ __forceinline__ void load4<float>(float (&v)[4], const float *from) {
    const float4 raw = *reinterpret_cast<const float4 *>(from);
    v[0] = raw.x, v[1] = raw.y, v[2] = raw.z, v[3] = raw.w;
}

template <class T>
__device__ __forceinline__ void store4(T *to, const float (&v)[4]) {
    *reinterpret_cast<uint2 *>(to) = make_uint2(pack2<T>(v[0], v[1]), pack2<T>(v[2], v[3]));
}

template <>
__device__ __forceinline__ void store4<float>(float *to, const float (&v)[4]) {
    *reinterpret_cast<float4 *>(to) = make_float4(v[0], v[1], v[2], v[3]);
}

// store2 stores two elements that begin on a border of two.
template <class T>
__device__ __forceinline__ void store2(T *to, float v0, float v1) {
    *reinterpret_cast<uint32_t *>(to) = pack2<T>(v0, v1);
}

template <>
__device__ __forceinline__ void store2<float>(float *to, float v0, float v1) {
    *reinterpret_cast<float2 *>(to) = make_float2(v0, v1);
}

// load8 and store8 move eight elements that begin on a border of eight.
template <class T>
__device__ __forceinline__ void load8(float (&v)[8], const T *from) {
    const uint4 raw = *reinterpret_cast<const uint4 *>(from);
    const uint32_t words[4] = {raw.x, raw.y, raw.z, raw.w};
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const float2 pair = unpack2<T>(words[i]);
        v[2 * i] = pair.x, v[2 * i + 1] = pair.y;
    }
}

template <>
__device__ __forceinline__ void load8<float>(float (&v)[8], const float *from) {
    const float4 a = *reinterpret_cast<const float4 *>(from), b = *reinterpret_cast<const float4 *>(from + 4);
    v[0] = a.x, v[1] = a.y, v[2] = a.z, v[3] = a.w;
    v[4] = b.x, v[5] = b.y, v[6] = b.z, v[7] = b.w;
}

template <class T>
__device__ __forceinline__ void store8(T *to, const float (&v)[8]) {
    *reinterpret_cast<uint4 *>(to) =
        make_uint4(pack2<T>(v[0], v[1]), pack2<T>(v[2], v[3]), pack2<T>(v[4], v[5]), pack2<T>(v[6], v[7]));
}

template <>
__device__ __forceinline__ void store8<float>(float *to, const float (&v)[8]) {
    *reinterpret_cast<float4 *>(to) = make_float4(v[0], v[1], v[2], v[3]);
    *reinterpret_cast<float4 *>(to + 4) = make_float4(v[4], v[5], v[6], v[7]);
}

// load_vector4 reads four elements of a vector of n that has no padding and
// may begin anywhere; those past its end are 0. first is a multiple of 4.
__device__ __forceinline__ void load_vector4(float (&v)[4], const float *vector, int first, int n) {
    if (first + 4 <= n && reinterpret_cast<uintptr_t>(vector) % 16 == 0) {
        load4(v, vector + first);
        return;
    }
#pragma unroll
    for (int e = 0; e < 4; e++) v[e] = first + e < n ? vector[first + e] : 0.f;
}

// warp_sum adds over the 32 lanes, in an order that every lane shares.
__device__ __forceinline__ float warp_sum(float v) {
#pragma unroll
    for (int offset = 16; offset > 0; offset >>= 1) v += shuffle_xor(v, offset);
    return v;
}

// gelu is x·Φ(x) by erf, never its tanh approximation, for a result that is rounded to T. This one serves the 16-bit
// types: max(x, 0) − |x|·2^P(|x|), where P is a polynomial for log2 Φ(−z), the minimax fit of degree 8 on 0 ≤ z ≤ 6
// with P(0) = −1. _gelu/main.go finds the coefficients and weighs the error. In float32 the result errs by at most
// 1.2e-7 and half an ulp, and by 6e-4 of itself from −6 to 0, where 1 + erf would cancel; beyond 6, P keeps falling and
// Φ is below 1e-8. NaN stays NaN, and an infinity becomes NaN.
template <class T>
__device__ __forceinline__ float gelu(float x) {
    constexpr float log2_phi[] = {-9.40130349e-07f, 1.62622582e-05f, -7.61937554e-05f, -0.000397675787f, 0.00738909002f,
                                  -0.0527038723f,   -0.459148586f,   -1.15111065f,     -1.f}; // from z^8 down
    const float z = fabsf(x);
    float p = log2_phi[0];
#pragma unroll
    for (int i = 1; i <= 8; i++) p = fmaf(p, z, log2_phi[i]);
    return fmaf(-z, exp2_fast(p), fmaxf(x, -0.f)); // −0, so that −0 keeps its sign
}

// The float32 kernels take erff.
template <>
__device__ __forceinline__ float gelu<float>(float x) {
    return 0.5f * x * (1.f + erff(x * 0.70710678118654752440f));
}
