// Any processor: plain loops, which compilers turn into what it has (SSE2, NEON).
#include "kernel.h"

#include <cmath>
#include <cstdlib>
#include <cstring>

namespace spade {
namespace {

constexpr int LANES = 4;
typedef float V __attribute__((vector_size(16)));

inline V load_some(const float* at, int n) {
    V v{};
    std::memcpy(&v, at, n * sizeof *at);
    return v;
}

inline float widened(uint16_t half) {
    const uint32_t sign = uint32_t(half & 0x8000) << 16, exponent = (half >> 10) & 31, part = half & 1023;
    uint32_t bits;
    float value;
    if (exponent == 0) {
        value = float(part) * 0x1p-24f;
        std::memcpy(&bits, &value, 4);
        bits |= sign;
    } else {
        bits = sign | (exponent == 31 ? 0x7f800000u : (exponent + 112) << 23) | part << 13;
    }
    std::memcpy(&value, &bits, 4);
    return value;
}
inline V load_some_half(const uint16_t* at, int n) {
    V v{};
    uint16_t some[LANES];
    std::memcpy(some, at, n * sizeof *at);
    for (int i = 0; i < n; i++) v[i] = widened(some[i]);
    return v;
}
inline V load_half(const uint16_t* at) { return load_some_half(at, LANES); }

inline float sum(V v) { return (v[0] + v[2]) + (v[1] + v[3]); }
inline float largest(V v) {
    const float a = v[0] > v[2] ? v[0] : v[2], b = v[1] > v[3] ? v[1] : v[3];
    return a > b ? a : b;
}

inline uint32_t passing(const float* excess, float limit) {
    uint32_t mask = 0;
    for (int c = 0; c < ROWS; c++) mask |= uint32_t(excess[c] <= limit) << c;
    return mask;
}

struct Integers {
    static constexpr int R = 2, B = 1;
    typedef int8_t Low;

    static void arrange(const int8_t* from, int width, Low* to) { std::memcpy(to, from, width); }
    static void begin() {}
    static void end() {}

    static inline uint32_t tile(const Low* low, int width, const float* a, const float* b, const float* limit,
                                const int32_t* start, const uint8_t* const* block, float (*out)[ROWS]) {
        const float* terms = reinterpret_cast<const float*>(block[0] + width * ROWS);
        uint32_t hits = 0;
        for (int r = 0; r < R; r++) {
            int32_t acc[ROWS];
            for (int c = 0; c < ROWS; c++) acc[c] = start[r];
            for (int k = 0; k < width; k += 4) {
                const uint8_t* rows = block[0] + k * ROWS;
                const int8_t* four = low + r * width + k;
                for (int c = 0; c < ROWS; c++)
                    acc[c] += rows[4 * c] * four[0] + rows[4 * c + 1] * four[1] + rows[4 * c + 2] * four[2] +
                              rows[4 * c + 3] * four[3];
            }
            bool pass = false;
            for (int c = 0; c < ROWS; c++) {
                out[r][c] = a[r] * terms[c] + b[r] * terms[ROWS + c] - float(acc[c]);
                pass |= out[r][c] <= limit[r];
            }
            hits |= uint32_t(pass) << r;
        }
        return hits;
    }
};

#include "pass.h"

}  // namespace

const Kernels plain_kernels = {"plain", 4, pack, search, direct};

}  // namespace spade
