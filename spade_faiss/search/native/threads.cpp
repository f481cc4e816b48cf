// Threads that do calls side by side: each has CPUs of its own.
//
// Linux wakes a thread where the one that wakes it runs, and if there are few CPUs it may take three
// milliseconds to find that another is idle: as long as a small search takes. So threads keep to
// their shares of the CPUs, and one that works itself wakes no thread that shares its CPU.
#if defined(__linux__) && !defined(_GNU_SOURCE)
#define _GNU_SOURCE
#endif
#include "kernel.h"

#include <pthread.h>
#include <time.h>
#if defined(__linux__)
#include <sched.h>
#endif

namespace spade {
namespace {

constexpr int MOST = 1024;  // threads

struct Worker {
    pthread_cond_t wake;
    bool idle;
    int shares, place;  // it has one of so many shares of the CPUs, and which
};

pthread_mutex_t lock;  // of all that follows, and of jobs that have begun
pthread_cond_t some_job_ended;
Worker workers[MOST];
int worker_count, active;  // threads that there are, and those at work, callers with them
Job* jobs;                 // that have calls nobody took, the oldest first
pthread_once_t once = PTHREAD_ONCE_INIT;

// At first, and in a process that was forked, which has none of these threads.
void start_anew() {
    pthread_mutex_init(&lock, nullptr);
    pthread_cond_init(&some_job_ended, nullptr);
    worker_count = active = 0;
    jobs = nullptr;
}

void start_once() {
    start_anew();
    pthread_atfork(nullptr, nullptr, start_anew);
}

#if defined(__linux__)
cpu_set_t allowed;  // CPUs of who asked last

bool is_at(const Worker& worker, int cpu, int shares) {
    int number = 0;
    for (int i = 0; i < cpu; i++) number += CPU_ISSET(i, &allowed);
    return number % shares == worker.place % shares;
}

// Keep the calling thread to its share. Where that is forbidden all goes on, more slowly.
void settle(Worker& own, int shares) {
    if (own.shares == shares) return;
    own.shares = shares;
    const int all = CPU_COUNT(&allowed);
    cpu_set_t mine;
    CPU_ZERO(&mine);
    for (int cpu = 0, number = 0; cpu < CPU_SETSIZE; cpu++)
        if (CPU_ISSET(cpu, &allowed)) {
            if (number % shares == own.place % shares || number == own.place % all) CPU_SET(cpu, &mine);
            number++;
        }
    sched_setaffinity(0, sizeof mine, &mine);
}

int where() { return sched_getcpu(); }
void ask_where() {
    cpu_set_t now;
    if (sched_getaffinity(0, sizeof now, &now) || CPU_EQUAL(&now, &allowed)) return;
    allowed = now;
    for (int i = 0; i < worker_count; i++) workers[i].shares = 0;
}
#else
bool is_at(const Worker&, int, int) { return false; }
void settle(Worker&, int) {}
int where() { return -1; }
void ask_where() {}
#endif

// Whether a thread more may work on a job: one always does, however many do others.
bool wants_more(const Job& job) { return active < job.threads || !job.working; }

// Do calls of a job as long as there are any.
void do_calls(Job* job) {
    active++;
    job->working++;
    while (job->next < job->count) {
        const int64_t i = job->next++;
        if (job->next == job->count) {
            Job** at = &jobs;
            while (*at != job) at = &(*at)->after;
            *at = job->after;
        }
        pthread_mutex_unlock(&lock);
        const bool stopped = __atomic_load_n(job->stop, __ATOMIC_RELAXED);
        const int status = stopped ? STOPPED : job->call(job->calls + i * job->size);
        pthread_mutex_lock(&lock);
        if (status && !job->status) job->status = status;
        if (++job->ended == job->count) pthread_cond_broadcast(&some_job_ended);
    }
    job->working--;
    active--;
}

void* serve(void* given) {
    Worker& own = *static_cast<Worker*>(given);
    pthread_mutex_lock(&lock);
    for (;;) {
        Job* job = jobs;
        while (job && !wants_more(*job)) job = job->after;
        if (job) {
            settle(own, job->threads);
            do_calls(job);
            continue;
        }
        own.idle = true;
        while (own.idle) pthread_cond_wait(&own.wake, &lock);
    }
}

bool start(int place) {
    Worker& one = workers[place];
    pthread_cond_init(&one.wake, nullptr);
    one.idle = false;
    one.shares = 0;
    one.place = place;
    pthread_attr_t detached;
    pthread_t thread;
    pthread_attr_init(&detached);
    pthread_attr_setdetachstate(&detached, PTHREAD_CREATE_DETACHED);
    const bool done = !pthread_create(&thread, &detached, serve, &one);
    pthread_attr_destroy(&detached);
    return done;
}

// Wake threads for a job, or start them, but for those that share the caller's CPU if it works.
void wake(const Job& job, int cpu) {
    int64_t wanted = job.threads - active;
    if (wanted < 1 && !job.working) wanted = 1;
    if (wanted > job.count - job.next) wanted = job.count - job.next;
    for (int i = 0; (i < job.threads || i < worker_count) && i < MOST && wanted > 0; i++) {
        const bool is_new = i == worker_count;
        if (is_new && !start(worker_count++)) {
            worker_count--;
            return;
        }
        if (!is_new && !workers[i].idle) continue;
        if (cpu >= 0 && is_at(workers[i], cpu, job.threads)) continue;
        if (workers[i].idle) pthread_cond_signal(&workers[i].wake);
        workers[i].idle = false;
        wanted--;
    }
}

}  // namespace

// Begin a job, unless it has begun, and wait until it has ended: for so many milliseconds, or for
// as long as it takes, and then the caller takes part. Returns whether it has.
int run(Job* job, int32_t patience) {
    if (job->count == 1 && patience < 0 && !job->begun) {
        job->begun = 1;
        job->status = *job->stop ? STOPPED : job->call(job->calls);
        job->next = job->ended = 1;
        return 1;
    }
    pthread_once(&once, start_once);
    pthread_mutex_lock(&lock);
    const bool takes_part = patience < 0;
    if (!job->begun) {
        job->begun = 1;
        Job** last = &jobs;
        while (*last) last = &(*last)->after;
        *last = job;
        ask_where();
        active += takes_part;
        job->working += takes_part;
        wake(*job, takes_part ? where() : -1);
        active -= takes_part;
        job->working -= takes_part;
    }
    if (takes_part || !worker_count) {
        do_calls(job);
        for (const Job* other = jobs; other; other = other->after) wake(*other, -1);
    }
    timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += patience % 1000 * 1000000L;
    until.tv_sec += patience / 1000 + until.tv_nsec / 1000000000L;
    until.tv_nsec %= 1000000000L;
    for (int late = 0; job->ended < job->count && !late;)
        late = takes_part ? pthread_cond_wait(&some_job_ended, &lock)
                          : pthread_cond_timedwait(&some_job_ended, &lock, &until);
    const int done = job->ended == job->count;
    pthread_mutex_unlock(&lock);
    return done;
}

}  // namespace spade
