// Rotary position embedding of queries and keys. The multiply-adds are written as fmaf, so that every compiler fuses
// the same operations and the host can compute the same bits.
#pragma once

#include "device.cuh"

// A Rotation has the parameters of a rotary position embedding, which the host passes to the kernels.
struct Rotation {
    const float2 *turns; // (cos, sin) of the rotation angles, [positions, d/2] for heads of d columns
    float qscale;        // factor by which queries are multiplied before they are rotated

    // at returns the d/2 pairs (cos, sin) of a position, for heads of d columns.
    __device__ __forceinline__ const float2 *at(int position, int d) const {
        return turns + static_cast<size_t>(position) * (d / 2);
    }
};

// turn rotates the pair (a, b), two elements of a row that are half a head apart, by the angle with the given cosine
// and sine.
__device__ __forceinline__ void turn(float &a, float &b, float cosine, float sine) {
    const float x = a, y = b;
    a = fmaf(x, cosine, -(y * sine));
    b = fmaf(y, cosine, x * sine);
}

// turn4 multiplies four pairs (a[e], b[e]) by factor and then rotates each by the angle whose (cos, sin) is turns[e].
// turns must be aligned to 16 bytes.
__device__ __forceinline__ void turn4(float (&a)[4], float (&b)[4], const float2 *turns, float factor) {
    float angle[8];
    load8(angle, reinterpret_cast<const float *>(turns));
#pragma unroll
    for (int e = 0; e < 4; e++) {
        a[e] *= factor, b[e] *= factor;
        turn(a[e], b[e], angle[2 * e], angle[2 * e + 1]);
    }
}
