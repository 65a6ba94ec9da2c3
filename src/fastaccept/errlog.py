"""What goes to logging when the application has no on_error: one line an episode, and never a flood.

At exhaustion logging must not need a descriptor: a traceback opens source files, which fails again and doubles the storm. So
messages are made beforehand, and a traceback is only added where descriptors are not the trouble.
"""

from __future__ import annotations

import logging
import time

from fastaccept.errors import ErrorEvent

logger = logging.getLogger("fastaccept")

# At most one line in this time for each operation; what came between is counted in the next line.
LOG_INTERVAL_S = 1.0


class ErrorLog:
    """The default on_error. Threads: the loop's."""

    def __init__(self) -> None:
        self._last: dict[str, float] = {}
        self._suppressed: dict[str, int] = {}

    def __call__(self, event: ErrorEvent) -> None:
        now = time.monotonic()
        name = event.operation
        if now - self._last.get(name, -LOG_INTERVAL_S) < LOG_INTERVAL_S:
            self._suppressed[name] = self._suppressed.get(name, 0) + 1
            return
        self._last[name] = now
        more = self._suppressed.pop(name, 0)
        text = f"{event}; {more} more like it were not logged" if more else str(event)
        is_bug = not isinstance(event.exception, OSError)
        logger.error(text, exc_info=event.exception if is_bug else None)
