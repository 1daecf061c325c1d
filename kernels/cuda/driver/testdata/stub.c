// A libcuda and a libcublasLt in one library. The functions only record their arguments, so that a test can check what
// C receives.
#include <dlfcn.h>
#include <stdint.h>
#include <stdlib.h>

static uint64_t seen[24];

uint64_t seen_at(int i) { return seen[i]; }

static int note(int n, const uint64_t *values) {
    for (int i = 0; i < 24; i++) seen[i] = i < n ? values[i] : 0;
    return 0;
}
// opens tells whether the library can load another by name, as the driver loads its PTX compiler.
int opens(const char *name) { return dlopen(name, RTLD_NOW) != 0; }

#define NOTE(...) note(sizeof((uint64_t[]){__VA_ARGS__}) / 8, (uint64_t[]){__VA_ARGS__})
#define U(x) ((uint64_t)(x))

int cuInit(unsigned flags) { return NOTE(flags) + 100; }
int cuDriverGetVersion(int *version) { *version = 12040; return 0; }
int cuDeviceGetCount(int *count) { *count = 3; return 0; }
int cuDeviceGet(int *device, int ordinal) { *device = ordinal + 40; return 0; }
int cuDeviceGetName(char *name, int size, int device) { name[0] = 'G', name[1] = 0; return NOTE(size, device); }
int cuDeviceGetAttribute(int *value, int attribute, int device) { *value = attribute * 100 + device; return 0; }
int cuDeviceTotalMem_v2(size_t *bytes, int device) { *bytes = (size_t)device << 33; return 0; }
int cuDevicePrimaryCtxRetain(void **context, int device) { *context = (void *)(0x1000 + (size_t)device); return 0; }
int cuDevicePrimaryCtxRelease_v2(int device) { return NOTE(device); }
int cuCtxSetCurrent(void *context) { return NOTE(U(context)); }
int cuMemGetInfo_v2(size_t *free, size_t *total) { *free = 1ull << 40, *total = 1ull << 41; return 0; }
int cuMemAlloc_v2(uint64_t *p, size_t bytes) { *p = 0x7f1234567890, NOTE(bytes); return 0; }
int cuMemFree_v2(uint64_t p) { return NOTE(p); }
int cuMemAllocHost_v2(void **p, size_t bytes) { *p = malloc(bytes); return 0; }
int cuMemFreeHost(void *p) { free(p); return 0; }
int cuMemcpyHtoDAsync_v2(uint64_t dst, const void *src, size_t bytes, void *stream) { return NOTE(dst, *(const uint64_t *)src, bytes, U(stream)); }
int cuMemcpyDtoHAsync_v2(void *dst, uint64_t src, size_t bytes, void *stream) { *(uint64_t *)dst = src; return NOTE(bytes, U(stream)); }
int cuModuleLoadDataEx(void **module, const void *image, unsigned n, int *keys, void **values) {
    *module = (void *)0x2000;
    return NOTE(*(const char *)image, n, U(keys[0]), U(keys[1]), U(values[0]), U(values[1]));
}
int cuModuleUnload(void *module) { return NOTE(U(module)); }
int cuModuleGetFunction(void **function, void *module, const char *name) { *function = (void *)0x3000; return NOTE(U(module), name[0], name[1], name[2]); }
int cuFuncSetAttribute(void *function, int attribute, int value) { return NOTE(U(function), attribute, value); }
int cuStreamCreate(void **stream, unsigned flags) { *stream = (void *)0x4000; return NOTE(flags); }
int cuStreamDestroy_v2(void *stream) { return NOTE(U(stream)); }
int cuStreamSynchronize(void *stream) { return NOTE(U(stream)); }
int cuStreamWaitEvent(void *stream, void *event, unsigned flags) { return NOTE(U(stream), U(event), flags); }
int cuEventCreate(void **event, unsigned flags) { *event = (void *)0x5000; return NOTE(flags); }
int cuEventDestroy_v2(void *event) { return NOTE(U(event)); }
int cuEventRecord(void *event, void *stream) { return NOTE(U(event), U(stream)); }
int cuEventElapsedTime(float *ms, void *start, void *end) { *ms = 1.5f; return NOTE(U(start), U(end)); }
int cuEventSynchronize(void *event) { return NOTE(U(event)) + 700; }

