// Attention over packed sequences with 16-bit operands: tensor cores multiply, and scores, softmax and sums are
// float32. The kernels pass over the keys once, as in FlashAttention-2 (Dao 2023). A block computes 64 query rows of
// one head of one sequence, and each warp 16 of them. The block takes the sequence's keys and values in order, 64 at a
// time, so that the order of a row's sums does not depend on the rest of the batch. It copies them to shared memory,
// which has two stages: one is filled while the other is used. Blocks are small, so that several share a
// multiprocessor: while one waits at a barrier or computes exponentials, other blocks multiply.
#pragma once

#include "rotary.cuh"

namespace {

constexpr int block_rows = 64, key_rows = 64, block_threads = block_rows / 16 * 32;
constexpr float log2_e = 1.4426950408889634f;

// Head is the layout in shared memory of a head of d columns. Rows are padded to a multiple of 16 columns, as mma
// needs, and by 8 columns more, so that the eight rows that ldmatrix reads at once lie in different banks.
template <int d>
struct Head {
    static constexpr int columns = (d + 15) / 16 * 16, row = columns + 8, chunks = columns / 8;
    static constexpr int stage = 2 * key_rows * row; // number of elements in a stage: 64 keys, then 64 values
    static constexpr int blocks_per_sm = d > 64 ? 2 : 4; // blocks for which a multiprocessor has enough registers
};

// A Part is the queries, the keys or the values of one head of one sequence, in global memory.
template <class T>
struct Part {
    const T *rows; // address of the first row
    int pitch;     // number of elements from one row to the next

    __device__ __forceinline__ const T *at(int row, int column) const {
        return rows + static_cast<size_t>(row) * pitch + column;
    }
};

// each_copy divides rows of a head, from row first of the sequence on, among the threads of a block. It calls copy for
// each chunk of eight columns that this thread has to copy. A thread takes the same columns of every row, so that the
// addresses of its chunks differ by constants and need few instructions. The arguments of copy are the chunk's offset
// in shared memory in elements, its row and column in the sequence, and the number of bytes to read: 16, or 0 past the
// sequence's end and past the head's columns, where shared memory is filled with zeros.
template <int d, int rows, class Copy>
__device__ __forceinline__ void each_copy(int first, int length, const Copy &copy) {
    constexpr int chunks = Head<d>::chunks, step = block_threads / chunks;
    static_assert(block_threads % chunks == 0 && rows % step == 0);
    const int r = threadIdx.x / chunks, c = 8 * (threadIdx.x % chunks);
    const bool inside = d % 16 == 0 || c < d;
#pragma unroll
    for (int n = 0; n < rows / step; n++) {
        const int row = first + r + n * step;
        copy(r * Head<d>::row + c + n * step * Head<d>::row, min(row, length - 1), inside ? c : 0,
             row < length && inside ? 16 : 0);
    }
}

// turn_queries multiplies the 16 query rows of a warp, which are in the registers q, by qscale and rotates them. The
// two columns of a pair are half a head apart, and the same thread has both unless d is 24. In heads of 24 columns a
// thread reads the other column of each pair from the copy of the rows in shared memory, which begins at queries.
template <class T, int d>
__device__ __forceinline__ void turn_queries(uint32_t (&q)[Head<d>::columns / 16][4], const T *queries,
                                             int first, int length, const Rotation &rotation) {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const int position = min(first + lane / 4 + 8 * half, length - 1);
        const float *angle = reinterpret_cast<const float *>(rotation.at(position, d));
        // word returns the register with the thread's two columns among the columns 8·n to 8·n + 7 of a head
        const auto word = [&](int n) -> uint32_t & { return q[n / 2][half + 2 * (n % 2)]; };
        const auto turned = [&](uint32_t low, uint32_t high, int column, uint32_t (&both)[2]) {
            float2 a = unpack2<T>(low), b = unpack2<T>(high);
            float v[4];
            load4(v, angle + 2 * column);
            a.x *= rotation.qscale, a.y *= rotation.qscale, b.x *= rotation.qscale, b.y *= rotation.qscale;
            turn(a.x, b.x, v[0], v[1]);
            turn(a.y, b.y, v[2], v[3]);
            both[0] = pack2<T>(a.x, a.y), both[1] = pack2<T>(b.x, b.y);
        };
        uint32_t both[2];
        if constexpr (d / 2 % 8 != 0) {
            const T *row = queries + (lane / 4 + 8 * half) * Head<d>::row;
#pragma unroll
            for (int n = 0; n < d / 8; n++) {
                const int c = 8 * n + lane % 4 * 2;
                const bool upper = c >= d / 2;
                const int j = upper ? c - d / 2 : c;
                const uint32_t partner = *reinterpret_cast<const uint32_t *>(row + (upper ? j : c + d / 2));
                turned(upper ? partner : word(n), upper ? word(n) : partner, j, both);
                word(n) = upper ? both[1] : both[0];
            }
        } else {
#pragma unroll
            for (int n = 0; n < d / 16; n++) {
                turned(word(n), word(n + d / 16), 8 * n + lane % 4 * 2, both);
                word(n) = both[0], word(n + d / 16) = both[1];
            }
        }
    }
}

