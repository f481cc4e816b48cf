// Rows under the map of `kernel.h`, and packed.
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

// z[r] = P v[r] for a few rows, in sums of CHUNK terms.
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

// The coordinates z [ROWS, stride] of rows v [ROWS, wide], in place where there are no axes; and
// what rounding may have taken from each.
inline void mapped(const float* v, size_t wide, const Map& map, float* z, size_t stride, float* error) {
    if (!map.axes) {
        for (int r = 0; r < ROWS; r++) error[r] = 0x1p-23f * std::sqrt(square_sum(z + r * stride, int(stride)));
        return;
    }
    constexpr int R = LANES == 4 ? 2 : 4;
    for (int r = 0; r < ROWS; r += R) {
        int column = 0;
        for (; column + 4 * LANES <= map.padded; column += 4 * LANES)
            turn<R, 4>(v + r * wide, wide, map, column, z + r * stride, stride);
        for (; column < map.padded; column += LANES)
            turn<R, 1>(v + r * wide, wide, map, column, z + r * stride, stride);
    }
    const double lost = std::sqrt(double(map.kept)) * (CHUNK + 8 + map.channels / CHUNK) * 0x1p-24;
    for (int r = 0; r < ROWS; r++) {
        float* own = z + r * stride;
        const double whole = square_sum(v + r * wide, int(wide));
        for (size_t k = map.kept; k < stride; k++) own[k] = 0;
        error[r] = float(lost * std::sqrt(whole) * 1.0001);
        if (!map.rests) continue;
        const double part = square_sum(own, map.padded);
        const double off = (2 * lost + (map.channels / LANES + 8) * 0x1p-23) * whole + 0x1p-100;
        const double rest = std::sqrt(whole > part ? whole - part : 0), edge = std::sqrt(off);
        own[map.kept] = float(rest - map.rest);
        error[r] += float(off / (rest > edge ? rest : edge) * 1.0001);
    }
}

inline int coordinates(const Map& map) { return map.kept + map.rests; }

// Sort indices of n numbers, none of them negative, to a part in 256 of each.
inline void sort(const float* numbers, int64_t n, int32_t* indices, int32_t* spare) {
    for (int shift = 15; shift <= 23; shift += 8) {
        int64_t place[257] = {};
        uint32_t bits;
        for (int64_t i = 0; i < n; i++) {
            std::memcpy(&bits, numbers + indices[i], 4);
            place[1 + (bits >> shift & 255)]++;
        }
        for (int b = 1; b < 256; b++) place[b] += place[b - 1];
        for (int64_t i = 0; i < n; i++) {
            std::memcpy(&bits, numbers + indices[i], 4);
            spare[place[bits >> shift & 255]++] = indices[i];
        }
        int32_t* const done = spare;
        spare = indices;
        indices = done;
    }
}

// Rows under the map, some at a time.
struct Mapped {
    const Map& map;
    const int wide, stride, n;
    const int64_t room;               // rows at a time: a multiple of a step, which is one of ROWS
    Array<float> v, z, error, top;    // top: the largest coordinates
    Array<int32_t> order, spare;
    Array<int8_t> bytes;              // [ROWS, width filled up]: room for who writes a block

    Mapped(const Map& by, int64_t rows, int64_t step)
        : map(by), wide(up_to(map.channels, LANES)), stride(map.axes ? up_to(map.padded + 1, 16) : wide),
          n(coordinates(map)), room(fitting(rows, step)), v(map.axes ? ROWS * wide : 0), z(room * stride),
          error(room), top(room), order(room), spare(room),
          bytes(ROWS * up_to(map.width, LANES)) {}

    explicit operator bool() const { return v && z && error && top && order && spare && bytes; }

    // At most 4096, and a MiB, which stays in cache, but for as many as must be.
    int64_t fitting(int64_t rows, int64_t step) const {
        int64_t most = (1 << 18) / stride;
        if (most > 4096) most = 4096;
        if (rows < most) most = rows + step - 1;
        return most < step ? step : most / step * step;
    }

    // Read rows, at most `room`. False if not all are finite.
    template <class T> bool read(const T* rows, int64_t count) {
        for (int64_t start = 0; start < count; start += ROWS) {
            float *own = z + start * stride, *from = map.axes ? static_cast<float*>(v) : own;
            for (int r = 0; r < ROWS; r++) {
                float* one = from + size_t(r) * wide;
                if (start + r >= count)
                    std::memset(one, 0, sizeof(float) * wide);
                else if (!centred(rows + (start + r) * map.channels, map, one, wide))
                    return false;
            }
            mapped(from, wide, map, own, stride, error + start);
            for (int r = 0; r < ROWS; r++) {
                V most{};
                for (int k = 0; k < n; k += LANES) most = larger(most, magnitude(load(own + size_t(r) * stride + k)));
                top[start + r] = largest(most);
            }
        }
        return true;
    }

