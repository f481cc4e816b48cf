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

inline V larger(V a, V b) { return (V)_mm256_max_ps((__m256)a, (__m256)b); }
inline V smaller(V a, V b) { return (V)_mm256_min_ps((__m256)a, (__m256)b); }
inline float sum(V v) {
    __m128 four = _mm_add_ps(_mm256_castps256_ps128((__m256)v), _mm256_extractf128_ps((__m256)v, 1));
    four = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(four, _mm_movehdup_ps(four)));
}
inline void sums(const V* v, float* out) {
    const __m256 all = _mm256_hadd_ps(_mm256_hadd_ps((__m256)v[0], (__m256)v[1]),
                                      _mm256_hadd_ps((__m256)v[2], (__m256)v[3]));
    _mm_storeu_ps(out, _mm_add_ps(_mm256_castps256_ps128(all), _mm256_extractf128_ps(all, 1)));
}
inline float largest(V v) {
    __m128 four = _mm_max_ps(_mm256_castps256_ps128((__m256)v), _mm256_extractf128_ps((__m256)v, 1));
    four = _mm_max_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_max_ss(four, _mm_movehdup_ps(four)));
}

inline uint32_t passing(V found, V needed) {
    return uint32_t(_mm256_movemask_ps(_mm256_cmp_ps((__m256)found, (__m256)needed, _CMP_GE_OQ)));
}
inline uint32_t passing(const int32_t* found, int32_t needed) {
    uint32_t mask = 0;
    for (int h = 0; h < 2; h++) {
        const __m256i less = _mm256_cmpgt_epi32(_mm256_set1_epi32(needed),
                                                _mm256_loadu_si256((const __m256i*)(found + 8 * h)));
        mask |= uint32_t(~_mm256_movemask_ps(_mm256_castsi256_ps(less)) & 255) << 8 * h;
    }
    return mask;
}

#include "pairs.h"

struct Tiles : InPairs {
    static constexpr int MULTIPLE = 4, R = 4, B = 1, GROUP = 32, PART = R;

    static inline __m256i pair(const Low* at) {
        int32_t two;
        std::memcpy(&two, at, 4);
        return _mm256_set1_epi32(two);
    }

    static inline uint32_t tile(const Low* low, int width, const int32_t* lack, const int32_t (*minus)[ROWS],
                                const uint8_t* const* block, int32_t (*found)[ROWS]) {
        __m256i acc[R][2];
        for (int r = 0; r < R; r++) acc[r][0] = acc[r][1] = _mm256_set1_epi32(lack[r]);
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
        __m256i less[2], negative = _mm256_set1_epi32(-1);
        for (int h = 0; h < 2; h++) {
            less[h] = _mm256_loadu_si256((const __m256i*)(minus[0] + 8 * h));
            __m256i most = acc[0][h];
            for (int r = 1; r < R; r++) most = _mm256_max_epi32(most, acc[r][h]);
            negative = _mm256_and_si256(negative, _mm256_add_epi32(most, less[h]));
        }
        if (__builtin_expect(_mm256_movemask_ps(_mm256_castsi256_ps(negative)) == 255, 1)) return 0;
        for (int r = 0; r < R; r++)
            for (int h = 0; h < 2; h++)
                _mm256_storeu_si256((__m256i*)(found[r] + 8 * h),
                                    _mm256_add_epi32(_mm256_sub_epi32(acc[r][h], _mm256_set1_epi32(lack[r])), less[h]));
        return 1;
    }
};

#include "pass.h"

}  // namespace

const Kernels avx2_kernels = {"avx2", Integers::MULTIPLE, 0, nullptr, pack<Integers>, search<Integers>, direct<Integers>};

}  // namespace spade
#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