// A State is the softmax over the keys so far, for a thread's two query rows. top is a row's largest score. sum is the
// sum of a row's weights, but only of the quarter of the keys whose scores this thread has. out is the sum of weight
// times value over all these keys, in the columns of this thread.
template <int d>
struct State {
    float top[2], sum[2], out[d / 8][4];
};

// weigh replaces the scores of 64 keys by the weights 2^((score − top)·scale), where top is the row's largest score so
// far, and adds the weights to state.sum. It first rescales state.sum and state.out from the previous top to the new
// one.
template <int d>
__device__ __forceinline__ void weigh(State<d> &state, float (&score)[key_rows / 8][4], float scale) {
#pragma unroll
    for (int half = 0; half < 2; half++) {
        float top = state.top[half];
#pragma unroll
        for (int j = 0; j < key_rows / 8; j++) top = fmaxf(top, fmaxf(score[j][2 * half], score[j][2 * half + 1]));
        top = fmaxf(top, shuffle_xor(top, 1));
        top = fmaxf(top, shuffle_xor(top, 2));
        const float before = exp2_fast((state.top[half] - top) * scale), offset = top * scale;
        state.top[half] = top;
        float sum = 0.f;
#pragma unroll
        for (int j = 0; j < key_rows / 8; j++)
#pragma unroll
            for (int e = 2 * half; e < 2 * half + 2; e++) {
                score[j][e] = exp2_fast(fmaf(score[j][e], scale, -offset));
                sum += score[j][e];
            }
        state.sum[half] = fmaf(state.sum[half], before, sum);
#pragma unroll
        for (int n = 0; n < d / 8; n++) {
            state.out[n][2 * half] *= before;
            state.out[n][2 * half + 1] *= before;
        }
    }
}

