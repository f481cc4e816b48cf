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
#define START(r, i) __m512i sum##r##i = _mm512_set1_epi32(lack[i * GROUP + r]);
#define STARTS(r) EACH_BLOCK(START, r)
#define ADD(r, i) __asm__("vpdpbusd %2, %1, %0" : "+v"(sum##r##i) : "v"(rows##i), "v"(query));
#define ADDS(r)                                                     \
    {                                                               \
        int32_t four;                                               \
        std::memcpy(&four, low + r * width + k, 4);                 \
        const __m512i query = _mm512_set1_epi32(four);              \
        EACH_BLOCK(ADD, r)                                          \
    }
#define FOUND(r, i)                                                                                   \
    _mm512_storeu_si512(found[i * R + r], _mm512_add_epi32(_mm512_sub_epi32(sum##r##i, _mm512_set1_epi32( \
                                                           lack[i * GROUP + r])), minus##i));
#define FOUNDS(r) EACH_BLOCK(FOUND, r)

struct Tiles {
    static constexpr int MULTIPLE = 4, R = 6, B = 4, GROUP = 48, PART = R, ZERO = 128;
    typedef int8_t Low;

    static void arrange(const int8_t* from, int width, Low* to) { std::memcpy(to, from, width); }
    static void begin() {}
    static void end() {}
    static void hold(const uint8_t* const*, int) {}

    static __attribute__((noinline)) uint32_t tile(const Low* low, int width, const int32_t* lack,
                                                   const int32_t (*minus)[ROWS], const uint8_t* const* block,
                                                   int32_t (*found)[ROWS]) {
        const uint8_t *block0 = block[0], *block1 = block[1], *block2 = block[2], *block3 = block[3];
        EACH_QUERY(STARTS)
        for (int k = 0; k < width; k += 4) {
            const __m512i rows0 = _mm512_loadu_si512(block0 + k * ROWS);
            const __m512i rows1 = _mm512_loadu_si512(block1 + k * ROWS);
            const __m512i rows2 = _mm512_loadu_si512(block2 + k * ROWS);
            const __m512i rows3 = _mm512_loadu_si512(block3 + k * ROWS);
            EACH_QUERY(ADDS)
        }
#define JUDGE(i)                                                                              \
    const __m512i minus##i = _mm512_loadu_si512(minus[i]);                                    \
    const __m512i most##i = _mm512_add_epi32(                                                 \
        larger(larger(larger(sum0##i, sum1##i), larger(sum2##i, sum3##i)), larger(sum4##i, sum5##i)), minus##i);
#define PASSES(i) uint32_t(_mm512_movepi32_mask(most##i) != 0xffff) << i
        JUDGE(0) JUDGE(1) JUDGE(2) JUDGE(3)
        const __m512i all = _mm512_and_si512(_mm512_and_si512(most0, most1), _mm512_and_si512(most2, most3));
        if (__builtin_expect(_mm512_movepi32_mask(all) == 0xffff, 1)) return 0;
        EACH_QUERY(FOUNDS)
        return PASSES(0) | PASSES(1) | PASSES(2) | PASSES(3);
    }
};

#include "pass.h"

}  // namespace

const Kernels avx512_kernels = {"avx512", Integers::MULTIPLE, 0, nullptr, pack<Integers>, search<Integers>, direct<Integers>};

}  // namespace spade
#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
