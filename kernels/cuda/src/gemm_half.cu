// Products of 16-bit operands on tensor cores, summed in float32. A block of
// four warps makes 128 x 128 outputs, a warp 64 x 64 of them; the operands come
// through a ring of four stages of 32 columns each. Every output is one chain
// of mma over k in steps of 16 from 0 on, whatever the number of rows.
#include "gemm.cuh"

namespace {

constexpr int tile = 128, depth = 32, stages = 4;
constexpr int operand_bytes = tile * depth * 2, stage_bytes = 2 * operand_bytes;

// swizzled is the place in a stage of 16 bytes of a row of 64: permuted so
// that the eight rows that ldmatrix reads at once lie in different banks.
__device__ __forceinline__ int swizzled(int row, int chunk) { return row * 64 + ((chunk ^ (row >> 1 & 3)) << 4); }

// A Loader brings the chunk of 8 columns that its thread has of every 32nd row
// of both operands.
template <class T, Epilogue epilogue>
struct Loader {
    const T *in[4], *w[4]; // the thread's chunk at column 0
    int to[4];             // its place in an operand's stage
    int chunk, depth_left;

    __device__ __forceinline__ Loader(const Product<T> &p, Tile at) {
        chunk = threadIdx.x % 4;
        depth_left = p.depth;
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const int r = threadIdx.x / 4 + 32 * i;
            // rows past the end repeat the last one: their outputs are not stored
            in[i] = row_at(p.in, min(at.row + r, p.rows - 1), p.depth) + 8 * chunk;
            int from = min(at.col + r, p.cols - 1);
            // groups of eight columns alternate between gate and value, so
            // that a thread holds both of the same column
            if (epilogue == with_geglu) from = min(at.col + r / 16 * 8 + r % 8, p.cols - 1) + (r / 8 % 2 ? p.cols : 0);
            w[i] = row_at(p.w, from, p.depth) + 8 * chunk;
            to[i] = swizzled(r, chunk);
        }
    }

    // load begins the copies of one step of 32 columns; what lies past the
    // last column arrives as zero.
    __device__ __forceinline__ void load(unsigned char *stage, int step) const {
        const int first = step * depth;
        const int bytes = max(0, min(16, 2 * (depth_left - first - 8 * chunk)));
        const int column = bytes > 0 ? first : 0;
#pragma unroll
        for (int i = 0; i < 4; i++) {
            copy_async(stage + to[i], in[i] + column, bytes);
            copy_async(stage + operand_bytes + to[i], w[i] + column, bytes);
        }
    }
};

// Fragments are what a warp multiplies in half a step: 64 rows of inputs and 64
// of weights, 16 columns each.
struct Fragments {
    uint32_t in[4][4], w[4][4];

    __device__ __forceinline__ void load(const unsigned char *stage, int half, int warp_row, int warp_col) {
        const int lane = threadIdx.x % 32;
#pragma unroll
        for (int i = 0; i < 4; i++) ldmatrix(in[i], stage + swizzled(warp_row + 16 * i + lane % 16, 2 * half + lane / 16));
#pragma unroll
        for (int j = 0; j < 4; j++)
            ldmatrix(w[j], stage + operand_bytes + swizzled(warp_col + 16 * j + lane % 8 + lane / 16 * 8, 2 * half + lane / 8 % 2));
    }

    template <class T>
    __device__ __forceinline__ void multiply(float (&sum)[4][8][4]) const {
#pragma unroll
        for (int i = 0; i < 4; i++)
#pragma unroll
            for (int j = 0; j < 4; j++) {
                mma<T>(sum[i][2 * j], in[i], w[j][0], w[j][1]);
                mma<T>(sum[i][2 * j + 1], in[i], w[j][2], w[j][3]);
            }
    }
};

// parked is the place of a sum in shared memory: rows of 128 in which groups
// of four are permuted, so that neither writing fragments nor reading rows
// meets a bank twice.
__device__ __forceinline__ int parked(int row, int col) { return row * tile + (((col >> 2) ^ (row & 3) << 1) << 2) + (col & 3); }

// park writes the fragments of a warp.
__device__ __forceinline__ void park(float *sums, const float (&sum)[4][8][4], int warp_row, int warp_col) {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int i = 0; i < 4; i++)
#pragma unroll
        for (int half = 0; half < 2; half++)
#pragma unroll
            for (int j = 0; j < 8; j++) {
                float *const to = sums + parked(warp_row + 16 * i + 8 * half + lane / 4, warp_col + 8 * j + lane % 4 * 2);
                *reinterpret_cast<float2 *>(to) = make_float2(sum[i][j][2 * half], sum[i][j][2 * half + 1]);
            }
}

