// Mean pooling over a range of each sequence's rows.
#include "device.cuh"

// pool averages the rows of each sequence from ranges[s].x to ranges[s].y − 1. A block computes 32 columns of a
// sequence. Warp w adds the rows w, w + 8, w + 16, … of the range, and then the first warp adds the eight sums in
// order, so that the order of additions depends only on the number of rows in the range.
KERNEL(256, 1, pool, float *out, const float *in, const int2 *ranges, int cols, int sequences) {
    SHARED_ARRAY(float, partial, 8 * 32);
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, c = blockIdx.x * 32 + lane;
    for (int s = blockIdx.y; s < sequences; s += gridDim.y) {
        const int2 range = ranges[s];
        float sum = 0.f;
        if (c < cols)
            for (int row = range.x + warp; row < range.y; row += 8) sum += row_at(in, row, cols)[c];
        partial[warp * 32 + lane] = sum;
        __syncthreads();
        if (warp == 0 && c < cols) {
            float total = 0.f;
#pragma unroll
            for (int w = 0; w < 8; w++) total += partial[w * 32 + lane];
            row_at(out, s, cols)[c] = total / static_cast<float>(range.y - range.x);
        }
        __syncthreads();
    }
}
