// Rows judged by products of bfloat16 numbers: what `kernel.h` says of them.
typedef uint32_t Bits __attribute__((vector_size(4 * LANES)));
typedef uint16_t Halves __attribute__((vector_size(2 * LANES)));

constexpr uint32_t ONE = 0x3f800000;  // the bits of 1
constexpr float LITTLE = 0x1p-110f;   // what is less becomes 0
constexpr float LEAST_ERROR = 0x1p-40f, MOST_ERROR = 0x1p45f;
constexpr float ALL = 0x1p98f;     // such a -T lets all rows pass that are there,
constexpr float NONE = -0x1p120f;  // and such a one none
constexpr float LOST = 0x1p-16f;   // by so much of themselves squares change, for what rounding takes

inline uint32_t to_bits(float number) { uint32_t bits; std::memcpy(&bits, &number, 4); return bits; }
inline float from_bits(uint32_t bits) { float number; std::memcpy(&number, &bits, 4); return number; }

// Numbers in bfloat16, rounded to the nearest, and what these stand for.
ALWAYS Bits shortened(V numbers) {
    const V some = magnitude(numbers) < LITTLE ? V{} : numbers;
    Bits bits;
    std::memcpy(&bits, &some, sizeof bits);
    return (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}
ALWAYS V restored(Bits halves) {
    const Bits bits = halves << 16;
    V numbers;
    std::memcpy(&numbers, &bits, sizeof numbers);
    return numbers;
}

class Floats {
    static constexpr int WIDTH = 64;  // bytes of a row
    enum { REACH = Tiles16::HELD, FIRST, SECOND, THIRD, FOURTH };  // what follows coordinates

    // A row's bytes, in fours that lie `step` apart.
    struct Place {
        uint8_t* bytes;
        size_t step;

        // Put a number, of which the lower half is dropped, and return what it became.
        float put(int i, uint32_t bits) const {
            const uint16_t half = uint16_t(bits >> 16);
            std::memcpy(bytes + i / 2 * step + i % 2 * 2, &half, 2);
            return from_bits(bits & 0xffff0000);
        }
        // Put a number as a sum of two that are rounded to the nearest, and return that.
        float put_two(int i, float number) const {
            const float first = put(i, nearest(number));
            return first + put(i + 1, nearest(number - first));
        }
        // Put a number that is not negative as one that is no less.
        void put_above(int i, float number) const { put(i, to_bits(number) + 0xffff); }

        static uint32_t nearest(float number) {
            const uint32_t bits = std::fabs(number) < LITTLE ? 0 : to_bits(number);
            return bits + 0x7fff + (bits >> 16 & 1);
        }
    };
    struct Written {  // |x'|^2 and e
        float size, error;
    };

   public:
    static constexpr int R = Tiles16::R, B = Tiles16::B, MULTIPLE = WIDTH;
    typedef float Score;  // what is to reach T, and a little more
    struct Terms {        // of a block: its largest e
        float width;
    };
    const Map& map;
    const int64_t n, places;
    Array<int64_t> who;  // [places]: which of the queries it is

   private:
    Array<Written> query;       // [places]
    Array<uint8_t> low;         // [places, WIDTH]
    Array<float> least, reach;  // [places]: T, and D or what says that none is wanted

   public:
    explicit Floats(const Search& s)
        : map(*s.map), n(s.count), places((n + R - 1) / R * R), who(places), query(places), low(places * WIDTH),
          least(places), reach(places) {}

    explicit operator bool() const { return who && query && low && least && reach; }

    static void begin() { Tiles16::begin(); }
    static void end() { Tiles16::end(); }

    // Write rows of a block. With none, no query wants any.
    static void write(const Mapped& some, const int32_t* rows, int count, uint8_t* block) {
        float *terms = terms_of(block, WIDTH), most = 0;
        std::memset(block, 0, size_t(WIDTH) * ROWS);
        for (int r = 0; r < ROWS; r++) {
            const Place own = {block + 4 * r, ROWS * 4};
            own.put(THIRD, ONE);
            own.put(FOURTH, ONE);
            terms[r] = r < count ? -NEVER : NEVER;  // it always passes, or is not there
            const Written one = r < count ? put(some, rows[r], own) : Written{0, INFINITY};
            if (!(one.error < MOST_ERROR)) {
                own.put_two(FIRST, -terms[r]);
                continue;
            }
            own.put_above(REACH, one.error);
            own.put_two(FIRST, (one.error * one.error * (1 + LOST) - one.size * (1 - LOST)) / 2);
            terms[r] = 0;
            most = one.error > most ? one.error : most;
        }
        terms[ROWS] = most;
    }

    ALWAYS Terms terms(const uint8_t* block) const { return {terms_of(block, WIDTH)[ROWS]}; }

    // Take queries, of which nothing is known yet; `refuse` those that these numbers cannot say.
    template <class Refuse> int prepare(const float* queries, Refuse&& refuse) {
        Mapped some(map, n, ROWS);
        if (!some) return NO_MEMORY;
        std::memset(low, 0, places * WIDTH);
        for (int64_t q = 0; q < places; q++) {
            who[q] = q;
            query[q] = {0, 0};
            close(q);
        }
        for (int64_t first = 0; first < n; first += some.room) {
            const int64_t count = n - first < some.room ? n - first : some.room;
            if (!some.read(queries + first * map.channels, count)) return NOT_FINITE;
            for (int64_t i = 0; i < count; i++) {
                const int64_t q = first + i;
                const Place own = place(q);
                own.put(FIRST, ONE);
                own.put(SECOND, ONE);
                query[q] = put(some, i, own);
                // Few rows are so far, and scores of nearer ones keep their bits.
                if (query[q].error < MOST_ERROR)
                    set(q, 0, 16 * (1 + query[q].size));
                else
                    refuse(q);
            }
        }
        return DONE;
    }

    // No row is wanted any more.
    void close(int64_t q) { set(q, -1, NONE); }
    bool closed(int64_t q) const { return reach[q] < 0; }

    // Set D and T from d.
    void follow(int64_t q, double distance) {
        const double all = distance + query[q].error;
        if (all < double(MOST_ERROR))
            set(q, float(all * (1 + 0x1p-20)), float((all * all * (1 + LOST) - query[q].size * (1 - LOST)) / 2));
        else
            set(q, 0, ALL);
    }

    float needed(int64_t q, const Terms&) const { return least[q]; }

    // How far a row is, at about the most.
    double far(int64_t q, float found, const Terms& block) const {
        const double away = block.width, square = query[q].size - 2 * (found - reach[q] * away) + away * away;
        return std::sqrt(square > 0 ? square : 0) + query[q].error + away;
    }

    // Show each query's scores of a block in which any passes: take(query, block, scores).
    template <class Take> void look(const uint8_t* const* blocks, Ahead ahead, Take&& take) {
        alignas(64) float found[R * B][ROWS], scores[ROWS];
        float known[2][2][R];  // T and D as they are multiplied: what is found changes them
        Tiles16::hold(blocks, WIDTH);
        for (int64_t q0 = 0;; q0 += R) {
            // Products of one tile are looked at while the next are made.
            if (q0 < places) {
                ahead.fetch();
                std::memcpy(known[q0 / R & 1][0], least + q0, sizeof known[0][0]);
                std::memcpy(known[q0 / R & 1][1], reach + q0, sizeof known[0][0]);
                Tiles16::multiply(low + q0 * WIDTH);
            }
            const auto& then = known[q0 / R & 1 ^ 1];
            for (uint32_t any = q0 > 0 ? Tiles16::any(found) : 0; any; any &= any - 1) {
                const unsigned first = unsigned(__builtin_ctz(any)) * ROWS, i = first / R;
                const float width = terms(blocks[i]).width;
                for (unsigned at = first; at < first + ROWS; at++) {
                    if (!passing(found[at], 0)) continue;
                    const unsigned r = at % R;
                    const int64_t q = q0 - R + r;
                    score(q, then[0][r], then[1][r], width, found[at], scores);
                    take(q, i, scores);
                }
            }
            if (q0 >= places) return;
            Tiles16::store(found);
        }
    }

   private:
    Place place(int64_t q) { return {low + q * WIDTH, 4}; }

    void set(int64_t q, float wanted, float minus_least) {
        reach[q] = wanted;
        place(q).put_above(REACH, wanted > 0 ? wanted : 0);
        least[q] = -place(q).put_two(THIRD, minus_least);
    }

    // Products are less than scores by the T of then. Rounding took little; where T says nothing, all pass.
    void score(int64_t q, float t, float d, float width, const float* products, float* scores) const {
        const float more = 4 * LOST * (query[q].size + d * d + width * width);
        const V add = same(t > -ALL ? t + more : INFINITY);
        for (int c = 0; c < ROWS; c += LANES) store(scores + c, load(products + c) + add);
    }

    // Put a row's coordinates, if they fit; else its error is infinite.
    static Written put(const Mapped& rows, int64_t row, const Place& place) {
        if (!rows.fits(row)) return {0, INFINITY};
        const float* at = rows.z + row * rows.stride;
        V away{}, norm{};
        for (int k = 0; k < rows.n; k += LANES) {
            const Bits bits = shortened(load(at + k));
            const V kept = restored(bits), gap = load(at + k) - kept;
            away += gap * gap;
            norm += kept * kept;
            const auto halves = __builtin_convertvector(bits, Halves);
            for (int i = 0; i < LANES && k + i < rows.n; i += 2)
                std::memcpy(place.bytes + (k + i) / 2 * place.step, reinterpret_cast<const char*>(&halves) + 2 * i, 4);
        }
        return {sum(norm), std::sqrt(sum(away) * 1.001f) + rows.error[row] + LEAST_ERROR};
    }
};
