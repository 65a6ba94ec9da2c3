/* A log-linear histogram of nanoseconds: 64 steps per power of two, so a percentile is off by less than 1.6 %. */
#ifndef BENCH_HISTOGRAM_H
#define BENCH_HISTOGRAM_H

#include <stdint.h>

#define HISTOGRAM_BITS 6
#define HISTOGRAM_STEPS (1u << HISTOGRAM_BITS)
#define HISTOGRAM_BUCKETS ((64 - HISTOGRAM_BITS + 1) * HISTOGRAM_STEPS)

typedef struct {
    uint64_t counts[HISTOGRAM_BUCKETS];
    uint64_t total, max_ns;
    double sum_ns;
} histogram_t;

static inline unsigned histogram_bucket(uint64_t ns) {
    unsigned shift;

    if (ns < HISTOGRAM_STEPS)
        return (unsigned)ns;
    shift = 63u - (unsigned)__builtin_clzll(ns) - HISTOGRAM_BITS;
    return (shift + 1) * HISTOGRAM_STEPS + (unsigned)((ns >> shift) - HISTOGRAM_STEPS);
}

/* The middle of a bucket. */
static inline double histogram_value(unsigned bucket) {
    unsigned shift;

    if (bucket < HISTOGRAM_STEPS)
        return bucket;
    shift = bucket / HISTOGRAM_STEPS - 1;
    return ((double)(HISTOGRAM_STEPS + bucket % HISTOGRAM_STEPS) + 0.5) * (double)(1ull << shift);
}

static inline void histogram_add(histogram_t *h, uint64_t ns) {
    h->counts[histogram_bucket(ns)]++;
    h->total++;
    h->sum_ns += (double)ns;
    if (ns > h->max_ns)
        h->max_ns = ns;
}

/* Returns nanoseconds, 0 when nothing was recorded; share is 0.5 for the median. */
static inline double histogram_percentile(const histogram_t *h, double share) {
    uint64_t seen = 0, wanted = (uint64_t)(share * (double)h->total);

    for (unsigned i = 0; i < HISTOGRAM_BUCKETS && h->total > 0; i++) {
        seen += h->counts[i];
        if (seen > wanted || seen == h->total)
            return histogram_value(i) < (double)h->max_ns ? histogram_value(i) : (double)h->max_ns;
    }
    return 0;
}

#endif
