// A cuBLASLt of plain loops. It refuses calls that cublasLt.h does not allow. It defines its own opaque objects and
// adds its work to the streams of the software GPU.
#include "device.h"

#include <stdlib.h>
#include <string.h>

#include <atomic>
#include <memory>
#include <vector>

using softgpu::Fault;

namespace {

enum Status { ok = 0, not_initialized_status = 1, invalid_value_status = 7, not_supported = 15, execution_failed = 13 };
enum Type { float32 = 0, float16 = 2, bfloat16 = 14 };

struct Description {
    int transposed_a = 0, transposed_b = 0;
    unsigned epilogue = 1;
    uint64_t bias = 0;
    int bias_type = -1;
};
struct Layout {
    int type;
    uint64_t rows, cols;
    int64_t ld;
    size_t element() const { return type == float32 ? 4 : 2; }
    size_t bytes() const { return ((cols - 1) * ld + rows) * element(); }
};
struct Preference {
    uint64_t workspace = 0;
    unsigned reduction = 7;
};

// Algorithm is the content of the 64 opaque bytes of a cublasLtMatmulAlgo_t. magic marks it as made by this library.
struct Algorithm {
    uint64_t magic;
    int id, tile, splits, reduction, stages, inner, cluster;
    unsigned char unused[64 - 8 - 7 * 4];
};
static_assert(sizeof(Algorithm) == 64, "cublasLtMatmulAlgo_t has 64 bytes");
constexpr uint64_t magic = 0x736f6674677075;

struct Result {
    Algorithm algorithm;
    size_t workspace;
    int state;
    float waves;
    int reserved[4];
};
static_assert(sizeof(Result) == 96, "cublasLtMatmulHeuristicResult_t has 96 bytes");

float load(int type, const unsigned char *p, size_t i) {
    if (type == float32) {
        float v;
        memcpy(&v, p + 4 * i, 4);
        return v;
    }
    uint16_t bits;
    memcpy(&bits, p + 2 * i, 2);
    return type == bfloat16 ? softgpu::from_bf16(bits) : softgpu::from_fp16(bits);
}

void store(int type, unsigned char *p, size_t i, float v) {
    if (type == float32) {
        memcpy(p + 4 * i, &v, 4);
        return;
    }
    const uint16_t bits = type == bfloat16 ? softgpu::to_bf16(v) : softgpu::to_fp16(v);
    memcpy(p + 2 * i, &bits, 2);
}

unsigned char *at(uint64_t address) { return reinterpret_cast<unsigned char *>(address); }

// accepts checks the descriptors of a product.
Status accepts(const Description &d, const Layout &a, const Layout &b, const Layout &c, const Layout &out) {
    if (d.transposed_a != 1 || d.transposed_b != 0) return not_supported;
    if (a.rows != b.rows || a.cols != out.rows || b.cols != out.cols) return invalid_value_status;
    if (a.type != b.type || c.type != out.type || c.rows != out.rows || c.cols != out.cols || c.ld != out.ld) return not_supported;
    if (out.type != a.type && out.type != float32) return not_supported;
    if (a.ld % 8 != 0 || b.ld % 8 != 0 || out.ld % 8 != 0) return not_supported; // kernels load 16 bytes at a time
    if (d.epilogue == 4 && d.bias_type != out.type) return not_supported;
    if (d.epilogue != 1 && d.epilogue != 4) return not_supported;
    return ok;
}

Algorithm algorithm(int id, int splits) { return {magic, id, 20, splits, splits > 1 ? 2 : 0, 0, 0, 0, {}}; }

// Product is one call of cublasLtMatmul, with copies of all arguments that the caller may change afterwards.
struct Product {
    Description description;
    Layout a, b, c, out;
    uint64_t at_a, at_b, at_c, at_out;
    float beta;

