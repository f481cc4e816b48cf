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
inline float largest(V v) { return _mm512_reduce_max_ps((__m512)v); }

inline uint32_t passing(const int32_t* found, int32_t needed) {
    return _mm512_cmpge_epi32_mask(_mm512_loadu_si512(found), _mm512_set1_epi32(needed));
}
inline __m512i larger(__m512i a, __m512i b) { return _mm512_maskz_max_epi32(__mmask16(-1), a, b); }
