// Attention over packed sequences with 16-bit operands: products on tensor
// cores, scores, softmax and sums in float32, one pass over the keys as in
// FlashAttention-2 (Dao 2023). A block takes 128 query rows of one head of one
// sequence. Keys come 64 at a time from the sequence's first on, through two
// stages, so that a row's sums have one order whatever else is in the batch.
// Queries and keys may have to be rotated first: then they are as they arrive,
// and rounded as the rotary kernel would have stored them.
#pragma once

#include "rotary.cuh"

namespace {

constexpr int block_rows = 128, key_rows = 64;
constexpr float log2_e = 1.4426950408889634f;

// The layout of a head: rows in shared memory are padded to a multiple of 16
// columns and by 16 bytes, so that eight of them lie in different banks.
template <int d>
struct Head {
    static constexpr int columns = (d + 15) / 16 * 16, row = columns + 8, chunks = columns / 8;
    static constexpr int stage = 2 * key_rows * row; // elements: keys, then values; also 128 queries or outputs
#ifndef TILES
#define TILES 1
#endif
    static constexpr int tiles = d > 64 ? 1 : TILES, threads = block_rows / (16 * tiles) * 32;
    static constexpr int blocks_per_sm = d > 64 ? 1 : 2;
};

template <class T>
struct Sequence {
    const T *qkv; // of its first token
    int length, heads, head;
};

// copy_rows begins the copies of a head's columns of rows of a part of qkv (0
// queries, 1 keys, 2 values); rows past the sequence's end and columns past the
// head's become zero.
template <class T, int d, int rows>
__device__ __forceinline__ void copy_rows(T *to, const Sequence<T> &s, int part, int first) {
    const int width = s.heads * d;
    constexpr int chunks = Head<d>::chunks, all = rows * chunks, threads = Head<d>::threads;
#pragma unroll
    for (int n = 0; n < ceil_div(all, threads); n++) {
        const int i = threadIdx.x + n * threads;
        if (all % threads != 0 && i >= all) break;
        const int r = i / chunks, c = 8 * (i % chunks);
        const bool present = first + r < s.length && c < d;
        const T *from = row_at(s.qkv, present ? first + r : 0, 3 * width) + part * width + s.head * d + (present ? c : 0);
        copy_async(to + r * Head<d>::row + c, from, present ? 16 : 0);
    }
}

// Pairs is how the threads share 64 keys that have to be rotated yet. A share
// is columns of the lower half of a head and their partners of the upper one:
// a thread rotates in shared memory what it has copied there itself, and so
// waits for no other. Eight columns are one copy; a head of 24 has no such
// halves, and a thread takes a row of it.
template <int d>
struct Pairs {
    static constexpr bool whole = d / 2 % 8 != 0;
    static constexpr int per_row = whole ? 1 : d / 16, shares = key_rows * per_row;
    static constexpr int columns = d / 2 / per_row, copies = whole ? Head<d>::chunks : 2;
    static constexpr int group = whole ? 4 : 8; // columns that are loaded at once
    // shares of a thread, where it has any
    static constexpr int count = (shares + Head<d>::threads - 1) / Head<d>::threads;

