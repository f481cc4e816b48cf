// What a search has found so far.
constexpr double UNDERFLOWN = 0x1p-120;  // more than underflow takes from a distance squared

// The nearest rows of each query so far, and what follows for the pass.
struct Nearest {
    const Search& search;
    Array<double> distances;  // [count, k] ascending
    int64_t* ids;

    explicit Nearest(const Search& of) : search(of), distances(of.count * of.k), ids(of.ids) {
        for (int64_t q = 0; distances && q < of.count; q++) clear(q);
    }

    void finish() const {
        for (int64_t i = 0; i < search.count * search.k; i++) search.distances[i] = float(distances[i]);
    }

    double last(int64_t q) const { return distances[(q + 1) * search.k - 1]; }

    void clear(int64_t q) {
        for (int64_t i = q * search.k; i < (q + 1) * search.k; i++) {
            distances[i] = INFINITY;
            ids[i] = -1;
        }
    }

    void add(int64_t q, double found, int64_t row) {
        double* own = distances + q * search.k;
        int64_t *rows = ids + q * search.k, at = search.k - 1;
        for (; at > 0 && own[at - 1] > found; at--) {
            own[at] = own[at - 1];
            rows[at] = rows[at - 1];
        }
        own[at] = found;
        rows[at] = row;
    }

    // Compare a query with a row, and take the row in with its copies.
    void compare(int64_t q, const Packed& image, int64_t inside) {
        const int channels = search.map->channels;
        int64_t row = image.first + inside;
        double found = distance(search.queries + q * channels, *search.gallery, row, channels);
        for (; inside >= 0 && found < last(q); inside = image.copies[inside])
            add(q, found, image.first + inside);
    }
};

// A distance, in units, from its square as it was computed, and no less.
inline double reached(double square, const Map& map) {
    return std::sqrt(square + UNDERFLOWN) / map.unit * (1 + 0x1p-18 + map.channels * 0x1p-26);
}
