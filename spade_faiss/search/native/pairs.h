// What kernels share that multiply pairs of 16 bits: included by each in a namespace of its own.
struct InPairs {
    static constexpr int ZERO = 128;
    typedef int16_t Low;

    // The first and third of four integers, then the second and fourth, as these kernels split rows.
    static void arrange(const int8_t* from, int width, Low* to) {
        for (int k = 0; k < width; k += 4)
            for (int i = 0; i < 4; i++) to[k + i] = from[k + (2 * i) % 4 + i / 2];
    }

    static void begin() {}
    static void end() {}
    static void hold(const uint8_t* const*, int) {}
};
