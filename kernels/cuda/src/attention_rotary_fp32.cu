// Attention in float32, for models with rotary positions: it rotates queries and keys first.
#include "attention_fp32.cuh"

#define ATTENTION(d)                                                                                                 \
    KERNEL(256, 1, attention_rotary_##d##_fp32, float *out, const float *qkv, const int *cu, const int2 *blocks,     \
           int heads, float scale, const float *slopes, const float2 *turns, float qscale) {                         \
        attend<d, true>(out, qkv, cu, blocks, heads, scale, slopes, {turns, qscale});                                \
    }

ATTENTION(16)
ATTENTION(24)
ATTENTION(32)
ATTENTION(64)
ATTENTION(128)