    // row and column of a share's first element: of eight threads side by
    // side, those of different rows are per_row rows apart, which puts their
    // 16 bytes each into different banks
    static __device__ __forceinline__ int row(int i) {
        return i / (8 * per_row) * 8 + i / per_row % (8 / per_row) * per_row + i / 8 % per_row;
    }
    static __device__ __forceinline__ int column(int i) { return i % per_row * columns; }
};

// copy_pairs begins the copies of 64 keys and values by shares.
template <class T, int d>
__device__ __forceinline__ void copy_pairs(T *stage, const Sequence<T> &s, int first) {
    const int width = s.heads * d;
#pragma unroll
    for (int n = 0; n < Pairs<d>::count; n++) {
        const int i = threadIdx.x + n * Head<d>::threads;
        if (Pairs<d>::shares % Head<d>::threads != 0 && i >= Pairs<d>::shares) break;
        const int r = Pairs<d>::row(i), c = Pairs<d>::column(i);
        const bool inside = first + r < s.length;
        const T *key = row_at(s.qkv, inside ? first + r : 0, 3 * width) + width + s.head * d + c;
        T *const to = stage + r * Head<d>::row + c;
#pragma unroll
        for (int n = 0; n < Pairs<d>::copies; n++) {
            const int ahead = n * (Pairs<d>::whole ? 8 : d / 2);
            const bool present = inside && ahead < d;
            copy_async(to + ahead, key + (ahead < d ? ahead : 0), present ? 16 : 0);
            copy_async(to + key_rows * Head<d>::row + ahead, key + width + (ahead < d ? ahead : 0), present ? 16 : 0);
        }
    }
}

// Turns are those of a thread's shares, loaded while the copies are under way.
template <int d>
struct Turns {
    float of[Pairs<d>::count][2 * Pairs<d>::columns];
};

template <class T, int d>
__device__ __forceinline__ void load_turns(Turns<d> &turns, const Sequence<T> &s, int first, const Rotation &rotation) {
#pragma unroll
    for (int n = 0; n < Pairs<d>::count; n++) {
        const int i = threadIdx.x + n * Head<d>::threads;
        // keys past the end are zero, whatever the turn; threads past the last
        // share load what they do not use
        const int position = min(first + Pairs<d>::row(i % Pairs<d>::shares), s.length - 1);
        const float *from = reinterpret_cast<const float *>(rotation.at(position, d) + Pairs<d>::column(i));
#pragma unroll
        for (int e = 0; e < 2 * Pairs<d>::columns; e += 4) {
            float v[4];
            load4(v, from + e);
#pragma unroll
            for (int u = 0; u < 4; u++) turns.of[n][e + u] = v[u];
        }
    }
}

template <class T>
__device__ __forceinline__ void load_all(float (&v)[4], const T *from) { load4(v, from); }
template <class T>
__device__ __forceinline__ void load_all(float (&v)[8], const T *from) { load8(v, from); }
template <class T>
__device__ __forceinline__ void store_all(T *to, const float (&v)[4]) { store4(to, v); }
template <class T>
__device__ __forceinline__ void store_all(T *to, const float (&v)[8]) { store8(to, v); }

// turn_keys rotates a thread's shares where they lie.
template <class T, int d>
__device__ __forceinline__ void turn_keys(T *stage, const Turns<d> &turns) {
    constexpr int group = Pairs<d>::group;
#pragma unroll
    for (int n = 0; n < Pairs<d>::count; n++) {
        const int i = threadIdx.x + n * Head<d>::threads;
        if (Pairs<d>::shares % Head<d>::threads != 0 && i >= Pairs<d>::shares) break;
        T *const low = stage + Pairs<d>::row(i) * Head<d>::row + Pairs<d>::column(i), *const high = low + d / 2;
#pragma unroll
        for (int c = 0; c < Pairs<d>::columns; c += group) {
            float a[group], b[group];
            load_all(a, low + c);
            load_all(b, high + c);
#pragma unroll
            for (int e = 0; e < group; e++) turn(a[e], b[e], turns.of[n][2 * (c + e)], turns.of[n][2 * (c + e) + 1]);
            store_all(low + c, a);
            store_all(high + c, b);
        }
    }
}

// turn_queries rotates the fragments of a tile. Partners lie in the same
// thread, but not in a head of 24: there they are read once more.
template <class T, int d>
__device__ __forceinline__ void turn_queries(uint32_t (&q)[Head<d>::columns / 16][4], const T *queries,
                                             const Sequence<T> &s, int first, const Rotation &rotation) {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const int position = min(first + lane / 4 + 8 * half, s.length - 1);
        const float *angle = reinterpret_cast<const float *>(rotation.at(position, d));
        // word gives two columns of the thread's in the n-th eight of a head
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
        if constexpr (Pairs<d>::whole) {
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

// A State is what a tile of 16 query rows has seen of the keys: of each of a
// thread's two rows the largest score and the sum of weights relative to it,
// this thread's columns only, and the weighted sum of values.
template <int d>
struct State {
    float top[2], sum[2], out[d / 8][4];
};

// weigh turns the scores of 64 keys into weights relative to the largest score
// so far, and rescales what came before. Scores are in units in which scale
// turns them into exponents of 2.
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

template <class T, int d, bool rotary>
__device__ __forceinline__ void attend(T *out, const T *qkv, const int *cu, const int2 *blocks, int heads, float scale,
                                       const float *slopes, Rotation rotation) {
    SHARED(shared);
    T *const keys = reinterpret_cast<T *>(shared);
    constexpr int tiles = Head<d>::tiles, steps = Head<d>::columns / 16, row = Head<d>::row;
    const int lane = threadIdx.x % 32;
    const int2 block = blocks[blockIdx.x];
    const int start = cu[block.x];
    const Sequence<T> s = {row_at(qkv, start, 3 * heads * d), cu[block.x + 1] - start, heads, static_cast<int>(blockIdx.y)};
    const int warp = static_cast<int>(threadIdx.x) / 32 * 16 * tiles; // its first row in the block
    const int first = block.y + warp;                                // and in the sequence
    const bool active = first < s.length;                            // other warps only copy and turn

    const auto copy = [&](T *stage, int first) {
        if constexpr (rotary) {
            copy_pairs<T, d>(stage, s, first);
        } else {
            copy_rows<T, d, key_rows>(stage, s, 1, first);
            copy_rows<T, d, key_rows>(stage + key_rows * row, s, 2, first);
        }
        copy_commit();
    };
    T *const queries = keys + Head<d>::stage; // where the second tile of keys will be
    copy_rows<T, d, block_rows>(queries, s, 0, block.y);
    copy_commit();
    copy(keys, 0);
    Turns<d> turns;
    if constexpr (rotary) load_turns<T, d>(turns, s, 0, rotation);
    copy_wait<1>();
    __syncthreads(); // all see the queries

    uint32_t q[tiles][steps][4];
    State<d> state[tiles];
#pragma unroll
    for (int t = 0; t < tiles; t++) {
#pragma unroll
        for (int k = 0; k < steps; k++)
            ldmatrix(q[t][k], queries + (warp + 16 * t + lane % 16) * row + 16 * k + lane / 16 * 8);
        if constexpr (rotary) turn_queries<T, d>(q[t], queries + (warp + 16 * t) * row, s, first + 16 * t, rotation);
#pragma unroll
        for (int half = 0; half < 2; half++) state[t].top[half] = -INFINITY, state[t].sum[half] = 0.f;
#pragma unroll
        for (int n = 0; n < d / 8; n++)
#pragma unroll
            for (int e = 0; e < 4; e++) state[t].out[n][e] = 0.f;
    }
    copy_wait<0>();
    if constexpr (rotary) turn_keys<T, d>(keys, turns);

    int stage = 0;
    for (int base = 0; base < s.length; base += key_rows, stage ^= 1) {
        const T *const key = keys + stage * Head<d>::stage, *const value = key + key_rows * row;
        T *const next = keys + (stage ^ 1) * Head<d>::stage;
        const bool more = base + key_rows < s.length;
        __syncthreads(); // all see the keys and values, and are done with what lay in the other stage
        if (more) copy(next, base + key_rows);

        uint32_t weights[tiles][key_rows / 16][4];
        if (active) {
            float score[tiles][key_rows / 8][4];
#pragma unroll
            for (int t = 0; t < tiles; t++)
#pragma unroll
                for (int j = 0; j < key_rows / 8; j++)
#pragma unroll
                    for (int e = 0; e < 4; e++) score[t][j][e] = 0.f;
#pragma unroll
            for (int k = 0; k < steps; k++)
#pragma unroll
                for (int j = 0; j < key_rows / 16; j++) {
                    uint32_t b[4];
                    ldmatrix(b, key + (16 * j + lane % 8 + lane / 16 * 8) * row + 16 * k + lane / 8 % 2 * 8);
#pragma unroll
                    for (int t = 0; t < tiles; t++) {
                        mma<T>(score[t][2 * j], q[t][k], b[0], b[1]);
                        mma<T>(score[t][2 * j + 1], q[t][k], b[2], b[3]);
                    }
                }

#pragma unroll
            for (int t = 0; t < tiles; t++) {
                // of the thread's first column; in float32, exact up to 2^24
                const int query = first + 16 * t + lane / 4, column = base + lane % 4 * 2;
                if (slopes != nullptr) {
                    const float slope = slopes[s.head] / scale; // in the units of q·k
                    const float ahead[2] = {static_cast<float>(query - column), static_cast<float>(query + 8 - column)};
#pragma unroll
                    for (int j = 0; j < key_rows / 8; j++)
#pragma unroll
                        for (int e = 0; e < 4; e++)
                            score[t][j][e] =
                                fmaf(-slope, fabsf(ahead[e / 2] - static_cast<float>(8 * j + e % 2)), score[t][j][e]);
                }
                if (base + key_rows > s.length) {
#pragma unroll
                    for (int j = 0; j < key_rows / 8; j++)
#pragma unroll
                        for (int e = 0; e < 4; e++)
                            if (8 * j + e % 2 >= s.length - column) score[t][j][e] = -INFINITY;
                }
                weigh<d>(state[t], score[t], scale * log2_e);
#pragma unroll
                for (int k = 0; k < key_rows / 16; k++)
#pragma unroll
                    for (int i = 0; i < 4; i++)
                        weights[t][k][i] = pack2<T>(score[t][2 * k + i / 2][i % 2 * 2], score[t][2 * k + i / 2][i % 2 * 2 + 1]);
            }
        }
        if constexpr (rotary)
            if (more) load_turns<T, d>(turns, s, base + key_rows, rotation);
        if (active) {
#pragma unroll
            for (int k = 0; k < key_rows / 16; k++)
#pragma unroll
                for (int n = 0; n < steps; n++) {
                    uint32_t b[4];
                    ldmatrix_transposed(b, value + (16 * k + lane % 16) * row + 16 * n + lane / 16 * 8);
#pragma unroll
                    for (int t = 0; t < tiles; t++) {
                        mma<T>(state[t].out[2 * n], weights[t][k], b[0], b[1]);
                        if (2 * n + 1 < d / 8) mma<T>(state[t].out[2 * n + 1], weights[t][k], b[2], b[3]);
                    }
                }
        }
        copy_wait<0>();
        if constexpr (rotary)
            if (more) turn_keys<T, d>(next, turns);
    }

    // A warp's outputs pass through shared memory, so that it stores whole rows: the stage that the last keys are not
    // in is free.
    if (!active) return;
    T *const rows = keys + stage * Head<d>::stage + warp * row;
#pragma unroll
    for (int t = 0; t < tiles; t++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            float sum = state[t].sum[half];
            sum += shuffle_xor(sum, 1);
            sum += shuffle_xor(sum, 2);
            const float share = 1.f / sum;
            T *const to = rows + (16 * t + lane / 4 + 8 * half) * row + lane % 4 * 2;
#pragma unroll
            for (int n = 0; n < d / 8; n++) store2(to + 8 * n, state[t].out[n][2 * half] * share, state[t].out[n][2 * half + 1] * share);
        }
    __syncwarp();
    constexpr int all = 16 * tiles * (d / 8);
#pragma unroll
    for (int n = 0; n < ceil_div(all, 32); n++) {
        const int i = lane + 32 * n, r = i / (d / 8), c = 8 * (i % (d / 8));
        if (i < all && first + r < s.length)
            *reinterpret_cast<uint4 *>(row_at(out, start + first + r, heads * d) + s.head * d + c) =
                *reinterpret_cast<const uint4 *>(rows + r * row + c);
    }
}

} // namespace
