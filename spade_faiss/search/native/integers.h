// Rows judged by products of 8-bit integers: what `kernel.h` says of them.
constexpr int LARGER = 4;  // times as large as most of a group, a query begins another,
constexpr int SPLITS = 4;  // up to so often
constexpr float LEAST = -0x1.8p29f, MOST = 0x1p28f;  // T and G are below what lies between these: see `kernel.h`

// Integers of numbers, which are made no less than LEAST and no more than MOST; less 1 they are below these.
ALWAYS Whole to_integers(V numbers) {
    return __builtin_convertvector(smaller(larger(numbers, same(LEAST)), same(MOST)), Whole);
}

struct Rounded {  // |t j|^2 and e, both made safe
    float size, error;
};

// How much larger e^2 is made, of |t j|^2. Sums of squares of so few integers are exact.
inline float slack(int n) { return 0x1p-19f + (n / LANES > 1024 ? n / LANES * 0x1p-24f : 0); }

// Write a row's integers at a scale, with bits of `zero` turned over. What fills up a vector is 0.
inline Rounded rounded(const Mapped& rows, int64_t row, float scale, int8_t* out, char zero) {
    constexpr float round = 12582912;  // 1.5 * 2^23: what is added to it loses its fraction
    const float* at = rows.z + row * rows.stride;
    const int n = rows.n;
    const V by = same(1 / scale), t = same(scale);
    V away{}, norm{};
    for (int k = 0; k < n; k += LANES) {
        const V w = load(at + k), j = (w * by + round) - round, gap = w - j * t;
        away += gap * gap;
        norm += j * j;
        const auto bytes = __builtin_convertvector(__builtin_convertvector(j, Whole), Bytes) ^ zero;
        std::memcpy(out + k, &bytes, LANES);
    }
    const float size = sum(norm) * scale * scale;
    return {size, std::sqrt(sum(away) * 1.001f + slack(n) * size) + rows.error[row]};
}

// Queries lie in groups that share a unit, in the order of their largest coordinates. Where a group
// ends early, places are empty.
class Integers {
    static constexpr int GROUP = Tiles::GROUP;
    typedef Tiles::Low Low;

    struct Group {  // where it ends, and B
        int64_t end;
        float by;
    };
    struct Query {  // |u i|^2, e_x and u
        double size, error, unit;
    };

   public:
    static constexpr int R = Tiles::R, B = Tiles::B, MULTIPLE = Tiles::MULTIPLE;
    typedef int32_t Score;  // i.j - G, and what 128 added to rows' integers adds to it
    struct Terms {          // of a block: 1 / t and w
        float inverse, width;
    };
    const Map& map;
    const int64_t n, places;
    Array<int64_t> who;  // [places]: which of the queries that were given it is

   private:
    Array<Group> groups;    // [places / GROUP]
    Array<Query> query;     // [places]
    Array<Low> low;         // [places, width]
    Array<float> a, reach;  // [places]: A, and D / u or what says that none is wanted
    Array<int32_t> start;   // [places]: 1, less what 128 added to rows' integers adds to products

   public:
    explicit Integers(const Search& s)
        : map(*s.map), n(s.count), places(((n + GROUP - 1) / GROUP + SPLITS) * GROUP), who(places),
          groups(places / GROUP), query(places), low(places * map.width), a(places), reach(places), start(places) {}

    explicit operator bool() const { return groups && query && low && a && reach && start && who; }

    static void begin() { Tiles::begin(); }
    static void end() { Tiles::end(); }

    // Write rows that share a block, and so a scale. With none, no query wants any.
    static void write(const Mapped& some, const int32_t* rows, int count, uint8_t* block) {
        const int width = some.map.width, step = up_to(width, LANES);
        float* terms = terms_of(block, width);
        std::memset(some.bytes, Tiles::ZERO, size_t(step) * ROWS);
        const float scale = some.scale(rows, count);
        float most = 0x1p-20f;
        for (int r = 0; r < ROWS; r++) {
            terms[r] = r < count ? -NEVER : NEVER;  // it always passes, or is not there
            if (r >= count || !some.fits(rows[r]) || !(some.error[rows[r]] <= scale * 0x1p20f)) continue;
            const Rounded one = rounded(some, rows[r], scale, some.bytes + r * step, Tiles::ZERO);
            terms[r] = (one.size - one.error * one.error) / scale;
            most = one.error / scale > most ? one.error / scale : most;
        }
        for (int k = 0; k < width; k += 4)
            for (int r = 0; r < ROWS; r++) std::memcpy(block + k * ROWS + 4 * r, some.bytes + r * step + k, 4);
        terms[ROWS] = scale > 0 ? 1 / scale : 1;
        terms[ROWS + 1] = most * (1 + 0x1p-20f);
    }

    ALWAYS Terms terms(const uint8_t* block) const {
        const float* own = terms_of(block, map.width);
        return {own[ROWS], own[ROWS + 1]};
    }

