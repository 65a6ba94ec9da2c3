/* The clients beyond the server's limit: each connects, writes one byte, takes what it is given, and tries again.
 *
 *   WAITING ──> CONNECTING ──> CONNECTED ──> WAITING      each arrow to WAITING counts one outcome:
 *                                                         refused, reset, closed, message, served, queued, unreachable
 * "served" means that the server took one more than it should have: the byte came back. */
#define _GNU_SOURCE
#include "load.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

typedef enum { SURPLUS_WAITING, SURPLUS_CONNECTING, SURPLUS_CONNECTED } state_t;

typedef enum {
    OUTCOME_REFUSED,     /* ECONNREFUSED */
    OUTCOME_RESET,       /* connected, then reset */
    OUTCOME_CLOSED,      /* connected, then end of file without a word */
    OUTCOME_MESSAGE,     /* connected, and told something before the end */
    OUTCOME_SERVED,      /* connected and echoed to */
    OUTCOME_QUEUED,      /* connected, and nothing came for patience_ms */
    OUTCOME_UNREACHABLE, /* not even connected for patience_ms: the SYN was dropped */
    OUTCOMES
} outcome_t;

static const char *const outcome_names[OUTCOMES] = {"refused", "reset",  "closed",     "message",
                                                    "served",  "queued", "unreachable"};

typedef struct {
    endpoint_t endpoint;
    state_t state;
    int is_told; /* a message came */
    uint64_t begun_ns, deadline_ns;
} surplus_t;

/* The tries of a millisecond, made in one go, would be a pause that the admitted clients' figures show as the server's. */
#define TICK_NS (NS_PER_MS / 5)

static const char first_byte = 0;
static surplus_t *surplus;
static uint64_t outcomes[OUTCOMES], attempts, next_tick_ns;
static histogram_t told_after; /* connect to the outcome, where there was an answer */
static const options_t *options;
static int epoll_fd;

/* Half a retry time to one and a half. With none of this chance, clients that one slow moment has brought together would try
 * together ever after, and every slow moment add to them. */
static uint64_t retry_ns(void) {
    static uint64_t state = 88172645463325252u; /* xorshift64: the same tries in every run */

    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (uint64_t)options->retry_ms * NS_PER_MS / 2 + state % ((uint64_t)options->retry_ms * NS_PER_MS + 1);
}

static void finish(surplus_t *s, outcome_t outcome) {
    uint64_t now = now_ns();

    if (outcome != OUTCOME_QUEUED && outcome != OUTCOME_UNREACHABLE)
        histogram_add(&told_after, now - s->begun_ns);
    outcomes[outcome]++;
    close(s->endpoint.fd);
    s->endpoint.fd = -1;
    s->state = SURPLUS_WAITING;
    s->deadline_ns = now + retry_ns();
}

static void finish_by_errno(surplus_t *s, int error) {
    if (error == ECONNREFUSED)
        finish(s, OUTCOME_REFUSED);
    else if (error == ECONNRESET || error == EPIPE)
        finish(s, s->is_told ? OUTCOME_MESSAGE : OUTCOME_RESET);
    else {
        errno = error;
        die("surplus client");
    }
}

/* On loopback a connection stands when connect(2) returns, EINPROGRESS or not: the byte is tried at once, and EPOLLOUT waited
 * for only where the server's queue was full. The load's own core is short under overload, so a try has to be cheap. */
static void send_first_byte(surplus_t *s, int operation) {
    if (send(s->endpoint.fd, &first_byte, 1, MSG_NOSIGNAL) == 1) {
        s->state = SURPLUS_CONNECTED;
        watch(epoll_fd, operation, &s->endpoint, EPOLLIN);
    } else if (errno != EAGAIN && errno != ENOTCONN) {
        finish_by_errno(s, errno);
    } else if (operation == EPOLL_CTL_ADD) {
        watch(epoll_fd, operation, &s->endpoint, EPOLLIN | EPOLLOUT);
    }
}

static void begin(surplus_t *s, uint64_t now) {
    int error;

    attempts++;
    s->begun_ns = now;
    s->deadline_ns = now + (uint64_t)options->patience_ms * NS_PER_MS;
    s->state = SURPLUS_CONNECTING;
    s->is_told = 0;
    s->endpoint.fd = open_socket(options);
    error = start_connect(options, s->endpoint.fd);
    if (error < 0)
        finish_by_errno(s, -error);
    else
        send_first_byte(s, EPOLL_CTL_ADD);
}

static void receive(surplus_t *s) {
    char answer[256];
    ssize_t got = recv(s->endpoint.fd, answer, sizeof answer, 0);

    if (got > 0 && !s->is_told && answer[0] == first_byte)
        finish(s, OUTCOME_SERVED);
    else if (got > 0)
        s->is_told = 1;
    else if (got == 0)
        finish(s, s->is_told ? OUTCOME_MESSAGE : OUTCOME_CLOSED);
    else if (errno != EAGAIN)
        finish_by_errno(s, errno);
}

void surplus_on_event(endpoint_t *endpoint, uint32_t events) {
    surplus_t *s = (surplus_t *)endpoint;

    if (s->endpoint.fd < 0)
        return; /* finished earlier in this batch */
    if (s->state == SURPLUS_CONNECTING && !(events & EPOLLERR))
        send_first_byte(s, EPOLL_CTL_MOD);
    else
        receive(s);
}

void surplus_start(const options_t *o, int epoll) {
    uint64_t now = now_ns();

    options = o;
    epoll_fd = epoll;
    surplus = calloc((size_t)o->surplus + 1, sizeof *surplus);
    for (int i = 0; i < o->surplus; i++) {
        surplus[i].endpoint.kind = KIND_SURPLUS;
        surplus[i].endpoint.fd = -1;
        /* Spread over one retry time: tries come evenly, not in one burst. */
        surplus[i].deadline_ns = now + (uint64_t)o->retry_ms * NS_PER_MS * (uint64_t)i / (uint64_t)o->surplus;
    }
}

void surplus_tick(uint64_t now) {
    if (options->surplus == 0 || now < next_tick_ns)
        return;
    next_tick_ns = now + TICK_NS;
    for (int i = 0; i < options->surplus; i++) {
        surplus_t *s = &surplus[i];

        if (now < s->deadline_ns)
            continue;
        if (s->state == SURPLUS_WAITING)
            begin(s, now);
        else
            finish(s, s->state == SURPLUS_CONNECTED ? OUTCOME_QUEUED : OUTCOME_UNREACHABLE);
    }
}

void surplus_measure(void) {
    attempts = 0;
    memset(outcomes, 0, sizeof outcomes);
    memset(&told_after, 0, sizeof told_after);
}

void surplus_print(FILE *out) {
    fprintf(out, "\"attempts\": %llu, \"told_after_p50_us\": %.2f, \"told_after_p99_us\": %.2f",
            (unsigned long long)attempts, histogram_percentile(&told_after, 0.5) / 1e3,
            histogram_percentile(&told_after, 0.99) / 1e3);
    for (int i = 0; i < OUTCOMES; i++)
        fprintf(out, ", \"%s\": %llu", outcome_names[i], (unsigned long long)outcomes[i]);
}
