"""Descriptors: how many this process has and may have. Nothing here needs one to find out."""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Optional
if sys.platform != "win32":
    import resource

# max_connections="auto" takes this share of what is free: some is left for what the application opens later.
AUTO_SHARE = 0.9


def descriptor_limit() -> Optional[int]:
    """Return the soft limit of open descriptors; None where there is none (Windows, RLIM_INFINITY)."""
    if sys.platform == "win32":
        return None
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return None if soft == resource.RLIM_INFINITY else soft


def raise_descriptor_limit() -> Optional[int]:
    """Raise the soft limit to the hard one, which needs no privilege (getrlimit(2)); return the soft limit then."""
    if sys.platform == "win32":
        return None
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (OSError, ValueError):  # a sandbox may forbid it; then the soft limit is what there is
            pass
    return descriptor_limit()


def descriptors_in_use() -> Optional[int]:
    """Return how many descriptors are open; None where the system does not tell.

    Since Linux 6.2 the size of /proc/self/fd is their number, so that it can be had with none free. Before, the folder
    is read, which takes one.
    """
    if not sys.platform.startswith("linux"):
        return None
    try:
        return os.stat("/proc/self/fd").st_size or len(os.listdir("/proc/self/fd")) - 1
    except OSError:
        return None


def auto_max_connections(reserve_fds: int) -> Optional[int]:
    """Return what "auto" stands for now; None where there is no limit to take a share of."""
    limit = raise_descriptor_limit()
    if limit is None:
        return None
    free = limit - (descriptors_in_use() or 0) - reserve_fds
    return max(1, int(free * AUTO_SHARE))
