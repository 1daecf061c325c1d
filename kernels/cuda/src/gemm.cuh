// What the products of both precisions share: their parameters, and where the
// tile of a block lies.
#pragma once

#include "device.cuh"

// What follows a product besides bias and residual.
enum Epilogue { plain, with_gelu, with_geglu };

// A Product is Out = epilogue(In·Wᵀ + bias) + add, as in README.md.
template <class T>
struct Product {
    const T *in;       // [rows, depth]
    const T *w;        // [cols, depth], twice as many rows for with_geglu
    const float *bias; // [cols], twice as many for with_geglu; or null
    const float *add;  // [rows, cols] or null; may be out32
    float *out32;      // [rows, cols] or null
    T *out;            // [rows, cols] or null
    int rows, cols, depth;
};

// A Tile is the place of a block: blocks run through bands of 8 tiles of rows
// column by column, so that those which run together share weights and inputs
// in the L2 cache.
struct Tile {
    int row, col; // of its first element
};

__device__ __forceinline__ Tile place(int rows, int cols, int tile_rows, int tile_cols) {
    const int down = ceil_div(rows, tile_rows), across = ceil_div(cols, tile_cols), band = 8 * across;
    const int first = static_cast<int>(blockIdx.x) / band * 8, high = min(down - first, 8), in_band = blockIdx.x % band;
    return {(first + in_band % high) * tile_rows, in_band / high * tile_cols};
}
