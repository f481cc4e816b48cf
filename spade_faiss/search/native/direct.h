// Few queries, and rows that are looked at once: differences of all pairs.
template <class T> inline int differences(const Search& s, const T* rows) {
    constexpr int R = 4;
    const int c = s.map->channels;
    const int64_t first = s.images[0]->first, count = s.images[0]->rows;
    Nearest nearest(s);
    if (!nearest.distances) return NO_MEMORY;
    // Rows that all queries are compared with before the next ones come from memory.
    const int64_t step = 1 + (1 << 16) / (c * int64_t(sizeof(T)));
    for (int64_t start = 0; start < count; start += step)
        for (int64_t q0 = 0; q0 < s.count; q0 += R) {
            if (*s.stop) return STOPPED;
        const int some = int(s.count - q0 < R ? s.count - q0 : R);
        const int64_t stop = start + step < count ? start + step : count;
        const float* x[R];
        for (int r = 0; r < R; r++) x[r] = s.queries + (q0 + (r < some ? r : 0)) * c;
        for (int64_t i = start; i < stop; i++) {
            const T* y = rows + (first + i) * c;
            V acc[R] = {};
            int k = 0;
            for (; k + LANES <= c; k += LANES) {
                V row = load_row(y, k);
                for (int r = 0; r < R; r++) {
                    V gap = row - load(x[r] + k);
                    acc[r] += gap * gap;
                }
            }
            if (k < c) {
                V row = load_end(y, k, c - k);
                for (int r = 0; r < R; r++) {
                    V gap = row - load_some(x[r] + k, c - k);
                    acc[r] += gap * gap;
                }
            }
            for (int r = 0; r < some; r++) {
                double found = sum(acc[r]);
                if (!(found <= 3e38)) {
                    found = distance(x[r], y, c);
                    if (!(found < INFINITY)) return NOT_FINITE;
                }
                if (found < nearest.last(q0 + r)) nearest.add(q0 + r, found, first + i);
            }
        }
    }
    nearest.finish();
    return DONE;
}

int direct(const Search* s) {
    if (s->gallery->half) return differences(*s, static_cast<const uint16_t*>(s->gallery->data));
    return differences(*s, static_cast<const float*>(s->gallery->data));
}
