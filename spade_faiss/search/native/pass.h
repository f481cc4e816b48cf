// The pass over packed rows: what `kernel.h` explains, for any instruction set.
#include "vectors.h"

#include "nearest.h"
#include "rows.h"

#include "direct.h"
#include "products.h"

constexpr int SPARSE = 61;   // of so many blocks one is looked at first; images seldom have a multiple of it
constexpr int LARGER = 4;    // times as large as most of a group, a query begins another,
constexpr int SPLITS = 4;    // up to so often
constexpr int MANY = 16;     // images from which on the first, the nearest, is looked at first, too
constexpr int WAITING = 16;  // rows that wait to be compared
constexpr float ANY = 0x1p100f;  // a reach that all rows are in
constexpr float LEAST = -0x1p30f, MOST = 0x1p29f;  // T and G are below what lies between these: see `kernel.h`

// Integers of numbers, which are made no less than LEAST and no more than MOST; less 1 they are below these.
ALWAYS Whole to_integers(V numbers) {
    return __builtin_convertvector(smaller(larger(numbers, same(LEAST)), same(MOST)), Whole);
}

class Pass {
    static constexpr int R = Integers::R, B = Integers::B, GROUP = Integers::GROUP;
    typedef Integers::Low Low;

    // A query's numbers, in units: |u i|^2, e_x, u, and how many rows it was compared with.
    struct Query {
        double size, error, unit;
        int64_t compared;
    };
    struct Group {  // of queries that share a unit: where they end, and B
        int64_t end;
        float by;
    };
    struct Candidate {
        int64_t query;
        const Packed* image;
        int64_t inside;
        int32_t found;         // i.j - G, and what 128 added to rows' integers add to it
        float inverse, width;  // of its block
    };
    struct Blocks {  // that are looked at together
        const uint8_t* bytes[B];
        const Packed* image[B];
        const int32_t* order[B];
        int count;
    };

    // Queries lie in groups that share a unit, in the order of their largest coordinates. Where a
    // group ends early, places are empty. All below goes by places, but for `nearest`.
    const Search& s;
    const Map& map;
    const int size;
    const int64_t n, padded;
    const double hopeless;  // share of rows from which on products are cheaper than comparisons
    Nearest nearest;
    Array<int64_t> who;                 // [padded]: which of the queries that were given it is
    Array<Group> groups;                // [padded / GROUP]
    Array<Query> query;                 // [padded]
    Array<Low> low;                     // [padded, width]
    Array<float> a, reach;              // [padded]: A, and D / u or what says that none is wanted
    Array<int32_t> start;               // [padded]: 1, less what 128 added to rows' integers add to products
    Array<double> known;                // [padded, k]: distances that the k nearest do not exceed
    Array<int64_t> guessed, hard;       // [padded, k]: rows, or -1; [n]
    Array<uint8_t> dead;                // a block without rows
    Candidate waiting[WAITING];
    int64_t waiting_count = 0, oldest = 0, hard_count = 0, left = 0;
    int64_t seen = 0, sure = 0;         // rows, and so many before a query may be called hard

   public:
    explicit Pass(const Search& given)
        : s(given), map(*given.map), size(map.width * ROWS + TERMS), n(given.count),
          padded(((n + GROUP - 1) / GROUP + SPLITS) * GROUP), hopeless((1 + vectors()) / (80 + 4 * vectors())),
          nearest(n, given.k, given.distances, given.ids), who(padded), groups(padded / GROUP), query(padded),
          low(padded * map.width), a(padded), reach(padded), start(padded), known(padded * s.k), guessed(padded * s.k),
          hard(n), dead(size) {}

    int run() {
        if (!nearest.distances || !who || !groups || !query || !low || !a || !reach || !start || !known || !guessed ||
            !hard || !dead)
            return NO_MEMORY;
        int status = prepare();
        if (status) return status;
        Integers::begin();
        const bool done = look(true) && (sharpen(), look(false));
        Integers::end();
        if (!done) return STOPPED;
        if (hard_count) status = finish_hard();
        if (!status) nearest.finish();
        return status;
    }

   private:
    double vectors() const { return double(map.channels) / LANES; }
    const float* row(int64_t q) const { return s.queries + who[q] * map.channels; }