// attend computes the 64 query rows of one block. If rotary is true, it takes the keys from turned, where they are
// already rotated, and rotates the queries in registers.
template <class T, int d, bool rotary>
__device__ __forceinline__ void attend(T *out, const T *qkv, const T *turned, const int *cu, const int2 *blocks,
                                       int heads, float scale, const float *slopes, Rotation rotation) {
    SHARED(shared);
    T *const stages = reinterpret_cast<T *>(shared);
    constexpr int steps = Head<d>::columns / 16, row = Head<d>::row;
    const int lane = threadIdx.x % 32, width = heads * d, head = static_cast<int>(blockIdx.y);
    const int2 block = blocks[blockIdx.x];
    const int start = cu[block.x], length = cu[block.x + 1] - start;
    const T *const part = row_at(qkv, start, 3 * width) + head * d;
    const Part<T> queries = {part, pitch(3 * width)}, values = {part + 2 * width, pitch(3 * width)};
    const Part<T> keys = rotary ? Part<T>{row_at(turned, start, width) + head * d, pitch(width)}
                                : Part<T>{part + width, pitch(3 * width)};
    const int warp = static_cast<int>(threadIdx.x) / 32 * 16; // the warp's first query row in the block
    const int first = block.y + warp;                        // the warp's first query row in the sequence
    const bool active = first < length;                      // false if the warp has no rows and only copies

    const auto copy = [&](T *stage, int first) {
        each_copy<d, key_rows>(first, length, [&](int to, int row, int column, int bytes) {
            copy_async(stage + to, keys.at(row, column), bytes);
            copy_async(stage + key_rows * Head<d>::row + to, values.at(row, column), bytes);
        });
        copy_commit();
    };
    T *const query_rows = stages + Head<d>::stage; // in the second stage, until keys are copied there
    each_copy<d, block_rows>(block.y, length, [&](int to, int row, int column, int bytes) {
        copy_async(query_rows + to, queries.at(row, column), bytes);
    });
    copy_commit();
    copy(stages, 0);
    copy_wait<1>();
    __syncthreads(); // now all threads see the queries

    uint32_t q[steps][4];
#pragma unroll
    for (int k = 0; k < steps; k++) ldmatrix(q[k], query_rows + (warp + lane % 16) * row + 16 * k + lane / 16 * 8);
    if constexpr (rotary) turn_queries<T, d>(q, query_rows + warp * row, first, length, rotation);
    State<d> state;
#pragma unroll
    for (int half = 0; half < 2; half++) state.top[half] = -INFINITY, state.sum[half] = 0.f;
#pragma unroll
    for (int n = 0; n < d / 8; n++)
#pragma unroll
        for (int e = 0; e < 4; e++) state.out[n][e] = 0.f;

    int stage = 0;
    for (int base = 0; base < length; base += key_rows, stage ^= 1) {
        const T *const key = stages + stage * Head<d>::stage, *const value = key + key_rows * row;
        copy_wait<0>();
        __syncthreads(); // now all threads see these keys and values, and none still reads the other stage
        if (base + key_rows < length) copy(stages + (stage ^ 1) * Head<d>::stage, base + key_rows);
        if (!active) continue;

        float score[key_rows / 8][4];
#pragma unroll
        for (int j = 0; j < key_rows / 8; j++)
#pragma unroll
            for (int e = 0; e < 4; e++) score[j][e] = 0.f;
#pragma unroll
        for (int k = 0; k < steps; k++)
#pragma unroll
            for (int j = 0; j < key_rows / 16; j++) {
                uint32_t b[4];
                ldmatrix(b, key + (16 * j + lane % 8 + lane / 16 * 8) * row + 16 * k + lane / 8 % 2 * 8);
                mma<T>(score[2 * j], q[k], b[0], b[1]);
                mma<T>(score[2 * j + 1], q[k], b[2], b[3]);
            }

        // positions in the sequence of the thread's first query and of its first key among these 64 keys
        const int query = first + lane / 4, column = base + lane % 4 * 2;
        if (slopes != nullptr) {
            const float slope = slopes[head]; // divided by scale, because the scores are not multiplied by scale yet
            // distances of the thread's two queries from its first key, exact in float32 up to 2^24
            const float ahead[2] = {static_cast<float>(query - column), static_cast<float>(query + 8 - column)};
#pragma unroll
            for (int j = 0; j < key_rows / 8; j++)
#pragma unroll
                for (int e = 0; e < 4; e++)
                    score[j][e] = fmaf(-slope, fabsf(ahead[e / 2] - static_cast<float>(8 * j + e % 2)), score[j][e]);
        }
        if (base + key_rows > length) {
#pragma unroll
            for (int j = 0; j < key_rows / 8; j++)
#pragma unroll
                for (int e = 0; e < 4; e++)
                    if (8 * j + e % 2 >= length - column) score[j][e] = -INFINITY;
        }
        weigh<d>(state, score, scale * log2_e);

#pragma unroll
        for (int k = 0; k < key_rows / 16; k++) {
            uint32_t p[4];
#pragma unroll
            for (int i = 0; i < 4; i++)
                p[i] = pack2<T>(score[2 * k + i / 2][i % 2 * 2], score[2 * k + i / 2][i % 2 * 2 + 1]);
#pragma unroll
            for (int n = 0; n < steps; n++) {
                uint32_t b[4];
                ldmatrix_transposed(b, value + (16 * k + lane % 16) * row + 16 * n + lane / 16 * 8);
                mma<T>(state.out[2 * n], p, b[0], b[1]);
                if (2 * n + 1 < d / 8) mma<T>(state.out[2 * n + 1], p, b[2], b[3]);
            }
        }
    }

    // a warp writes its outputs to shared memory first, so that it can store whole rows; it uses the stage without the
    // last keys, because no thread reads that stage any more
    if (!active) return;
    T *const rows = stages + stage * Head<d>::stage + warp * row;
#pragma unroll
    for (int half = 0; half < 2; half++) {
        float sum = state.sum[half];
        sum += shuffle_xor(sum, 1);
        sum += shuffle_xor(sum, 2);
        const float share = 1.f / sum;
        T *const to = rows + (lane / 4 + 8 * half) * row + lane % 4 * 2;
#pragma unroll
        for (int n = 0; n < d / 8; n++) store2(to + 8 * n, state.out[n][2 * half] * share, state.out[n][2 * half + 1] * share);
    }
    __syncwarp();
    constexpr int all = 16 * (d / 8);
#pragma unroll
    for (int n = 0; n < ceil_div(all, 32); n++) {
        const int i = lane + 32 * n, r = i / (d / 8), c = 8 * (i % (d / 8));
        if (i < all && first + r < length)
            *reinterpret_cast<uint4 *>(row_at(out, start + first + r, width) + head * d + c) =
                *reinterpret_cast<const uint4 *>(rows + r * row + c);
    }
}

} // namespace
