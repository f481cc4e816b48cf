// Vectors and distances, for any instruction set.
//
// Each instruction set's file defines, in a namespace of its own, before it includes `pass.h`
//   LANES, V                        a vector of so many floats
//   float sum(V), float largest(V)
//   void sums(const V*, float*)     the sums of four
//   V larger(V a, V b), V smaller(V a, V b)   b where a lane of either is no number
//   V load_some(const float*, int)  the first few floats, and zeros
//   V load_half(const uint16_t*), V load_some_half(const uint16_t*, int)
//   struct Tiles                    the product of integers and what follows from it:
//     R, B      queries and blocks of a product
//     GROUP     queries that share a unit, a multiple of R and of ROWS
//     ZERO      bits that are turned over in rows' integers: 128 where a kernel wants none negative
//     Low       what a query's integers are, `arrange`d from bytes
//     begin(), end()        of all products
//     hold(blocks, width)   these are those of the next products
//     tile(low, width, lack, minus, blocks, found)
//               R queries' products with B blocks plus `minus`, -G [B, ROWS], into found
//               [B * R, ROWS], if any of them plus `lack`, -T [B, GROUP], are not negative; and in
//               which parts of PART rows of `found` they are, as bits
//   uint32_t passing(V, V)   in which lanes the first is no less, as bits
//   uint32_t passing(const int32_t* found, int32_t needed)   which of ROWS are no less, as bits
// Nothing here may be shared between these files: each function is compiled for each of them.
#include <cmath>
#include <cstdlib>
#include <cstring>

#define ALWAYS inline __attribute__((always_inline))

using std::size_t;
typedef int32_t Whole __attribute__((vector_size(4 * LANES)));
typedef char Bytes __attribute__((vector_size(LANES)));

ALWAYS V load(const float* at) { V v; std::memcpy(&v, at, sizeof v); return v; }
ALWAYS void store(float* at, V v) { std::memcpy(at, &v, sizeof v); }
ALWAYS V same(float value) { return value - V{}; }
ALWAYS V magnitude(V v) { return v < 0 ? -v : v; }

inline int up_to(int value, int multiple) { return (value + multiple - 1) / multiple * multiple; }

// Memory for so many values, or none.
template <class T> struct Array {
    T* data = nullptr;
    explicit Array(int64_t count) {
        void* found = nullptr;
        if (!posix_memalign(&found, 64, count > 0 ? count * sizeof(T) : 64)) data = static_cast<T*>(found);
    }
    Array(const Array&) = delete;
    ~Array() { std::free(data); }
    operator T*() const { return data; }
};

ALWAYS V load_row(const float* row, int k) { return load(row + k); }
ALWAYS V load_row(const uint16_t* row, int k) { return load_half(row + k); }
ALWAYS V load_end(const float* row, int k, int n) { return load_some(row + k, n); }
ALWAYS V load_end(const uint16_t* row, int k, int n) { return load_some_half(row + k, n); }

// Files put rows at any byte: no value of theirs may be read but by these and by memcpy.
ALWAYS float single(const float* at) { float value; std::memcpy(&value, at, sizeof value); return value; }
inline float single(const uint16_t* at) {
    float lanes[LANES];
    store(lanes, load_some_half(at, 1));
    return lanes[0];
}

constexpr int SUMMED = 128;  // terms of a sum in float32: it is off by less than 1e-5 of itself

// |x - y|^2 of some channels, by differences.
template <class T> ALWAYS float square_gap(const float* x, const T* y, int channels) {
    constexpr int N = 4;  // sums, of which none waits for another
    V all[N] = {};
    int k = 0;
    for (; k + N * LANES <= channels; k += N * LANES)
        for (int i = 0; i < N; i++) {
            const V d = load_row(y, k + i * LANES) - load(x + k + i * LANES);
            all[i] += d * d;
        }
    for (; k + LANES <= channels; k += LANES) {
        const V d = load_row(y, k) - load(x + k);
        all[0] += d * d;
    }
    if (k < channels) {
        const V d = load_end(y, k, channels - k) - load_some(x + k, channels - k);
        all[1] += d * d;
    }
    return sum((all[0] + all[1]) + (all[2] + all[3]));
}

// |x - y|^2 by differences; in float64 where it leaves the range of float32.
template <class T> ALWAYS double distance(const float* x, const T* y, int channels) {
    constexpr int PART = 2 * LANES * SUMMED;
    double found = 0;
    for (int k = 0; k < channels; k += PART)
        found += square_gap(x + k, y + k, channels - k < PART ? channels - k : PART);
    if (__builtin_expect(found <= 3e38, 1)) return found;
    double exact = 0;
    for (int k = 0; k < channels; k++) {
        double d = double(single(y + k)) - x[k];
        exact += d * d;
    }
    return exact;
}

// The same of X queries and Y rows, [X, Y], one of the two 1; false if all are numbers that are no
// less than `least`, and then they are not written.
template <int X, int Y, class T>
ALWAYS bool distances(const float* const* x, const T* const* y, int channels, double* out, const float* least) {
    static_assert(X * Y == 4, "sums are of four");
    constexpr int PART = LANES * SUMMED;
    double all[4] = {};
    float four[4];
    for (int k = 0; k < channels;) {
        const int stop = channels - k < PART ? channels : k + PART;
        V acc[X * Y] = {};
        for (; k + LANES <= stop; k += LANES)
            for (int i = 0; i < X; i++)
                for (int j = 0; j < Y; j++) {
                    const V d = load_row(y[j], k) - load(x[i] + k);
                    acc[i * Y + j] += d * d;
                }
        if (k < stop) {
            for (int i = 0; i < X; i++)
                for (int j = 0; j < Y; j++) {
                    const V d = load_end(y[j], k, stop - k) - load_some(x[i] + k, stop - k);
                    acc[i * Y + j] += d * d;
                }
            k = stop;
        }
        sums(acc, four);
        if (channels <= PART) {
            bool none = true;
            for (int i = 0; i < 4; i++) none &= four[i] >= least[i] && four[i] <= 3e38f;
            if (__builtin_expect(none, 1)) return false;
        }
        for (int i = 0; i < 4; i++) all[i] += four[i];
    }
    for (int i = 0; i < X * Y; i++)
        out[i] = __builtin_expect(all[i] <= 3e38, 1) ? all[i] : distance(x[i / Y], y[i % Y], channels);
    return true;
}

inline double distance(const float* x, const Rows& gallery, int64_t row, int channels) {
    if (gallery.half)
        return distance(x, static_cast<const uint16_t*>(gallery.data) + row * channels, channels);
    return distance(x, static_cast<const float*>(gallery.data) + row * channels, channels);
}

constexpr float ANYTHING[4] = {INFINITY, INFINITY, INFINITY, INFINITY};

// The distances of a query and four rows of a gallery.
inline void distances(const float* x, const Rows& gallery, const int64_t (&rows)[4], int channels, double* out) {
    if (gallery.half) {
        const uint16_t* y[4];
        for (int i = 0; i < 4; i++) y[i] = static_cast<const uint16_t*>(gallery.data) + rows[i] * channels;
        distances<1, 4>(&x, y, channels, out, ANYTHING);
    } else {
        const float* y[4];
        for (int i = 0; i < 4; i++) y[i] = static_cast<const float*>(gallery.data) + rows[i] * channels;
        distances<1, 4>(&x, y, channels, out, ANYTHING);
    }
}
