// Several callers have jobs done by the same threads, which a sanitizer watches. Exits with 0 if each
// call was made once, and those of a stopped job at most once.
#include "../../spade_faiss/search/native/kernel.h"

#include <cstdlib>
#include <pthread.h>

namespace {

constexpr int CALLERS = 4, JOBS = 300, CALLS = 7;

struct Call {
    int made;             // nobody guards it: a job has each done by one thread
    volatile int32_t* stop;
    bool stops;
};

int make(const void* given) {
    Call& call = *static_cast<Call*>(const_cast<void*>(given));
    call.made++;
    if (call.stops) __atomic_store_n(call.stop, 1, __ATOMIC_RELAXED);
    return spade::DONE;
}

void* work(void* given) {
    const long caller = reinterpret_cast<long>(given);
    for (int i = 0; i < JOBS; i++) {
        volatile int32_t stop = 0;
        const bool stops = i % 5 == 4;
        Call calls[CALLS] = {};
        for (Call& one : calls) one = {0, &stop, stops};
        spade::Job job = {};
        job.call = make;
        job.calls = reinterpret_cast<const char*>(calls);
        job.size = sizeof *calls;
        job.count = 1 + i % CALLS;
        job.stop = &stop;
        job.threads = 1 + int(caller + i) % 4;
        if (i % 2)
            while (!spade::run(&job, i % 3)) {}
        spade::run(&job, -1);
        for (int j = 0; j < CALLS; j++) {
            const int wanted = j < job.count;
            const bool right = stops ? calls[j].made <= wanted : calls[j].made == wanted;
            if (!right) std::abort();
        }
    }
    return nullptr;
}

}  // namespace

int main() {
    pthread_t callers[CALLERS];
    for (long i = 0; i < CALLERS; i++)
        if (pthread_create(callers + i, nullptr, work, reinterpret_cast<void*>(i))) return 1;
    for (pthread_t one : callers) pthread_join(one, nullptr);
    return 0;
}
