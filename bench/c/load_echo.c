/* echo, pingpong, idle, overload: a number of connections with messages in flight, for a time.
 *
 * Closed loop by default: a message that came back is sent again, so the server is kept as busy as `depth` allows.
 * With --rate messages are sent on a fixed schedule over all connections, and latency counts from the scheduled moment.
 * What comes back is compared with what was sent during the warm-up, and only counted in the measured phase. */
#define _GNU_SOURCE
#include "load.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#define CONFIRM_EVERY 500    /* connections opened before the server must have caught up; below any backlog */
#define PACED_DEPTH 64       /* messages in flight per connection when paced */
#define PATTERN_PERIOD 251   /* a prime: no message size is a multiple of it, so a shifted echo is noticed */
#define SEND_BYTES (256 * 1024)

typedef struct {
    endpoint_t endpoint;
    int is_watching_out;
    size_t due;             /* bytes still to be written of messages already begun */
    size_t partial;         /* bytes received of the message that is coming back */
    unsigned sent_at;       /* position in the pattern of the next byte to write */
    unsigned received_at;   /* and of the next byte to receive */
    unsigned begun, ended;  /* messages; begun - ended are in flight */
    uint64_t *begun_ns;     /* ring of `slots` */
} client_t;

static char pattern[PATTERN_PERIOD + SEND_BYTES];
static client_t *clients;
static unsigned slots;
static int epoll_fd, is_measuring;
static const options_t *options;
static result_t *result;

static void write_due(client_t *c) {
    while (c->due > 0) {
        size_t length = c->due < SEND_BYTES ? c->due : SEND_BYTES;
        ssize_t sent = send(c->endpoint.fd, pattern + c->sent_at, length, MSG_NOSIGNAL);

        if (sent < 0 && errno != EAGAIN)
            die("send");
        if (sent < 0)
            break;
        c->due -= (size_t)sent;
        c->sent_at = (unsigned)((c->sent_at + (size_t)sent) % PATTERN_PERIOD);
    }
    if ((c->due > 0) != c->is_watching_out) {
        c->is_watching_out = c->due > 0;
        watch(epoll_fd, EPOLL_CTL_MOD, &c->endpoint, c->is_watching_out ? EPOLLIN | EPOLLOUT : EPOLLIN);
    }
}

static void begin_message(client_t *c, uint64_t at_ns) {
    c->begun_ns[c->begun++ % slots] = at_ns;
    c->due += (size_t)options->size_bytes;
}

static void end_message(client_t *c, uint64_t now) {
    uint64_t begun = c->begun_ns[c->ended++ % slots];

    if (is_measuring) {
        histogram_add(&result->latency, now - begun);
        result->done++;
    }
    if (options->rate == 0)
        begin_message(c, now);
}

static void on_readable(client_t *c) {
    ssize_t got = recv(c->endpoint.fd, receive_buffer, sizeof receive_buffer, 0);
    uint64_t now;

    if (got < 0 && errno == EAGAIN)
        return;
    if (got < 0)
        die("recv");
    if (got == 0)
        fail("the server closed a connection that it should serve");
    if (!is_measuring && memcmp(receive_buffer, pattern + c->received_at, (size_t)got) != 0)
        fail("the echo differs from what was sent");
    now = now_ns();
    c->received_at = (unsigned)((c->received_at + (size_t)got) % PATTERN_PERIOD);
    c->partial += (size_t)got;
    while (c->partial >= (size_t)options->size_bytes) {
        if (c->begun == c->ended)
            fail("more came back than was sent");
        c->partial -= (size_t)options->size_bytes;
        end_message(c, now);
    }
    write_due(c);
}

static void hold_idle(void) {
    for (int i = 0; i < options->idle; i++)
        connect_accepted(options, i % CONFIRM_EVERY == CONFIRM_EVERY - 1 || i == options->idle - 1);
}

static void open_clients(void) {
    clients = calloc((size_t)options->connections, sizeof *clients);
    slots = options->rate > 0 ? PACED_DEPTH : (unsigned)options->depth;
    for (int i = 0; i < options->connections; i++) {
        client_t *c = &clients[i];

        c->endpoint.kind = KIND_CLIENT;
        c->endpoint.fd =
            connect_accepted(options, i % CONFIRM_EVERY == CONFIRM_EVERY - 1 || i == options->connections - 1);
        c->begun_ns = calloc(slots, sizeof *c->begun_ns);
        watch(epoll_fd, EPOLL_CTL_ADD, &c->endpoint, EPOLLIN);
    }
}

static void begin_all(void) {
    for (int i = 0; i < options->connections; i++) {
        for (int k = 0; k < options->depth; k++)
            begin_message(&clients[i], now_ns());
        write_due(&clients[i]);
    }
}

/* Sends what the schedule says up to now, one connection after the other. */
static void pace(uint64_t now) {
    static uint64_t next_ns, turn;
    uint64_t interval_ns = (uint64_t)((double)NS_PER_S / options->rate);

    if (next_ns == 0)
        next_ns = now;
    for (; next_ns <= now; next_ns += interval_ns) {
        client_t *c = &clients[turn++ % (uint64_t)options->connections];

        if (c->begun - c->ended >= slots) {
            result->late += is_measuring ? 1 : 0;
            continue;
        }
        begin_message(c, next_ns);
        write_due(c);
    }
}

static void dispatch(struct epoll_event *event) {
    endpoint_t *endpoint = event->data.ptr;
    client_t *c = event->data.ptr;

    if (endpoint->kind == KIND_SURPLUS) {
        surplus_on_event(endpoint, event->events);
        return;
    }
    if (event->events & EPOLLOUT)
        write_due(c);
    if (event->events & (EPOLLIN | EPOLLHUP | EPOLLERR))
        on_readable(c);
}

static int wait_ms(void) {
    if (options->busy || options->rate > 0)
        return 0;
    return options->surplus > 0 ? 1 : 100;
}

/* Returns 0 when the measured phase is over. */
static int advance_phase(uint64_t now, uint64_t warm_ns, uint64_t end_ns) {
    if (!is_measuring && now >= warm_ns) {
        is_measuring = 1;
        surplus_measure();
        result->from = read_clocks(options);
    } else if (is_measuring && now >= end_ns) {
        result->to = read_clocks(options);
        return 0;
    }
    return 1;
}

void run_echo(const options_t *o, result_t *r) {
    struct epoll_event events[EVENTS_PER_WAIT];
    uint64_t now, warm_ns, end_ns;

    options = o;
    result = r;
    for (size_t i = 0; i < sizeof pattern; i++)
        pattern[i] = (char)(i % PATTERN_PERIOD);
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    hold_idle();
    open_clients();
    surplus_start(o, epoll_fd);
    if (o->rate == 0)
        begin_all();
    now = now_ns();
    warm_ns = now + (uint64_t)(o->warmup_s * (double)NS_PER_S);
    end_ns = warm_ns + (uint64_t)(o->seconds * (double)NS_PER_S);
    do {
        int n = epoll_wait(epoll_fd, events, EVENTS_PER_WAIT, wait_ms());

        for (int i = 0; i < n; i++)
            dispatch(&events[i]);
        now = now_ns();
        if (o->rate > 0)
            pace(now);
        surplus_tick(now);
    } while (advance_phase(now, warm_ns, end_ns));
}
