/* The yardstick: an echo server as one writes it in plain C. Level-triggered epoll, accept4 until the queue is empty,
 * one recv and one send per readable socket. No tricks, so that a ratio against it means something.
 *
 *   echo_epoll PORT [BACKLOG [--read-first]]     prints "listening PORT" when ready, ends on SIGTERM
 *
 * --read-first is no yardstick but the floor of churn: the calls that fastaccept makes for a short connection, without Python. It takes
 * one client a wait, so that no accept4 finds nobody, reads it before it is watched, and watches it edge-triggered: for short messages,
 * that one recv and one send take whole.
 *
 * What recv gave and send did not take is kept per connection, and that socket is not read until it has gone out.
 * At EMFILE it does what plain servers do: it comes round again at once. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#define READ_BYTES (256 * 1024) /* as much as asyncio and uvloop take in one read */
#define EVENTS_PER_WAIT 512

typedef struct {
    char *bytes; /* owned; NULL while nothing waits */
    size_t length, sent;
} pending_t;

static char read_buffer[READ_BYTES];
static pending_t *pending; /* by descriptor */
static size_t pending_capacity;
static int epoll_fd, reads_first;

static void die(const char *what) {
    perror(what);
    exit(1);
}

static int open_listener(int port, int backlog) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    socklen_t length = sizeof address;
    int one = 1;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (fd < 0)
        die("socket");
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    /* Accepted sockets inherit it: the peers' servers set it too, here it costs no call per connection. */
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (bind(fd, (struct sockaddr *)&address, sizeof address) < 0 || listen(fd, backlog) < 0)
        die("listen");
    getsockname(fd, (struct sockaddr *)&address, &length);
    printf("listening %d\n", ntohs(address.sin_port));
    fflush(stdout);
    return fd;
}

static void watch(int operation, int fd, uint32_t events) {
    struct epoll_event event = {.events = events, .data.fd = fd};

    if (epoll_ctl(epoll_fd, operation, fd, &event) < 0)
        die("epoll_ctl");
}

static void close_connection(int fd) {
    free(pending[fd].bytes);
    pending[fd].bytes = NULL;
    close(fd);
}

/* Keeps the rest of a short write; the socket is watched for writing only, so the peer is not read meanwhile. */
static void keep_rest(int fd, const char *bytes, size_t length) {
    pending_t *rest = &pending[fd];

    rest->bytes = malloc(length);
    if (rest->bytes == NULL)
        die("malloc");
    memcpy(rest->bytes, bytes, length);
    rest->length = length;
    rest->sent = 0;
    watch(EPOLL_CTL_MOD, fd, EPOLLOUT);
}

/* Returns 0 when the connection was closed. */
static int on_readable(int fd) {
    ssize_t sent, got = recv(fd, read_buffer, sizeof read_buffer, 0);

    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return 1;
    if (got <= 0) {
        close_connection(fd);
        return 0;
    }
    sent = send(fd, read_buffer, (size_t)got, MSG_NOSIGNAL);
    if (sent < 0) {
        if (errno != EAGAIN && errno != EINTR) {
            close_connection(fd);
            return 0;
        }
        sent = 0;
    }
    if (sent < got)
        keep_rest(fd, read_buffer + sent, (size_t)(got - sent));
    return 1;
}

static void on_writable(int fd) {
    pending_t *rest = &pending[fd];
    ssize_t sent = send(fd, rest->bytes + rest->sent, rest->length - rest->sent, MSG_NOSIGNAL);

    if (sent < 0) {
        if (errno != EAGAIN && errno != EINTR)
            close_connection(fd);
        return;
    }
    rest->sent += (size_t)sent;
    if (rest->sent < rest->length)
        return;
    free(rest->bytes);
    rest->bytes = NULL;
    watch(EPOLL_CTL_MOD, fd, EPOLLIN);
}

/* What comes between the read and epoll_ctl is reported by that. */
static void accept_to_read_first(int listener) {
    int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

    if (fd < 0)
        return;
    if ((size_t)fd >= pending_capacity)
        close(fd);
    else if (on_readable(fd))
        watch(EPOLL_CTL_ADD, fd, EPOLLIN | EPOLLRDHUP | EPOLLET);
}

static void accept_all(int listener) {
    for (;;) {
        int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

        if (fd < 0) {
            if (errno == EINTR || errno == ECONNABORTED)
                continue;
            return;
        }
        if ((size_t)fd >= pending_capacity)
            close(fd);
        else
            watch(EPOLL_CTL_ADD, fd, EPOLLIN);
    }
}

static void serve(int listener) {
    struct epoll_event events[EVENTS_PER_WAIT];

    for (;;) {
        int n = epoll_wait(epoll_fd, events, EVENTS_PER_WAIT, -1);

        if (n < 0 && errno != EINTR)
            die("epoll_wait");
        for (int i = 0; i < n; i++) {
            int fd = events[i].data.fd;

            if (fd == listener && reads_first)
                accept_to_read_first(listener);
            else if (fd == listener)
                accept_all(listener);
            else if (pending[fd].bytes != NULL)
                on_writable(fd);
            else
                on_readable(fd);
        }
    }
}

static void on_sigterm(int number) {
    (void)number;
    _exit(0);
}

int main(int argc, char **argv) {
    struct rlimit limit;
    int listener;

    if (argc < 2) {
        fprintf(stderr, "usage: echo_epoll PORT [BACKLOG [--read-first]]\n");
        return 2;
    }
    reads_first = argc > 3 && strcmp(argv[3], "--read-first") == 0;
    signal(SIGTERM, on_sigterm);
    getrlimit(RLIMIT_NOFILE, &limit);
    pending_capacity = limit.rlim_cur < (1 << 20) ? limit.rlim_cur : 1 << 20;
    pending = calloc(pending_capacity, sizeof *pending);
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (pending == NULL || epoll_fd < 0)
        die("start");
    listener = open_listener(atoi(argv[1]), argc > 2 ? atoi(argv[2]) : 65535);
    watch(EPOLL_CTL_ADD, listener, EPOLLIN);
    serve(listener);
}
