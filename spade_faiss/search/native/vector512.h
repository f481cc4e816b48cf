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

inline float sum(V v) { return _mm512_reduce_add_ps((__m512)v); }
inline float largest(V v) { return _mm512_reduce_max_ps((__m512)v); }

inline uint32_t passing(const float* excess, float limit) {
    return _mm512_cmp_ps_mask(_mm512_loadu_ps(excess), _mm512_set1_ps(limit), _CMP_LE_OQ);
}

// The lesser of two numbers, or any that is negative: as integers, which more units compare.
inline __m512i least(__m512i a, __m512i b) { return _mm512_maskz_min_epi32(__mmask16(-1), a, b); }
inline __m512i least(__m512 a, __m512 b) { return least(_mm512_castps_si512(a), _mm512_castps_si512(b)); }

inline __mmask16 under(__m512i excess, float limit) {
    return _mm512_cmp_ps_mask(_mm512_castsi512_ps(excess), _mm512_set1_ps(limit), _CMP_LE_OQ);
}

// Which of Q queries' rows pass, from their products [Q][B]; if any do, the excess of all.
template <int Q, int B>
inline __attribute__((always_inline)) uint32_t judged(const __m512i (&products)[Q][B], int width, const float* a,
                                                      const float* b, const float* limit,
                                                      const uint8_t* const* block, float (*out)[ROWS]) {
    __m512 excess[Q][B];
#pragma GCC unroll 8
    for (int i = 0; i < B; i++) {
        const float* terms = reinterpret_cast<const float*>(block[i] + width * ROWS);
        const __m512 inverse = _mm512_loadu_ps(terms), term = _mm512_loadu_ps(terms + ROWS);
#pragma GCC unroll 8
        for (int r = 0; r < Q; r++)
            excess[r][i] = _mm512_fmadd_ps(
                _mm512_set1_ps(b[r]), term,
                _mm512_fmsub_ps(_mm512_set1_ps(a[r]), inverse,
                                _mm512_maskz_cvtepi32_ps(__mmask16(-1), products[r][i])));
    }
    uint32_t hits = 0;
#pragma GCC unroll 8
    for (int r = 0; r < Q; r++) {
        __mmask16 pass = 0;
#pragma GCC unroll 8
        for (int i = 0; i < B; i++)
            pass |= _mm512_cmp_ps_mask(excess[r][i], _mm512_set1_ps(limit[r]), _CMP_LE_OQ);
        hits |= uint32_t(pass != 0) << r;
    }
    if (__builtin_expect(hits == 0, 1)) return 0;
#pragma GCC unroll 8
    for (int r = 0; r < Q; r++)
#pragma GCC unroll 8
        for (int i = 0; i < B; i++) _mm512_storeu_ps(out[r * B + i], excess[r][i]);
    return hits;
}
