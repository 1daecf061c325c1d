// Matrix products of 16-bit operands on tensor cores, summed in float32. A block of four warps computes 128 × 128
// elements of In·Wᵀ, and each warp 64 × 64 of them. One step multiplies 32 columns of the two operands. The operands
// are copied ahead of their use to a ring of four stages in shared memory; each stage holds the columns of one step.
// mma adds the products of 16 columns at a time to an element, from the first column to the last, whatever the number
// of rows.
#include "gemm.cuh"

namespace {

constexpr int tile = 128, depth = 32, stages = 4;
constexpr int operand_bytes = tile * depth * 2, stage_bytes = 2 * operand_bytes;

// swizzled returns the offset in bytes of a chunk of a row from the start of its operand in a stage. A row has four
// chunks of 16 bytes. Their order depends on the row, so that the eight rows that ldmatrix reads at once lie in
// different banks.
__device__ __forceinline__ int swizzled(int row, int chunk) { return row * 64 + ((chunk ^ (row >> 1 & 3)) << 4); }

// A Loader makes one thread's share of the copies of the operands to the stages: in each step, one chunk of 8 columns
// of every 32nd row of both operands.
template <class T, Epilogue epilogue>
struct Loader {
    const T *in[4], *w[4]; // addresses of the thread's chunks in the first step
    int to[4];             // offsets in bytes of the chunks from an operand's start in a stage
    int chunk, depth_left;

    __device__ __forceinline__ Loader(const Product<T> &p, Tile at) {
        chunk = threadIdx.x % 4;
        depth_left = p.depth;
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const int r = threadIdx.x / 4 + 32 * i;
            // for rows past the end, whose outputs are not stored, the last row is copied
            in[i] = row_at(p.in, min(at.row + r, p.rows - 1), p.depth) + 8 * chunk;
            int from = min(at.col + r, p.cols - 1);
            // store expects the weights in the order: eight rows of gates, the eight rows of values of the same
            // columns, the next eight rows of gates, …
            if (epilogue == with_geglu) from = min(at.col + r / 16 * 8 + r % 8, p.cols - 1) + (r / 8 % 2 ? p.cols : 0);
            w[i] = row_at(p.w, from, p.depth) + 8 * chunk;
            to[i] = swizzled(r, chunk);
        }
    }

    // load begins to copy the 32 columns of one step. It fills columns past the last one with zeros.
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

// Fragments are the operands that a warp multiplies in half a step: 16 columns of 64 rows of inputs and of 64 rows of
// weights.
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

// parked returns the index of a sum in shared memory, where rows have 128 sums. The order of groups of four sums
// depends on the row, so that neither park nor a read of consecutive columns causes bank conflicts.
__device__ __forceinline__ int parked(int row, int col) { return row * tile + (((col >> 2) ^ (row & 3) << 1) << 2) + (col & 3); }

// park writes the sums of a warp from its registers to shared memory.
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

// store reads the sums that park has written, applies the epilogue and writes the outputs to global memory. A thread
// takes four columns of a row at a time, so that neighbouring threads write whole rows of the tile. The loop over rows
// is short enough for the instruction cache.
template <class T, Epilogue epilogue>
__device__ __forceinline__ void store(const Product<T> &p, Tile at, const float *sums) {
    constexpr int width = epilogue == with_geglu ? tile / 2 : tile, lanes = width / 4;
    const int c = threadIdx.x % lanes * 4, col = at.col + c;
    if (col >= p.cols) return;
    // from is the column of the sums; for GEGLU it is the column of the gates, and the values are 8 columns further
    const int from = epilogue == with_geglu ? c / 8 * 16 + c % 8 : c;
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
    Fragments now, next; // first and second half of a step: one is loaded while the other is multiplied
    now.load(shared, 0, warp_row, warp_col);

    for (int step = 0; step < steps; step++) {
        next.load(shared + step % stages * stage_bytes, 1, warp_row, warp_col);
        const int ahead = step + stages - 1;
        if (ahead < steps) loader.load(shared + ahead % stages * stage_bytes, ahead);
        copy_commit();
        now.multiply<T>(sum);

        copy_wait<stages - 2>(); // until the copies of the next step are complete
        __syncthreads();         // now all threads see the next stage, and none still reads the current one
        if (step + 1 < steps) now.load(shared + (step + 1) % stages * stage_bytes, 0, warp_row, warp_col);
        next.multiply<T>(sum);
    }

    // no thread reads a stage after the last barrier, so the sums may overwrite the stages
    float *const sums = reinterpret_cast<float *>(shared);
    park(sums, sum, warp_row, warp_col);
    __syncthreads(); // because store reads rows to which two warps have written
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
