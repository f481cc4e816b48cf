// Exact nearest rows by one fused pass: the plain-C interface, and why the result is exact.
//
// The map. A row y of C channels becomes a shorter one,
//
//     F(y) = ( P v, |v - P'P v| - r0 )   with v = (y - c) / unit,
//
// where c is a centre, unit a power of two, and the d rows of P are orthonormal: leading principal
// axes, turned among themselves so that no few coordinates are large. By the triangle inequality
// F moves no two rows apart: |F(x) - F(y)| <= |x - y| / unit. The last coordinate is left out where
// it is small: rounding would take too much of it. Without axes F(y) is v itself.
//
// Its rounding. F is computed in float32 in sums of 16 terms, which are then added: P v is off by
// g |v| at most, with g = sqrt(d) (24 + C / 16) 2^-24, which covers the subtraction of c and what
// the entries of P lack, too. Then |v|^2 - |P v|^2 is off by E = (2 g + (C / L + 8) 2^-23) |v|^2 at
// most, summed in L lanes, and its square root r by E / max(r, sqrt(E)).
//
// The integers. F(y) is written as t j, with 8-bit integers j and a scale t that the rows of a block
// share, and F(x) as u i, with a u that some queries share. With e_y = |F(y) - t j| plus what
// rounding above may add, e_x likewise, and d the distance of the k-th nearest row so far, a row
// may be nearer only if
//
//     |u i - t j| <= d + e_x + e_y = D + e_y.
//
// The integers' product i.j is exact, so with A = (|u i|^2 - D^2) / 2u and B = 1 / 2u that is
//
//     i.j - B g >= A / t - (D / u) (e_y / t)    with g = (|t j|^2 - e_y^2) / t.
//
// With w the largest e_y / t of a block, G an integer below B g, and T one below
// A / t - (D / u) w, such a row has
//
//     i.j - G >= T.
//
// G is the same for queries that share u, and T for the rows of a block. So there is but an addition
// and a comparison for each product. Rows for which this holds are compared by differences, which
// decides, and makes d smaller. A row that waits for its comparison is judged again by a smaller D.
//
// |i.j| < 2^29 - 2^22, as there are at most 32768 channels. G and T are made no less than
// -2^29 - 2^28 - 1, and no more than 2^28 - 1. To make one less only lets more rows pass. Where one
// is made more, i.j less it is 2^28 at least, which the other one is not: such rows pass, too. So
// i.j - G - T stays below 2^29 - 2^22 + 2 (2^29 + 2^28 + 1) < 2^31. Some kernels add 128 to j and
// take it off T beforehand: 32768 products i (j + 128) are less than 2^30, and so are those of them
// that are summed already less 128 times all i. Neither leaves 32 bits with a G or a T.
//
// Rounding takes 2^-20 (|u i|^2 + |t j|^2 + D^2) at most, in units of distances squared, from what G
// and T stand for. So e_x^2 and e_y^2 are made larger by 2^-19 |u i|^2 and 2^-19 |t j|^2, or by `slack`,
// where sums of squares are no longer exact, both by 2^-13 of themselves, and d by
// (2^-18 + C 2^-26) d: (D + e_y)^2 grows by more than all of that. The latter covers what differences
// lose of d, too. A D too large for A tells nothing.
//
// Numbers of 16 bits. Where the coordinates are few, AMX multiplies bfloat16 in the same time. F(x)
// is written as x', F(y) as y', rounded to the nearest, with e_x and e_y as above, and a row may be
// nearer only if |x' - y'| <= D + e_y, which is
//
//     x'.y' + D e_y - g - T >= 0    with g = (|y'|^2 - e_y^2) / 2,  T = (|x'|^2 - D^2) / 2.
//
// All of this is one product: of (x', D, 1, 1, T1, T2) with (y', e_y, g1, g2, 1, 1), where T1 + T2
// is about -T, and g1 + g2 about -g. So but the sign of each product is looked at. No more than 64
// roundings of 2^-24 befall its terms, whose magnitudes sum up to |x'|^2 + |y'|^2 + D^2 + e_y^2 = S
// at most, and 2^-7 (D^2 + e_y^2) more, as D and e_y are rounded up. T1 + T2 and g1 + g2 are off by
// 2^-18 of themselves, together by 2^-19 S. For all of that, 2^-18 (1 + 2^-6) S + 2^-19 S, squares
// in g and T are made 2^-16 of themselves smaller, or larger where they are subtracted: 2^-17 S in
// all. e_x and e_y are 2^-40 at least, and so what is lost near the least numbers, which count as 0
// below 2^-110, is less than what then remains of 2^-17 S.
//
// A row that waits is judged again by its product plus the T of then, and 2^-14 (|x'|^2 + D^2 + w^2)
// with the D of then and the largest e_y of its block: S is 5 times that sum at most where
// |x' - y'| <= D + e_y, so this is more than the 2^-17 S of above and what the addition rounds.
//
// Where too many rows pass, a query goes on with products in float32 of v itself: x.y is off by
// h |x||y| <= h (|x|^2 + |y|^2) / 2 with h = (C + 8) 2^-23, twice what sums can lose, so
//
//     x.y - (1 - 2h) |y|^2 / 2 >= ((1 - 2h) |x|^2 - D^2) / 2
//
// holds for each row that may be nearer. What passes is again compared by differences. Where few
// queries search rows once, all go this way, as packing would take longer.
//
// Ties and copies. A query whose k-th distance is 0 is done. Rows of an image that are equal to an
// earlier one are not packed, and come in with the one they are equal to.
#pragma once
#include <cstdint>

