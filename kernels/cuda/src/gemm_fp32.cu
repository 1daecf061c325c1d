// Matrix products in float32 by fmaf, never by TF32. A block of 256 threads computes 128 × 64 elements of In·Wᵀ, a
// thread 8 × 4 of them. One step adds up 16 products and then adds their sum to the total, so that the rounding error
// grows with the number of steps and not with the number of products. The order of additions does not depend on the
// number of rows.
#include "gemm.cuh"

namespace {

constexpr int tile_rows = 128, tile_cols = 64, depth = 16;
constexpr int row_floats = depth + 4; // 20, so that eight consecutive rows lie in different banks of shared memory
constexpr int stage_floats = (tile_rows + tile_cols) * row_floats;

// load begins to copy the inputs and weights of one step to stage, which is one of two buffers in shared memory.
template <Epilogue epilogue>
__device__ __forceinline__ void load(const Product<float> &p, Tile at, float *stage, int step) {
    const int chunk = threadIdx.x % 4, column = step * depth + 4 * chunk;
    const int bytes = max(0, min(16, 4 * (p.depth - column)));
#pragma unroll
    for (int i = 0; i < 3; i++) {
        const int r = threadIdx.x / 4 + 64 * i;
        const float *from;
        if (i < 2) {
            from = row_at(p.in, min(at.row + r, p.rows - 1), p.depth);
        } else { // 64 rows of weights; for GEGLU, 32 rows of gates and then 32 rows of their values
            const int n = r - tile_rows;
            const int w = epilogue == with_geglu ? min(at.col + n % 32, p.cols - 1) + (n < 32 ? 0 : p.cols) : min(at.col + n, p.cols - 1);
            from = row_at(p.w, w, p.depth);
        }
        copy_async(stage + r * row_floats + 4 * chunk, from + (bytes > 0 ? column : 0), bytes);
    }
    copy_commit();
}

// finish applies the epilogue to the sum v of one output and stores the result. gate is the sum of the output's gate,
// and is used only for GEGLU.
template <Epilogue epilogue>
__device__ __forceinline__ void finish(const Product<float> &p, int row, int col, float v, float gate) {
    if (p.bias != nullptr) {
        if (epilogue == with_geglu) gate += p.bias[col];
        v += p.bias[epilogue == with_geglu ? p.cols + col : col];
    }
    if (epilogue == with_gelu) v = gelu<float>(v);
    if (epilogue == with_geglu) v *= gelu<float>(gate);
    const size_t at = static_cast<size_t>(row) * pitch(p.cols) + col;
    if (p.add != nullptr) v += p.add[at];
    if (p.out32 != nullptr) p.out32[at] = v;
    if (p.out != nullptr) p.out[at] = v;
}

// multiply computes one tile. Thread (tx, ty) multiplies the input rows ty, ty + 16, … of the tile by its weight rows
// tx, tx + 16, and so on.
template <Epilogue epilogue>
__device__ __forceinline__ void multiply(const Product<float> &p) {
    SHARED(shared);
    float *const stage = reinterpret_cast<float *>(shared);
    const int tx = threadIdx.x % 16, ty = threadIdx.x / 16;
    const Tile at = place(p.rows, p.cols, tile_rows, epilogue == with_geglu ? tile_cols / 2 : tile_cols);
    const int steps = ceil_div(p.depth, depth);

    float total[8][4];
#pragma unroll
    for (int i = 0; i < 8; i++)
#pragma unroll
        for (int j = 0; j < 4; j++) total[i][j] = 0.f;

    load<epilogue>(p, at, stage, 0);
    for (int step = 0; step < steps; step++) {
        copy_wait<0>();
        __syncthreads(); // now all threads see this stage, and none still reads the other one
        if (step + 1 < steps) load<epilogue>(p, at, stage + (step + 1) % 2 * stage_floats, step + 1);

        const float *in = stage + step % 2 * stage_floats + ty * row_floats;
        const float *w = stage + step % 2 * stage_floats + (tile_rows + tx) * row_floats;
        float sum[8][4];
#pragma unroll
        for (int i = 0; i < 8; i++)
#pragma unroll
            for (int j = 0; j < 4; j++) sum[i][j] = 0.f;
#pragma unroll
        for (int k = 0; k < depth; k += 4) {
            float b[4][4];
#pragma unroll
            for (int j = 0; j < 4; j++) load4(b[j], w + 16 * j * row_floats + k);
#pragma unroll
            for (int i = 0; i < 8; i++) {
                float a[4];
                load4(a, in + 16 * i * row_floats + k);
#pragma unroll
                for (int e = 0; e < 4; e++)
#pragma unroll
                    for (int j = 0; j < 4; j++) sum[i][j] = fmaf(a[e], b[j][e], sum[i][j]);
            }
        }
#pragma unroll
        for (int i = 0; i < 8; i++)
#pragma unroll
            for (int j = 0; j < 4; j++) total[i][j] += sum[i][j];
    }

#pragma unroll
    for (int i = 0; i < 8; i++) {
        const int row = at.row + ty + 16 * i;
        if (row >= p.rows) continue;
#pragma unroll
        for (int j = 0; j < (epilogue == with_geglu ? 2 : 4); j++) {
            const int col = at.col + tx + 16 * j;
            if (col < p.cols) finish<epilogue>(p, row, col, total[i][epilogue == with_geglu ? j + 2 : j], total[i][j]);
        }
    }
}

} // namespace

#define GEMM(name, epilogue)                                                                                         \
    KERNEL(256, 1, name, const float *in, const float *w, const float *bias, const float *add, float *out32,         \
           float *out, int M, int N, int K) {                                                                        \
        multiply<epilogue>({in, w, bias, add, out32, out, M, N, K});                                                 \
    }

GEMM(gemm_fp32, plain)
GEMM(gemm_gelu_fp32, with_gelu)
GEMM(gemm_geglu_fp32, with_geglu)
