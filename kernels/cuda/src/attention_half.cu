// Attention with 16-bit operands, for models without rotary positions.
#include "attention_half.cuh"

#define ATTENTION(T, suffix, d)                                                                                      \
    KERNEL(block_threads, Head<d>::blocks_per_sm, attention_##d##_##suffix, T *out, const T *qkv, const int *cu, const int2 *blocks,   \
           int heads, float scale, const float *slopes) {                                                            \
        attend<T, d, false>(out, qkv, nullptr, cu, blocks, heads, scale, slopes, {});                                         \
    }
#define ATTENTIONS(T, suffix)                                                                                        \
    ATTENTION(T, suffix, 16)                                                                                         \
    ATTENTION(T, suffix, 24)                                                                                         \
    ATTENTION(T, suffix, 32)                                                                                         \
    ATTENTION(T, suffix, 64)                                                                                         \
    ATTENTION(T, suffix, 128)

ATTENTIONS(bf16, bf16)
ATTENTIONS(fp16, fp16)
