// What a search has found so far.
constexpr double UNDERFLOWN = 0x1p-120;  // more than underflow takes from a distance squared

// A float that is no less than a number.
inline float above(double number) {
    const float some = float(number);
    return some < number ? std::nextafter(some, INFINITY) : some;
}

// The k nearest rows of each query, and their squared distances.
struct Nearest {
    const int64_t count, k;
    float* const into;        // [count, k]
    int64_t* const ids;       // [count, k]
    Array<double> distances;  // [count, k] ascending

    Nearest(int64_t queries, int64_t wanted, float* found, int64_t* rows)
        : count(queries), k(wanted), into(found), ids(rows), distances(queries * wanted) {
        for (int64_t q = 0; distances && q < count; q++) clear(q);
    }

    void finish() const {
        for (int64_t i = 0; i < count * k; i++) into[i] = float(distances[i]);
    }

    double last(int64_t q) const { return distances[(q + 1) * k - 1]; }

    void clear(int64_t q) {
        for (int64_t i = q * k; i < (q + 1) * k; i++) {
            distances[i] = INFINITY;
            ids[i] = -1;
        }
    }

    void add(int64_t q, double found, int64_t row) {
        double* own = distances + q * k;
        int64_t *rows = ids + q * k, at = k - 1;
        for (; at > 0 && own[at - 1] > found; at--) {
            own[at] = own[at - 1];
            rows[at] = rows[at - 1];
        }
        own[at] = found;
        rows[at] = row;
    }

    // Take in a row of an image at its distance, and the copies of it.
    void add(int64_t q, double found, const Packed& image, int64_t inside) {
        for (; inside >= 0 && found < last(q); inside = image.copies[inside]) add(q, found, image.first + inside);
    }
};

// A distance, in units, from its square as it was computed, and no less.
inline double reached(double square, const Map& map) {
    return std::sqrt(square + UNDERFLOWN) / map.unit * (1 + 0x1p-18 + map.channels * 0x1p-26);
}
