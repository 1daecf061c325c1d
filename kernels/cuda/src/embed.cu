// The first operation of a model: token ids to rows of a table, scaled by the
// share of masks in each sequence as ESM-2's token dropout asks.
#include "device.cuh"

// positions writes each token's position in its sequence, and the sequence.
KERNEL(128, 1, positions, int *pos, int *seq, const int *cu) {
    const int s = blockIdx.x, first = cu[s], end = cu[s + 1];
    for (int t = first + threadIdx.x; t < end; t += blockDim.x) {
        pos[t] = t - first;
        seq[t] = s;
    }
}

// embed_scale is base / (1 − share of mask tokens) of each sequence.
KERNEL(32, 1, embed_scale, float *scale, const int *ids, const int *cu, float base, int mask) {
    const int s = blockIdx.x, first = cu[s], end = cu[s + 1];
    float masked = 0.f; // counts are exact up to 2^24
    for (int t = first + threadIdx.x; t < end; t += 32) masked += ids[t] == mask ? 1.f : 0.f;
    masked = warp_sum(masked);
    if (threadIdx.x == 0) scale[s] = base / (1.f - masked / static_cast<float>(end - first));
}

template <class T>
__device__ __forceinline__ void embed_row(float *out32, T *out, const T *table, const int *ids, const int *seq,
                                          const float *scale, const float *type, int mask, int cols) {
    const int t = blockIdx.x, id = ids[t];
    const float factor = scale[seq[t]];
    for (int c = 4 * threadIdx.x; c < cols; c += 4 * blockDim.x) {
        float v[4], offset[4] = {0.f, 0.f, 0.f, 0.f};
        load4(v, row_at(table, id, cols) + c);
        if (type != nullptr) load_vector4(offset, type, c, cols);
#pragma unroll
        for (int e = 0; e < 4; e++) v[e] = (id == mask ? 0.f : v[e] * factor) + offset[e];
        if (out32 != nullptr) store4(row_at(out32, t, cols) + c, v);
        if (out != nullptr) store4(row_at(out, t, cols) + c, v);
    }
}

#define EMBED(T, suffix)                                                                                             \
    KERNEL(128, 1, embed_##suffix, float *out32, T *out, const T *table, const int *ids, const int *seq,             \
           const float *scale, const float *type, int mask, int rows, int cols) {                                    \
        embed_row<T>(out32, out, table, ids, seq, scale, type, mask, cols);                                          \
    }

EMBED(bf16, bf16)
EMBED(fp16, fp16)
EMBED(float, fp32)
