// The pass over packed rows: what `kernel.h` explains, for any instruction set.
#include "vectors.h"

#include "nearest.h"
#include "rows.h"

#include "direct.h"
#include "products.h"

constexpr int SPARSE = 64;   // of so many blocks one is looked at first
constexpr int MANY = 16;     // images from which on the first, the nearest, is looked at first, too
constexpr int WAITING = 16;  // rows that wait to be compared
constexpr float ANY = 3.2e38f, NONE = -INFINITY;  // limits under which all rows pass, and none

class Pass {
    static constexpr int R = Integers::R, B = Integers::B;
    typedef Integers::Low Low;

    // A query's numbers, in units: |u i|^2, e_x, u, and how many rows it was compared with.
    struct Query {
        double size, error, unit;
        int64_t compared;
    };
    struct Candidate {
        int64_t query;
        const Packed* image;
        int64_t inside;
        float excess, inverse;  // but for A / t
    };
    struct Blocks {  // that are looked at together
        const uint8_t* bytes[B];
        const Packed* image[B];
        int64_t nth[B];
        int count;
    };

    const Search& s;
    const Map& map;
    const int wide, room_wide, size;
    const int64_t n, padded;
    const float w;
    const double hopeless;  // share of rows from which on products are cheaper than comparisons
    Nearest nearest;
    Array<Query> query;
    Array<Low> low;                     // [padded, width]
    Array<float> a, b, limit;           // [padded]
    Array<int32_t> start;               // [padded]: what undoes the 128 that rows' integers have more
    Array<double> known;                // [n, k]: distances that the k nearest do not exceed
    Array<int64_t> guessed, hard;       // [n, k]: rows, or -1; [n]
    Array<uint8_t> dead;                // a block without rows
    Candidate waiting[WAITING];
    int64_t waiting_count = 0, oldest = 0, hard_count = 0, left = 0;
    int64_t seen = 0, sure = 0;         // rows, and so many before a query may be called hard

   public:
    explicit Pass(const Search& given)
        : s(given), map(*given.map), wide(up_to(map.channels, LANES)), room_wide(up_to(map.padded + 1, 16)),
          size(map.width * ROWS + TERMS), n(given.count), padded((n + R - 1) / R * R), w(widest(coordinates(map))),
          hopeless((1 + vectors()) / (80 + 4 * vectors())), nearest(n, given.k, given.distances, given.ids),
          query(n), low(padded * map.width), a(padded), b(padded), limit(padded), start(padded), known(n * s.k),
          guessed(n * s.k), hard(n), dead(size) {}

    int run() {
        if (!nearest.distances || !query || !low || !a || !b || !limit || !start || !known || !guessed || !hard ||
            !dead)
            return NO_MEMORY;
        int status = prepare();
        if (status) return status;
        Integers::begin();
        const bool whole = look(true) && (sharpen(), look(false));
        Integers::end();
        if (!whole) return STOPPED;
        if (hard_count) status = finish_hard();
        if (!status) nearest.finish();
        return status;
    }

   private:
    double vectors() const { return double(map.channels) / LANES; }
    static const float* terms_of(const uint8_t* block, int width) {
        return reinterpret_cast<const float*>(block + size_t(width) * ROWS);
    }

    // Write queries as integers, and what nothing is known of yet.
    int prepare() {
        Array<float> v(ROWS * wide), z(ROWS * room_wide);
        Array<int8_t> bytes(map.width);
        if (!v || !z || !bytes) return NO_MEMORY;
        std::memset(low, 0, padded * map.width * sizeof(Low));
        std::memset(dead, 128, map.width * ROWS);
        for (int r = 0; r < ROWS; r++) {
            reinterpret_cast<float*>(dead + map.width * ROWS)[r] = 0;
            reinterpret_cast<float*>(dead + map.width * ROWS)[ROWS + r] = NEVER;
        }
        for (int64_t i = 0; i < n * s.k; i++) {
            known[i] = INFINITY;
            guessed[i] = -1;
        }
        for (int64_t q = n; q < padded; q++) a[q] = b[q] = 0, start[q] = 0, limit[q] = NONE;
        Image images[ROWS];
        for (int64_t q0 = 0; q0 < n; q0 += ROWS) {
            const int rows = int(n - q0 < ROWS ? n - q0 : ROWS);
            std::memset(v, 0, sizeof(float) * ROWS * wide);
            for (int r = 0; r < rows; r++)
                if (!centred(s.queries + (q0 + r) * map.channels, map, v + r * wide, wide)) return NOT_FINITE;
            mapped(v, wide, map, z, room_wide, images);
            for (int r = 0; r < rows; r++) describe(q0 + r, images[r], bytes);
        }
        return DONE;
    }

