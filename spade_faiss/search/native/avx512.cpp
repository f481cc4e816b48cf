// AVX-512 with VNNI: 64 products of 8-bit integers an instruction.
#include "kernel.h"
#if defined(__x86_64__)
#include <cmath>
#include <cstdlib>
#include <cstring>
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni"))), apply_to = function)
#else
#pragma GCC target("avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")
#endif
#include <immintrin.h>

namespace spade {
namespace {

#include "vector512.h"

// Sums are to stay in their registers. Compilers keep them there only if each has a name.
#define EACH_BLOCK(DO, r) DO(r, 0) DO(r, 1) DO(r, 2) DO(r, 3)
#define EACH_QUERY(DO) DO(0) DO(1) DO(2) DO(3) DO(4) DO(5)
#define START(r, i) __m512i sum##r##i = _mm512_set1_epi32(start[r]);
#define STARTS(r) EACH_BLOCK(START, r)
#define ADD(r, i) __asm__("vpdpbusd %2, %1, %0" : "+v"(sum##r##i) : "v"(rows##i), "v"(query));
#define ADDS(r)                                                     \
    {                                                               \
        int32_t four;                                               \
        std::memcpy(&four, low + r * width + k, 4);                 \
        const __m512i query = _mm512_set1_epi32(four);              \
        EACH_BLOCK(ADD, r)                                          \
    }
#define EXCESS(r, i)                                                                                     \
    const __m512 excess##r##i = _mm512_fmadd_ps(                                                        \
        by##r, term##i,                                                                                 \
        _mm512_fmsub_ps(size##r, inverse##i, _mm512_maskz_cvtepi32_ps(__mmask16(-1), sum##r##i)));
#define EXCESSES(r)                                                                                       \
    const __m512 size##r = _mm512_set1_ps(a[r]), by##r = _mm512_set1_ps(b[r]);                          \
    EACH_BLOCK(EXCESS, r)                                                                                \
    pass |= under(least(least(excess##r##0, excess##r##1), least(excess##r##2, excess##r##3)), limit[r]);
#define KEEP(r, i) _mm512_storeu_ps(out[r * B + i], excess##r##i);
#define KEEPS(r) EACH_BLOCK(KEEP, r)

struct Integers {
    static constexpr int R = 6, B = 4;
    typedef int8_t Low;

    static void arrange(const int8_t* from, int width, Low* to) { std::memcpy(to, from, width); }
    static void begin() {}
    static void end() {}

    static __attribute__((noinline)) uint32_t tile(const Low* low, int width, const float* a, const float* b,
                                                   const float* limit, const int32_t* start,
                                                   const uint8_t* const* block, float (*out)[ROWS]) {
        const uint8_t *block0 = block[0], *block1 = block[1], *block2 = block[2], *block3 = block[3];
        EACH_QUERY(STARTS)
        for (int k = 0; k < width; k += 4) {
            const __m512i rows0 = _mm512_loadu_si512(block0 + k * ROWS);
            const __m512i rows1 = _mm512_loadu_si512(block1 + k * ROWS);
            const __m512i rows2 = _mm512_loadu_si512(block2 + k * ROWS);
            const __m512i rows3 = _mm512_loadu_si512(block3 + k * ROWS);
            EACH_QUERY(ADDS)
        }
#define TERMS_OF(i)                                                                                \
    const __m512 inverse##i = _mm512_loadu_ps(reinterpret_cast<const float*>(block##i + width * ROWS)); \
    const __m512 term##i = _mm512_loadu_ps(reinterpret_cast<const float*>(block##i + width * ROWS) + ROWS);
        TERMS_OF(0) TERMS_OF(1) TERMS_OF(2) TERMS_OF(3)
        __mmask16 pass = 0;
        EACH_QUERY(EXCESSES)
        if (__builtin_expect(pass == 0, 1)) return 0;
        EACH_QUERY(KEEPS)
        uint32_t hits = 0;
        for (int r = 0; r < R; r++)
            for (int i = 0; i < B; i++) hits |= uint32_t(passing(out[r * B + i], limit[r]) != 0) << r;
        return hits;
    }
};

#include "pass.h"

}  // namespace

const Kernels avx512_kernels = {"avx512", 4, pack, search, direct};

}  // namespace spade
#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