    // Take queries, of which nothing is known yet; `refuse` those that integers cannot say.
    template <class Refuse> int prepare(const float* queries, Refuse&& refuse) {
        Mapped some(map, n, GROUP);
        if (!some) return NO_MEMORY;
        for (int64_t q = 0; q < places; q++) {
            query[q] = {0, 0, 0};
            start[q] = 1;
            close(q);
        }
        for (int64_t i = 0; i < places / GROUP; i++) groups[i] = {i * GROUP, 0};
        int64_t group = 0, splits = 0;
        for (int64_t first = 0; first < n; first += some.room) {
            const int64_t count = n - first < some.room ? n - first : some.room;
            if (!some.read(queries + first * map.channels, count)) return NOT_FINITE;
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
                    std::memset(some.bytes, 0, map.width);
                    if (some.fits(some.order[j]))
                        describe(q, some, some.order[j], unit);
                    else
                        refuse(q);
                    Tiles::arrange(some.bytes, map.width, low + q * map.width);
                }
                groups[group / GROUP] = {q, unit > 0 ? float(0.5 / double(unit)) : 0};
                for (; q % R; q++) std::memset(low + q * map.width, 0, map.width * sizeof(Low));
            }
        }
        return DONE;
    }

    // No row is wanted any more.
    void close(int64_t q) {
        a[q] = 0;
        reach[q] = -ANY;
    }
    bool closed(int64_t q) const { return reach[q] < 0; }

    // Set A and D / u from d.
    void follow(int64_t q, double distance) {
        const Query& one = query[q];
        const double all = distance + one.error, by = (one.size - all * all) / (2 * one.unit);
        const bool fits = by > -0x1p80;  // else nothing can be told
        a[q] = fits ? float(by) : 0;
        reach[q] = fits ? float(all / one.unit * (1 + 0x1p-18)) : ANY;
    }

    // T of a query for a block.
    int32_t needed(int64_t q, const Terms& block) const {
        const float all = a[q] * block.inverse - reach[q] * block.width, least = all > LEAST ? all : LEAST;
        return int32_t(least < MOST ? least : MOST) - start[q];
    }

    // How far a row is, at about the most.
    double far(int64_t q, int32_t found, const Terms& block) const {
        const Query& one = query[q];
        const double scale = 1 / double(block.inverse), away = block.width * scale;
        const double square = one.size - 2 * one.unit * scale * (double(found) + start[q]) + away * away;
        return std::sqrt(square > 0 ? square : 0) + one.error + away;
    }

    // Show each query's scores of a block in which any passes: take(query, block, scores).
    template <class Take> void look(const uint8_t* const* blocks, Ahead ahead, Take&& take) {
        alignas(64) int32_t lack[B][GROUP], minus[B][ROWS], found[B * R][ROWS];
        Tiles::hold(blocks, map.width);
        for (int64_t group = 0; group < places; group += GROUP) {
            const int64_t stop = groups[group / GROUP].end;
            if (stop == group) continue;
            const V by = same(groups[group / GROUP].by);
            for (int i = 0; i < B; i++) {
                const float* own = terms_of(blocks[i], map.width);
                const V inverse = same(own[ROWS]), width = same(own[ROWS + 1]);
                for (int c = 0; c < ROWS; c += LANES) {
                    const Whole some = 1 - to_integers(by * load(own + c));
                    std::memcpy(minus[i] + c, &some, sizeof some);
                }
                for (int q = 0; q < GROUP; q += LANES) {
                    const Whole some = lacking(group + q, inverse, width);
                    std::memcpy(lack[i] + q, &some, sizeof some);
                }
            }
            for (int64_t q0 = group; q0 < stop; q0 += R) {
                ahead.fetch();
                uint32_t any = Tiles::tile(low + q0 * map.width, map.width, lack[0] + q0 - group, minus, blocks, found);
                for (; any; any &= any - 1) {
                    const unsigned first = unsigned(__builtin_ctz(any)) * Tiles::PART, i = first / R;
                    int64_t q = q0 + first % R;
                    for (unsigned at = first; at < first + Tiles::PART && q < stop; at++, q++)
                        if (passing(found[at], -lack[i][q - group])) take(q, i, found[at]);
                }
            }
        }
    }

   private:
    void describe(int64_t q, const Mapped& rows, int64_t which, float unit) {
        const Rounded one = rounded(rows, which, unit, rows.bytes, 0);
        int32_t total = 0;
        for (int k = 0; k < map.width; k++) total += rows.bytes[k];
        query[q] = {one.size, one.error, unit};
        start[q] = 1 - Tiles::ZERO * total;
        reach[q] = ANY;
    }

    // -T of some queries for a block.
    ALWAYS Whole lacking(int64_t q, V inverse, V width) const {
        Whole first;
        std::memcpy(&first, start + q, sizeof first);
        return first - to_integers(load(a + q) * inverse - load(reach + q) * width);
    }
};
