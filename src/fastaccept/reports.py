"""Reports: what the loop tells its server of, made into what the application's on_error, on_pause and on_resume get. All of it is rare."""

from __future__ import annotations

from fastaccept._admission import reason_names
from fastaccept.errors import ErrorEvent, os_error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Optional


class Reports:
    """The part of Server that the loop calls. Threads: the loop's."""

    _loop: Any
    _memory: Any
    _listeners: dict[int, Any]
    _on_error: Callable[..., Any]
    _on_pause: Optional[Callable[..., Any]]
    _on_resume: Optional[Callable[..., Any]]

    def __init__(self) -> None:
        # Not with the package: it takes longer to import. Not later: with no descriptors left nothing can be imported.
        from fastaccept.errlog import ErrorLog, logger

        self._logger = logger
        self._on_error = ErrorLog()
        self._failures: dict[str, int] = {}  # since start, by operation
        self._unreported: dict[str, int] = {}  # since the last report

    def _forget_listener(self, number: int) -> Any:
        listener = self._listeners.pop(number, None)
        if listener is not None:
            listener._forget()
        return listener

    def _tell(self, name: str, callback: Optional[Callable[..., Any]], *args: Any) -> None:
        if callback is None:
            return
        try:
            callback(*args)
        except Exception as error:
            self._callback_error(name, error, None)

    def _paused(self, number: int, reasons: int) -> None:
        self._tell("on_pause", self._on_pause, self._listeners.get(number), reason_names(reasons))

    def _resumed(self, number: int) -> None:
        self._tell("on_resume", self._on_resume, self._listeners.get(number))

    def _kernel_memory(self) -> int:
        used = self._memory.used()
        return -1 if used is None else used

    def _accept_error(self, number: int, code: int, is_new: bool, action: str, retry_in_s: Optional[float]) -> None:
        self._failures["accept"] = self._failures.get("accept", 0) + 1
        if not is_new:
            self._unreported["accept"] = self._unreported.get("accept", 0) + 1
            return
        listener = self._listeners.get(number)
        queued = self._loop.listener_state(number)[2]
        if action == "listener closed":
            self._forget_listener(number)
        self._report(
            ErrorEvent(
                operation="accept",
                exception=os_error(code),
                listener=listener,
                action=action,
                retry_in_s=retry_in_s,
                count=self._failures["accept"],
                suppressed=self._unreported.pop("accept", 0),
                active=self._loop.active,
                queued=queued,
            )
        )

    def _callback_error(self, name: str, error: BaseException, connection: Any) -> None:
        self._failures[name] = self._failures.get(name, 0) + 1
        action = "connection aborted" if connection is not None else "ignored"
        self._report(ErrorEvent(name, error, connection, None, action, None, self._failures[name], 0, self._loop.active))

    def _report(self, event: ErrorEvent) -> None:
        try:
            self._on_error(event)
        except Exception as error:
            self._logger.error("on_error raised %r while it was told: %s", error, event)
