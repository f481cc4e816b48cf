// Queries for which too many rows pass: products in float32, of rows that are laid out as they come.
// `hard` are the queries, and `limits` distances, [all queries], that their k-th do not exceed.
inline int products(const Search& s, Nearest& nearest, const int64_t* hard, int64_t count, double* limits) {
    constexpr int R = LANES == 4 ? 4 : 6, N = LANES == 16 ? 4 : 2, PANEL = N * LANES;
    constexpr int STEP = PANEL < ROWS ? PANEL : ROWS;  // rows that are laid out at a time
    const Map map = *s.map;
    const int c = map.channels, wide = up_to(c, LANES);
    const int64_t padded = (count + R - 1) / R * R;
    const double h = (c + 8) * 0x1p-23;
    Array<float> x(padded * wide), t(padded), y(int64_t(wide) * PANEL), v(int64_t(STEP) * wide);
    Array<double> x2(padded);  // and x: [padded / R, wide, R]
    if (!x || !t || !y || !v || !x2) return NO_MEMORY;
    float found[R][PANEL] __attribute__((aligned(64))), half[PANEL] __attribute__((aligned(64)));
    std::memset(x, 0, sizeof(float) * padded * wide);
    auto follow_here = [&](int64_t i, double distance) {
        const double limit = reached(distance, map);
        double least = ((1 - 2 * h) * x2[i] - limit * limit) / 2 - 0x1p-20 * (x2[i] + limit * limit) - 0x1p-100;
        // Beyond what floats hold, or no number: all pass, or what is too large for products.
        t[i] = least > -3e38 ? float(least < 1e38 ? least : 1e38) : -INFINITY;
    };
    for (int64_t i = 0; i < padded; i++) t[i] = INFINITY;
    for (int64_t i = 0; i < count; i++) {
        centred(s.queries + hard[i] * c, map, v, wide);
        double all = 0;
        for (int k = 0; k < c; k++) {
            all += double(v[k]) * v[k];
            x[i / R * R * wide + k * R + i % R] = v[k];
        }
        x2[i] = all;
        follow_here(i, limits[hard[i]]);
        nearest.clear(hard[i]);
    }
    for (int64_t i = 0; i < s.image_count; i++) {
        const Packed& image = *s.images[i];
        const int64_t all = image.count * ROWS;
        for (int64_t start = 0; start < all; start += PANEL) {
            if (*s.stop) return STOPPED;
            const int rows = int(all - start < PANEL ? all - start : PANEL);
            const int32_t* order = image.order + start;
            for (int r = 0; r < PANEL; r += STEP) {
                for (int i = 0; i < STEP; i++) {
                    float* out = v + size_t(i) * wide;
                    half[r + i] = 3e38f;
                    if (r + i < rows && order[r + i] >= 0) {
                        centred(*s.gallery, image.first + order[r + i], map, out, wide);
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
                        for (int m = 0; m < N; m++) acc[r][m] += own[k * R + r] * row[m];
                }
                for (int r = 0; r < R; r++) {
                    V top = same(-INFINITY);
                    for (int m = 0; m < N; m++) {
                        // Products too large leave any sum, or no number: such a row passes.
                        const V product = acc[r][m], excess = product - load(half + m * LANES);
                        acc[r][m] = magnitude(product) < 1e38f ? excess : same(INFINITY);
                        top = larger(top, acc[r][m]);
                    }
                    if (__builtin_expect(!(largest(top) >= t[q0 + r]), 1)) continue;
                    if (t[q0 + r] == INFINITY) continue;
                    for (int m = 0; m < N; m++) store(found[r] + m * LANES, acc[r][m]);
                    const int64_t q = hard[q0 + r];
                    const float* own_query = s.queries + q * c;
                    int passed[PANEL + 3], many = 0;
                    for (int m = 0; m < rows; m++)
                        if (found[r][m] >= t[q0 + r] && half[m] != 3e38f) passed[many++] = m;
                    for (int m = many; m % 4; m++) passed[m] = passed[many - 1];
                    for (int m = 0; m < many; m += 4) {
                        int64_t four[4];
                        double near[4];
                        for (int i = 0; i < 4; i++) four[i] = image.first + order[passed[m + i]];
                        distances(own_query, *s.gallery, four, c, near);
                        for (int i = 0; i < 4 && m + i < many; i++)
                            nearest.add(q, near[i], image, order[passed[m + i]]);
                    }
                    if (nearest.last(q) < limits[q]) {
                        limits[q] = nearest.last(q);
                        follow_here(q0 + r, limits[q]);
                        if (limits[q] == 0) t[q0 + r] = INFINITY;
                    }
                }
            }
        }
    }
    return DONE;
}
