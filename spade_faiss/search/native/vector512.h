// What the kernels for AVX-512 and AMX share: included by each in a namespace of its own.
constexpr int LANES = 16;
typedef float V __attribute__((vector_size(64)));

inline V load_some(const float* at, int n) {
    return (V)_mm512_maskz_loadu_ps(__mmask16((1u << n) - 1), at);
}
inline V load_half(const uint16_t* at) {
    return (V)_mm512_maskz_cvtph_ps(__mmask16(-1), _mm256_loadu_si256((const __m256i*)at));
}
inline V load_some_half(const uint16_t* at, int n) {
    return (V)_mm512_maskz_cvtph_ps(__mmask16(-1), _mm256_maskz_loadu_epi16(__mmask16((1u << n) - 1), at));
}

inline V larger(V a, V b) { return (V)_mm512_maskz_max_ps(__mmask16(-1), (__m512)a, (__m512)b); }
inline V smaller(V a, V b) { return (V)_mm512_maskz_min_ps(__mmask16(-1), (__m512)a, (__m512)b); }
inline float sum(V v) { return _mm512_reduce_add_ps((__m512)v); }
inline void sums(const V* v, float* out) {
    constexpr __mmask16 ALL = -1;
    V two[2];
    for (int i = 0; i < 2; i++)
        two[i] = (V)_mm512_maskz_shuffle_f32x4(ALL, (__m512)v[2 * i], (__m512)v[2 * i + 1], 0x44) +
                 (V)_mm512_maskz_shuffle_f32x4(ALL, (__m512)v[2 * i], (__m512)v[2 * i + 1], 0xee);
    V all = (V)_mm512_maskz_shuffle_f32x4(ALL, (__m512)two[0], (__m512)two[1], 0x88) +
            (V)_mm512_maskz_shuffle_f32x4(ALL, (__m512)two[0], (__m512)two[1], 0xdd);
    all += (V)_mm512_maskz_permute_ps(ALL, (__m512)all, 0x4e);
    all += (V)_mm512_maskz_permute_ps(ALL, (__m512)all, 0xb1);
    _mm_storeu_ps(out, _mm512_castps512_ps128(_mm512_maskz_compress_ps(0x1111, (__m512)all)));
}
inline float largest(V v) { return _mm512_reduce_max_ps((__m512)v); }
inline uint32_t passing(V found, V needed) {
    return _mm512_cmp_ps_mask((__m512)found, (__m512)needed, _CMP_GE_OQ);
}

inline uint32_t passing(const int32_t* found, int32_t needed) {
    return _mm512_cmpge_epi32_mask(_mm512_loadu_si512(found), _mm512_set1_epi32(needed));
}
inline __m512i larger(__m512i a, __m512i b) { return _mm512_maskz_max_epi32(__mmask16(-1), a, b); }
