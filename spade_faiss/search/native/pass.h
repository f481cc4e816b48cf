// The pass over a gallery, for any instruction set: what `kernel.h` explains.
//
// Each instruction set's file defines, in a namespace of its own, before it includes this one
//   LANES, V                        a vector of so many floats
//   float sum(V), float largest(V)
//   V load_some(const float*, int)  the first few floats, and zeros
//   V load_half(const uint16_t*), V load_some_half(const uint16_t*, int)
//   struct Integers                 the product of integers and what follows from it
// Nothing here may be shared between these files: each function is compiled for each of them.
#include <cmath>
#include <cstdlib>
#include <cstring>

#define ALWAYS inline __attribute__((always_inline))

constexpr int CHUNK = 16;              // terms of a sum in the map
constexpr int SPARSE = 64;             // of so many blocks one is looked at first
constexpr int MANY = 16;               // images from which on the first is looked at first, too
constexpr int SURE = 4096;             // rows to see before that is said
constexpr int WAITING = 16;            // rows that wait to be compared
constexpr float WIDEST = 0x1p40f;      // scales, in units, lie between this and its inverse
constexpr double UNDERFLOWN = 0x1p-120;  // more than underflow takes from a distance squared
constexpr float ANY = 3.2e38f, NONE = -INFINITY;  // limits under which all rows pass, and none

using std::size_t;
typedef int32_t Whole __attribute__((vector_size(4 * LANES)));
typedef char Bytes __attribute__((vector_size(LANES)));

ALWAYS V load(const float* at) { V v; std::memcpy(&v, at, sizeof v); return v; }
ALWAYS void store(float* at, V v) { std::memcpy(at, &v, sizeof v); }
ALWAYS V same(float value) { return value - V{}; }
ALWAYS V magnitude(V v) { return v < 0 ? -v : v; }
ALWAYS V larger(V a, V b) { return a > b ? a : b; }

ALWAYS void swap(double& a, double& b) {
    const double first = a;
    a = b;
    b = first;
}

inline int up_to(int value, int multiple) { return (value + multiple - 1) / multiple * multiple; }

