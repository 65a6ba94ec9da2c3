/* The load generator: one scenario per run, one JSON object on stdout. See load.h for what the options mean.
 *
 *   load SCENARIO PORT [--server-pid N] [--connections N] [--size BYTES] [--depth N] [--seconds S] [--warmup S]
 *                      [--idle N] [--surplus N] [--retry-ms N] [--patience-ms N] [--window N] [--sources N]
 *                      [--rate MESSAGES_PER_S] [--busy]
 *   SCENARIO: echo (also ping-pong, idle, overload: by its options), churn, storm */
#define _GNU_SOURCE
#include "load.h"

#include <arpa/inet.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#define DEADLINE_S 120 /* beyond warm-up and seconds: a server that hangs ends the run, not the evening */

static const struct option long_options[] = {
    {"server-pid", 1, NULL, 'p'}, {"connections", 1, NULL, 'c'}, {"size", 1, NULL, 's'},
    {"depth", 1, NULL, 'd'},      {"seconds", 1, NULL, 't'},     {"warmup", 1, NULL, 'w'},
    {"idle", 1, NULL, 'i'},       {"surplus", 1, NULL, 'k'},     {"retry-ms", 1, NULL, 'r'},
    {"patience-ms", 1, NULL, 'P'}, {"window", 1, NULL, 'W'},     {"sources", 1, NULL, 'S'},
    {"rate", 1, NULL, 'R'},       {"busy", 0, NULL, 'b'},        {NULL, 0, NULL, 0},
};

static void set_option(options_t *o, int letter, const char *value) {
    switch (letter) {
    case 'p': o->server_pid = atoi(value); break;
    case 'c': o->connections = atoi(value); break;
    case 's': o->size_bytes = atoi(value); break;
    case 'd': o->depth = atoi(value); break;
    case 't': o->seconds = atof(value); break;
    case 'w': o->warmup_s = atof(value); break;
    case 'i': o->idle = atoi(value); break;
    case 'k': o->surplus = atoi(value); break;
    case 'r': o->retry_ms = atoi(value); break;
    case 'P': o->patience_ms = atoi(value); break;
    case 'W': o->window = atoi(value); break;
    case 'S': o->sources = atoi(value); break;
    case 'R': o->rate = atof(value); break;
    case 'b': o->busy = 1; break;
    default: exit(2);
    }
}

static options_t parse_options(int argc, char **argv) {
    options_t o = {.connections = 1, .size_bytes = 64, .depth = 1, .seconds = 1, .warmup_s = 0.2, .retry_ms = 100,
                   .patience_ms = 100, .window = 1024, .sources = 32};
    int letter;

    while ((letter = getopt_long(argc, argv, "", long_options, NULL)) != -1)
        set_option(&o, letter, optarg);
    if (argc - optind != 2)
        fail("usage: load SCENARIO PORT [options]");
    if (o.connections < 1 || o.size_bytes < 1 || o.depth < 1 || o.window < 1 || o.sources < 1 || o.sources > 250 ||
        o.seconds > 3600 || o.idle < 0 || o.surplus < 0 || o.rate < 0)
        fail("an option is out of range");
    o.scenario = argv[optind];
    o.server.sin_family = AF_INET;
    o.server.sin_port = htons((uint16_t)atoi(argv[optind + 1]));
    o.server.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return o;
}

static void raise_descriptor_limit(void) {
    struct rlimit limit;

    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
}

static void print_result(const options_t *o, const result_t *r) {
    double seconds = (double)(r->to.wall_ns - r->from.wall_ns) / 1e9;
    double server_s = (double)(r->to.server_ns - r->from.server_ns) / 1e9;
    double load_s = (double)(r->to.load_ns - r->from.load_ns) / 1e9;
    double done = r->done > 0 ? (double)r->done : 1;

    printf("{\"scenario\": \"%s\", \"connections\": %d, \"idle\": %d, \"size_bytes\": %d, \"depth\": %d, ", o->scenario,
           o->connections, o->idle, o->size_bytes, o->depth);
    printf("\"seconds\": %.6f, \"done\": %llu, \"per_s\": %.1f, \"mb_per_s\": %.3f, ", seconds,
           (unsigned long long)r->done, (double)r->done / seconds, (double)r->done * o->size_bytes / seconds / 1e6);
    printf("\"server_cpu_us\": %.4f, \"server_cpu_percent\": %.1f, \"load_cpu_us\": %.4f, \"load_cpu_percent\": %.1f, ",
           server_s * 1e6 / done, server_s * 100 / seconds, load_s * 1e6 / done, load_s * 100 / seconds);
    printf("\"p50_us\": %.2f, \"p99_us\": %.2f, \"p999_us\": %.2f, \"max_us\": %.2f, \"mean_us\": %.2f",
           histogram_percentile(&r->latency, 0.5) / 1e3, histogram_percentile(&r->latency, 0.99) / 1e3,
           histogram_percentile(&r->latency, 0.999) / 1e3, (double)r->latency.max_ns / 1e3,
           r->latency.sum_ns / 1e3 / done);
    if (r->connected_ns > 0)
        printf(", \"connected_ms\": %.3f", (double)r->connected_ns / 1e6);
    if (o->rate > 0)
        printf(", \"rate\": %.1f, \"late\": %llu", o->rate, (unsigned long long)r->late);
    if (o->surplus > 0) {
        printf(", \"surplus\": {\"clients\": %d, ", o->surplus);
        surplus_print(stdout);
        printf("}");
    }
    printf("}\n");
}

int main(int argc, char **argv) {
    static result_t result;
    options_t o = parse_options(argc, argv);

    raise_descriptor_limit();
    alarm((unsigned)(o.warmup_s + o.seconds) + DEADLINE_S);
    if (strcmp(o.scenario, "echo") == 0)
        run_echo(&o, &result);
    else if (strcmp(o.scenario, "churn") == 0)
        run_churn(&o, &result);
    else if (strcmp(o.scenario, "storm") == 0)
        run_storm(&o, &result);
    else
        fail("unknown scenario");
    print_result(&o, &result);
    return 0;
}
