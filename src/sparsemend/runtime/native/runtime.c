/* The library: the kernels for every instruction set of this kind of machine, the choice between
 * them at run time, and threads. */
#define _GNU_SOURCE
#include <math.h>
#include <pthread.h>
#include <sched.h>
#include <stddef.h>
#include <string.h>
#include <time.h>

#include "steps.h"

typedef void (*run_step)(const struct step *, float *, const char *, float *const *, int, int);

#define LANES 8
#define MOST 12
#define NAME(x) portable_##x
#define TARGET
#include "kernels.h"
#undef LANES
#undef MOST
#undef NAME
#undef TARGET

#if defined(__x86_64__)
#define LANES 8
#define MOST 12
#define NAME(x) avx2_##x
#define TARGET __attribute__((target("avx2,fma")))
#include "kernels.h"
#undef LANES
#undef MOST
#undef NAME
#undef TARGET

#define LANES 16
#define MOST 28
#define NAME(x) avx512_##x
#define TARGET __attribute__((target("avx512f,avx512dq,avx512vl,avx512bw,fma")))
#include "kernels.h"
#undef LANES
#undef MOST
#undef NAME
#undef TARGET
#endif

struct instructions {
    const char *name;
    int lanes, most;
    run_step run;
};

static const struct instructions SETS[] = {
#if defined(__x86_64__)
    {"avx512", 16, 28, avx512_run_step},
    {"avx2", 8, 12, avx2_run_step},
    {"portable", 8, 12, portable_run_step},
#elif defined(__ARM_NEON)
    {"neon", 8, 12, portable_run_step},
#else
    {"portable", 8, 12, portable_run_step},
#endif
};

static int is_there(const char *name) {
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (!strcmp(name, "avx512"))
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
               __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw");
    if (!strcmp(name, "avx2"))
        return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#endif
    (void)name;
    return 1;
}

/* Bump it with every change of struct step: the library refuses plans of another version. */
int sparsemend_version(void) { return 2; }
int sparsemend_step_size(void) { return (int)sizeof(struct step); }

/* Instruction sets of this machine, best first: the i-th one's name, NULL behind the last. */
const char *sparsemend_instructions(int i) {
    for (size_t k = 0; k < sizeof SETS / sizeof *SETS; k++)
        if (is_there(SETS[k].name) && i-- == 0) return SETS[k].name;
    return NULL;
}

static const struct instructions *find(const char *name) {
    for (size_t k = 0; k < sizeof SETS / sizeof *SETS; k++)
        if (!strcmp(SETS[k].name, name) && is_there(name)) return SETS + k;
    return NULL;
}

int sparsemend_lanes(const char *name) { return find(name) ? find(name)->lanes : 0; }
int sparsemend_most(const char *name) { return find(name) ? find(name)->most : 0; }

/* What is to be run: steps with their memory. */
struct program {
    const struct instructions *set; /* of sparsemend_find */
    const struct step *steps;
    int64_t count;
    float *arena;
    const char *weights;
    float *const *outside;
    int32_t threads;
};

/* The instruction set of a name, NULL if it is not there. */
const struct instructions *sparsemend_find(const char *name) { return find(name); }

struct job {
    const struct program *program;
    int threads;        /* that there are */
    int go;             /* the number of threads is final */
    int waiting, round; /* of the barrier */
};

struct worker {
    struct job *job;
    int thread;
    pthread_t handle;
};

/* All threads have come here: the next step may read what this one wrote. */
static void barrier(struct job *job) {
    const int round = __atomic_load_n(&job->round, __ATOMIC_ACQUIRE);
    if (__atomic_add_fetch(&job->waiting, 1, __ATOMIC_ACQ_REL) == job->threads) {
        __atomic_store_n(&job->waiting, 0, __ATOMIC_RELAXED);
        __atomic_add_fetch(&job->round, 1, __ATOMIC_RELEASE);
        return;
    }
    for (int spins = 0; __atomic_load_n(&job->round, __ATOMIC_ACQUIRE) == round; spins++)
        if (spins > 1000) sched_yield();
}

static void *work(void *argument) {
    struct worker *self = argument;
    struct job *job = self->job;
    while (!__atomic_load_n(&job->go, __ATOMIC_ACQUIRE)) sched_yield();
    const struct program p = *job->program;
    for (int64_t i = 0; i < p.count; i++) {
        p.set->run(p.steps + i, p.arena, p.weights, p.outside, self->thread, job->threads);
        if (job->threads > 1) barrier(job);
    }
    return NULL;
}

/* Run a program on up to as many threads as it says. */
#define MOST_THREADS 256
void sparsemend_run(const struct program *program) {
    struct job job = {program, 1, 0, 0, 0};
    struct worker workers[MOST_THREADS];
    for (; job.threads < program->threads && job.threads < MOST_THREADS; job.threads++) {
        struct worker *next = workers + job.threads;
        *next = (struct worker){&job, job.threads, 0};
        if (pthread_create(&next->handle, NULL, work, next)) break; /* fewer do as well */
    }
    __atomic_store_n(&job.go, 1, __ATOMIC_RELEASE);
    workers[0] = (struct worker){&job, 0, 0};
    work(workers);
    for (int i = 1; i < job.threads; i++) pthread_join(workers[i].handle, NULL);
}

/* The shortest of `repeats` runs by one thread, in seconds. */
double sparsemend_time(const struct program *program, int repeats) {
    double best = INFINITY;
    for (int i = 0; i < repeats; i++) {
        struct timespec from, to;
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &from);
        sparsemend_run(program);
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &to);
        const double seconds = (double)(to.tv_sec - from.tv_sec) + 1e-9 * (double)(to.tv_nsec - from.tv_nsec);
        if (seconds < best) best = seconds;
    }
    return best;
}
