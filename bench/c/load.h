/* What the parts of the load generator share. One process, one thread, one epoll; traffic to 127.0.0.0/8 only. */
#ifndef BENCH_LOAD_H
#define BENCH_LOAD_H

#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

#include "histogram.h"

#define NS_PER_S 1000000000ull
#define NS_PER_MS 1000000ull
#define EVENTS_PER_WAIT 512
#define RECEIVE_BYTES (256 * 1024)

typedef struct {
    const char *scenario;
    struct sockaddr_in server;
    pid_t server_pid; /* whose CPU time is read; 0 = nobody's */
    int connections;  /* that echo, or slots that churn, or connections of the storm */
    int idle;         /* held beside them without traffic */
    int surplus;      /* clients beyond the server's limit, connecting again and again */
    int size_bytes;
    int depth;        /* messages in flight per connection */
    int window;       /* storm: connections not yet answered at any moment; below the backlog, or SYNs are dropped */
    int sources;      /* source addresses 127.0.0.2, .3, ... in turn */
    int busy;         /* poll without sleeping */
    int retry_ms;     /* surplus: pause before the next try */
    int patience_ms;  /* surplus: how long an unanswered client waits */
    double rate;      /* messages/s over all connections on a fixed schedule; 0 = closed loop */
    double warmup_s, seconds;
} options_t;

typedef struct {
    uint64_t wall_ns, server_ns, load_ns;
} clocks_t;

typedef struct {
    clocks_t from, to;     /* of the measured phase */
    uint64_t done;         /* messages (echo) or connections (churn, storm) that were finished in it */
    uint64_t late;         /* paced: messages not sent because too many were in flight */
    uint64_t connected_ns; /* storm: first SYN to last established */
    histogram_t latency;
} result_t;

/* The first field of whatever epoll points at. */
typedef enum { KIND_CLIENT, KIND_SURPLUS } kind_t;

typedef struct {
    kind_t kind;
    int fd; /* -1 while closed */
} endpoint_t;

/* load_net.c */
extern char receive_buffer[RECEIVE_BYTES];
void die(const char *what);  /* with errno */
void fail(const char *what); /* without */
uint64_t now_ns(void);
clocks_t read_clocks(const options_t *o);
int open_socket(const options_t *o);                   /* non-blocking, bound to the next source address */
int start_connect(const options_t *o, int fd);         /* 0 = under way or done, else -errno */
int connect_accepted(const options_t *o, int confirm); /* waits; with confirm, until one byte came back */
void watch(int epoll_fd, int operation, endpoint_t *endpoint, uint32_t events);

/* load_echo.c: echo, pingpong, idle, overload */
void run_echo(const options_t *o, result_t *r);

/* load_connect.c: churn, storm */
void run_churn(const options_t *o, result_t *r);
void run_storm(const options_t *o, result_t *r);

/* load_surplus.c: the clients beyond the limit */
void surplus_start(const options_t *o, int epoll_fd);
void surplus_on_event(endpoint_t *endpoint, uint32_t events);
void surplus_tick(uint64_t now); /* retries and patience; call in every turn */
void surplus_measure(void);      /* forget what was counted so far */
void surplus_print(FILE *out);   /* as the fields of a JSON object */

#endif
