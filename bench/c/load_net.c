/* Sockets, source addresses and clocks of the load generator. Knows no scenario. */
#define _GNU_SOURCE
#include "load.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define CONFIRM_TIMEOUT_MS 10000 /* far above a slow server's accept, far below the run's deadline */

char receive_buffer[RECEIVE_BYTES];

void die(const char *what) {
    perror(what);
    exit(1);
}

void fail(const char *what) {
    fprintf(stderr, "%s\n", what);
    exit(1);
}

static uint64_t clock_ns(clockid_t clock) {
    struct timespec t;

    if (clock_gettime(clock, &t) < 0)
        die("clock_gettime");
    return (uint64_t)t.tv_sec * NS_PER_S + (uint64_t)t.tv_nsec;
}

uint64_t now_ns(void) {
    return clock_ns(CLOCK_MONOTONIC);
}

/* The server's clock counts all of its threads in nanoseconds; /proc/PID/stat would count in ticks of 10 ms. */
clocks_t read_clocks(const options_t *o) {
    clocks_t clocks = {.wall_ns = now_ns(), .load_ns = clock_ns(CLOCK_PROCESS_CPUTIME_ID)};
    clockid_t server;

    if (o->server_pid > 0) {
        if (clock_getcpuclockid(o->server_pid, &server) != 0)
            fail("the server has gone");
        clocks.server_ns = clock_ns(server);
    }
    return clocks;
}

int open_socket(const options_t *o) {
    static unsigned counter;
    struct sockaddr_in source = {.sin_family = AF_INET};
    int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    if (fd < 0)
        die("socket");
    source.sin_addr.s_addr = htonl(INADDR_LOOPBACK + 1 + counter++ % (unsigned)o->sources);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    /* The port is chosen by connect, when the destination is known: ports in TIME_WAIT can be taken again. */
    setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
    if (bind(fd, (struct sockaddr *)&source, sizeof source) < 0)
        die("bind");
    return fd;
}

int start_connect(const options_t *o, int fd) {
    if (connect(fd, (const struct sockaddr *)&o->server, sizeof o->server) == 0 || errno == EINPROGRESS)
        return 0;
    return -errno;
}

static void await(int fd, short events, const char *what) {
    struct pollfd one = {.fd = fd, .events = events};

    if (poll(&one, 1, CONFIRM_TIMEOUT_MS) != 1 || !(one.revents & events))
        fail(what);
}

/* The kernel's queue is first in, first out: a byte echoed on this connection says that all earlier ones were accepted. */
int connect_accepted(const options_t *o, int confirm) {
    int fd = open_socket(o), error = start_connect(o, fd);
    char byte = 0;

    if (error < 0) {
        errno = -error;
        die("connect");
    }
    await(fd, POLLOUT, "no connection within 10 s");
    if (!confirm)
        return fd;
    if (send(fd, &byte, 1, MSG_NOSIGNAL) != 1)
        die("first byte");
    await(fd, POLLIN, "no echo within 10 s");
    if (recv(fd, &byte, 1, 0) != 1)
        fail("the server closed a connection that it should serve");
    return fd;
}

void watch(int epoll_fd, int operation, endpoint_t *endpoint, uint32_t events) {
    struct epoll_event event = {.events = events, .data.ptr = endpoint};

    if (epoll_ctl(epoll_fd, operation, endpoint->fd, &event) < 0)
        die("epoll_ctl");
}
