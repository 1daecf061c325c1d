// Kernels that apply an activation to a product that cuBLAS has computed, and kernels that convert between float32 and
// 16-bit types.
#include "device.cuh"

// activate_rows replaces x by GELU(x + bias). A thread takes eight columns of two rows at a time, so that it waits only
// once for the loads of both rows.
template <class T>
__device__ __forceinline__ void activate_rows(T *x, const float *bias, int rows, int cols) {
    const int c = 8 * (blockIdx.x * blockDim.x + threadIdx.x);
    if (c >= cols) return;
    float low[4] = {0.f, 0.f, 0.f, 0.f}, high[4] = {0.f, 0.f, 0.f, 0.f};
    if (bias != nullptr) {
        load_vector4(low, bias, c, cols);
        load_vector4(high, bias, c + 4, cols);
    }
    for (int row = blockIdx.y; row < rows; row += 2 * gridDim.y) {
        const int other = row + gridDim.y;
        T *const at[2] = {row_at(x, row, cols) + c, row_at(x, other < rows ? other : row, cols) + c};
        float v[2][8];
        load8(v[0], at[0]);
        load8(v[1], at[1]);
#pragma unroll
        for (int i = 0; i < 2; i++) {
#pragma unroll
            for (int e = 0; e < 8; e++) v[i][e] = gelu<T>(v[i][e] + (e < 4 ? low[e % 4] : high[e % 4]));
            if (i == 0 || other < rows) store8(at[i], v[i]);
        }
    }
}

// gate_rows computes GELU(gate)·value: the first cols columns of in are the gates, the next cols columns the values. A
// thread takes eight columns of two rows at a time, so that it waits only once for the loads of both rows.
template <class T>
__device__ __forceinline__ void gate_rows(T *out, const T *in, int rows, int cols) {
    const int c = 8 * (blockIdx.x * blockDim.x + threadIdx.x);
    if (c >= cols) return;
    for (int row = blockIdx.y; row < rows; row += 2 * gridDim.y) {
        const int other = row + gridDim.y, at[2] = {row, other < rows ? other : row};
        float g[2][8], u[2][8];
        if (cols % 8 == 0) {
#pragma unroll
            for (int i = 0; i < 2; i++) {
                load8(g[i], row_at(in, at[i], 2 * cols) + c);
                load8(u[i], row_at(in, at[i], 2 * cols) + c + cols);
            }
        } else { // load8 needs 16-byte alignment, which the values may lack
#pragma unroll
            for (int i = 0; i < 2; i++) {
                const T *from = row_at(in, at[i], 2 * cols) + c;
#pragma unroll
                for (int e = 0; e < 8; e++) {
                    g[i][e] = c + e < cols ? to_float(from[e]) : 0.f;
                    u[i][e] = c + e < cols ? to_float(from[e + cols]) : 0.f;
                }
            }
        }
#pragma unroll
        for (int i = 0; i < 2; i++) {
#pragma unroll
            for (int e = 0; e < 8; e++) g[i][e] = gelu<T>(g[i][e]) * u[i][e];
            if (i == 0 || other < rows) store8(row_at(out, at[i], cols) + c, g[i]);
        }
    }
}

template <class To, class From>
__device__ __forceinline__ void convert(To *dst, const From *src, int rows, int cols, int dst_pitch, int src_pitch) {
    const int c = blockIdx.x * blockDim.x + threadIdx.x;
    if (c >= cols) return;
    for (int row = blockIdx.y; row < rows; row += gridDim.y)
        set(dst[static_cast<size_t>(row) * dst_pitch + c], to_float(src[static_cast<size_t>(row) * src_pitch + c]));
}

#define ELEMENTWISE(T, suffix)                                                                                       \
    KERNEL(128, 1, activate_##suffix, T *x, const float *bias, int rows, int cols) {                                 \
        activate_rows<T>(x, bias, rows, cols);                                                                       \
    }                                                                                                                \
    KERNEL(128, 1, gate_##suffix, T *out, const T *in, int rows, int cols) { gate_rows<T>(out, in, rows, cols); }

// CONVERT defines the kernels that convert float32 to T (narrow) and T to float32 (widen), for 16-bit types T.
#define CONVERT(T, suffix)                                                                                           \
    KERNEL(256, 1, narrow_##suffix, T *dst, const float *src, int rows, int cols, int dst_pitch, int src_pitch) {    \
        convert<T, float>(dst, src, rows, cols, dst_pitch, src_pitch);                                               \
    }                                                                                                                \
    KERNEL(256, 1, widen_##suffix, float *dst, const T *src, int rows, int cols, int dst_pitch, int src_pitch) {     \
        convert<float, T>(dst, src, rows, cols, dst_pitch, src_pitch);                                               \
    }

ELEMENTWISE(bf16, bf16)
ELEMENTWISE(fp16, fp16)
ELEMENTWISE(float, fp32)
CONVERT(bf16, bf16)
CONVERT(fp16, fp16)