    // Whether 8 bits can say what a coordinate is.
    bool fits(int64_t i) const { return top[i] < WIDEST && error[i] < 0x1p60f; }

    // The scale at which 8 bits hold all of `count` rows that fit, or 0 if there are none.
    float scale(const int32_t* rows, int64_t count) const {
        float most = -1;
        for (int64_t i = 0; i < count; i++)
            if (fits(rows[i]) && top[rows[i]] > most) most = top[rows[i]];
        if (most < 0) return 0;
        return most > 127 / WIDEST ? most * (1 / 126.99f) : 1 / WIDEST;
    }

    uint32_t hash(int64_t i) const {
        typedef uint32_t Words __attribute__((vector_size(4 * LANES)));
        Words parts[2] = {}, some;  // neither waits for the other
        for (int k = 0; k < n; k += LANES) {
            Words& part = parts[k / LANES & 1];
            std::memcpy(&some, z + i * stride + k, sizeof some);
            part ^= part >> 11;
            part = (part << 5) - part + some;
        }
        uint64_t all[LANES], h = 0, odd = 0x9e3779b97f4a7c15;
        std::memcpy(all, parts, sizeof all);
        for (int k = 0; k < LANES; k++, odd += 0x3c6ef372fe94f82a) {
            const uint64_t one = all[k] * odd;
            h += (one ^ one >> 32) * odd;
        }
        return uint32_t(h >> 32);
    }
};

inline const float* terms_of(const uint8_t* block, int width) {
    return reinterpret_cast<const float*>(block + size_t(width) * ROWS);
}
inline float* terms_of(uint8_t* block, int width) { return reinterpret_cast<float*>(block + size_t(width) * ROWS); }

// Pack an image: rows that no earlier one equals, in the order of their largest coordinates, so
// that those of a block have much the same scale.
template <class Judge, class T> inline int pack_rows(const Pack& given, const T* data) {
    const Map& map = *given.map;
    Packed& packed = *given.packed;
    const int size = map.width * ROWS + TERMS;
    const size_t bytes = size_t(map.channels) * sizeof(T);
    uint32_t slots = 1;
    while (slots < 2 * packed.rows) slots *= 2;
    Mapped some(map, packed.rows, ROWS);
    Array<int32_t> slot(slots);
    Array<uint32_t> hashes(packed.rows);
    if (!some || !slot || !hashes) return NO_MEMORY;
    std::memset(slot, -1, slots * sizeof *slot);
    packed.count = 0;
    for (int64_t first = 0; first < packed.rows; first += some.room) {
        if (*given.stop) return STOPPED;
        const int64_t rows = packed.rows - first < some.room ? packed.rows - first : some.room;
        if (!some.read(data + first * map.channels, rows)) return NOT_FINITE;
        int64_t single = 0;
        for (int64_t i = 0; i < rows; i++) {
            const int64_t row = first + i;
            const uint32_t hash = hashes[row] = some.hash(i);
            packed.copies[row] = -1;
            bool copy = false;
            uint32_t place = hash & (slots - 1);
            for (; slot[place] >= 0 && !copy; place = (place + 1) & (slots - 1)) {
                const int32_t other = slot[place];
                if (hashes[other] != hash) continue;
                if (std::memcmp(data + other * map.channels, data + row * map.channels, bytes)) continue;
                packed.copies[row] = packed.copies[other];
                packed.copies[other] = int32_t(row);
                copy = true;
            }
            if (copy) continue;
            slot[place] = int32_t(row);
            some.order[single++] = int32_t(i);
        }
        sort(some.top, single, some.order, some.spare);
        for (int64_t start = 0; start < single; start += ROWS, packed.count++) {
            const int held = int(single - start < ROWS ? single - start : ROWS);
            const int32_t* own = some.order + start;
            uint8_t* block = packed.blocks + packed.count * size;
            int32_t* order = packed.order + packed.count * ROWS;
            for (int r = 0; r < ROWS; r++) order[r] = r < held ? int32_t(first + own[r]) : -1;
            Judge::write(some, own, held, block);
        }
    }
    return DONE;
}

template <class Judge> int pack(const void* given) {
    const Pack& asked = *static_cast<const Pack*>(given);
    const int64_t at = asked.packed->first * asked.map->channels;
    const void* data = asked.gallery->data;
    if (asked.gallery->half) return pack_rows<Judge>(asked, static_cast<const uint16_t*>(data) + at);
    return pack_rows<Judge>(asked, static_cast<const float*>(data) + at);
}
