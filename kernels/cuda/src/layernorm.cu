// LayerNorm with the biased variance. A row stays in registers, so that the mean can be subtracted before the squares
// are summed. The variance would lose digits if it were computed as E[x²] − E[x]².
#include "device.cuh"

// row_sum returns the sum of v over the THREADS threads that normalize a row: a warp or the whole block. For a block,
// partial is shared memory for one float of each warp.
template <int THREADS>
__device__ __forceinline__ float row_sum(float v, float *partial) {
    v = warp_sum(v);
    if (THREADS == 32) return v;
    if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = v;
    __syncthreads();
    float sum = 0.f;
#pragma unroll
    for (int w = 0; w < THREADS / 32; w++) sum += partial[w];
    return sum;
}

// normalize applies LayerNorm to one row, in + add (in alone if add is null). Each of THREADS threads takes GROUPS
// groups of four columns.
template <class T, int THREADS, int GROUPS>
__device__ __forceinline__ void normalize(float *out32, T *out, const float *in, const float *add, const float *gain,
                                          const float *bias, float eps, int cols, float *partial) {
    const int lane = threadIdx.x % THREADS;
    float z[GROUPS][4], sum = 0.f;
    // all loads are issued before the first addition, so that the loads overlap
#pragma unroll
    for (int g = 0; g < GROUPS; g++) {
        const int c = 4 * (g * THREADS + lane);
        if (c < cols) load4(z[g], in + c);
    }
    if (add != nullptr) {
        // some is the number of groups that are loaded at once: registers do not suffice for all groups of wide rows
        constexpr int some = GROUPS > 10 ? GROUPS / 4 : GROUPS;
#pragma unroll
        for (int from = 0; from < GROUPS; from += some) {
            float more[some][4];
#pragma unroll
            for (int g = 0; g < some; g++) {
                const int c = 4 * ((from + g) * THREADS + lane);
                if (c < cols) load4(more[g], add + c);
            }
#pragma unroll
            for (int g = 0; g < some; g++)
#pragma unroll
                for (int e = 0; e < 4; e++) z[from + g][e] += more[g][e];
        }
    }
#pragma unroll
    for (int g = 0; g < GROUPS; g++) {
        const int c = 4 * (g * THREADS + lane);
        if (c >= cols) continue;
#pragma unroll
        for (int e = 0; e < 4; e++) sum += c + e < cols ? z[g][e] : 0.f;
    }
    const float mean = row_sum<THREADS>(sum, partial) / static_cast<float>(cols);

    float squares = 0.f;
#pragma unroll
    for (int g = 0; g < GROUPS; g++) {
        const int c = 4 * (g * THREADS + lane);
        if (c >= cols) continue;
#pragma unroll
        for (int e = 0; e < 4; e++) {
            z[g][e] -= mean;
            squares += c + e < cols ? z[g][e] * z[g][e] : 0.f;
        }
    }
    const float variance = row_sum<THREADS>(squares, partial + THREADS / 32) / static_cast<float>(cols);
    const float scale = 1.f / sqrtf(variance + eps);

#pragma unroll
    for (int g = 0; g < GROUPS; g++) {
        const int c = 4 * (g * THREADS + lane);
        if (c >= cols) continue;
        float w[4], b[4];
        load_vector4(w, gain, c, cols);
        load_vector4(b, bias, c, cols);
#pragma unroll
        for (int e = 0; e < 4; e++) z[g][e] = z[g][e] * scale * w[e] + b[e];
        if (out32 != nullptr) store4(out32 + c, z[g]);
        if (out != nullptr) store4(out + c, z[g]);
    }
}

// LAYERNORM defines the kernel for rows of at most widest columns. row_threads threads normalize a row: one warp, which
// is faster than a block, or a block where the row does not fit into the registers of a warp.
#define LAYERNORM(T, suffix, widest, row_threads, block_threads, blocks_per_sm)                                      \
    KERNEL(block_threads, blocks_per_sm, layernorm_##widest##_##suffix, float *out32, T *out, const float *in,       \
           const float *add, const float *gain, const float *bias, float eps, int rows, int cols) {                  \
        SHARED_ARRAY(float, partial, row_threads == 32 ? 1 : row_threads / 16);                                      \
        const int row = blockIdx.x * (block_threads / row_threads) + threadIdx.x / row_threads;                      \
        if (row >= rows) return;                                                                                     \
        normalize<T, row_threads, widest / (4 * row_threads)>(                                                       \
            out32 == nullptr ? nullptr : row_at(out32, row, cols), out == nullptr ? nullptr : row_at(out, row, cols), \
            row_at(in, row, cols), add == nullptr ? nullptr : row_at(add, row, cols), gain, bias, eps, cols,          \
            row_threads == 32 ? nullptr : partial);                                                                  \
    }
#define LAYERNORMS(T, suffix)                                                                                        \
    LAYERNORM(T, suffix, 512, 32, 128, 10)                                                                           \
    LAYERNORM(T, suffix, 1280, 32, 128, 5)                                                                           \
    LAYERNORM(T, suffix, 2560, 32, 128, 3)                                                                           \
    LAYERNORM(T, suffix, 8192, 256, 256, 3)

LAYERNORMS(bf16, bf16)
LAYERNORMS(fp16, fp16)
LAYERNORMS(float, fp32)
