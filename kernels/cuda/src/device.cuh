// Functions that the kernel files share: addresses in a matrix, vector loads and stores, sums over a warp, and GELU.
#pragma once

#include "ptx.cuh"

// pitch returns the number of elements from one row of a matrix of cols columns to the next. It is a multiple of 8, so
// that every row is aligned to 16 bytes, in 16-bit types too.
__device__ __forceinline__ constexpr int pitch(int cols) { return (cols + 7) & ~7; }

__device__ __forceinline__ constexpr int ceil_div(int a, int b) { return (a + b - 1) / b; }

// row_at returns the address of the first element of a row. The offset is a size_t, because it can exceed 2^31 elements
// in large batches.
template <class T>
__device__ __forceinline__ T *row_at(T *matrix, int row, int cols) {
    return matrix + static_cast<size_t>(row) * pitch(cols);
}

// load4 reads four elements and converts them to float32. store4 converts four float32 values to T and writes them. The
// address must be aligned to four elements.
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

// store2 converts two float32 values to T and writes them. The address must be aligned to two elements.
template <class T>
__device__ __forceinline__ void store2(T *to, float v0, float v1) {
    *reinterpret_cast<uint32_t *>(to) = pack2<T>(v0, v1);
}

template <>
__device__ __forceinline__ void store2<float>(float *to, float v0, float v1) {
    *reinterpret_cast<float2 *>(to) = make_float2(v0, v1);
}

// load8 reads eight elements and converts them to float32. store8 converts eight float32 values to T and writes them.
// The address must be aligned to 16 bytes.
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

// load_vector4 reads the elements first to first + 3 of a vector of n elements, and returns 0 for elements past its
// end. first must be a multiple of 4. The vector needs no padding, and no alignment to 16 bytes.
__device__ __forceinline__ void load_vector4(float (&v)[4], const float *vector, int first, int n) {
    if (first + 4 <= n && reinterpret_cast<uintptr_t>(vector) % 16 == 0) {
        load4(v, vector + first);
        return;
    }
#pragma unroll
    for (int e = 0; e < 4; e++) v[e] = first + e < n ? vector[first + e] : 0.f;
}

// warp_sum returns the sum of v over the 32 lanes of a warp. Every lane gets the same bits.
__device__ __forceinline__ float warp_sum(float v) {
#pragma unroll
    for (int offset = 16; offset > 0; offset >>= 1) v += shuffle_xor(v, offset);
    return v;
}

// gelu returns x·Φ(x), where Φ is the distribution function of the standard normal distribution; it never uses the tanh
// approximation of GELU. For 16-bit types T it computes max(x, 0) − |x|·2^P(|x|). P is a polynomial of degree 8 that
// approximates log2 Φ(−z) for 0 ≤ z ≤ 6; _gelu/main.go finds its coefficients. The float32 result errs by at most
// 1.2e-7 plus half an ulp. Its relative error is at most 6e-4 for x from −6 to 0, where 0.5·x·(1 + erf(x/√2)) would
// cancel. For z > 6, P(z) keeps falling, and Φ(−z) is below 1e-8. gelu returns NaN for NaN and for ±∞.
template <class T>
__device__ __forceinline__ float gelu(float x) {
    // coefficients of P, from z^8 to the constant term
    constexpr float log2_phi[] = {-9.40130349e-07f, 1.62622582e-05f, -7.61937554e-05f, -0.000397675787f, 0.00738909002f,
                                  -0.0527038723f,   -0.459148586f,   -1.15111065f,     -1.f};
    const float z = fabsf(x);
    float p = log2_phi[0];
#pragma unroll
    for (int i = 1; i <= 8; i++) p = fmaf(p, z, log2_phi[i]);
    return fmaf(-z, exp2_fast(p), fmaxf(x, -0.f)); // −0 and not 0, so that gelu(−0) is −0
}

// gelu<float> computes Φ by erff, which errs by at most 2 ulp.
template <>
__device__ __forceinline__ float gelu<float>(float x) {
    return 0.5f * x * (1.f + erff(x * 0.70710678118654752440f));
}
