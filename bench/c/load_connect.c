/* churn: connect, one echo, close, over and over, in a number of slots.
 * storm: as many connections as were asked for, as fast as the server takes them, each kept open.
 *
 * A client writes at once after connect(): over loopback the connection stands when the call returns, and only when it
 * does not (a SYN was dropped) epoll is asked. An echo proves that the server has accepted. */
#define _GNU_SOURCE
#include "load.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

typedef struct {
    endpoint_t endpoint;
    uint64_t begun_ns;
    int is_sent;
    int received_bytes;
} client_t;

static char message[RECEIVE_BYTES];
static int epoll_fd;
static const options_t *options;
static result_t *result;

/* Returns 1 when the message is on its way, 0 when the connection does not stand yet. */
static int send_message(client_t *c) {
    ssize_t sent = send(c->endpoint.fd, message, (size_t)options->size_bytes, MSG_NOSIGNAL);

    if (sent < 0 && (errno == EAGAIN || errno == ENOTCONN))
        return 0;
    if (sent < 0)
        die("send");
    if (sent != options->size_bytes)
        fail("a first message does not fit the socket buffer: use a smaller --size");
    c->is_sent = 1;
    return 1;
}

static void begin(client_t *c) {
    int error;

    c->begun_ns = now_ns();
    c->received_bytes = c->is_sent = 0;
    c->endpoint.fd = open_socket(options);
    error = start_connect(options, c->endpoint.fd);
    if (error < 0) {
        errno = -error;
        die("connect");
    }
    watch(epoll_fd, EPOLL_CTL_ADD, &c->endpoint, send_message(c) ? EPOLLIN : EPOLLIN | EPOLLOUT);
}

/* Returns 1 when the whole echo is there. */
static int advance(client_t *c) {
    ssize_t got;

    if (!c->is_sent) {
        if (send_message(c))
            watch(epoll_fd, EPOLL_CTL_MOD, &c->endpoint, EPOLLIN);
        return 0;
    }
    got = recv(c->endpoint.fd, receive_buffer, sizeof receive_buffer, 0);
    if (got < 0 && errno == EAGAIN)
        return 0;
    if (got < 0)
        die("recv");
    if (got == 0)
        fail("the server closed a connection that it should serve");
    c->received_bytes += (int)got;
    return c->received_bytes >= options->size_bytes;
}

static client_t *prepare(const options_t *o, result_t *r) {
    client_t *clients = calloc((size_t)o->connections, sizeof *clients);

    options = o;
    result = r;
    if (o->size_bytes > RECEIVE_BYTES)
        fail("--size is above 256 KiB");
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    return clients;
}

/* The client closes first, so the ports in TIME_WAIT are its own: hence the many source addresses. */
static void churn_once(client_t *c, int is_measuring) {
    if (!advance(c))
        return;
    if (is_measuring) {
        histogram_add(&result->latency, now_ns() - c->begun_ns);
        result->done++;
    }
    close(c->endpoint.fd);
    begin(c);
}

void run_churn(const options_t *o, result_t *r) {
    struct epoll_event events[EVENTS_PER_WAIT];
    client_t *clients = prepare(o, r);
    uint64_t now = now_ns(), warm_ns = now + (uint64_t)(o->warmup_s * (double)NS_PER_S);
    uint64_t end_ns = warm_ns + (uint64_t)(o->seconds * (double)NS_PER_S);
    int is_measuring = 0;

    for (int i = 0; i < o->connections; i++)
        begin(&clients[i]);
    while (now < end_ns) {
        int n = epoll_wait(epoll_fd, events, EVENTS_PER_WAIT, 100);

        for (int i = 0; i < n; i++)
            churn_once(events[i].data.ptr, is_measuring);
        now = now_ns();
        if (!is_measuring && now >= warm_ns) {
            is_measuring = 1;
            r->from = read_clocks(o);
        }
    }
    r->to = read_clocks(o);
}

/* Begins what the window allows; returns how many have been begun in all. */
static int storm_begin(client_t *clients, int begun) {
    while (begun < options->connections && begun - (int)result->done < options->window) {
        begin(&clients[begun++]);
        if (begun == options->connections)
            result->connected_ns = now_ns() - result->from.wall_ns;
    }
    return begun;
}

void run_storm(const options_t *o, result_t *r) {
    struct epoll_event events[EVENTS_PER_WAIT];
    client_t *clients = prepare(o, r);
    int begun;

    r->from = read_clocks(o);
    begun = storm_begin(clients, 0);
    while (r->done < (uint64_t)o->connections) {
        int n = epoll_wait(epoll_fd, events, EVENTS_PER_WAIT, 1000);

        for (int i = 0; i < n; i++) {
            client_t *c = events[i].data.ptr;

            if (advance(c)) {
                histogram_add(&r->latency, now_ns() - c->begun_ns);
                r->done++;
            }
        }
        begun = storm_begin(clients, begun);
    }
    r->to = read_clocks(o);
}
