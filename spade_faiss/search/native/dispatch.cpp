// Which kernels this processor runs, and the functions that the library shows.
#include "kernel.h"

#include <cstring>
#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#endif

namespace spade {
namespace {

#if defined(__x86_64__)
bool has_avx512() {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512vnni");
}

bool has_avx2() {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
}

// The system gives tiles to those who ask.
bool has_amx() {
#if defined(SPADE_EMULATED_TILES)
    return has_avx512();
#elif defined(__linux__)
    unsigned a, b, c, d;
    if (!has_avx512() || !__get_cpuid_count(7, 0, &a, &b, &c, &d)) return false;
    const unsigned floats = 1u << 22, tiles = 1u << 24, integers = 1u << 25, wanted = floats | tiles | integers;
    if ((d & wanted) != wanted) return false;
    constexpr long ask = 0x1023, data = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
    return syscall(SYS_arch_prctl, ask, data) == 0;
#else
    return false;
#endif
}
#endif

const Kernels* all(int number) {
    switch (number) {
#if defined(__x86_64__)
        case 0: return has_amx() ? &amx_kernels : nullptr;
        case 1: return has_avx512() ? &avx512_kernels : nullptr;
        case 2: return has_avx2() ? &avx2_kernels : nullptr;
#endif
        case 3: return &plain_kernels;
        default: return nullptr;
    }
}

}  // namespace
}  // namespace spade

// Kernels by their place, the fastest first; null where this processor lacks what they need.
extern "C" __attribute__((visibility("default"))) const spade::Kernels* spade_kernels(int number) {
    return spade::all(number);
}

extern "C" __attribute__((visibility("default"))) int spade_run(spade::Job* job, int32_t patience) {
    return spade::run(job, patience);
}

extern "C" __attribute__((visibility("default"))) int spade_kernels_version() { return spade::VERSION; }
