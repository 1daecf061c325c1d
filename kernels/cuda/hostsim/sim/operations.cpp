// Warp operations on what 32 lanes brought, and rounding to 16-bit types.
#include "block.h"

namespace hostsim {

namespace {

uint32_t bits_of(float v) {
    uint32_t bits;
    memcpy(&bits, &v, 4);
    return bits;
}

float float_of(uint32_t bits) {
    float v;
    memcpy(&v, &bits, 4);
    return v;
}

uint16_t element(const void *row, int column) {
    uint16_t bits;
    memcpy(&bits, static_cast<const unsigned char *>(row) + 2 * column, 2);
    return bits;
}

void load_matrices(void *(&lanes)[32], bool transposed) {
    for (int i = 0; i < 32; i++) check_shared(static_cast<Matrices *>(lanes[i])->row, 16, 16);
    for (int lane = 0; lane < 32; lane++) {
        Matrices &out = *static_cast<Matrices *>(lanes[lane]);
        for (int m = 0; m < 4; m++) {
            const int r = lane / 4, c = 2 * (lane % 4);
            uint16_t lo, hi;
            if (transposed) {
                lo = element(static_cast<Matrices *>(lanes[8 * m + c])->row, r);
                hi = element(static_cast<Matrices *>(lanes[8 * m + c + 1])->row, r);
            } else {
                lo = element(static_cast<Matrices *>(lanes[8 * m + r])->row, c);
                hi = element(static_cast<Matrices *>(lanes[8 * m + r])->row, c + 1);
            }
            out.r[m] = lo | static_cast<uint32_t>(hi) << 16;
        }
    }
}

// multiply is mma.m16n8k16 by the layouts of the PTX manual: products exact,
// their sum with c rounded once.
template <float (*widen)(uint16_t)>
void multiply(void *(&lanes)[32]) {
    float a[16][16], b[8][16]; // b by columns
    for (int lane = 0; lane < 32; lane++) {
        const Product &p = *static_cast<Product *>(lanes[lane]);
        const int g = lane / 4, j = 2 * (lane % 4);
        for (int half = 0; half < 2; half++) {
            for (int i = 0; i < 4; i++)
                a[g + 8 * (i % 2)][j + 8 * (i / 2) + half] = widen(static_cast<uint16_t>(p.a[i] >> 16 * half));
            for (int i = 0; i < 2; i++) b[g][j + 8 * i + half] = widen(static_cast<uint16_t>(p.b[i] >> 16 * half));
        }
    }
    for (int lane = 0; lane < 32; lane++) {
        const Product &p = *static_cast<Product *>(lanes[lane]);
        for (int i = 0; i < 4; i++) {
            const float *row = a[lane / 4 + 8 * (i / 2)], *column = b[2 * (lane % 4) + i % 2];
            double sum = p.c[i];
            for (int k = 0; k < 16; k++) sum += static_cast<double>(row[k]) * column[k];
            p.c[i] = static_cast<float>(sum);
        }
    }
}

} // namespace

float widen_bf16(uint16_t bits) { return float_of(static_cast<uint32_t>(bits) << 16); }

float widen_fp16(uint16_t bits) {
    const int exponent = bits >> 10 & 31, fraction = bits & 1023;
    float size = exponent == 31 ? (fraction ? NAN : INFINITY)
                 : exponent == 0 ? ldexpf(fraction, -24)
                                 : float_of((exponent + 112) << 23 | fraction << 13);
    return bits >> 15 ? -size : size;
}

uint16_t round_bf16(float v) {
    const uint32_t bits = bits_of(v);
    if (v != v) return 0x7fff;
    return (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}

uint16_t round_fp16(float v) {
    const uint16_t sign = bits_of(v) >> 16 & 0x8000;
    if (v != v) return 0x7fff;
    const float size = fabsf(v);
    if (size >= 65520.f) return sign | 0x7c00;
    // adding and taking away a power of two rounds to its last place, to even
    int exponent;
    frexpf(size, &exponent);
    const int place = size < 0x1p-14f ? -24 : exponent - 11;
    const int steps = static_cast<int>(nearbyintf(ldexpf(size, -place)));
    return sign | (place == -24 && steps < 1024 ? steps : ((place + 25) << 10) - 1024 + steps);
}

void shuffle_step(void *(&lanes)[32]) {
    for (int lane = 0; lane < 32; lane++) {
        Shuffle &s = *static_cast<Shuffle *>(lanes[lane]);
        s.result = static_cast<Shuffle *>(lanes[(lane ^ s.mask) & 31])->value;
    }
}

void ldmatrix_step(void *(&lanes)[32]) { load_matrices(lanes, false); }
void ldmatrix_transposed_step(void *(&lanes)[32]) { load_matrices(lanes, true); }
void mma_bf16_step(void *(&lanes)[32]) { multiply<widen_bf16>(lanes); }
void mma_fp16_step(void *(&lanes)[32]) { multiply<widen_fp16>(lanes); }

} // namespace hostsim
