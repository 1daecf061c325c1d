// The embedding of tokens: each token id becomes its row of a table, multiplied by a factor of the sequence. As in the
// token dropout of ESM-2, mask tokens become 0, and the factor grows with the share of mask tokens in the sequence. An
// optional type vector is added last.
#include "device.cuh"

// positions writes for each token its position in its sequence to pos, and the index of its sequence to seq. Sequence s
// has the tokens cu[s] to cu[s + 1] − 1 of the batch.
KERNEL(128, 1, positions, int *pos, int *seq, const int *cu) {
    const int s = blockIdx.x, first = cu[s], end = cu[s + 1];
    for (int t = first + threadIdx.x; t < end; t += blockDim.x) {
        pos[t] = t - first;
        seq[t] = s;
    }
}

// embed_scale writes the factor of each sequence: base / (1 − share of mask tokens in the sequence).
KERNEL(32, 1, embed_scale, float *scale, const int *ids, const int *cu, float base, int mask) {
    const int s = blockIdx.x, first = cu[s], end = cu[s + 1];
    float masked = 0.f; // float32 represents counts exactly up to 2^24 tokens
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
