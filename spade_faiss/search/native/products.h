constexpr int TOO_MANY = -1;  // a status between here and who calls

// Products in float32, of rows that are laid out as they come: for queries for which too many rows
// pass otherwise, and for rows that are looked at once.
class Products {
    static constexpr int R = LANES == 4 ? 4 : 6, N = LANES == 16 ? 4 : 2, PANEL = N * LANES;
    static constexpr int STEP = PANEL < ROWS ? PANEL : ROWS;  // rows that are laid out at a time
    static constexpr float ENORMOUS = -3e38f;  // half of a row that always passes

    const Search& s;
    const Map& map;
    Nearest& nearest;
    const int64_t* const asked;  // [count]: which of the queries
    const int64_t count, padded;
    double* const limits;        // [all queries]: distances that their k-th do not exceed
    int64_t most;                // rows that may be compared, in all
    const int c, wide;
    const double h;
    Array<float> x;              // [padded, wide]
    Array<float> t;              // [padded]: what products less `half` are to reach
    Array<float> y;              // [wide, PANEL]
    Array<float> v;              // [STEP, wide]
    Array<double> size;          // [padded]: |x|^2
    float half[PANEL] __attribute__((aligned(64)));  // (1 - 2h) |y|^2 / 2, and a little less
    uint64_t present = 0;        // rows of the panel that are there, as bits

   public:
    Products(const Search& given, Nearest& found, const int64_t* which, int64_t many, double* known,
             int64_t comparisons = INT64_MAX)
        : s(given), map(*given.map), nearest(found), asked(which), count(many), padded((many + R - 1) / R * R),
          limits(known), most(comparisons), c(map.channels), wide(up_to(c, LANES)), h((c + 8) * 0x1p-23),
          x(padded * wide), t(padded), y(int64_t(wide) * PANEL), v(int64_t(STEP) * wide), size(padded) {}

    int run() {
        if (!x || !t || !y || !v || !size) return NO_MEMORY;
        if (!take_queries()) return NOT_FINITE;
        for (int64_t i = 0; i < s.image_count; i++) {
            const Packed& image = *s.images[i];
            const int64_t all = image.count * ROWS;
            for (int64_t start = 0; start < all; start += PANEL) {
                if (*s.stop) return STOPPED;
                if (most < 0) return TOO_MANY;
                const int rows = int(all - start < PANEL ? all - start : PANEL);
                if (!lay_out(image, image.order + start, rows)) return NOT_FINITE;
                for (int64_t q = 0; q < padded; q += R) multiply(q, image, image.order + start);
            }
        }
        return DONE;
    }

    // The same for all queries, of whose nearest nothing is known. TOO_MANY if many more rows pass than of
    // such as differ, as copies do.
    static int all(const Search& s) {
        Nearest nearest(s.count, s.k, s.distances, s.ids);
        Array<int64_t> which(s.count);
        Array<double> limits(s.count);
        if (!nearest.distances || !which || !limits) return NO_MEMORY;
        for (int64_t q = 0; q < s.count; q++) which[q] = q, limits[q] = INFINITY;
        const int64_t wanted = s.count * (8 * s.k + s.gallery->rows / 64);
        const int status = Products(s, nearest, which, s.count, limits, wanted).run();
        if (!status) nearest.finish();
        return status;
    }

   private:
    bool take_queries() {
        std::memset(x + count * wide, 0, sizeof(float) * (padded - count) * wide);
        for (int64_t i = 0; i < padded; i++) t[i] = INFINITY;
        for (int64_t i = 0; i < count; i++) {
            if (!centred(s.queries + asked[i] * c, map, x + i * wide, wide)) return false;
            size[i] = square_sum(x + i * wide, wide);
            follow(i);
            nearest.clear(asked[i]);
        }
        return true;
    }

    // Set what products are to reach.
    void follow(int64_t i) {
        const double limit = reached(limits[asked[i]], map), both = size[i] + limit * limit;
        const double least = ((1 - 2 * h) * size[i] - limit * limit) / 2 - 0x1p-20 * both - 0x1p-100;
        // Beyond what floats hold, or no number: all pass, or what is too large for products.
        t[i] = least > ENORMOUS ? float(least < 1e38 ? least : 1e38) : -INFINITY;
    }

    bool lay_out(const Packed& image, const int32_t* order, int rows) {
        present = 0;
        for (int r = 0; r < PANEL; r += STEP) {
            for (int i = 0; i < STEP; i++) {
                float* out = v + size_t(i) * wide;
                half[r + i] = 0;
                if (r + i < rows && order[r + i] >= 0) {
                    present |= uint64_t(1) << (r + i);
                    if (!centred(*s.gallery, image.first + order[r + i], map, out, wide)) return false;
                    const double all = (1 - 2 * h) * square_sum(out, wide) / 2 * (1 - 0x1p-20);
                    half[r + i] = float(all);
                    if (all < 1e38) continue;
                    half[r + i] = ENORMOUS;
                }
                std::memset(out, 0, sizeof(float) * wide);
            }
            for (int k = 0; k < c; k++)
                for (int i = 0; i < STEP; i++) y[size_t(k) * PANEL + r + i] = v[size_t(i) * wide + k];
        }
        return true;
    }

    void multiply(int64_t q, const Packed& image, const int32_t* order) {
        V acc[R][N] = {};
        const float *own = x + q * wide, *row = y, *const stop = row + size_t(c) * PANEL;
        for (; row < stop; own++, row += PANEL) {
            V some[N];
            for (int m = 0; m < N; m++) some[m] = load(row + m * LANES);
            for (int r = 0; r < R; r++)
                for (int m = 0; m < N; m++) acc[r][m] += own[size_t(r) * wide] * some[m];
        }
        for (int r = 0; r < R; r++) {
            const V least = same(t[q + r]);
            uint64_t mask = 0;
            for (int m = 0; m < N; m++) {
                // Products too large leave any sum, or no number: such a row passes.
                const V product = acc[r][m], excess = product - load(half + m * LANES);
                acc[r][m] = magnitude(product) < 1e38f ? excess : same(INFINITY);
                mask |= uint64_t(passing(acc[r][m], least)) << m * LANES;
            }
            if (__builtin_expect(!(mask & present), 1) || t[q + r] == INFINITY) continue;
            float found[PANEL] __attribute__((aligned(64)));
            for (int m = 0; m < N; m++) store(found + m * LANES, acc[r][m]);
            compare(q + r, found, mask & present, image, order);
        }
    }

    // Compare rows that pass. What is found lets fewer of the others pass.
    void compare(int64_t i, const float* found, uint64_t mask, const Packed& image, const int32_t* order) {
        const int64_t q = asked[i];
        while (mask) {
            int64_t inside[4], four[4], held = 0;
            double near[4];
            for (; mask && held < 4; mask &= mask - 1) {
                const int m = __builtin_ctzll(mask);
                if (found[m] >= t[i]) inside[held++] = order[m];
            }
            if (!held) return;
            most -= held;
            for (int j = 0; j < 4; j++) four[j] = image.first + inside[j < held ? j : 0];
            distances(s.queries + q * c, *s.gallery, four, c, near);
            for (int j = 0; j < held; j++) nearest.add(q, near[j], image, inside[j]);
            if (!(nearest.last(q) < limits[q])) continue;
            limits[q] = nearest.last(q);
            follow(i);
            if (limits[q] == 0) t[i] = INFINITY;
        }
    }
};
