// Rotary position embedding in place on packed queries and keys. The turns
// come from the host as (cos, sin) of the float32 angle, so that no device
// needs a sine of its own.
#include "device.cuh"

// turn_row handles one token: four columns and their partners half a head
// further at a time, the queries' heads first, then the keys'.
template <class T>
__device__ __forceinline__ void turn_row(T *row, const float2 *turns, int heads, int d, float qscale) {
    const int half = d / 2, groups = half / 4;
    for (int i = threadIdx.x; i < 2 * heads * groups; i += blockDim.x) {
        const int head = i / groups, j = 4 * (i % groups);
        const float factor = head < heads ? qscale : 1.f;
        T *low = row + head * d + j, *high = low + half;
        float a[4], b[4], first[4], second[4];
        load4(a, low);
        load4(b, high);
        load4(first, reinterpret_cast<const float *>(turns + j));
        load4(second, reinterpret_cast<const float *>(turns + j + 2));
        const float cosine[4] = {first[0], first[2], second[0], second[2]};
        const float sine[4] = {first[1], first[3], second[1], second[3]};
#pragma unroll
        for (int e = 0; e < 4; e++) {
            const float x = a[e] * factor, y = b[e] * factor;
            a[e] = x * cosine[e] - y * sine[e];
            b[e] = y * cosine[e] + x * sine[e];
        }
        store4(low, a);
        store4(high, b);
    }
}

#define ROTARY(T, suffix)                                                                                            \
    KERNEL(128, 1, rotary_##suffix, T *qkv, const int *pos, const float2 *turns, int heads, int d, float qscale,     \
           int rows) {                                                                                               \
        const int row = blockIdx.x;                                                                                  \
        turn_row<T>(row_at(qkv, row, 3 * heads * d), turns + static_cast<size_t>(pos[row]) * (d / 2), heads, d,      \
                    qscale);                                                                                         \
    }

ROTARY(bf16, bf16)
ROTARY(fp16, fp16)
ROTARY(float, fp32)