    Fault run() const;
};

// rows_at_once is the number of output rows that are computed in one pass over the weights.
constexpr size_t rows_at_once = 8;

// run computes each element with sixteen partial sums, over k in steps of sixteen, so that an element's bits depend
// neither on the number of rows nor on the element's position.
Fault Product::run() const {
    const size_t n = out.rows, rows = out.cols, k = a.rows, padded = (k + 15) / 16 * 16;
    std::vector<float> weights(n * padded);
    for (size_t i = 0; i < n; i++)
        for (size_t e = 0; e < k; e++) weights[i * padded + e] = load(a.type, at(at_a), i * a.ld + e);
    softgpu_parallel((rows + rows_at_once - 1) / rows_at_once, [&](uint64_t group) {
        std::vector<float> inputs(rows_at_once * padded);
        const size_t first = group * rows_at_once, count = std::min(rows_at_once, rows - first);
        for (size_t r = 0; r < count; r++)
            for (size_t e = 0; e < k; e++) inputs[r * padded + e] = load(b.type, at(at_b), (first + r) * b.ld + e);
        for (size_t i = 0; i < n; i++) {
            float parts[rows_at_once][16] = {};
            const float *w = &weights[i * padded];
            for (size_t e = 0; e < padded; e += 16)
                for (size_t r = 0; r < rows_at_once; r++)
                    for (size_t p = 0; p < 16; p++) parts[r][p] = __builtin_fmaf(w[e + p], inputs[r * padded + e + p], parts[r][p]);
            for (size_t r = 0; r < count; r++) {
                float sum = 0;
                for (const float part : parts[r]) sum += part;
                const size_t index = (first + r) * out.ld + i;
                if (description.epilogue == 4) sum += load(out.type, at(description.bias), i);
                if (beta != 0.f) sum += load(out.type, at(at_c), index);
                store(out.type, at(at_out), index, sum);
            }
        }
    });
    return Fault();
}

} // namespace