// store takes the parked sums through the epilogue to memory, four columns a
// thread: whole rows of the tile at a time, and code that is short enough for
// the instruction cache.
template <class T, Epilogue epilogue>
__device__ __forceinline__ void store(const Product<T> &p, Tile at, const float *sums) {
    constexpr int width = epilogue == with_geglu ? tile / 2 : tile, lanes = width / 4;
    const int c = threadIdx.x % lanes * 4, col = at.col + c;
    if (col >= p.cols) return;
    const int from = epilogue == with_geglu ? c / 8 * 16 + c % 8 : c; // gates, their values 8 further
    float bias[4] = {0.f, 0.f, 0.f, 0.f}, gate_bias[4] = {0.f, 0.f, 0.f, 0.f};
    if (p.bias != nullptr) {
        load_vector4(bias, p.bias + (epilogue == with_geglu ? p.cols : 0), col, p.cols);
        if (epilogue == with_geglu) load_vector4(gate_bias, p.bias, col, p.cols);
    }
#pragma unroll 2
    for (int r = threadIdx.x / lanes; r < min(tile, p.rows - at.row); r += 128 / lanes) {
        float v[4];
        load4(v, sums + parked(r, epilogue == with_geglu ? from + 8 : from));
#pragma unroll
        for (int e = 0; e < 4; e++) v[e] += bias[e];
        if (epilogue == with_gelu)
#pragma unroll
            for (int e = 0; e < 4; e++) v[e] = gelu<T>(v[e]);
        if (epilogue == with_geglu) {
            float gate[4];
            load4(gate, sums + parked(r, from));
#pragma unroll
            for (int e = 0; e < 4; e++) v[e] *= gelu<T>(gate[e] + gate_bias[e]);
        }
        if (p.add != nullptr) {
            float more[4];
            load4(more, row_at(p.add, at.row + r, p.cols) + col);
#pragma unroll
            for (int e = 0; e < 4; e++) v[e] += more[e];
        }
        if (p.out32 != nullptr) store4(row_at(p.out32, at.row + r, p.cols) + col, v);
        if (p.out != nullptr) store4(row_at(p.out, at.row + r, p.cols) + col, v);
    }
}

template <class T, Epilogue epilogue>
__device__ __forceinline__ void multiply(const Product<T> &p) {
    SHARED(shared);
    const int warp = threadIdx.x / 32;
    const int warp_row = warp / 2 * 64, warp_col = warp % 2 * 64;
    const Tile at = place(p.rows, p.cols, tile, epilogue == with_geglu ? tile / 2 : tile);
    const Loader<T, epilogue> loader(p, at);
    const int steps = ceil_div(p.depth, depth);

    float sum[4][8][4];
#pragma unroll
    for (int i = 0; i < 4; i++)
#pragma unroll
        for (int j = 0; j < 8; j++)
#pragma unroll
            for (int e = 0; e < 4; e++) sum[i][j][e] = 0.f;

#pragma unroll
    for (int s = 0; s < stages - 1; s++) {
        if (s < steps) loader.load(shared + s * stage_bytes, s);
        copy_commit();
    }

    copy_wait<stages - 2>();
    __syncthreads();
    Fragments now, next; // of this half step and the next, so that mma never waits for shared memory
    now.load(shared, 0, warp_row, warp_col);

    for (int step = 0; step < steps; step++) {
        next.load(shared + step % stages * stage_bytes, 1, warp_row, warp_col);
        const int ahead = step + stages - 1;
        if (ahead < steps) loader.load(shared + ahead % stages * stage_bytes, ahead);
        copy_commit();
        now.multiply<T>(sum);

        copy_wait<stages - 2>(); // for the stage of the next step
        __syncthreads();         // all see it, and are done with reading this one
        if (step + 1 < steps) now.load(shared + (step + 1) % stages * stage_bytes, 0, warp_row, warp_col);
        next.multiply<T>(sum);
    }

    // since the last barrier nobody reads a stage: the sums take their place
    float *const sums = reinterpret_cast<float *>(shared);
    park(sums, sum, warp_row, warp_col);
    __syncthreads(); // rows come from two warps
    store<T, epilogue>(p, at, sums);
}

} // namespace

#define GEMM(T, name, epilogue)                                                                                      \
    KERNEL(128, 2, name, const T *in, const T *w, const float *bias, const float *add, float *out32, T *out, int M,  \
           int N, int K) {                                                                                           \
        multiply<T, epilogue>({in, w, bias, add, out32, out, M, N, K});                                              \
    }

GEMM(bf16, gemm_bf16, plain)
GEMM(bf16, gemm_gelu_bf16, with_gelu)
GEMM(bf16, gemm_geglu_bf16, with_geglu)
GEMM(fp16, gemm_fp16, plain)
GEMM(fp16, gemm_gelu_fp16, with_gelu)
GEMM(fp16, gemm_geglu_fp16, with_geglu)