    // Write queries as integers, and that nothing is known of them yet.
    int prepare() {
        Mapped some(map, n, GROUP);
        Array<int8_t> bytes(map.width);
        if (!some || !bytes) return NO_MEMORY;
        std::memset(dead, Integers::ZERO, map.width * ROWS);
        float* terms = terms_of(static_cast<uint8_t*>(dead), map.width);
        for (int r = 0; r < ROWS; r++) terms[r] = NEVER;
        terms[ROWS] = terms[ROWS + 1] = 1;
        for (int64_t i = 0; i < padded * s.k; i++) {
            known[i] = INFINITY;
            guessed[i] = -1;
        }
        for (int64_t q = 0; q < padded; q++) {
            query[q] = {0, 0, 0, 0};
            start[q] = 1;
            close(q);
        }
        for (int64_t i = 0; i < padded / GROUP; i++) groups[i] = {i * GROUP, 0};
        int64_t group = 0, splits = 0;
        for (int64_t first = 0; first < n; first += some.room) {
            const int64_t count = n - first < some.room ? n - first : some.room;
            if (!some.read(s.queries + first * map.channels, count)) return NOT_FINITE;
            for (int64_t i = 0; i < count; i++) some.order[i] = int32_t(i);
            sort(some.top, count, some.order, some.spare);
            for (int64_t i = 0, stop; i < count; i = stop, group += GROUP) {
                stop = count - i < GROUP ? count : i + GROUP;
                // With so much larger ones most of the others would have few bits.
                for (int64_t j = i + 1; j < stop && splits < SPLITS; j++)
                    if (some.top[some.order[j]] > LARGER * some.top[some.order[(i + j) / 2]]) stop = j, splits++;
                const float unit = some.scale(some.order + i, stop - i);
                int64_t q = group;
                for (int64_t j = i; j < stop; j++, q++) {
                    who[q] = first + some.order[j];
                    describe(q, some, some.order[j], unit, bytes);
                }
                groups[group / GROUP] = {q, unit > 0 ? float(0.5 / double(unit)) : 0};
                for (; q % R; q++) std::memset(low + q * map.width, 0, map.width * sizeof(Low));
            }
        }
        return DONE;
    }

    void describe(int64_t q, const Mapped& rows, int64_t which, float unit, int8_t* bytes) {
        if (!rows.fits(which)) {
            std::memset(low + q * map.width, 0, map.width * sizeof(Low));
            hard[hard_count++] = q;
            return;
        }
        std::memset(bytes, 0, map.width);
        const Rounded one = rounded(rows, which, unit, reinterpret_cast<uint8_t*>(bytes), 4, 0);
        Integers::arrange(bytes, map.width, low + q * map.width);
        int32_t total = 0;
        for (int k = 0; k < map.width; k++) total += bytes[k];
        query[q] = {one.size, one.error, unit, 0};
        start[q] = 1 - Integers::ZERO * total;
        reach[q] = ANY;
        left++;
    }

    // No row is wanted any more.
    void close(int64_t q) {
        a[q] = 0;
        reach[q] = -ANY;
    }

    // Set a query's A and D / u from a distance squared that its k-th nearest does not exceed.
    void follow(int64_t q, double square) {
        const Query& one = query[q];
        const double all = reached(square, map) + one.error, by = (one.size - all * all) / (2 * one.unit);
        const bool fits = by > -0x1p80;  // else nothing can be told
        a[q] = fits ? float(by) : 0;
        reach[q] = fits ? float(all / one.unit * (1 + 0x1p-18)) : ANY;
    }

    // -T of some queries for a block.
    ALWAYS Whole lacking(int64_t q, V inverse, V width) const {
        Whole first;
        std::memcpy(&first, start + q, sizeof first);
        return first - to_integers(load(a + q) * inverse - load(reach + q) * width);
    }

    // T of a query for a block.
    int32_t needed(int64_t q, float inverse, float width) const {
        const float all = a[q] * inverse - reach[q] * width, least = all > LEAST ? all : LEAST;
        return int32_t(least < MOST ? least : MOST) - start[q];
    }