namespace spade {

constexpr int VERSION = 4;           // of what follows: `library.py` has the same
constexpr int ROWS = 16;             // rows of a block: a column of integers for each
constexpr int TERMS = 2 * ROWS * 4;  // bytes of a block's g for each row, 1 / t, w and so on: what judges says
constexpr float NEVER = 0x1p100f;    // such a term of a row that is not there

enum Status { DONE = 0, NOT_FINITE = 1, STOPPED = 2, NO_MEMORY = 3 };

struct Map {
    const float* centre;  // [channels]
    const float* axes;    // [channels, padded]: P transposed, columns filled up with 0; or null
    float unit, rest;     // a power of two, and r0
    int32_t channels;     // C
    int32_t kept;         // d, or C
    int32_t rests;        // whether |v - P'P v| is a coordinate: 1 or 0
    int32_t padded;       // d filled up to a multiple of 16
    int32_t width;        // bytes of a row of integers: one for each coordinate, filled up
    int32_t unused;
};

struct Rows {
    const void* data;  // [rows, channels], contiguous
    int64_t rows;
    int32_t half;  // whether they are float16
    int32_t unused;
};

// Rows of an image, packed: blocks of [width / 4, ROWS, 4] bytes, a kernel's `ZERO` turned over in
// each, and their terms.
struct Packed {
    uint8_t* blocks;
    int32_t* copies;  // [rows]: the next row that is equal to this one, or -1
    int32_t* order;   // [blocks, ROWS]: which row it is, or -1
    int64_t count;    // of blocks, as they are packed: at most rows / ROWS, rounded up
    int64_t first;    // its first row among all
    int64_t rows;
};

struct Pack {
    const Map* map;
    const Rows* gallery;
    Packed* packed;
    const volatile int32_t* stop;  // what is not 0 there ends it
};

struct Search {
    const Map* map;
    const Rows* gallery;
    const float* queries;         // [count, channels]
    int64_t count;
    const Packed* const* images;  // [image_count]
    int64_t image_count;
    int64_t k;
    float* distances;  // [count, k]
    int64_t* ids;      // [count, k]
    const volatile int32_t* stop;  // what is not 0 there ends the search
};

// By differences of all pairs; by float32 products of rows that are laid out; or of packed ones.
enum Way { COMPARE = 0, MULTIPLY = 1, PACK = 2 };

// A search of rows that lie together, and are not searched again.
struct Direct {
    Rows gallery;
    int64_t way;           // one of these
    const float* queries;  // [count, channels]
    int64_t count, channels, k;
    int64_t first;         // what is added to a row's number
    float* distances;      // [count, k]
    int64_t* ids;          // [count, k]
    const volatile int32_t* stop;
};

// Calls that threads do side by side.
struct Job {
    int (*call)(const void*);      // returns a status
    const char* calls;             // [count, size]
    int64_t size, count;
    const volatile int32_t* stop;  // what is not 0 there keeps calls from being begun
    int32_t threads;               // that are at work together at the most, other jobs' with them
    // What follows is 0 at first.
    int32_t status;                // of the first call that failed
    int32_t begun, working;        // whether it has, and threads that do its calls
    int64_t next, ended;           // the first call that nobody took; how many have ended
    Job* after;                    // a later job
};

struct Kernels {
    const char* name;
    int32_t multiple;       // that `width` is filled up to
    int32_t most;           // coordinates, or 0 for any number
    const Kernels* narrow;  // for rows of few coordinates, or null
    int (*pack)(const void*);    // a Pack,
    int (*search)(const void*);  // a Search,
    int (*direct)(const void*);  // or a Direct
};

int run(Job* job, int32_t patience);

extern const Kernels plain_kernels;
#if defined(__x86_64__)
extern const Kernels avx2_kernels, avx512_kernels, amx_kernels;
#endif

}  // namespace spade
