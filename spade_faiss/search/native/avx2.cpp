// AVX2: integers are widened to 16 bits, of which an instruction multiplies 16.
#include "kernel.h"
#if defined(__x86_64__)
#include <cmath>
#include <cstdlib>
#include <cstring>
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function)
#else
#pragma GCC target("avx2,fma,f16c")
#endif
#include <immintrin.h>

namespace spade {
namespace {

constexpr int LANES = 8;
typedef float V __attribute__((vector_size(32)));

inline V load_some(const float* at, int n) {
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return (V)_mm256_maskload_ps(at, _mm256_cmpgt_epi32(_mm256_set1_epi32(n), lane));
}
inline V load_half(const uint16_t* at) { return (V)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)at)); }
inline V load_some_half(const uint16_t* at, int n) {
    uint16_t some[LANES] = {};
    std::memcpy(some, at, n * sizeof *at);
    return load_half(some);
}

inline float sum(V v) {
    __m128 four = _mm_add_ps(_mm256_castps256_ps128((__m256)v), _mm256_extractf128_ps((__m256)v, 1));
    four = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(four, _mm_movehdup_ps(four)));
}
inline float largest(V v) {
    __m128 four = _mm_max_ps(_mm256_castps256_ps128((__m256)v), _mm256_extractf128_ps((__m256)v, 1));
    four = _mm_max_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_max_ss(four, _mm_movehdup_ps(four)));
}

inline uint32_t passing(const float* excess, float limit) {
    uint32_t mask = 0;
    for (int h = 0; h < 2; h++)
        mask |= uint32_t(_mm256_movemask_ps(_mm256_cmp_ps(_mm256_loadu_ps(excess + 8 * h), _mm256_set1_ps(limit),
                                                          _CMP_LE_OQ)))
                << 8 * h;
    return mask;
}

#include "pairs.h"

struct Integers : InPairs {
    static constexpr int R = 4, B = 1;

    static inline __m256i pair(const Low* at) {
        int32_t two;
        std::memcpy(&two, at, 4);
        return _mm256_set1_epi32(two);
    }

    static inline uint32_t tile(const Low* low, int width, const float* a, const float* b, const float* limit,
                                const int32_t* start, const uint8_t* const* block, float (*out)[ROWS]) {
        __m256i acc[R][2];
        for (int r = 0; r < R; r++) acc[r][0] = acc[r][1] = _mm256_set1_epi32(start[r]);
        const __m256i low_byte = _mm256_set1_epi16(255);
        for (int k = 0; k < width; k += 4) {
            const __m256i* rows = reinterpret_cast<const __m256i*>(block[0] + k * ROWS);
            __m256i even[2], odd[2];
            for (int h = 0; h < 2; h++) {
                const __m256i both = _mm256_loadu_si256(rows + h);
                even[h] = _mm256_and_si256(both, low_byte);
                odd[h] = _mm256_srli_epi16(both, 8);
            }
            for (int r = 0; r < R; r++) {
                const __m256i first = pair(low + r * width + k), second = pair(low + r * width + k + 2);
                for (int h = 0; h < 2; h++)
                    acc[r][h] = _mm256_add_epi32(acc[r][h], _mm256_add_epi32(_mm256_madd_epi16(even[h], first),
                                                                             _mm256_madd_epi16(odd[h], second)));
            }
        }
        const float* terms = reinterpret_cast<const float*>(block[0] + width * ROWS);
        uint32_t hits = 0;
        for (int r = 0; r < R; r++) {
            const __m256 most = _mm256_set1_ps(limit[r]);
            __m256 pass = _mm256_setzero_ps();
            for (int h = 0; h < 2; h++) {
                const __m256 inverse = _mm256_loadu_ps(terms + 8 * h), term = _mm256_loadu_ps(terms + ROWS + 8 * h);
                const __m256 excess = _mm256_fmadd_ps(
                    _mm256_set1_ps(b[r]), term,
                    _mm256_fmsub_ps(_mm256_set1_ps(a[r]), inverse, _mm256_cvtepi32_ps(acc[r][h])));
                _mm256_store_ps(out[r] + 8 * h, excess);
                pass = _mm256_or_ps(pass, _mm256_cmp_ps(excess, most, _CMP_LE_OQ));
            }
            hits |= uint32_t(_mm256_movemask_ps(pass) != 0) << r;
        }
        return hits;
    }
};

#include "pass.h"

}  // namespace

const Kernels avx2_kernels = {"avx2", 4, pack, search, direct};

}  // namespace spade
#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
