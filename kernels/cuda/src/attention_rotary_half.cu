// Attention with 16-bit operands that rotates queries and keys first, in a
// file of its own because the driver compiles a whole file when it needs one
// kernel of it.
#include "attention_half.cuh"

#define ATTENTION(T, suffix, d)                                                                                      \
    KERNEL(Head<d>::threads, Head<d>::blocks_per_sm, attention_rotary_##d##_##suffix, T *out, const T *qkv, const int *cu,                \
           const int2 *blocks, int heads, float scale, const float *slopes, const float2 *turns, float qscale) {     \
        attend<T, d, true>(out, qkv, cu, blocks, heads, scale, slopes, {turns, qscale});                             \
    }
#define ATTENTIONS(T, suffix)                                                                                        \
    ATTENTION(T, suffix, 16)                                                                                         \
    ATTENTION(T, suffix, 24)                                                                                         \
    ATTENTION(T, suffix, 32)                                                                                         \
    ATTENTION(T, suffix, 64)                                                                                         \
    ATTENTION(T, suffix, 128)

ATTENTIONS(bf16, bf16)
ATTENTIONS(fp16, fp16)
