// Rows that are searched once.

// Differences of all pairs.
template <class T> inline int differences(const Direct& s, const T* rows) {
    constexpr int R = 4;
    const int c = int(s.channels);
    Nearest nearest(s.count, s.k, s.distances, s.ids);
    Array<float> last(s.count);  // what a distance is to be less than, or a little more
    if (!nearest.distances || !last) return NO_MEMORY;
    for (int64_t q = 0; q < s.count; q++) last[q] = INFINITY;
    bool finite = true;
    auto take = [&](int64_t q, double found, int64_t row) {
        finite &= found < INFINITY;
        if (!(found < nearest.last(q))) return;
        nearest.add(q, found, s.first + row);
        last[q] = above(nearest.last(q));
    };
    // So many rows stay in cache until all queries are compared with them.
    const int64_t step = R * (1 + (1 << 16) / (R * c * int64_t(sizeof(T))));
    const float* x[R];
    const T* y[R];
    double found[R];
    for (int64_t start = 0; start < s.gallery.rows && finite; start += step) {
        if (*s.stop) return STOPPED;
        const int64_t stop = start + step < s.gallery.rows ? start + step : s.gallery.rows;
        int64_t q = 0;
        for (; q + R <= s.count; q += R) {
            for (int r = 0; r < R; r++) x[r] = s.queries + (q + r) * c;
            for (int64_t i = start; i < stop; i++) {
                y[0] = rows + i * c;
                if (!distances<R, 1>(x, y, c, found, last + q)) continue;
                for (int r = 0; r < R; r++) take(q + r, found[r], i);
            }
        }
        for (; q < s.count; q++) {
            x[0] = s.queries + q * c;
            for (int64_t i = start; i < stop; i += R) {
                for (int r = 0; r < R; r++) y[r] = rows + (i + r < stop ? i + r : i) * c;
                const float least[R] = {last[q], last[q], last[q], last[q]};
                if (!distances<1, R>(x, y, c, found, least)) continue;
                for (int r = 0; r < R && i + r < stop; r++) take(q, found[r], i + r);
            }
        }
    }
    if (!finite) return NOT_FINITE;
    nearest.finish();
    return DONE;
}

// A centre and a unit that suit rows, of some of them.
template <class T> inline void describe(const T* rows, int64_t count, float* centre, Map& map) {
    constexpr int SOME = 16;
    const int c = map.channels;
    const int64_t step = (count + SOME - 1) / SOME, some = (count + step - 1) / step;
    double size = 0;
    for (int k = 0; k < c; k++) centre[k] = 0;
    for (int64_t i = 0; i < count; i += step)
        for (int k = 0; k < c; k++) centre[k] += single(rows + i * c + k) / float(some);
    for (int64_t i = 0; i < count; i += step) size += distance(centre, rows + i * c, c) / double(some);
    map.centre = centre;
    map.unit = 1;
    if (!(size > 0 && size < INFINITY)) return;  // what is not finite is found later
    const double most = std::ceil(std::log2(size) / 2);
    map.unit = float(std::exp2(most < -100 ? -100 : most > 120 ? 120 : most));
}

// Products in float32 of rows that are laid out for them, where that does.
inline int multiplied(const Search& s, Packed& image) {
    for (int64_t i = 0; i < image.count * ROWS; i++) image.order[i] = i < image.rows ? int32_t(i) : -1;
    for (int64_t i = 0; i < image.rows; i++) image.copies[i] = -1;
    return Products::all(s);
}

// The same, or the pass over rows that are packed for it.
template <class Judge, class T> inline int products(const Direct& s, const T* rows) {
    Map map = {};
    map.channels = map.kept = int32_t(s.channels);
    map.width = up_to(map.channels, Judge::MULTIPLE);
    const int64_t n = s.gallery.rows, blocks = (n + ROWS - 1) / ROWS;
    Array<float> centre(s.channels);
    Array<int32_t> order(blocks * ROWS), copies(n);
    if (!centre || !order || !copies) return NO_MEMORY;
    describe(rows, n, centre, map);
    Packed image = {nullptr, copies, order, blocks, 0, n};
    const Packed* const images[1] = {&image};
    const Search search = {&map, &s.gallery, s.queries, s.count, images, 1, s.k, s.distances, s.ids, s.stop};
    int status = s.way == MULTIPLY ? multiplied(search, image) : TOO_MANY;
    if (status == TOO_MANY) {
        Array<uint8_t> bytes(blocks * (map.width * ROWS + TERMS));
        if (!bytes) return NO_MEMORY;
        image.blocks = bytes;
        status = pack_rows<Judge>({&map, &s.gallery, &image, s.stop}, rows);
        if (!status) status = Pass<Judge>(search).run();
    }
    for (int64_t i = 0; i < s.count * s.k; i++) s.ids[i] += s.first;
    return status;
}

template <class Judge, class T> inline int search_once(const Direct& s, const T* rows) {
    return s.way == COMPARE ? differences(s, rows) : products<Judge>(s, rows);
}

template <class Judge> int direct(const void* given) {
    const Direct& s = *static_cast<const Direct*>(given);
    if (s.gallery.half) return search_once<Judge>(s, static_cast<const uint16_t*>(s.gallery.data));
    return search_once<Judge>(s, static_cast<const float*>(s.gallery.data));
}