struct Room {  // memory for a call, in pieces
    char* start = nullptr;
    size_t size = 0;
    template <class T> size_t piece(size_t count) {
        size_t at = size;
        size += (count * sizeof(T) + 63) / 64 * 64;
        return at;
    }
    bool reserve() { return !posix_memalign(reinterpret_cast<void**>(&start), 64, size ? size : 64); }
    template <class T> T* at(size_t offset) const { return reinterpret_cast<T*>(start + offset); }
    ~Room() { std::free(start); }
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

// |x - y|^2 by differences; in float64 where it leaves the range of float32.
template <class T> ALWAYS double distance(const float* x, const T* y, int channels) {
    V a{}, b{};
    int k = 0;
    for (; k + 2 * LANES <= channels; k += 2 * LANES) {
        V d = load_row(y, k) - load(x + k), e = load_row(y, k + LANES) - load(x + k + LANES);
        a += d * d;
        b += e * e;
    }
    for (; k + LANES <= channels; k += LANES) {
        V d = load_row(y, k) - load(x + k);
        a += d * d;
    }
    if (k < channels) {
        V d = load_end(y, k, channels - k) - load_some(x + k, channels - k);
        b += d * d;
    }
    float found = sum(a + b);
    if (__builtin_expect(found <= 3e38f, 1)) return found;
    double exact = 0;
    for (k = 0; k < channels; k++) {
        double d = double(single(y + k)) - x[k];
        exact += d * d;
    }
    return exact;
}

inline double distance(const float* x, const Rows& gallery, int64_t row, int channels) {
    if (gallery.half)
        return distance(x, static_cast<const uint16_t*>(gallery.data) + row * channels, channels);
    return distance(x, static_cast<const float*>(gallery.data) + row * channels, channels);
}

// v = (y - c) / unit, filled up with zeros; false if y is not finite.
template <class T>
inline bool centred(const T* row, const Map& map, float* out, int padded) {
    const V by = same(1 / map.unit);
    V odd{};
    int k = 0, c = map.channels;
    for (; k + LANES <= c; k += LANES) {
        V y = load_row(row, k);
        odd += y * 0;
        store(out + k, (y - load(map.centre + k)) * by);
    }
    if (k < c) {
        V y = load_end(row, k, c - k);
        odd += y * 0;
        store(out + k, (y - load_some(map.centre + k, c - k)) * by);
        k += LANES;
    }
    for (; k < padded; k += LANES) store(out + k, V{});
    return sum(odd) == 0;
}

inline bool centred(const Rows& gallery, int64_t row, const Map& map, float* out, int padded) {
    int64_t at = row * map.channels;
    if (gallery.half)
        return centred(static_cast<const uint16_t*>(gallery.data) + at, map, out, padded);
    return centred(static_cast<const float*>(gallery.data) + at, map, out, padded);
}

// z[r] = A v[r] for a few rows, in sums of CHUNK terms.
template <int R, int N>
inline void turn(const float* v, size_t stride, const Map& map, int column, float* z, size_t out) {
    for (int start = 0; start < map.channels; start += CHUNK) {
        int stop = start + CHUNK < map.channels ? start + CHUNK : map.channels;
        V acc[R][N] = {};
        for (int k = start; k < stop; k++) {
            const float* axes = map.axes + size_t(k) * map.padded + column;
            for (int n = 0; n < N; n++) {
                V a = load(axes + n * LANES);
                for (int r = 0; r < R; r++) acc[r][n] += v[r * stride + k] * a;
            }
        }
        for (int r = 0; r < R; r++)
            for (int n = 0; n < N; n++) {
                float* to = z + r * out + column + n * LANES;
                store(to, start ? load(to) + acc[r][n] : acc[r][n]);
            }
    }
}

ALWAYS float square_sum(const float* v, int padded) {
    V a{};
    for (int k = 0; k < padded; k += LANES) a += load(v + k) * load(v + k);
    return sum(a);
}

struct Image {  // of a row under the map: its coordinates, and what rounding may have taken
    float* at;
    float error;
};

// The coordinates of `ROWS` rows v [ROWS, wide], in place or in `room` [ROWS, room_wide].
inline void mapped(float* v, size_t wide, const Map& map, float* room, size_t room_wide, Image* out) {
    if (!map.axes) {
        for (int r = 0; r < ROWS; r++)
            out[r] = {v + r * wide, 0x1p-23f * std::sqrt(square_sum(v + r * wide, int(wide)))};
        return;
    }
    constexpr int R = LANES == 4 ? 2 : 4;
    for (int r = 0; r < ROWS; r += R) {
        int column = 0;
        for (; column + 4 * LANES <= map.padded; column += 4 * LANES)
            turn<R, 4>(v + r * wide, wide, map, column, room + r * room_wide, room_wide);
        for (; column < map.padded; column += LANES)
            turn<R, 1>(v + r * wide, wide, map, column, room + r * room_wide, room_wide);
    }
    const double lost = std::sqrt(double(map.kept)) * (CHUNK + 8 + map.channels / CHUNK) * 0x1p-24;
    for (int r = 0; r < ROWS; r++) {
        float* z = room + r * room_wide;
        const double whole = square_sum(v + r * wide, int(wide));
        for (size_t k = map.kept; k < room_wide; k++) z[k] = 0;
        out[r] = {z, float(lost * std::sqrt(whole) * 1.0001)};
        if (!map.rests) continue;
        const double part = square_sum(z, map.padded);
        double off = (2 * lost + (map.channels / LANES + 8) * 0x1p-23) * whole + 0x1p-100, left = whole > part ? whole - part : 0;
        const double rest = std::sqrt(left), edge = std::sqrt(off);
        z[map.kept] = float(rest - map.rest);
        out[r].error += float(off / (rest > edge ? rest : edge) * 1.0001);
    }
}

struct Rounded {  // t, |t j|^2 and e^2, the two made safe
    float scale, size, error;
};

// Write j of n coordinates, with bits of `zero` turned over, in groups of four that lie `step` bytes
// apart. What fills up the last group is 0. With a scale such that e <= most * t, if that can be had: else `scale` is 0.
inline Rounded rounded(const Image& image, int n, uint8_t* out, size_t step, char zero, float most) {
    V top{};
    int padded = up_to(n, LANES);
    for (int k = 0; k < padded; k += LANES) top = larger(top, magnitude(load(image.at + k)));
    float scale = largest(top) * (1 / 126.99f);
    if (!(scale < WIDEST)) return {0, 0, 0};
    if (scale < 1 / WIDEST) scale = 1 / WIDEST;
    constexpr float round = 12582912;  // 1.5 * 2^23: what is added to it loses its fraction
    for (int attempt = 0; attempt < 24; attempt++, scale *= 1.15f) {
        V by = same(1 / scale), t = same(scale), away{}, norm{};
        for (int k = 0; k < padded; k += LANES) {
            V w = load(image.at + k), j = (w * by + round) - round, gap = w - j * t;
            away += gap * gap;
            norm += j * j;
        }
        float size = sum(norm) * scale * scale;
        float error = std::sqrt(sum(away) * 1.001f + (0x1p-19f + n * 0x1p-24f) * size) + image.error;
        if (!(error <= most * scale)) continue;
        for (int k = 0; k < padded; k += LANES) {
            const V j = (load(image.at + k) * by + round) - round;
            const auto bytes = __builtin_convertvector(__builtin_convertvector(j, Whole), Bytes) ^ zero;
            for (int i = 0; i < LANES && k + i < n; i += 4)
                std::memcpy(out + (k + i) / 4 * step, reinterpret_cast<const char*>(&bytes) + i, 4);
        }
        return {scale, size, error};
    }
    return {0, 0, 0};
}

// How large e / t may be: two standard deviations above what rounding takes on average.
inline float widest(int n) { return std::sqrt(n / 12.f + 0.15f * std::sqrt(float(n))); }
inline int coordinates(const Map& map) { return map.kept + map.rests; }

inline uint32_t hash_of(const uint8_t* column, int width, float scale) {
    uint64_t h;
    uint32_t word;
    std::memcpy(&word, &scale, 4);
    h = word;
    for (int k = 0; k < width / 4; k++) {
        std::memcpy(&word, column + size_t(k) * ROWS * 4, 4);
        h = (h ^ word) * 0x9e3779b97f4a7c15u;
        h ^= h >> 29;
    }
    return uint32_t(h >> 16);
}

// Rows of a block lie far apart, so that a few blocks tell of all of an image: row r of block b is
// the image's row b + r * blocks.
inline int64_t blocks_in(const Packed& image) { return (image.rows + ROWS - 1) / ROWS; }

int pack(const Map* given, const Rows* gallery, Packed* packed) {
    const Map map = *given;
    const int wide = up_to(map.channels, LANES), room_wide = up_to(map.padded + 1, 16);
    const int n = coordinates(map), size = map.width * ROWS + TERMS;
    const size_t bytes = size_t(map.channels) * (gallery->half ? 2 : 4);
    uint32_t slots = 1;
    while (slots < 2 * packed->rows) slots *= 2;
    Room room;
    size_t at_v = room.piece<float>(size_t(ROWS) * wide);
    size_t at_z = room.piece<float>(size_t(ROWS) * room_wide);
    size_t at_slot = room.piece<int32_t>(slots), at_hash = room.piece<uint32_t>(packed->rows);
    if (!room.reserve()) return NO_MEMORY;
    float *v = room.at<float>(at_v), *z = room.at<float>(at_z);
    int32_t* slot = room.at<int32_t>(at_slot);
    uint32_t* hashes = room.at<uint32_t>(at_hash);
    std::memset(slot, -1, slots * sizeof *slot);
    const char* data = static_cast<const char*>(gallery->data) + packed->first * bytes;
    Image images[ROWS];
    const int64_t blocks = blocks_in(*packed);
    for (int64_t start = 0; start < blocks; start++) {
        const int rows = int((packed->rows - start + blocks - 1) / blocks);
        uint8_t* block = packed->blocks + start * size;
        float* inverse = reinterpret_cast<float*>(block + size_t(map.width) * ROWS);
        float* term = inverse + ROWS;
        std::memset(block, 128, size_t(map.width) * ROWS);
        for (int r = 0; r < rows; r++)
            if (!centred(*gallery, packed->first + start + r * blocks, map, v + size_t(r) * wide, wide))
                return NOT_FINITE;
        for (size_t k = size_t(rows) * wide; k < size_t(ROWS) * wide; k++) v[k] = 0;
        mapped(v, wide, map, z, room_wide, images);
        for (int r = 0; r < ROWS; r++) {
            inverse[r] = 0;
            term[r] = NEVER;
            if (r >= rows) continue;
            const int64_t row = start + r * blocks;
            packed->copies[row] = -1;
            const Rounded one = rounded(images[r], n, block + 4 * r, ROWS * 4, char(128), widest(n));
            const uint32_t hash = hash_of(block + 4 * r, map.width, one.scale);
            hashes[row] = hash;
            bool copy = false;
            uint32_t place = hash & (slots - 1);
            for (; slot[place] >= 0 && !copy; place = (place + 1) & (slots - 1)) {
                const int32_t other = slot[place];
                if (hashes[other] != hash) continue;
                if (std::memcmp(data + other * bytes, data + row * bytes, bytes)) continue;
                packed->copies[row] = packed->copies[other];
                packed->copies[other] = int32_t(row);
                copy = true;
            }
            if (copy) continue;
            slot[place] = int32_t(row);
            if (one.scale > 0) {
                inverse[r] = 1 / one.scale;
                term[r] = (one.size - one.error * one.error) / one.scale;
            } else {  // it always passes
                for (int k = 0; k < map.width / 4; k++)
                    std::memset(block + 4 * r + size_t(k) * ROWS * 4, 128, 4);
                term[r] = -NEVER;
            }
        }
    }
    return DONE;
}

struct Asked {  // a query's numbers, in units
    double size, error, unit;  // |u i|^2, e_x, u
    int64_t passed;
};

// The nearest rows of each query so far, and what follows for the pass.
struct Nearest {
    const Search& search;
    double* distances;  // [count, k] ascending
    int64_t* ids;

