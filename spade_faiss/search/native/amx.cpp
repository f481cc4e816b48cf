// AMX: tiles of 16 rows of 64 8-bit integers, or of 32 numbers in bfloat16, of which an instruction
// multiplies two.
//
// With SPADE_EMULATED_TILES tiles are plain memory, so that the kernel is tested where there are
// none; AVX-512 it needs in any case.
#include "kernel.h"
#if defined(__x86_64__)
#include <cmath>
#include <cstdlib>
#include <cstring>
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,amx-tile,amx-int8,amx-bf16"))), apply_to = function)
#else
#pragma GCC target("avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,amx-tile,amx-int8,amx-bf16")
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
void multiply_tiles16(int sum, int a, int b) {
    for (int r = 0; r < 16; r++)
        for (int c = 0; c < 16; c++) {
            float total;
            std::memcpy(&total, tiles[sum][r] + 4 * c, 4);
            for (int k = 0; k < 32; k++) {
                uint32_t x = 0, y = 0;  // bfloat16 is the upper half of float32
                float left, right;
                std::memcpy(reinterpret_cast<char*>(&x) + 2, tiles[a][r] + 2 * k, 2);
                std::memcpy(reinterpret_cast<char*>(&y) + 2, tiles[b][k / 2] + 4 * c + k % 2 * 2, 2);
                std::memcpy(&left, &x, 4);
                std::memcpy(&right, &y, 4);
                total += left * right;
            }
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
#define multiply_tiles16(sum, a, b) _tile_dpbf16ps(sum, a, b)
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

// Products of 32 queries and two blocks: tiles 0 and 1 are of the first block, 2 and 3 of the other.
struct FourTiles {
    static constexpr int R = 32, B = 2;

    static void begin() { configure_tiles(); }
    static void end() { release_tiles(); }

    // Compilers do not know that tiles read what was written.
    static inline void written() { __asm__ volatile("" : : : "memory"); }

    // Blocks stay in their tiles where they fit.
    static inline void hold(const uint8_t* const* block, int width) {
        if (width > 64) return;
        written();
        load_tile(6, block[0], 64);
        load_tile(7, block[1], 64);
    }

    template <bool FLOATS> static inline void multiply(const void* queries, int width, const uint8_t* const* block) {
        const char* low = static_cast<const char*>(queries);
        for (int k = 0; k < width; k += 64) {
            if (width > 64) {
                load_tile(6, block[0] + k * ROWS, 64);
                load_tile(7, block[1] + k * ROWS, 64);
            }
            load_tile(4, low + k, width);
            load_tile(5, low + 16 * width + k, width);
            if (FLOATS) {
                multiply_tiles16(0, 4, 6);
                multiply_tiles16(2, 4, 7);
                multiply_tiles16(1, 5, 6);
                multiply_tiles16(3, 5, 7);
            } else {
                multiply_tiles(0, 4, 6);
                multiply_tiles(2, 4, 7);
                multiply_tiles(1, 5, 6);
                multiply_tiles(3, 5, 7);
            }
        }
    }

    template <class Number> static inline void store(Number (*found)[ROWS]) {
        store_tile(0, found[0], 64);  // in the order in which they are made
        store_tile(2, found[32], 64);
        store_tile(1, found[16], 64);
        store_tile(3, found[48], 64);
    }

    // Which tiles hold a number that is not negative once `add` is called on its row, as bits.
    template <class Add> static inline uint32_t any(Add&& add) {
        __m512i all[4];
        for (__m512i& some : all) some = _mm512_set1_epi32(-1);
#pragma GCC unroll 8
        for (int r = 0; r < 16; r += 2)
#pragma GCC unroll 4
            for (int t = 0; t < 4; t++)
                all[t] = _mm512_ternarylogic_epi32(all[t], add(16 * t + r), add(16 * t + r + 1), 0x80);
        const __m512i both = _mm512_and_si512(_mm512_and_si512(all[0], all[1]), _mm512_and_si512(all[2], all[3]));
        if (__builtin_expect(_mm512_movepi32_mask(both) == 0xffff, 1)) return 0;
        uint32_t mask = 0;
        for (int t = 0; t < 4; t++) mask |= uint32_t(_mm512_movepi32_mask(all[t]) != 0xffff) << t;
        return mask;
    }
};

struct Tiles : FourTiles {
    static constexpr int MULTIPLE = 64, GROUP = 64, PART = 16, ZERO = 0;
    typedef int8_t Low;

    static void arrange(const int8_t* from, int width, Low* to) { std::memcpy(to, from, width); }

    static inline uint32_t tile(const Low* low, int width, const int32_t* lack, const int32_t (*minus)[ROWS],
                                const uint8_t* const* block, int32_t (*found)[ROWS]) {
        written();
        load_tile(0, minus[0], 0);  // in each row
        load_tile(1, minus[0], 0);
        load_tile(2, minus[1], 0);
        load_tile(3, minus[1], 0);
        multiply<false>(low, width, block);
        store(found);
        return any([=](int at) {
            return _mm512_add_epi32(_mm512_load_si512(found[at]), _mm512_set1_epi32(lack[at / R * GROUP + at % R]));
        });
    }
};

// The same of bfloat16.
struct Tiles16 : FourTiles {
    static constexpr int HELD = 27;  // coordinates, at the most, beside five other numbers

    static inline void multiply(const uint8_t* low) {
        written();
        clear_tile(0);
        clear_tile(1);
        clear_tile(2);
        clear_tile(3);
        FourTiles::multiply<true>(low, 64, nullptr);
    }

    static inline uint32_t any(const float (*found)[ROWS]) {
        return FourTiles::any([=](int at) { return _mm512_load_si512(found[at]); });
    }
};

inline uint32_t passing(const float* found, float needed) { return passing((V)_mm512_loadu_ps(found), needed - V{}); }

#include "pass.h"

#include "floats.h"

}  // namespace

static const Kernels narrow = {"amx", Floats::MULTIPLE, Tiles16::HELD, nullptr, pack<Floats>, search<Floats>, direct<Floats>};
const Kernels amx_kernels = {"amx", Integers::MULTIPLE, 0, &narrow, pack<Integers>, search<Integers>, direct<Integers>};

}  // namespace spade
#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