    // Look at few blocks, and only guess which rows are near; or at all. False if it is to stop.
    bool look(bool sparsely) {
        int64_t each = 0, next = 0;
        for (int64_t i = 0; i < s.image_count; i++) {
            const int64_t blocks = s.images[i]->count;
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
                if (next % each >= image.count) continue;
                some.bytes[some.count] = image.blocks + next % each * size;
                some.image[some.count] = &image;
                some.order[some.count++] = image.order + next % each * ROWS;
            }
            for (int i = some.count; i < B; i++) some.bytes[i] = dead;
            look_at(some, sparsely);
            if (!sparsely) seen += some.count * ROWS;
        }
        while (waiting_count) settle();
        return true;
    }

    void look_at(const Blocks& some, bool sparsely) {
        alignas(64) int32_t lack[B * GROUP], terms[B][ROWS], found[R * B][ROWS];
        // What is likely to be looked at next comes into cache meanwhile.
        const bool follows = !sparsely && some.count == B;
        const uint8_t *next = follows ? some.bytes[B - 1] + size : dead, *const end = next + (follows ? B * size : 0);
        const int64_t lines = 1 + B * size / 64 / ((n + R - 1) / R);
        for (int64_t group = 0; group < padded; group += GROUP) {
            const int64_t stop = groups[group / GROUP].end;
            if (stop == group) continue;
            const V by = same(groups[group / GROUP].by);
            for (int i = 0; i < B; i++) {
                const float* own = terms_of(some.bytes[i], map.width);
                const V inverse = same(own[ROWS]), width = same(own[ROWS + 1]);
                for (int c = 0; c < ROWS; c += LANES) {
                    const Whole all = to_integers(by * load(own + c)) - 1;
                    std::memcpy(terms[i] + c, &all, sizeof all);
                }
                for (int q = 0; q < GROUP; q += LANES) {
                    const Whole all = lacking(group + q, inverse, width);
                    std::memcpy(lack + i * GROUP + q, &all, sizeof all);
                }
            }
            for (int64_t q0 = group; q0 < stop; q0 += R) {
                for (int64_t i = 0; i < lines && next < end; i++, next += 64) __builtin_prefetch(next, 0, 2);
                if (!Integers::tile(low + q0 * map.width, map.width, lack + q0 - group, terms, some.bytes, found))
                    continue;
                for (int r = 0; r < R && q0 + r < stop; r++)
                    for (int i = 0; i < some.count; i++) {
                        const int32_t* own = found[r * B + i];
                        if (passing(own, -lack[i * GROUP + q0 - group + r])) take(q0 + r, own, some, i, sparsely);
                    }
            }
        }
    }

    // Take in what passes of a block.
    void take(int64_t q, const int32_t* found, const Blocks& some, int i, bool sparsely) {
        const float *terms = terms_of(some.bytes[i], map.width), inverse = terms[ROWS], width = terms[ROWS + 1];
        if (reach[q] < 0) return;
        int best = -1;  // which is the nearest of a block, as all have the same scale
        for (uint32_t mask = passing(found, needed(q, inverse, width)); mask; mask &= mask - 1) {
            const int c = __builtin_ctz(mask);
            if (some.order[i][c] < 0 || (sparsely && terms[c] == -NEVER)) continue;
            const Candidate one = {q, some.image[i], some.order[i][c], found[c], inverse, width};
            if (!sparsely)
                wait(one);
            else if (s.k > 1)
                guess(one);
            else if (best < 0 || found[c] > found[best])
                best = c;
        }
        if (best >= 0) guess({q, some.image[i], some.order[i][best], found[best], inverse, width});
    }

    // Remember the rows that integers say are the nearest. Their distances by integers serve to
    // find them only: `sharpen` replaces them.
    void guess(const Candidate& row) {
        const int64_t q = row.query, k = s.k;
        const Query& one = query[q];
        const double scale = 1 / double(row.inverse), away = row.width * scale;
        const double square = one.size - 2 * one.unit * scale * (double(row.found) + start[q]) + away * away;
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
        for (int64_t i = 0; i < padded * s.k; i++) {
            if (i + WAITING < padded * s.k && guessed[i + WAITING] >= 0) fetch(guessed[i + WAITING]);
            known[i] = guessed[i] < 0 ? INFINITY : distance(row(i / s.k), *s.gallery, guessed[i], map.channels);
        }
        for (int64_t q = 0; q < padded; q++) {
            double* own = known + q * s.k;
            for (int64_t i = 1; i < s.k; i++) {
                const double one = own[i];
                int64_t at = i;
                for (; at > 0 && own[at - 1] > one; at--) own[at] = own[at - 1];
                own[at] = one;
            }
            if (reach[q] > 0) follow(q, own[s.k - 1]);
        }
    }

    // GCC drops calls of a function that only fetches.
    ALWAYS void fetch(int64_t row) const {
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
        const int64_t q = one.query, asked = who[q];
        if (reach[q] < 0 || one.found < needed(q, one.inverse, one.width)) return;
        query[q].compared++;
        const double before = nearest.last(asked);
        const double found = distance(row(q), *s.gallery, one.image->first + one.inside, map.channels);
        nearest.add(asked, found, *one.image, one.inside);
        const double last = nearest.last(asked);
        if (last < before && last < known[(q + 1) * s.k - 1]) follow(q, last);
        const bool is_hard = seen > sure && query[q].compared > seen * hopeless;
        if (last > 0 && !is_hard) return;
        close(q);
        left--;
        if (last > 0) hard[hard_count++] = q;
    }

    int finish_hard() {
        Array<double> limits(n);
        if (!limits) return NO_MEMORY;
        for (int64_t i = 0; i < hard_count; i++) {
            const double last = known[(hard[i] + 1) * s.k - 1];
            hard[i] = who[hard[i]];
            limits[hard[i]] = last < nearest.last(hard[i]) ? last : nearest.last(hard[i]);
        }
        return products(s, nearest, hard, hard_count, limits);
    }
};

int search(const Search* given) { return Pass(*given).run(); }
