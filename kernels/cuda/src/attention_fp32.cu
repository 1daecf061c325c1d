// Attention in float32, for models without rotary positions.
#include "attention_fp32.cuh"

#define ATTENTION(d)                                                                                                 \
    KERNEL(256, 1, attention_##d##_fp32, float *out, const float *qkv, const int *cu, const int2 *blocks, int heads, \
           float scale, const float *slopes) {                                                                       \
        attend<d, false>(out, qkv, cu, blocks, heads, scale, slopes, {});                                            \
    }

ATTENTION(16)
ATTENTION(24)
ATTENTION(32)
ATTENTION(64)
ATTENTION(128)