    void describe(int64_t q, const Image& image, int8_t* bytes) {
        std::memset(bytes, 0, map.width);
        const Rounded one =
            rounded(image, coordinates(map), reinterpret_cast<uint8_t*>(bytes), 4, 0, INFINITY);
        Integers::arrange(bytes, map.width, low + q * map.width);
        int32_t total = 0;
        for (int k = 0; k < map.width; k++) total += bytes[k];
        query[q] = {one.size, one.error, one.scale, 0};
        start[q] = -128 * total;
        a[q] = 0;
        b[q] = one.scale > 0 ? 0.5f / one.scale : 0;
        limit[q] = one.scale > 0 ? ANY : NONE;
        if (one.scale > 0)
            left++;
        else
            hard[hard_count++] = q;
    }

    // Set a query's A, and (D / u) w, from a distance squared that its k-th nearest does not exceed.
    void follow(int64_t q, double square) {
        const Query& one = query[q];
        const double all = reached(square, map) + one.error, by = (one.size - all * all) / (2 * one.unit);
        const bool fits = by > -1e38;  // else nothing can be told
        a[q] = fits ? float(by) : 0;
        limit[q] = fits ? float(all / one.unit * w * (1 + 0x1p-18)) : ANY;
    }

    // Look at few blocks, and only guess which rows are near; or at all. False if it is to stop.
    bool look(bool sparsely) {
        int64_t each = 0, next = 0;
        for (int64_t i = 0; i < s.image_count; i++) {
            const int64_t blocks = blocks_in(*s.images[i]);
            if (blocks > each) each = blocks;
        }
        const int64_t total = each * s.image_count, whole = s.image_count < MANY ? 0 : each;
        sure = total * ROWS / 16 < 4096 ? total * ROWS / 16 : 4096;
        while (next < total && left) {
            if (*s.stop) return false;
            Blocks some;
            for (some.count = 0; next < total && some.count < B; next++) {
                if (sparsely && next >= whole && next % SPARSE) {
                    next += SPARSE - 1 - next % SPARSE;
                    continue;
                }
                const Packed& image = *s.images[next / each];
                if (next % each >= blocks_in(image)) continue;
                some.bytes[some.count] = image.blocks + next % each * size;
                some.image[some.count] = &image;
                some.nth[some.count++] = next % each;
            }
            for (int i = some.count; i < B; i++) some.bytes[i] = dead;
            look_at(some, sparsely);
            if (!sparsely) seen += some.count * ROWS;
        }
        while (waiting_count) settle();
        return true;
    }

    void look_at(const Blocks& some, bool sparsely) {
        alignas(64) float excess[R * B][ROWS];
        float used[R];
        for (int64_t q0 = 0; q0 < padded; q0 += R) {
            uint32_t hits = Integers::tile(low + q0 * map.width, map.width, a + q0, b + q0, limit + q0, start + q0,
                                           some.bytes, excess);
            if (__builtin_expect(hits == 0, 1)) continue;
            std::memcpy(used, a + q0, sizeof used);  // A may change while rows of this tile wait
            for (; hits; hits &= hits - 1) {
                const int r = __builtin_ctz(hits);
                for (int i = 0; i < some.count; i++) take(q0 + r, used[r], excess[r * B + i], some, i, sparsely);
            }
        }
    }

