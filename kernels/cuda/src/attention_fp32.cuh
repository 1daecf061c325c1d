// Attention over packed sequences in float32 by fmaf. A block computes 64 query rows of one head of one sequence, and
// takes the keys of the sequence in order, 32 at a time. For each 32 keys, a thread computes the scores of 4 query rows
// with 2 keys, and then adds to every 16th output column of the same 4 rows. With rotary positions, queries and keys
// are rotated when they are copied to shared memory.
#pragma once

#include "rotary.cuh"

namespace {

constexpr int block_rows = 64, key_rows = 32, weight_row = key_rows + 4;

// load copies rows of one head to shared memory, from row first of the sequence on: queries if part is 0, keys if it is
// 1, values if it is 2. It fills rows past the sequence's end with zeros.
template <int d>
__device__ __forceinline__ void load(float *to, const float *qkv, int rows, int part, int first, int length, int heads) {
    const int width = heads * d;
    for (int i = threadIdx.x; i < rows * (d / 4); i += 256) {
        const int r = i / (d / 4), c = 4 * (i % (d / 4));
        float v[4] = {0.f, 0.f, 0.f, 0.f};
        if (first + r < length) load4(v, row_at(qkv, first + r, 3 * width) + part * width + blockIdx.y * d + c);
        store4(to + r * (d + 4) + c, v);
    }
}

// load_turned copies queries or keys as load does, and rotates them. Queries are first multiplied by qscale. A thread
// rotates four columns of a row together with the four columns half a head further.
template <int d>
__device__ __forceinline__ void load_turned(float *to, const float *qkv, int rows, int part, int first, int length, int heads,
                                            Rotation rotation) {
    const int width = heads * d;
    const float factor = part == 0 ? rotation.qscale : 1.f;
    for (int i = threadIdx.x; i < rows * (d / 8); i += 256) {
        const int r = i / (d / 8), c = 4 * (i % (d / 8));
        float a[4] = {0.f, 0.f, 0.f, 0.f}, b[4] = {0.f, 0.f, 0.f, 0.f};
        if (first + r < length) {
            const float *from = row_at(qkv, first + r, 3 * width) + part * width + blockIdx.y * d + c;
            load4(a, from);
            load4(b, from + d / 2);
            turn4(a, b, rotation.at(first + r, d) + c, factor);
        }
        store4(to + r * (d + 4) + c, a);
        store4(to + r * (d + 4) + c + d / 2, b);
    }
}

template <int d, bool rotary>
__device__ __forceinline__ void attend(float *out, const float *qkv, const int *cu, const int2 *blocks, int heads,
                                       float scale, const float *slopes, Rotation rotation) {
    SHARED(shared);
    constexpr int row = d + 4, columns = (d + 15) / 16;
    float *const queries = reinterpret_cast<float *>(shared), *const keys = queries + block_rows * row;
    float *const values = keys + key_rows * row, *const weights = values + key_rows * row;
    // a thread computes query rows ty + 16·i, the scores of keys tx + 16·j, and output columns tx + 16·j
    const int tx = threadIdx.x % 16, ty = threadIdx.x / 16;
    const int2 block = blocks[blockIdx.x];
    const int start = cu[block.x], length = cu[block.x + 1] - start;
    const float slope = slopes == nullptr ? 0.f : slopes[blockIdx.y];
    qkv = row_at(qkv, start, 3 * heads * d);

    float top[4], sum[4], total[4][columns];
#pragma unroll
    for (int i = 0; i < 4; i++) {
        top[i] = -INFINITY, sum[i] = 0.f;
#pragma unroll
        for (int j = 0; j < columns; j++) total[i][j] = 0.f;
    }
    if constexpr (rotary)
        load_turned<d>(queries, qkv, block_rows, 0, block.y, length, heads, rotation);
    else
        load<d>(queries, qkv, block_rows, 0, block.y, length, heads);

    for (int base = 0; base < length; base += key_rows) {
        __syncthreads(); // no thread still reads the previous keys, values and weights
        if constexpr (rotary)
            load_turned<d>(keys, qkv, key_rows, 1, base, length, heads, rotation);
        else
            load<d>(keys, qkv, key_rows, 1, base, length, heads);
        load<d>(values, qkv, key_rows, 2, base, length, heads);
        __syncthreads();

        float score[4][2] = {};
#pragma unroll 4
        for (int c = 0; c < d; c += 4) {
            float k[2][4];
#pragma unroll
            for (int j = 0; j < 2; j++) load4(k[j], keys + (tx + 16 * j) * row + c);
#pragma unroll
            for (int i = 0; i < 4; i++) {
                float q[4];
                load4(q, queries + (ty + 16 * i) * row + c);
#pragma unroll
                for (int j = 0; j < 2; j++)
#pragma unroll
                    for (int e = 0; e < 4; e++) score[i][j] = fmaf(q[e], k[j][e], score[i][j]);
            }
        }

#pragma unroll
        for (int i = 0; i < 4; i++) {
            float best = top[i];
#pragma unroll
            for (int j = 0; j < 2; j++) {
                const int query = block.y + ty + 16 * i, key = base + tx + 16 * j;
                score[i][j] = score[i][j] * scale - slope * static_cast<float>(abs(query - key));
                if (key >= length) score[i][j] = -INFINITY;
                best = fmaxf(best, score[i][j]);
            }
#pragma unroll
            for (int offset = 8; offset > 0; offset >>= 1) best = fmaxf(best, shuffle_xor(best, offset));
            const float before = expf(top[i] - best);
            top[i] = best;
            sum[i] *= before;
#pragma unroll
            for (int j = 0; j < columns; j++) total[i][j] *= before;
#pragma unroll
            for (int j = 0; j < 2; j++) {
                const float weight = expf(score[i][j] - best);
                sum[i] += weight;
                weights[(ty + 16 * i) * weight_row + tx + 16 * j] = weight;
            }
        }
        __syncwarp(); // suffices, because the same warp writes and reads a row's weights

#pragma unroll 2
        for (int k = 0; k < key_rows; k += 4) {
            float w[4][4];
#pragma unroll
            for (int i = 0; i < 4; i++) load4(w[i], weights + (ty + 16 * i) * weight_row + k);
#pragma unroll
            for (int e = 0; e < 4; e++)
#pragma unroll
                for (int j = 0; j < columns; j++) {
                    const int c = tx + 16 * j;
                    if (c >= d) continue;
                    const float v = values[(k + e) * row + c];
#pragma unroll
                    for (int i = 0; i < 4; i++) total[i][j] = fmaf(w[i][e], v, total[i][j]);
                }
        }
    }

#pragma unroll
    for (int i = 0; i < 4; i++) {
#pragma unroll
        for (int offset = 8; offset > 0; offset >>= 1) sum[i] += shuffle_xor(sum[i], offset);
        const int query = block.y + ty + 16 * i;
        if (query >= length) continue;
        float *const to = row_at(out, start + query, heads * d) + blockIdx.y * d;
#pragma unroll
        for (int j = 0; j < columns; j++)
            if (tx + 16 * j < d) to[tx + 16 * j] = total[i][j] / sum[i];
    }
}

} // namespace
