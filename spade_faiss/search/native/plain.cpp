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

inline V larger(V a, V b) { return a > b ? a : b; }
inline V smaller(V a, V b) { return a < b ? a : b; }
inline float sum(V v) { return (v[0] + v[2]) + (v[1] + v[3]); }
inline void sums(const V* v, float* out) {
    for (int i = 0; i < 4; i++) out[i] = sum(v[i]);
}
inline float largest(V v) {
    const float a = v[0] > v[2] ? v[0] : v[2], b = v[1] > v[3] ? v[1] : v[3];
    return a > b ? a : b;
}

inline uint32_t passing(V found, V needed) {
    uint32_t mask = 0;
    for (int i = 0; i < LANES; i++) mask |= uint32_t(found[i] >= needed[i]) << i;
    return mask;
}
inline uint32_t passing(const int32_t* found, int32_t needed) {
    uint32_t mask = 0;
    for (int c = 0; c < ROWS; c++) mask |= uint32_t(found[c] >= needed) << c;
    return mask;
}

// Four rows: their integers 0 and 2, or 1 and 3, in 16 bits each; and sums of 32 bits.
typedef int16_t Pairs __attribute__((vector_size(16)));
typedef int32_t Sums __attribute__((vector_size(16)));
typedef uint32_t Unsigned __attribute__((vector_size(16)));
static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "integers are taken from bytes in that order");

#include "pairs.h"

struct Tiles : InPairs {
    static constexpr int MULTIPLE = 4, R = 4, B = 1, GROUP = 32, PART = R;

    static inline Pairs twice(const Low* two) {
        int32_t both;
        std::memcpy(&both, two, 4);
        return (Pairs)(Sums{both, both, both, both});
    }

    // Products of 8 bits fit into 16; their sums do not.
    static inline Sums added(Pairs a, Pairs b) {
        const Sums product = (Sums)(a * b);
        return (product >> 16) + ((Sums)((Unsigned)product << 16) >> 16);
    }

    static inline uint32_t tile(const Low* low, int width, const int32_t* lack, const int32_t (*minus)[ROWS],
                                const uint8_t* const* block, int32_t (*found)[ROWS]) {
        bool any = false;
        for (int c = 0; c < ROWS; c += 4) {
            Sums acc[R] = {};
            for (int k = 0; k < width; k += 4) {
                Sums four;
                std::memcpy(&four, block[0] + k * ROWS + 4 * c, sizeof four);
                const Pairs even = (Pairs)(four & 0x00ff00ff), odd = (Pairs)((four >> 8) & 0x00ff00ff);
                for (int r = 0; r < R; r++)
                    acc[r] += added(even, twice(low + r * width + k)) + added(odd, twice(low + r * width + k + 2));
            }
            for (int r = 0; r < R; r++)
                for (int i = 0; i < 4; i++) {
                    found[r][c + i] = acc[r][i] + minus[0][c + i];
                    any |= found[r][c + i] >= -lack[r];
                }
        }
        return any;
    }
};

#include "pass.h"

}  // namespace

const Kernels plain_kernels = {"plain", Integers::MULTIPLE, 0, nullptr, pack<Integers>, search<Integers>, direct<Integers>};

}  // namespace spade