    double last(int64_t q) const { return distances[(q + 1) * search.k - 1]; }

    void clear(int64_t q) {
        for (int64_t i = q * search.k; i < (q + 1) * search.k; i++) {
            distances[i] = INFINITY;
            ids[i] = -1;
        }
    }

    void add(int64_t q, double found, int64_t row) {
        double* own = distances + q * search.k;
        int64_t *rows = ids + q * search.k, at = search.k - 1;
        for (; at > 0 && own[at - 1] > found; at--) {
            own[at] = own[at - 1];
            rows[at] = rows[at - 1];
        }
        own[at] = found;
        rows[at] = row;
    }

    // Compare a query with a row, and take the row in with its copies.
    void compare(int64_t q, const Packed& image, int64_t inside) {
        const int channels = search.map->channels;
        int64_t row = image.first + inside;
        double found = distance(search.queries + q * channels, *search.gallery, row, channels);
        for (; inside >= 0 && found < last(q); inside = image.copies[inside])
            add(q, found, image.first + inside);
    }
};

// A distance, in units, from its square as it was computed, and no less.
inline double reached(double square, const Map& map) {
    return std::sqrt(square + UNDERFLOWN) / map.unit * (1 + 0x1p-18 + map.channels * 0x1p-26);
}

// What a query's rows are held against: A, and (D / u) w, from its distance so far.
inline void follow(const Asked& one, double distance, const Map& map, float w, float* a, float* limit) {
    const double away = reached(distance, map);
    if (!(away < 1e30)) {
        *a = 0;
        *limit = ANY;
        return;
    }
    const double all = away + one.error, by = (one.size - all * all) / (2 * one.unit);
    *a = float(by < -1e38 ? -1e38 : by);
    *limit = float(all / one.unit * w * (1 + 0x1p-18));
}

int products(const Search&, Nearest&, const int64_t* hard, int64_t count, double* limits);

int search(const Search* given) {
    const Search& s = *given;
    const Map map = *s.map;
    constexpr int R = Integers::R, B = Integers::B;
    typedef Integers::Low Low;
    const int64_t n = s.count, padded = (n + R - 1) / R * R;
    const int wide = up_to(map.channels, LANES), room_wide = up_to(map.padded + 1, 16);
    const int d = coordinates(map), size = map.width * ROWS + TERMS;
    Room room;
    size_t at_best = room.piece<double>(n * s.k), at_bounds = room.piece<double>(n * s.k);
    size_t at_bounded = room.piece<int64_t>(n * s.k), at_v = room.piece<float>(size_t(ROWS) * wide);
    size_t at_z = room.piece<float>(size_t(ROWS) * room_wide), at_low = room.piece<Low>(padded * map.width);
    size_t at_bytes = room.piece<int8_t>(map.width);
    size_t at_a = room.piece<float>(padded), at_b = room.piece<float>(padded);
    size_t at_limit = room.piece<float>(padded), at_start = room.piece<int32_t>(padded);
    size_t at_asked = room.piece<Asked>(n), at_hard = room.piece<int64_t>(n), at_dead = room.piece<uint8_t>(size);
    if (!room.reserve()) return NO_MEMORY;
    Nearest nearest{s, room.at<double>(at_best), s.ids};
    double* bounds = room.at<double>(at_bounds);
    int64_t* bounded = room.at<int64_t>(at_bounded);
    for (int64_t i = 0; i < n * s.k; i++) {
        bounds[i] = INFINITY;
        bounded[i] = -1;
    }
    Low* low = room.at<Low>(at_low);
    int8_t* bytes = room.at<int8_t>(at_bytes);
    float *a = room.at<float>(at_a), *b = room.at<float>(at_b), *limit = room.at<float>(at_limit);
    int32_t* start = room.at<int32_t>(at_start);
    Asked* asked = room.at<Asked>(at_asked);
    int64_t *hard = room.at<int64_t>(at_hard), hard_count = 0;
    uint8_t* dead = room.at<uint8_t>(at_dead);
    std::memset(low, 0, padded * map.width * sizeof *low);
    std::memset(dead, 128, map.width * ROWS);
    for (int r = 0; r < ROWS; r++) {
        reinterpret_cast<float*>(dead + size_t(map.width) * ROWS)[r] = 0;
        reinterpret_cast<float*>(dead + size_t(map.width) * ROWS)[ROWS + r] = NEVER;
    }

    float *v = room.at<float>(at_v), *z = room.at<float>(at_z);
    const float w = widest(d);
    Image images[ROWS];
    for (int64_t q0 = 0; q0 < n; q0 += ROWS) {
        const int rows = int(n - q0 < ROWS ? n - q0 : ROWS);
        std::memset(v, 0, sizeof(float) * ROWS * wide);
        for (int r = 0; r < rows; r++)
            if (!centred(s.queries + (q0 + r) * map.channels, map, v + size_t(r) * wide, wide))
                return NOT_FINITE;
        mapped(v, wide, map, z, room_wide, images);
        for (int r = 0; r < rows; r++) {
            const int64_t q = q0 + r;
            std::memset(bytes, 0, map.width);
            const Rounded one = rounded(images[r], d, reinterpret_cast<uint8_t*>(bytes), 4, 0, INFINITY);
            Integers::arrange(bytes, map.width, low + q * map.width);
            int32_t total = 0;
            for (int k = 0; k < map.width; k++) total += bytes[k];
            nearest.clear(q);
            asked[q] = {one.size, one.error, one.scale, 0};
            start[q] = -128 * total;
            if (one.scale > 0) {
                b[q] = 0.5f / one.scale;
                follow(asked[q], INFINITY, map, w, a + q, limit + q);
            } else {
                a[q] = b[q] = 0;
                limit[q] = NONE;
                hard[hard_count++] = q;
            }
        }
    }
    for (int64_t q = n; q < padded; q++) {
        a[q] = b[q] = 0;
        start[q] = 0;
        limit[q] = NONE;
    }

    int64_t blocks_each = 0;
    for (int64_t i = 0; i < s.image_count; i++) {
        const int64_t blocks = blocks_in(*s.images[i]);
        if (blocks > blocks_each) blocks_each = blocks;
    }
    const int64_t total = blocks_each * s.image_count;
    const int64_t whole = s.image_count < MANY ? 0 : blocks_each;
    // The share of rows that may pass before products, of a cost in vectors, are cheaper.
    const double vectors = double(map.channels) / LANES, hopeless = (1 + vectors) / (80 + 4 * vectors);
    int64_t seen = 0, left = n - hard_count;
    float found[R * B][ROWS] __attribute__((aligned(64)));
    // Rows that pass wait a little, for what they are compared by to come from memory.
    struct Candidate {
        int64_t query;
        const Packed* image;
        int64_t inside;
        float excess, inverse;
    } waiting[WAITING];
    int64_t queued = 0, oldest = 0;
    const size_t row_bytes = size_t(map.channels) * (s.gallery->half ? 2 : 4);
    auto fetch = [&](int64_t row) {
        const char* start = static_cast<const char*>(s.gallery->data) + row * row_bytes;
        for (size_t at = 0; at < row_bytes && at < 1024; at += 64) __builtin_prefetch(start + at);
    };
    auto settle = [&] {
        const Candidate one = waiting[oldest];
        oldest = (oldest + 1) % WAITING;
        queued--;
        const int64_t q = one.query;
        if (limit[q] == NONE || one.excess + a[q] * one.inverse > limit[q]) return;  // what is no number stays
        asked[q].passed++;
        const double before = nearest.last(q);
        nearest.compare(q, *one.image, one.inside);
        const double last = nearest.last(q);
        if (last < before && last < bounds[(q + 1) * s.k - 1]) follow(asked[q], last, map, w, a + q, limit + q);
        if (last == 0) {
            limit[q] = NONE;
            left--;
        } else if (seen > SURE && asked[q].passed > seen * hopeless) {
            limit[q] = NONE;
            hard[hard_count++] = q;
            left--;
        }
    };
    // Of the first round, the rows that are the nearest by their integers are remembered.
    auto guess = [&](int64_t q, int64_t row, float excess, float inverse) {
        const Asked& one = asked[q];
        const double scale = 1 / double(inverse), away = w * scale;
        double square = one.size + 2 * one.unit * scale * excess + away * away;
        square += 0x1p-19 * (one.size + square);
        const double most = (std::sqrt(square > 0 ? square : 0) + one.error + away) * map.unit * (1 + 0x1p-18);
        double* own = bounds + q * s.k;
        int64_t* rows = bounded + q * s.k;
        if (!(most * most < own[s.k - 1])) return;
        int64_t at = s.k - 1;
        for (; at > 0 && own[at - 1] > most * most; at--) {
            own[at] = own[at - 1];
            rows[at] = rows[at - 1];
        }
        own[at] = most * most;
        rows[at] = row;
        const double last = own[s.k - 1];
        if (last < INFINITY) follow(one, last, map, w, a + q, limit + q);
    };
    // What is bounded is compared, after the first round: then thresholds are near their last.
    auto sharpen = [&] {
        for (int64_t i = 0; i < n * s.k; i++) {
            const int64_t next = i + WAITING < n * s.k ? bounded[i + WAITING] : -1;
            if (next >= 0) fetch(next);
            bounds[i] = INFINITY;
            if (bounded[i] < 0) continue;
            const float* x = s.queries + i / s.k * map.channels;
            const double found = distance(x, *s.gallery, bounded[i], map.channels);
            bounds[i] = found;
            bounded[i] = -1;
        }
        for (int64_t q = 0; q < n; q++) {
            double* own = bounds + q * s.k;
            for (int64_t i = 1; i < s.k; i++)
                for (int64_t j = i; j > 0 && own[j - 1] > own[j]; j--) swap(own[j], own[j - 1]);
            if (b[q] > 0) follow(asked[q], own[s.k - 1], map, w, a + q, limit + q);
        }
    };
    auto push = [&](const Candidate& one) {
        if (queued == WAITING) settle();
        waiting[(oldest + queued++) % WAITING] = one;
        fetch(one.image->first + one.inside);
    };
    // Every SPARSE-th block first: then most thresholds are near their last when the others come.
    Integers::begin();
    for (int64_t phase = 0; phase < 2 && left; phase++) {
        int64_t next = 0;
        while (next < total && left) {
            if (*s.stop) {
                Integers::end();
                return STOPPED;
            }
            const uint8_t* block[B];
            const Packed* image[B] = {};
            int64_t inside[B] = {};
            int many = 0;
            for (; next < total && many < B; next++) {
                if (phase == 0 && next >= whole && next % SPARSE) {
                    next += SPARSE - 1 - next % SPARSE;
                    continue;
                }
                const Packed& one = *s.images[next / blocks_each];
                int64_t nth = next % blocks_each;
                if (nth >= blocks_in(one)) continue;
                block[many] = one.blocks + nth * size;
                image[many] = &one;
                inside[many++] = nth;
            }
            for (int i = many; i < B; i++) block[i] = dead;
            for (int64_t q0 = 0; q0 < padded; q0 += R) {
                uint32_t hits = Integers::tile(low + q0 * map.width, map.width, a + q0, b + q0, limit + q0,
                                               start + q0, block, found);
                float used[R];  // A may change while rows of this tile wait
                if (hits) std::memcpy(used, a + q0, sizeof used);
                for (; __builtin_expect(hits != 0, 0); hits &= hits - 1) {
                    const int r = __builtin_ctz(hits);
                    const int64_t q = q0 + r;
                    for (int i = 0; i < many; i++) {
                        const float* terms = reinterpret_cast<const float*>(block[i] + size_t(map.width) * ROWS);
                        // A of a query of which nothing is known is 0, and may become less; else it only grows.
                        uint32_t mask = passing(found[r * B + i], a[q] < used[r] ? ANY : limit[q]);
                        for (; mask; mask &= mask - 1) {
                            const int c = __builtin_ctz(mask);
                            if (terms[ROWS + c] == NEVER) continue;
                            const float excess = found[r * B + i][c] - used[r] * terms[c];
                            const int64_t row = inside[i] + c * blocks_in(*image[i]);
                            if (phase)
                                push({q, image[i], row, excess, terms[c]});
                            else if (terms[c] > 0)
                                guess(q, image[i]->first + row, excess, terms[c]);
                        }
                    }
                }
            }
            if (phase) seen += many * ROWS;
        }
        while (queued) settle();
        if (phase == 0) sharpen();
    }
    Integers::end();
    if (hard_count) {
        for (int64_t q = 0; q < n; q++) {
            const double last = bounds[(q + 1) * s.k - 1];
            bounds[q] = last < nearest.last(q) ? last : nearest.last(q);
        }
        const int status = products(s, nearest, hard, hard_count, bounds);
        if (status) return status;
    }
    for (int64_t i = 0; i < n * s.k; i++) s.distances[i] = float(nearest.distances[i]);
    return DONE;
}

// Queries for which too many rows pass: products in float32, of rows that are laid out as they
// come.
// `limits` are distances, [all queries], that the k-th nearest do not exceed.
int products(const Search& s, Nearest& nearest, const int64_t* hard, int64_t count, double* limits) {
    constexpr int R = LANES == 4 ? 4 : 6, N = LANES == 16 ? 4 : 2, PANEL = N * LANES;
    constexpr int STEP = PANEL < ROWS ? PANEL : ROWS;  // rows that are laid out at a time
    const Map map = *s.map;
    const int c = map.channels, wide = up_to(c, LANES);
    const int64_t padded = (count + R - 1) / R * R;
    const double h = (c + 8) * 0x1p-23;
    Room room;
    size_t at_x = room.piece<float>(padded * wide), at_t = room.piece<float>(padded);
    size_t at_x2 = room.piece<double>(padded);
    size_t at_y = room.piece<float>(size_t(wide) * PANEL), at_v = room.piece<float>(size_t(ROWS) * wide);
    if (!room.reserve()) return NO_MEMORY;
    float *x = room.at<float>(at_x), *t = room.at<float>(at_t), *y = room.at<float>(at_y);
    float* v = room.at<float>(at_v);
    double* x2 = room.at<double>(at_x2);
    float found[R][PANEL] __attribute__((aligned(64))), half[PANEL] __attribute__((aligned(64)));
    std::memset(x, 0, sizeof(float) * padded * wide);
    auto follow_here = [&](int64_t i, double distance) {
        const double limit = reached(distance, map);
        double least = ((1 - 2 * h) * x2[i] - limit * limit) / 2 - 0x1p-20 * (x2[i] + limit * limit) - 0x1p-100;
        t[i] = least > -3e38 ? float(least) : -INFINITY;  // so large, or no number: all pass
    };
    for (int64_t i = 0; i < padded; i++) t[i] = INFINITY;
    for (int64_t i = 0; i < count; i++) {
        centred(s.queries + hard[i] * c, map, x + i * wide, wide);
        double all = 0;
        for (int k = 0; k < c; k++) all += double(x[i * wide + k]) * x[i * wide + k];
        x2[i] = all;
        follow_here(i, limits[hard[i]]);
        nearest.clear(hard[i]);
    }
    for (int64_t i = 0; i < s.image_count; i++) {
        const Packed& image = *s.images[i];
        for (int64_t start = 0; start < image.rows; start += PANEL) {
            if (*s.stop) return STOPPED;
            const int rows = int(image.rows - start < PANEL ? image.rows - start : PANEL);
            const int64_t blocks = blocks_in(image), size = map.width * ROWS + TERMS;
            for (int r = 0; r < PANEL; r += STEP) {
                for (int i = 0; i < STEP; i++) {
                    const int64_t row = start + r + i;
                    float* out = v + size_t(i) * wide;
                    half[r + i] = 3e38f;
                    if (row < image.rows) {
                        const float* terms = reinterpret_cast<const float*>(
                            image.blocks + row % blocks * size + size_t(map.width) * ROWS);
                        centred(*s.gallery, image.first + row, map, out, wide);
                        if (terms[ROWS + row / blocks] == NEVER) continue;
                        const double all = (1 - 2 * h) * square_sum(out, wide) / 2 * (1 - 0x1p-20);
                        half[r + i] = float(all);
                        if (all < 1e38) continue;
                        half[r + i] = -3e38f;  // too large for products: it passes
                    }
                    std::memset(out, 0, sizeof(float) * wide);
                }
                for (int k = 0; k < c; k++)
                    for (int i = 0; i < STEP; i++) y[size_t(k) * PANEL + r + i] = v[size_t(i) * wide + k];
            }
            for (int64_t q0 = 0; q0 < padded; q0 += R) {
                V acc[R][N] = {};
                const float* own = x + q0 * wide;
                for (int k = 0; k < c; k++) {
                    V row[N];
                    for (int m = 0; m < N; m++) row[m] = load(y + size_t(k) * PANEL + m * LANES);
                    for (int r = 0; r < R; r++)
                        for (int m = 0; m < N; m++) acc[r][m] += own[r * wide + k] * row[m];
                }
                for (int r = 0; r < R; r++) {
                    V top = same(-INFINITY);
                    for (int m = 0; m < N; m++) {
                        acc[r][m] -= load(half + m * LANES);
                        // What is not a number came from products too large, and passes.
                        acc[r][m] = acc[r][m] == acc[r][m] ? acc[r][m] : same(INFINITY);
                        top = larger(top, acc[r][m]);
                    }
                    if (__builtin_expect(!(largest(top) >= t[q0 + r]), 1)) continue;
                    if (t[q0 + r] == INFINITY) continue;
                    for (int m = 0; m < N; m++) store(found[r] + m * LANES, acc[r][m]);
                    const int64_t q = hard[q0 + r];
                    for (int m = 0; m < rows; m++) {
                        if (!(found[r][m] >= t[q0 + r]) || half[m] == 3e38f) continue;
                        nearest.compare(q, image, start + m);
                        if (nearest.last(q) < limits[q]) {
                            limits[q] = nearest.last(q);
                            follow_here(q0 + r, limits[q]);
                            if (limits[q] == 0) t[q0 + r] = INFINITY;
                        }
                    }
                }
            }
        }
    }
    return DONE;
}

// Few queries, and rows that are looked at once: differences of all pairs.
template <class T> inline int differences(const Search& s, const T* rows) {
    constexpr int R = 4;
    const int c = s.map->channels;
    const int64_t first = s.images[0]->first, count = s.images[0]->rows;
    Room room;
    size_t at_best = room.piece<double>(s.count * s.k);
    if (!room.reserve()) return NO_MEMORY;
    Nearest nearest{s, room.at<double>(at_best), s.ids};
    for (int64_t q = 0; q < s.count; q++) nearest.clear(q);
    // Rows that all queries are compared with before the next ones come from memory.
    const int64_t step = 1 + (1 << 16) / (c * int64_t(sizeof(T)));
    for (int64_t start = 0; start < count; start += step)
    for (int64_t q0 = 0; q0 < s.count; q0 += R) {
        if (*s.stop) return STOPPED;
        const int some = int(s.count - q0 < R ? s.count - q0 : R);
        const int64_t stop = start + step < count ? start + step : count;
        const float* x[R];
        for (int r = 0; r < R; r++) x[r] = s.queries + (q0 + (r < some ? r : 0)) * c;
        for (int64_t i = start; i < stop; i++) {
            const T* y = rows + (first + i) * c;
            V acc[R] = {};
            int k = 0;
            for (; k + LANES <= c; k += LANES) {
                V row = load_row(y, k);
                for (int r = 0; r < R; r++) {
                    V gap = row - load(x[r] + k);
                    acc[r] += gap * gap;
                }
            }
            if (k < c) {
                V row = load_end(y, k, c - k);
                for (int r = 0; r < R; r++) {
                    V gap = row - load_some(x[r] + k, c - k);
                    acc[r] += gap * gap;
                }
            }
            for (int r = 0; r < some; r++) {
                double found = sum(acc[r]);
                if (!(found <= 3e38)) {
                    found = distance(x[r], y, c);
                    if (!(found < INFINITY)) return NOT_FINITE;
                }
                if (found < nearest.last(q0 + r)) nearest.add(q0 + r, found, first + i);
            }
        }
    }
    for (int64_t i = 0; i < s.count * s.k; i++) s.distances[i] = float(nearest.distances[i]);
    return DONE;
}

int direct(const Search* s) {
    if (s->gallery->half) return differences(*s, static_cast<const uint16_t*>(s->gallery->data));
    return differences(*s, static_cast<const float*>(s->gallery->data));
}
