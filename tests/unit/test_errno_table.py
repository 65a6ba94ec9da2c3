"""Ensures that every errno that accept(2) names has its class, and that unknown ones are told apart."""

import errno

import pytest

pytestmark = pytest.mark.linux("accept4")

TABLE = {
    "empty": "EAGAIN EWOULDBLOCK",
    "retry": "ECONNABORTED EPROTO EPERM EINTR ENETDOWN ENETUNREACH ENONET EHOSTDOWN EHOSTUNREACH ENOPROTOOPT ETIMEDOUT ECONNRESET",
    "pause": "EMFILE ENFILE ENOBUFS ENOMEM ENOSPC ENOSR",
    "fatal": "EBADF EINVAL ENOTSOCK EOPNOTSUPP",
}


def test_every_errno_has_one_class():
    from fastaccept import _epoll_accept

    named = {getattr(errno, name): kind for kind, names in TABLE.items() for name in names.split()}
    for code in errno.errorcode:
        assert _epoll_accept.accept_class_name(code) == named.get(code, "unknown"), errno.errorcode[code]
