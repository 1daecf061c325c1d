// Parts that the float32 and the 16-bit matrix products share: their parameters, and the assignment of output tiles to
// blocks.
#pragma once

#include "device.cuh"

// An Epilogue is the activation that a product applies to In·Wᵀ + bias: none, GELU or GEGLU.
enum Epilogue { plain, with_gelu, with_geglu };

// A Product has the parameters of Out = epilogue(In·Wᵀ + bias) + add. For GEGLU, the first cols rows of W give the
// gates, the next cols rows give the values, and the epilogue returns GELU(gate)·value.
template <class T>
struct Product {
    const T *in;       // In, [rows, depth]
    const T *w;        // W, [cols, depth]; [2·cols, depth] for GEGLU
    const float *bias; // [cols], [2·cols] for GEGLU, or null
    const float *add;  // [rows, cols] or null; may be the same memory as out32
    float *out32;      // Out in float32, [rows, cols], or null
    T *out;            // Out rounded to T, [rows, cols], or null
    int rows, cols, depth;
};

// A Tile is the part of the output that one block computes.
struct Tile {
    int row, col; // row and column of the tile's first element in the output
};

// place returns the tile of this block. Consecutive blocks take up to 8 tiles below each other and then continue in the
// next column of tiles, so that blocks that run at the same time share inputs and weights in the L2 cache.
__device__ __forceinline__ Tile place(int rows, int cols, int tile_rows, int tile_cols) {
    const int down = ceil_div(rows, tile_rows), across = ceil_div(cols, tile_cols), band = 8 * across;
    const int first = static_cast<int>(blockIdx.x) / band * 8, high = min(down - first, 8), in_band = blockIdx.x % band;
    return {(first + in_band % high) * tile_rows, in_band / high * tile_cols};
}
