// Attention with 16-bit operands, for models with rotary positions: rotate_keys rotates the keys, and the attention
// itself rotates the queries. The driver compiles all kernels of a file when it loads one, so these kernels are not in
// attention_half.cu.
#include "attention_half.cuh"

#define ATTENTION(T, suffix, d)                                                                                      \
    KERNEL(block_threads, Head<d>::blocks_per_sm, attention_rotary_##d##_##suffix, T *out, const T *qkv, const T *keys,     \
           const int *cu, const int2 *blocks, int heads, float scale, const float *slopes, const float2 *turns,      \
           float qscale) {                                                                                           \
        attend<T, d, true>(out, qkv, keys, cu, blocks, heads, scale, slopes, {turns, qscale});                       \
    }
#define ATTENTIONS(T, suffix)                                                                                        \
    ATTENTION(T, suffix, 16)                                                                                         \
    ATTENTION(T, suffix, 24)                                                                                         \
    ATTENTION(T, suffix, 32)                                                                                         \
    ATTENTION(T, suffix, 64)                                                                                         \
    ATTENTION(T, suffix, 128)

ATTENTIONS(bf16, bf16)
ATTENTIONS(fp16, fp16)

// rotate_keys_<T> rotates the keys of qkv and writes them to out. A thread rotates four columns of a head together with
// the four columns half a head further.
#define ROTATE_KEYS(T, suffix)                                                                                       \
    KERNEL(128, 8, rotate_keys_##suffix, T *out, const T *qkv, const int *pos, const float2 *turns, int heads, int d, \
           int rows) {                                                                                               \
        const int i = blockIdx.x * 128 + threadIdx.x, groups = d / 8, width = heads * d;                             \
        const int head = i / groups, c = 4 * (i % groups), at = head * d + c;                                        \
        if (head >= heads) return;                                                                                   \
        for (int row = blockIdx.y; row < rows; row += gridDim.y) {                                                   \
            const T *const from = row_at(qkv, row, 3 * width) + width + at;                                          \
            T *const to = row_at(out, row, width) + at;                                                              \
            float a[4], b[4];                                                                                        \
            load4(a, from);                                                                                          \
            load4(b, from + d / 2);                                                                                  \
            turn4(a, b, Rotation{turns, 1.f}.at(pos[row], d) + c, 1.f);                                              \
            store4(to, a);                                                                                           \
            store4(to + d / 2, b);                                                                                   \
        }                                                                                                            \
    }

ROTATE_KEYS(bf16, bf16)
ROTATE_KEYS(fp16, fp16)
