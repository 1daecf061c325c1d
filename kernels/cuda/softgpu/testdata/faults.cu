// Kernels with one fault each, and the correct form of each. faults.ptx is compiled by
//
//	nvcc -std=c++17 -O3 -arch=compute_80 -I../../src -ptx -o faults.ptx faults.cu
#include "device.cuh"

// rotate moves values through shared memory from one thread to the next.
template <bool barrier>
__device__ void rotate(float *x) {
    SHARED_ARRAY(float, shared, 64);
    shared[threadIdx.x] = x[threadIdx.x];
    if (barrier) __syncthreads();
    x[threadIdx.x] = shared[(threadIdx.x + 33) % 64];
}
KERNEL(64, 1, rotate_right, float *x) { rotate<true>(x); }
KERNEL(64, 1, rotate_without_barrier, float *x) { rotate<false>(x); }

// reverse does the same inside a warp.
template <bool barrier>
__device__ void reverse(float *x) {
    SHARED(shared);
    float *const lanes = reinterpret_cast<float *>(shared);
    lanes[threadIdx.x] = x[threadIdx.x];
    if (barrier) __syncwarp();
    x[threadIdx.x] = lanes[31 - threadIdx.x];
}
KERNEL(32, 1, reverse_right, float *x) { reverse<true>(x); }
KERNEL(32, 1, reverse_without_barrier, float *x) { reverse<false>(x); }

// stage copies 16 bytes a thread through shared memory and back.
template <int left, bool barrier>
__device__ void stage(float *x) {
    SHARED(shared);
    float *const mine = reinterpret_cast<float *>(shared) + 4 * threadIdx.x;
    copy_async(mine, x + 4 * threadIdx.x, 16);
    copy_commit();
    copy_wait<left>();
    if (barrier) __syncthreads();
    float v[4];
    load4(v, reinterpret_cast<float *>(shared) + 4 * (31 - threadIdx.x));
    copy_wait<0>();
    __syncthreads();
    store4(x + 4 * threadIdx.x, v);
}
KERNEL(32, 1, stage_right, float *x) { stage<0, true>(x); }
KERNEL(32, 1, stage_without_wait, float *x) { stage<1, true>(x); }
KERNEL(32, 1, stage_without_barrier, float *x) { stage<0, false>(x); }

// reuse begins a copy into shared memory that other threads may still read.
template <bool barrier>
__device__ void reuse(float *x) {
    SHARED(shared);
    float *const all = reinterpret_cast<float *>(shared);
    float v[4], w[4];
    load4(v, x + 4 * threadIdx.x);
    store4(all + 4 * threadIdx.x, v);
    __syncthreads();
    load4(w, all + 4 * (63 - threadIdx.x));
    if (barrier) __syncthreads();
    copy_async(all + 4 * threadIdx.x, x + 256 + 4 * threadIdx.x, 16);
    copy_commit();
    copy_wait<0>();
    store4(x + 4 * threadIdx.x, w);
}
KERNEL(64, 1, reuse_right, float *x) { reuse<true>(x); }
KERNEL(64, 1, reuse_too_early, float *x) { reuse<false>(x); }

KERNEL(32, 1, leave_copies, float *x) {
    SHARED(shared);
    copy_async(shared + 16 * threadIdx.x, x + 4 * threadIdx.x, 16);
    copy_commit();
}
KERNEL(32, 1, copy_beyond, float *x) {
    SHARED(shared);
    copy_async(shared + 16 * threadIdx.x, x + 512 - 4 * 31 + 4 * threadIdx.x, 16);
    copy_commit();
    copy_wait<0>();
}
KERNEL(32, 1, read_beyond, float *x) { x[0] = x[512 + threadIdx.x]; }
KERNEL(32, 1, write_before, float *x) { x[-1 - static_cast<int>(threadIdx.x)] = 1.f; }
KERNEL(32, 1, write_beyond_shared, float *x) {
    SHARED(shared);
    shared[1024 + threadIdx.x] = 1;
    x[0] = shared[1024];
}
KERNEL(32, 1, read_early, float *x) { x[0] = x[-64 * 1024 * 1024]; }
KERNEL(32, 1, misaligned, float *x) {
    float v[4];
    load4(v, x + 1 + threadIdx.x);
    x[0] = v[0] + v[1] + v[2] + v[3];
}
KERNEL(64, 1, half_at_barrier, float *x) {
    if (threadIdx.x < 32) __syncthreads();
    x[threadIdx.x] = 1.f;
}
KERNEL(32, 1, half_in_shuffle, float *x) {
    if (threadIdx.x < 16) x[threadIdx.x] = warp_sum(x[threadIdx.x]);
}