int cuLaunchKernel(void *f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned shared, void *stream, void **params, void **extra) {
    return NOTE(U(f), gx, gy, gz, bx, by, bz, shared, U(stream), U(extra), *(uint64_t *)params[0], *(uint32_t *)params[1], *(uint32_t *)params[2], *(uint64_t *)params[15]);
}

size_t cublasLtGetVersion(void) { return 120405; }
int cublasLtCreate(void **handle) { *handle = (void *)0x6000; return 0; }
int cublasLtDestroy(void *handle) { return NOTE(U(handle)); }
int cublasLtMatmulDescCreate(void **desc, int compute, int scale) { *desc = (void *)0x7000; return NOTE(compute, scale); }
int cublasLtMatmulDescDestroy(void *desc) { return NOTE(U(desc)); }
int cublasLtMatmulDescSetAttribute(void *desc, int attribute, const void *value, size_t bytes) { return NOTE(U(desc), attribute, *(const uint32_t *)value, bytes); }
int cublasLtMatrixLayoutCreate(void **layout, int type, uint64_t rows, uint64_t cols, int64_t ld) { *layout = (void *)0x8000; return NOTE(type, rows, cols, U(ld)); }
int cublasLtMatrixLayoutDestroy(void *layout) { return NOTE(U(layout)); }
int cublasLtMatrixLayoutSetAttribute(void *layout, int attribute, const void *value, size_t bytes) { return NOTE(U(layout), attribute, *(const uint64_t *)value, bytes); }
int cublasLtMatmulPreferenceCreate(void **preference) { *preference = (void *)0x9000; return 0; }
int cublasLtMatmulPreferenceDestroy(void *preference) { return NOTE(U(preference)); }
int cublasLtMatmulPreferenceSetAttribute(void *preference, int attribute, const void *value, size_t bytes) { return NOTE(U(preference), attribute, *(const uint64_t *)value, bytes); }

typedef struct { uint64_t data[8]; } algo_t;
typedef struct { algo_t algo; size_t workspace; int state; float waves; int reserved[4]; } result_t;

int cublasLtMatmulAlgoGetHeuristic(void *lt, void *desc, void *a, void *b, void *c, void *d, void *preference, int wanted, result_t *found, int *count) {
    for (int i = 0; i < wanted; i++) found[i] = (result_t){.algo = {{100 + i}}, .workspace = 200 + i, .state = i, .waves = 0.5f};
    *count = wanted;
    return NOTE(U(lt), U(desc), U(a), U(b), U(c), U(d), U(preference), wanted);
}
int cublasLtMatmulAlgoConfigGetAttribute(const algo_t *algo, int attribute, void *value, size_t bytes, size_t *written) {
    *(uint32_t *)value = attribute + (uint32_t)algo->data[0], *written = bytes;
    return 0;
}
int cublasLtMatmulAlgoCheck(void *lt, void *desc, void *a, void *b, void *c, void *d, const algo_t *algo, result_t *found) {
    found->workspace = 4321;
    return NOTE(U(lt), U(desc), U(a), U(b), U(c), U(d), algo->data[7]);
}
int cublasLtMatmul(void *lt, void *desc, const void *alpha, const void *a, void *al, const void *b, void *bl, const void *beta, const void *c, void *cl, void *d, void *dl,
                   const algo_t *algo, void *workspace, size_t bytes, void *stream) {
    return NOTE(U(lt), U(desc), *(const uint32_t *)alpha, U(a), U(al), U(b), U(bl), *(const uint32_t *)beta, U(c), U(cl), U(d), U(dl), algo->data[7], U(workspace), bytes, U(stream)) + 13;
}
