// The rotation of queries and keys by their position: the multiply-adds are
// spelled out, so that no compiler chooses others and the host can compute the
// same bits.
#pragma once

#include "device.cuh"

// A Rotation is what the host gives: (cos, sin) of the float32 angles, a row
// of d/2 for each position, and the factor of the queries.
struct Rotation {
    const float2 *turns;
    float qscale;

    // at is the row of a position in a head of d columns.
    __device__ __forceinline__ const float2 *at(int position, int d) const {
        return turns + static_cast<size_t>(position) * (d / 2);
    }
};

// turn rotates a pair of columns that are half a head apart.
__device__ __forceinline__ void turn(float &a, float &b, float cosine, float sine) {
    const float x = a, y = b;
    a = fmaf(x, cosine, -(y * sine));
    b = fmaf(y, cosine, x * sine);
}

// turn4 scales and rotates four neighbouring pairs by four turns, which begin
// on a border of 16 bytes.
__device__ __forceinline__ void turn4(float (&a)[4], float (&b)[4], const float2 *turns, float factor) {
    float angle[8];
    load8(angle, reinterpret_cast<const float *>(turns));
#pragma unroll
    for (int e = 0; e < 4; e++) {
        a[e] *= factor, b[e] *= factor;
        turn(a[e], b[e], angle[2 * e], angle[2 * e + 1]);
    }
}
