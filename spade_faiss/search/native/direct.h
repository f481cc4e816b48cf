constexpr int LONG = 256;  // channels from which on memory is read the fastest row by row

// Few queries, and rows that are looked at once: differences of all pairs.
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
    const int64_t step = 1 + (1 << 16) / (c * int64_t(sizeof(T)));
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
            int64_t i = start;
            for (; c < LONG && i + R <= stop; i += R) {
                for (int r = 0; r < R; r++) y[r] = rows + (i + r) * c;
                const float least[R] = {last[q], last[q], last[q], last[q]};
                if (!distances<1, R>(x, y, c, found, least)) continue;
                for (int r = 0; r < R; r++) take(q, found[r], i + r);
            }
            for (; i < stop; i++) take(q, distance(x[0], rows + i * c, c), i);
        }
    }
    if (!finite) return NOT_FINITE;
    nearest.finish();
    return DONE;
}

int direct(const Direct* s) {
    if (s->gallery.half) return differences(*s, static_cast<const uint16_t*>(s->gallery.data));
    return differences(*s, static_cast<const float*>(s->gallery.data));
}
