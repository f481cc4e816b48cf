// AMX: tiles of 16 rows of 64 8-bit integers, of which an instruction multiplies two.
//
// With SPADE_EMULATED_TILES tiles are plain memory, so that the kernel is tested where there are
// none; AVX-512 it needs in any case.
#include "kernel.h"
#if defined(__x86_64__)
#include <cmath>
#include <cstdlib>
#include <cstring>
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,amx-tile,amx-int8"))), apply_to = function)
#else
#pragma GCC target("avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,amx-tile,amx-int8")
#endif
#include <immintrin.h>

namespace spade {
namespace {

#include "vector512.h"

#if defined(SPADE_EMULATED_TILES)
thread_local uint8_t tiles[8][16][64];
void clear_tile(int tile) { std::memset(tiles[tile], 0, sizeof tiles[tile]); }
void load_tile(int tile, const void* from, size_t stride) {
    for (int r = 0; r < 16; r++) std::memcpy(tiles[tile][r], static_cast<const char*>(from) + r * stride, 64);
}
void store_tile(int tile, void* to, size_t stride) {
    for (int r = 0; r < 16; r++) std::memcpy(static_cast<char*>(to) + r * stride, tiles[tile][r], 64);
}
void multiply_tiles(int sum, int a, int b) {
    for (int r = 0; r < 16; r++)
        for (int c = 0; c < 16; c++) {
            int32_t total;
            std::memcpy(&total, tiles[sum][r] + 4 * c, 4);
            for (int k = 0; k < 64; k++)
                total += int8_t(tiles[a][r][k]) * int8_t(tiles[b][k / 4][4 * c + k % 4]);
            std::memcpy(tiles[sum][r] + 4 * c, &total, 4);
        }
}
void configure_tiles() {}
void release_tiles() {}
#else
// The intrinsics want the tiles' numbers as they are written.
#define clear_tile(tile) _tile_zero(tile)
#define load_tile(tile, from, stride) _tile_loadd(tile, from, stride)
#define store_tile(tile, to, stride) _tile_stored(tile, to, stride)
#define multiply_tiles(sum, a, b) _tile_dpbssd(sum, a, b)
void configure_tiles() {
    struct alignas(64) {
        uint8_t palette, start, unused[14];
        uint16_t row_bytes[16];
        uint8_t rows[16];
    } shape = {};
    shape.palette = 1;
    for (int i = 0; i < 8; i++) {
        shape.row_bytes[i] = 64;
        shape.rows[i] = 16;
    }
    __asm__ volatile("" : : "r"(&shape) : "memory");  // compilers say of the next that it reads 8 bytes
    _tile_loadconfig(&shape);
}
void release_tiles() { _tile_release(); }
#endif

struct Integers {
    static constexpr int R = 32, B = 2, GROUP = 64, ZERO = 0;
    typedef int8_t Low;

    static void arrange(const int8_t* from, int width, Low* to) { std::memcpy(to, from, width); }
    static void begin() { configure_tiles(); }
    static void end() { release_tiles(); }

    static inline bool tile(const Low* low, int width, const int32_t* lack, const int32_t (*terms)[ROWS],
                            const uint8_t* const* block, int32_t (*found)[ROWS]) {
        alignas(64) int32_t products[R * B][ROWS];  // as `found`
        clear_tile(0);
        clear_tile(1);
        clear_tile(2);
        clear_tile(3);
        for (int k = 0; k < width; k += 64) {
            load_tile(4, low + k, width);
            load_tile(6, block[0] + k * ROWS, 64);
            multiply_tiles(0, 4, 6);
            load_tile(7, block[1] + k * ROWS, 64);
            multiply_tiles(1, 4, 7);
            load_tile(5, low + 16 * width + k, width);
            multiply_tiles(2, 5, 6);
            multiply_tiles(3, 5, 7);
        }
        store_tile(0, products[0], 2 * 64);
        store_tile(1, products[1], 2 * 64);
        store_tile(2, products[16 * B], 2 * 64);
        store_tile(3, products[16 * B + 1], 2 * 64);
        const __m512i term[B] = {_mm512_loadu_si512(terms[0]), _mm512_loadu_si512(terms[1])};
        __m512i most[B] = {_mm512_set1_epi32(INT32_MIN), _mm512_set1_epi32(INT32_MIN)};
#pragma GCC unroll 8
        for (int r = 0; r < R; r++)
#pragma GCC unroll 2
            for (int i = 0; i < B; i++)
                most[i] = larger(most[i], _mm512_add_epi32(_mm512_load_si512(products[r * B + i]),
                                                           _mm512_set1_epi32(lack[i * GROUP + r])));
        if (__builtin_expect(
                !(_mm512_cmpge_epi32_mask(most[0], term[0]) | _mm512_cmpge_epi32_mask(most[1], term[1])), 1))
            return false;
        for (int r = 0; r < R * B; r++)
            _mm512_storeu_si512(found[r], _mm512_sub_epi32(_mm512_load_si512(products[r]), term[r % B]));
        return true;
    }
};

#include "pass.h"

}  // namespace

const Kernels amx_kernels = {"amx", 64, pack, search, direct};

}  // namespace spade
#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
