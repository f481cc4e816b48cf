// Rows under the map of `kernel.h`, as integers, and packed.
constexpr int CHUNK = 16;          // terms of a sum in the map
constexpr float WIDEST = 0x1p40f;  // scales, in units, lie between this and its inverse

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
        const double off = (2 * lost + (map.channels / LANES + 8) * 0x1p-23) * whole + 0x1p-100;
        const double rest = std::sqrt(whole > part ? whole - part : 0), edge = std::sqrt(off);
        z[map.kept] = float(rest - map.rest);
        out[r].error += float(off / (rest > edge ? rest : edge) * 1.0001);
    }
}

struct Rounded {  // t, |t j|^2 and e^2, the two made safe
    float scale, size, error;
};

// How much larger e^2 is made, of |t j|^2. Sums of squares of so few integers are exact.
inline float slack(int n) { return 0x1p-19f + (n / LANES > 1024 ? n / LANES * 0x1p-24f : 0); }

// Write j of n coordinates, with bits of `zero` turned over, in groups of four that lie `step` bytes
// apart; what fills up the last group is 0. The scale is such that e <= most * t, or 0 if none is.
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
            const V w = load(image.at + k), j = (w * by + round) - round, gap = w - j * t;
            away += gap * gap;
            norm += j * j;
            const auto bytes = __builtin_convertvector(__builtin_convertvector(j, Whole), Bytes) ^ zero;
            for (int i = 0; i < LANES && k + i < n; i += 4)
                std::memcpy(out + (k + i) / 4 * step, reinterpret_cast<const char*>(&bytes) + i, 4);
        }
        const float size = sum(norm) * scale * scale;
        const float error = std::sqrt(sum(away) * 1.001f + slack(n) * size) + image.error;
        if (error <= most * scale) return {scale, size, error};
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
    Array<float> v(ROWS * wide), z(ROWS * room_wide);
    Array<int32_t> slot(slots);
    Array<uint32_t> hashes(packed->rows);
    if (!v || !z || !slot || !hashes) return NO_MEMORY;
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
