// The pass over packed rows: what `kernel.h` explains, for any instruction set.
#include "vectors.h"

#include "nearest.h"
#include "rows.h"

#include "products.h"

// What is likely to be looked at next comes into cache meanwhile, some lines at a time.
struct Ahead {
    const uint8_t *next, *end;
    int64_t lines;

    ALWAYS void fetch() {
        for (int64_t i = 0; i < lines && next < end; i++, next += 64) __builtin_prefetch(next, 0, 2);
    }
};

constexpr int SPARSE = 61;       // of so many blocks one is looked at first; images seldom have a multiple of it
constexpr int MANY = 16;         // images from which on the first, the nearest, is looked at first, too
constexpr int WAITING = 16;      // rows that wait to be compared
constexpr float ANY = 0x1p100f;  // a reach that all rows are in

#include "integers.h"

// By what `Judge` says, few rows are compared. It has
//   R, B             queries and blocks that are looked at together
//   Score, Terms     what it says of a row, the more the nearer it is, and what it knows of a block
//   places, who      where queries lie, and which it is; all below goes by places, but for `nearest`
//   write(...)       packs rows
//   prepare, follow, close, closed, begin, end, look, terms, needed, far   as `Integers` explains
template <class Judge> class Pass {
    static constexpr int R = Judge::R, B = Judge::B;

    struct Candidate {
        int64_t query;
        const Packed* image;
        int64_t inside;
        typename Judge::Score found;
        typename Judge::Terms terms;  // of its block
    };
    struct Blocks {  // that are looked at together
        const uint8_t* bytes[B];
        const Packed* image[B];
        const int32_t* order[B];
        int count;
    };

    const Search& s;
    const Map& map;
    const int size;
    const int64_t n;
    const double hopeless;  // share of rows from which on products are cheaper than comparisons
    Judge judge;
    Nearest nearest;
    Array<int64_t> compared;       // [places]: how many rows it was compared with
    Array<double> known;           // [places, k]: distances that the k nearest do not exceed
    Array<int64_t> guessed, hard;  // [places, k]: rows, or -1; [n]
    Array<uint8_t> dead;           // a block without rows
    Candidate waiting[WAITING];
    int64_t waiting_count = 0, oldest = 0, hard_count = 0, left = 0;
    int64_t seen = 0, sure = 0;    // rows, and so many before a query may be called hard

   public:
    explicit Pass(const Search& given)
        : s(given), map(*given.map), size(map.width * ROWS + TERMS), n(given.count),
          hopeless((1 + vectors()) / (80 + 4 * vectors())), judge(given),
          nearest(n, given.k, given.distances, given.ids), compared(judge.places), known(judge.places * s.k),
          guessed(judge.places * s.k), hard(n), dead(size) {}

    int run() {
        if (!judge || !nearest.distances || !compared || !known || !guessed || !hard || !dead) return NO_MEMORY;
        int status = prepare();
        if (status) return status;
        Judge::begin();
        const bool done = look(true) && (sharpen(), look(false));
        Judge::end();
        if (!done) return STOPPED;
        if (hard_count) status = finish_hard();
        if (!status) nearest.finish();
        return status;
    }

   private:
    double vectors() const { return double(map.channels) / LANES; }
    const float* row(int64_t q) const { return s.queries + judge.who[q] * map.channels; }

    int prepare() {
        Mapped none(map, 0, ROWS);
        if (!none) return NO_MEMORY;
        Judge::write(none, none.order, 0, dead);
        for (int64_t i = 0; i < judge.places * s.k; i++) {
            known[i] = INFINITY;
            guessed[i] = -1;
        }
        std::memset(compared, 0, judge.places * sizeof *compared);
        const int status = judge.prepare(s.queries, [&](int64_t q) { hard[hard_count++] = q; });
        left = n - hard_count;
        return status;
    }

    void follow(int64_t q, double square) { judge.follow(q, reached(square, map)); }

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
            if (some.count) look_at(some, sparsely);
            if (!sparsely) seen += some.count * ROWS;
        }
        while (waiting_count) settle();
        return true;
    }

    void look_at(const Blocks& some, bool sparsely) {
        const uint8_t* const after = some.bytes[some.count - 1] + size;
        const int64_t lines = 1 + B * size / 64 / ((n + R - 1) / R);
        const Ahead ahead = {after, !sparsely && some.count == B ? after + B * size : after, lines};
        judge.look(some.bytes, ahead, [&](int64_t q, int i, const typename Judge::Score* found) {
            if (i < some.count) take(q, found, some, i, sparsely);
        });
    }

    // Take in what passes of a block.
    void take(int64_t q, const typename Judge::Score* found, const Blocks& some, int i, bool sparsely) {
        if (judge.closed(q)) return;
        const auto terms = judge.terms(some.bytes[i]);
        int best = -1;
        for (uint32_t mask = passing(found, judge.needed(q, terms)); mask; mask &= mask - 1) {
            const int c = __builtin_ctz(mask);
            if (some.order[i][c] < 0 || (sparsely && terms_of(some.bytes[i], map.width)[c] == -NEVER)) continue;
            const Candidate one = {q, some.image[i], some.order[i][c], found[c], terms};
            if (!sparsely)
                wait(one);
            else if (s.k > 1)
                guess(one);
            else if (best < 0 || found[c] > found[best])
                best = c;
        }
        if (best >= 0) guess({q, some.image[i], some.order[i][best], found[best], terms});
    }

    // Remember the rows that are said to be the nearest. How far these are said to be serves to find
    // them only: `sharpen` replaces it.
    void guess(const Candidate& row) {
        const int64_t q = row.query, k = s.k;
        const double all = judge.far(q, row.found, row.terms) * map.unit, found = all * all;
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
        for (int64_t i = 0; i < judge.places * s.k; i++) {
            if (i + WAITING < judge.places * s.k && guessed[i + WAITING] >= 0) fetch(guessed[i + WAITING]);
            known[i] = guessed[i] < 0 ? INFINITY : distance(row(i / s.k), *s.gallery, guessed[i], map.channels);
        }
        for (int64_t q = 0; q < judge.places; q++) {
            double* own = known + q * s.k;
            for (int64_t i = 1; i < s.k; i++) {
                const double one = own[i];
                int64_t at = i;
                for (; at > 0 && own[at - 1] > one; at--) own[at] = own[at - 1];
                own[at] = one;
            }
            if (!judge.closed(q)) follow(q, own[s.k - 1]);
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
        const int64_t q = one.query, asked = judge.who[q];
        if (judge.closed(q) || one.found < judge.needed(q, one.terms)) return;
        compared[q]++;
        const double before = nearest.last(asked);
        const double found = distance(row(q), *s.gallery, one.image->first + one.inside, map.channels);
        nearest.add(asked, found, *one.image, one.inside);
        const double last = nearest.last(asked);
        if (last < before && last < known[(q + 1) * s.k - 1]) follow(q, last);
        const bool is_hard = seen > sure && compared[q] > seen * hopeless;
        if (last > 0 && !is_hard) return;
        judge.close(q);
        left--;
        if (last > 0) hard[hard_count++] = q;
    }

    int finish_hard() {
        Array<double> limits(n);
        if (!limits) return NO_MEMORY;
        for (int64_t i = 0; i < hard_count; i++) {
            const double last = known[(hard[i] + 1) * s.k - 1];
            hard[i] = judge.who[hard[i]];
            limits[hard[i]] = last < nearest.last(hard[i]) ? last : nearest.last(hard[i]);
        }
        return Products(s, nearest, hard, hard_count, limits).run();
    }
};

template <class Judge> int search(const void* given) { return Pass<Judge>(*static_cast<const Search*>(given)).run(); }

#include "direct.h"
