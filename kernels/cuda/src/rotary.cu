// Rotary position embedding in place on packed queries and keys, where no
// attention follows that does it. The turns come from the host, so that no
// device needs a sine of its own.
#include "rotary.cuh"

// turn_row handles one token: four columns and their partners half a head
// further at a time, the queries' heads first, then the keys'.
template <class T>
__device__ __forceinline__ void turn_row(T *row, const float2 *turns, int heads, int d, float qscale) {
    const int half = d / 2, groups = half / 4;
    for (int i = threadIdx.x; i < 2 * heads * groups; i += blockDim.x) {
        const int head = i / groups, j = 4 * (i % groups);
        T *low = row + head * d + j, *high = low + half;
        float a[4], b[4];
        load4(a, low);
        load4(b, high);
        turn4(a, b, turns + j, head < heads ? qscale : 1.f);
        store4(low, a);
        store4(high, b);
    }
}

#define ROTARY(T, suffix)                                                                                            \
    KERNEL(128, 1, rotary_##suffix, T *qkv, const int *pos, const float2 *turns, int heads, int d, float qscale,     \
           int rows) {                                                                                               \
        const int row = blockIdx.x;                                                                                  \
        const Rotation rotation = {turns, qscale};                                                                   \
        turn_row<T>(row_at(qkv, row, 3 * heads * d), rotation.at(pos[row], d), heads, d, qscale);                    \
    }

ROTARY(bf16, bf16)
ROTARY(fp16, fp16)
ROTARY(float, fp32)
