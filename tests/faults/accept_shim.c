/* Preloaded: accept4() fails with an errno that the environment names, for as long as a file exists. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

int accept4(int fd, struct sockaddr *address, socklen_t *length, int flags)
{
    static int (*real)(int, struct sockaddr *, socklen_t *, int);
    const char *file = getenv("SHIM_WHILE");
    if (!real)
        real = (int (*)(int, struct sockaddr *, socklen_t *, int))dlsym(RTLD_NEXT, "accept4");
    if (file && access(file, F_OK) == 0) {
        errno = atoi(getenv("SHIM_ERRNO"));
        return -1;
    }
    return real(fd, address, length, flags);
}