extern "C" {

size_t cublasLtGetVersion(void) { return 130100; }

int cublasLtCreate(void **handle) {
    if (!softgpu_current()) return not_initialized_status;
    *handle = malloc(8);
    return ok;
}
int cublasLtDestroy(void *handle) {
    free(handle);
    return ok;
}

int cublasLtMatmulDescCreate(Description **d, int compute, int scale) {
    if (compute != 68 || scale != float32) return not_supported; // 68 is CUBLAS_COMPUTE_32F
    *d = new Description;
    return ok;
}
int cublasLtMatmulDescDestroy(Description *d) {
    delete d;
    return ok;
}
int cublasLtMatmulDescSetAttribute(Description *d, int attribute, const void *value, size_t bytes) {
    void *to = nullptr;
    size_t size = 4;
    switch (attribute) {
    case 3: to = &d->transposed_a; break;
    case 4: to = &d->transposed_b; break;
    case 7: to = &d->epilogue; break;
    case 8: to = &d->bias, size = 8; break;
    case 26: to = &d->bias_type; break;
    }
    if (to == nullptr || bytes != size) return invalid_value_status;
    memcpy(to, value, size);
    return ok;
}

int cublasLtMatrixLayoutCreate(Layout **l, int type, uint64_t rows, uint64_t cols, int64_t ld) {
    if (type != float32 && type != float16 && type != bfloat16) return not_supported;
    if (rows == 0 || cols == 0 || ld < static_cast<int64_t>(rows)) return invalid_value_status;
    *l = new Layout{type, rows, cols, ld};
    return ok;
}
int cublasLtMatrixLayoutDestroy(Layout *l) {
    delete l;
    return ok;
}
int cublasLtMatrixLayoutSetAttribute(Layout *l, int attribute, const void *value, size_t bytes) {
    if (attribute != 3 || bytes != 8) return invalid_value_status;
    memcpy(&l->cols, value, 8);
    return ok;
}

int cublasLtMatmulPreferenceCreate(Preference **p) {
    *p = new Preference;
    return ok;
}
int cublasLtMatmulPreferenceDestroy(Preference *p) {
    delete p;
    return ok;
}
int cublasLtMatmulPreferenceSetAttribute(Preference *p, int attribute, const void *value, size_t bytes) {
    if (attribute == 1 && bytes == 8) memcpy(&p->workspace, value, 8);
    else if (attribute == 3 && bytes == 4) memcpy(&p->reduction, value, 4);
    else return invalid_value_status;
    return ok;
}

// If the workspace is large enough, the first algorithm offered splits the inner dimension. Callers that need the same
// bits for every batch must skip it.
int cublasLtMatmulAlgoGetHeuristic(void *, const Description *d, const Layout *a, const Layout *b, const Layout *c, const Layout *out,
                                   const Preference *p, int wanted, Result *found, int *count) {
    if (wanted < 1) return invalid_value_status;
    if (const Status s = accepts(*d, *a, *b, *c, *out)) return s;
    *count = 0;
    if (p->workspace >= size_t(4) << 20) found[(*count)++] = {algorithm(66, 2), size_t(4) << 20, ok, 0.5f, {}};
    if (*count < wanted) found[(*count)++] = {algorithm(66, 1), 0, ok, 1.f, {}};
    return ok;
}

int cublasLtMatmulAlgoConfigGetAttribute(const Algorithm *a, int attribute, void *value, size_t bytes, size_t *written) {
    if (a->magic != magic) return invalid_value_status;
    const std::map<int, int> attributes = {{0, a->id}, {1, a->tile}, {2, a->splits}, {3, a->reduction}, {6, a->stages}};
    const auto known = attributes.find(attribute);
    if (known != attributes.end() && bytes == 4) {
        memcpy(value, &known->second, 4);
        *written = 4;
        return ok;
    }
    if ((attribute == 7 || attribute == 8) && bytes == 2) { // inner and cluster shape are 16 bits
        const uint16_t v = static_cast<uint16_t>(attribute == 7 ? a->inner : a->cluster);
        memcpy(value, &v, 2);
        *written = 2;
        return ok;
    }
    return invalid_value_status;
}

int cublasLtMatmulAlgoCheck(void *, const Description *d, const Layout *a, const Layout *b, const Layout *c, const Layout *out,
                            const Algorithm *algo, Result *found) {
    if (algo->magic != magic) return invalid_value_status;
    if (softgpu_refuses(out->cols)) return not_supported;
    found->workspace = algo->splits > 1 ? size_t(4) << 20 : 0;
    return accepts(*d, *a, *b, *c, *out);
}

int cublasLtMatmul(void *handle, const Description *d, const float *alpha, uint64_t at_a, const Layout *a, uint64_t at_b,
                   const Layout *b, const float *beta, uint64_t at_c, const Layout *c, uint64_t at_out, const Layout *out,
                   const Algorithm *algo, uint64_t workspace, size_t workspace_bytes, void *stream) {
    if (handle == nullptr || !softgpu_current()) return not_initialized_status;
    if (const Status s = accepts(*d, *a, *b, *c, *out)) return s;
    if (algo->magic != magic || *alpha != 1.f) return invalid_value_status;
    if (at_a % 16 != 0 || at_b % 16 != 0 || at_c % 16 != 0 || at_out % 16 != 0) return invalid_value_status;
    const auto holds = [](const char *what, uint64_t address, size_t bytes) {
        if (softgpu_left(address) >= bytes) return true;
        fprintf(stderr, "softgpu: cublasLtMatmul: %s needs %zu bytes, beyond its allocation\n", what, bytes);
        return false;
    };
    if (!holds("A", at_a, a->bytes()) || !holds("B", at_b, b->bytes()) || !holds("D", at_out, out->bytes()) ||
        (*beta != 0.f && !holds("C", at_c, c->bytes())) || (d->epilogue == 4 && !holds("the bias", d->bias, out->rows * out->element())) ||
        (workspace_bytes > 0 && !holds("the workspace", workspace, workspace_bytes)))
        return execution_failed;
    const auto product = std::make_shared<Product>(Product{*d, *a, *b, *c, *out, at_a, at_b, at_c, at_out, *beta});
    return softgpu_enqueue(stream, [product] { return product->run(); }) == 0 ? ok : execution_failed;
}

} // extern "C"
