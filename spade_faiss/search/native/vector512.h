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

inline uint32_t passing(const float* scores, float least) {
    return _mm512_cmp_ps_mask(_mm512_loadu_ps(scores), _mm512_set1_ps(least), _CMP_GE_OQ);
}

// Which of Q queries' rows pass, from their products [Q][B]; if any do, by how much each does.
template <int Q, int B>
inline __attribute__((always_inline)) uint32_t judged(const __m512i (&products)[Q][B], int width, const float* a,
                                                      const float* b, const float* t,
                                                      const uint8_t* const* block, float (*out)[ROWS]) {
    __m512 score[Q][B], most = _mm512_set1_ps(-INFINITY);
#pragma GCC unroll 8
    for (int i = 0; i < B; i++) {
        const float* terms = reinterpret_cast<const float*>(block[i] + width * ROWS);
        const __m512 inverse = _mm512_loadu_ps(terms), term = _mm512_loadu_ps(terms + ROWS);
#pragma GCC unroll 8
        for (int r = 0; r < Q; r++) {
            const __m512 product = _mm512_cvtepi32_ps(products[r][i]);
            score[r][i] = _mm512_fnmadd_ps(_mm512_set1_ps(b[r]), term,
                                           _mm512_fnmadd_ps(_mm512_set1_ps(a[r]), inverse, product));
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < Q; r++) {
        __m512 top = score[r][0];
#pragma GCC unroll 8
        for (int i = 1; i < B; i++) top = _mm512_max_ps(top, score[r][i]);
        most = _mm512_max_ps(most, _mm512_sub_ps(top, _mm512_set1_ps(t[r])));
    }
    if (__builtin_expect(_mm512_cmp_ps_mask(most, _mm512_setzero_ps(), _CMP_GE_OQ) == 0, 1)) return 0;
    uint32_t hits = 0;
#pragma GCC unroll 8
    for (int r = 0; r < Q; r++) {
        __mmask16 pass = 0;
#pragma GCC unroll 8
        for (int i = 0; i < B; i++) {
            pass |= _mm512_cmp_ps_mask(score[r][i], _mm512_set1_ps(t[r]), _CMP_GE_OQ);
            _mm512_store_ps(out[r * B + i], score[r][i]);
        }
        hits |= uint32_t(pass != 0) << r;
    }
    return hits;
}