    // Take in what passes of a block. Of a query of which nothing is known A is 0, and may become
    // less; else it only grows.
    void take(int64_t q, float used, const float* excess, const Blocks& some, int i, bool sparsely) {
        const float* terms = terms_of(some.bytes[i], map.width);
        const Packed& image = *some.image[i];
        for (uint32_t mask = passing(excess, a[q] < used ? ANY : limit[q]); mask; mask &= mask - 1) {
            const int c = __builtin_ctz(mask);
            if (terms[ROWS + c] == NEVER) continue;
            // The excess was rounded with this A, which may be far larger than what A is by then.
            const float size = used * terms[c], safe = excess[c] - size - 0x1p-21f * std::fabs(size);
            const Candidate one = {q, &image, some.nth[i] + c * blocks_in(image), safe, terms[c]};
            if (!sparsely)
                wait(one);
            else if (one.inverse > 0)
                guess(one);
        }
    }

    // Remember the rows that integers say are the nearest. Their distances by integers serve to
    // find them only: `sharpen` replaces them.
    void guess(const Candidate& row) {
        const int64_t q = row.query, k = s.k;
        const Query& one = query[q];
        const double scale = 1 / double(row.inverse), away = w * scale;
        const double square = one.size + 2 * one.unit * scale * row.excess + away * away;
        const double all = (std::sqrt(square > 0 ? square : 0) + one.error + away) * map.unit, found = all * all;
        double* own = known + q * k;
        int64_t *rows = guessed + q * k, at = k - 1;
        if (!(found < own[at])) return;
        for (; at > 0 && own[at - 1] > found; at--) own[at] = own[at - 1], rows[at] = rows[at - 1];
        own[at] = found;
        rows[at] = row.image->first + row.inside;
        if (own[k - 1] < INFINITY) follow(q, own[k - 1]);
    }

    // Compare what is guessed. The k-th of these distances bounds the k-th nearest row's.
    void sharpen() {
        for (int64_t i = 0; i < n * s.k; i++) {
            if (i + WAITING < n * s.k && guessed[i + WAITING] >= 0) fetch(guessed[i + WAITING]);
            const float* x = s.queries + i / s.k * map.channels;
            known[i] = guessed[i] < 0 ? INFINITY : distance(x, *s.gallery, guessed[i], map.channels);
        }
        for (int64_t q = 0; q < n; q++) {
            double* own = known + q * s.k;
            for (int64_t i = 1; i < s.k; i++) {
                const double one = own[i];
                int64_t at = i;
                for (; at > 0 && own[at - 1] > one; at--) own[at] = own[at - 1];
                own[at] = one;
            }
            if (query[q].unit > 0) follow(q, own[s.k - 1]);
        }
    }

    void fetch(int64_t row) const {
        const size_t bytes = size_t(map.channels) * (s.gallery->half ? 2 : 4);
        const char* at = static_cast<const char*>(s.gallery->data) + row * bytes;
        for (size_t i = 0; i < bytes && i < 1024; i += 64) __builtin_prefetch(at + i);
    }

    // Rows that pass wait a little, for what they are compared by to come from memory.
    void wait(const Candidate& one) {
        if (waiting_count == WAITING) settle();
        waiting[(oldest + waiting_count++) % WAITING] = one;
        fetch(one.image->first + one.inside);
    }

    void settle() {
        const Candidate one = waiting[oldest];
        oldest = (oldest + 1) % WAITING;
        waiting_count--;
        const int64_t q = one.query;
        if (limit[q] == NONE || one.excess + a[q] * one.inverse > limit[q]) return;  // no number stays
        query[q].compared++;
        const double before = nearest.last(q);
        const float* x = s.queries + q * map.channels;
        const double found = distance(x, *s.gallery, one.image->first + one.inside, map.channels);
        nearest.add(q, found, *one.image, one.inside);
        const double last = nearest.last(q);
        if (last < before && last < known[(q + 1) * s.k - 1]) follow(q, last);
        const bool is_hard = seen > sure && query[q].compared > seen * hopeless;
        if (last > 0 && !is_hard) return;
        limit[q] = NONE;
        left--;
        if (last > 0) hard[hard_count++] = q;
    }

    int finish_hard() {
        Array<double> limits(n);
        if (!limits) return NO_MEMORY;
        for (int64_t q = 0; q < n; q++) {
            const double last = known[(q + 1) * s.k - 1];
            limits[q] = last < nearest.last(q) ? last : nearest.last(q);
        }
        return products(s, nearest, hard, hard_count, limits);
    }
};

int search(const Search* given) { return Pass(*given).run(); }
