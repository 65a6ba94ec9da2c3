"""Server: the Python face of the loop. It checks what it is given, owns the listeners and the thread, and tells the application of
what is rare. What happens per connection and per byte is in the compiled modules."""

from __future__ import annotations

import threading
import warnings

from fastaccept._control import Control
from fastaccept.backends import DefaultBackend
from fastaccept.descriptors import auto_max_connections
from fastaccept.errors import ServerClosed
from fastaccept.listeners import Listener
from fastaccept.memory import KernelMemory, auto_by_memory
from fastaccept.options import (
    BACKLOG_MAX,
    PAUSE_MODES,
    WHEN_FULL,
    Limits,
    Timeouts,
    check_callback,
    check_choice,
    check_instance,
    check_int,
    check_reject_message,
    check_seconds,
    check_spin,
    to_ms,
)
from fastaccept.reports import Reports
from fastaccept.stats import DrainResult, Stats, snapshot

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from typing import Any, Callable, Optional, Union

__all__ = ["Server"]

# In the main thread a wait lasts no longer: a signal that comes just before the system call is not seen until it ends.
SIGNAL_CHECK_MS = 1000


class Server(Reports):
    """A TCP server: listeners, their connections, and the loop that serves them.

    Args, all by name and all optional:
        on_connect(conn): a client was accepted, or connect() came about.
        on_data(conn, data): bytes came; data is bytes, 1..69,632 long. None: they are dropped.
        on_eof(conn): the peer has sent its FIN. Returns something true to keep the connection open for writing; else, and
            without this callback, it is closed when all is sent.
        on_drain(conn): after write() returned False: so much is sent that writing may go on.
        on_close(conn, error): the connection has ended; once for each on_connect, and for each connect(). error is None, or what
            ended it: an OSError, a TimeoutError (Timeouts), WriteBufferFull, ConnectionAbortedError (a callback raised, drain()'s
            deadline, or Server.close() with bytes unsent).
        on_error(event): an ErrorEvent: accept failed (once an episode), a listener died, a callback raised. None: one line goes
            to logging.getLogger("fastaccept"), at most one a second for each operation.
        on_pause(listener, reasons): a listener has stopped accepting, or stands for other reasons than before; reasons is a
            frozenset of "limit", "resources", "memory", "user".
        on_resume(listener): it accepts again.
        limits: Limits, default Limits().
        timeouts: Timeouts, default Timeouts().
        when_full: what a client meets while the server is full, or a resource or the kernel's memory is short:
            "queue" (default): it waits in the kernel's backlog;
            "refuse": it is refused (ECONNREFUSED), those that wait are reset; the port stays ours. A Unix-domain listener queues
            instead;
            "reject": it is accepted, sent reject_message, and closed; works with no descriptor left, by one held in reserve.
        reject_message: bytes, up to 65,536, default b"".
        spin_us: microseconds, 0..1,000,000: after a turn that had events, look for more for so long before sleeping. An answer comes some
            microseconds sooner, at the price of the processor. Default "auto": for 6 us, about what a sleep costs, and only while nearly
            each look finds something. Without events nothing spins. Other threads run meanwhile; Ctrl-C waits for the end of it.
    A callback that raises: the exception goes to on_error, its connection is aborted, the server lives. An exception in on_error is
    logged. KeyboardInterrupt and SystemExit pass through serve_forever(), after which it may be called again.

    Threads: callbacks run in the loop's thread, which is the one that calls serve_forever(), or the one that start() makes. The
    methods of this class may be called from any thread unless they say otherwise; connections only from the loop's.
    Raises:
        TypeError, ValueError: an option is out of its range. OSError: no descriptor or memory for the backend.
    """

    def __init__(
        self,
        *,
        on_connect: Optional[Callable[..., Any]] = None,
        on_data: Optional[Callable[..., Any]] = None,
        on_eof: Optional[Callable[..., Any]] = None,
        on_drain: Optional[Callable[..., Any]] = None,
        on_close: Optional[Callable[..., Any]] = None,
        on_error: Optional[Callable[..., Any]] = None,
        on_pause: Optional[Callable[..., Any]] = None,
        on_resume: Optional[Callable[..., Any]] = None,
        limits: Optional[Limits] = None,
        timeouts: Optional[Timeouts] = None,
        when_full: str = "queue",
        reject_message: bytes = b"",
        spin_us: Union[int, str] = "auto",
        _backend: Any = None,
    ) -> None:
        self._is_closed = True  # until there is something to close
        Reports.__init__(self)
        callbacks = {
            "on_connect": on_connect, "on_data": on_data, "on_eof": on_eof, "on_drain": on_drain, "on_close": on_close,
        }  # fmt: skip
        for name, callback in callbacks.items():
            check_callback(name, callback)
        self._on_error = check_callback("on_error", on_error) or self._on_error
        self._on_pause = check_callback("on_pause", on_pause)
        self._on_resume = check_callback("on_resume", on_resume)
        self._limits = check_instance("limits", limits, Limits)
        self._timeouts = check_instance("timeouts", timeouts, Timeouts)
        check_choice("when_full", when_full, WHEN_FULL)
        check_reject_message(reject_message)
        spin = check_spin(spin_us)
        self._listeners: dict[int, Listener] = {}
        self._thread: Optional[threading.Thread] = None
        self._drain_result: Optional[DrainResult] = None
        self._loop = Control(DefaultBackend() if _backend is None else _backend, self)
        self._memory = KernelMemory()
        self._is_closed = False
        for name, callback in callbacks.items():
            setattr(self._loop, name, callback)
        times = self._timeouts
        self._loop.set_timeouts(
            *map(to_ms, (times.idle, times.first_byte, times.write_stall, times.close, times.connect))
        )
        self._loop.set_spin(spin)
        self._loop.set_when_full(when_full, bytes(reject_message))
        self._apply_limits(self._limits)

    # ---- listening

    def listen(
        self,
        host: Optional[str],
        port: int,
        *,
        backlog: int = BACKLOG_MAX,
        reuse_port: bool = False,
        dual_stack: bool = False,
    ) -> list[Listener]:
        """Listen on every address of a host; return the listeners, one for each.

        Args:
            host: a name, an IPv4 or IPv6 address, or None for every interface.
            port: 0..65535; 0 = one that is free, the same for all addresses (see Listener.port).
            backlog: clients that may wait in the kernel's queue, 1..65535; the system cuts it down to what it allows
                (listen(2): net.core.somaxconn).
            reuse_port: let other processes listen on the same port (SO_REUSEPORT, socket(7)); Linux only.
            dual_stack: an IPv6 socket takes IPv4 clients as well (ipv6(7), IPV6_V6ONLY off).
        Raises:
            OSError: an address can't be resolved or bound; then none of them is listened on. ServerClosed: after close().
        """
        if host is not None and not isinstance(host, str):
            raise TypeError(f"host is {host!r}; allowed is a str or None")
        check_int("port", port, 0, 65535)
        check_int("backlog", backlog, 1, BACKLOG_MAX)
        self._check_open()
        from fastaccept.sockets import open_sockets

        return self._take_over(open_sockets(host, port, reuse_port, dual_stack), backlog)

    def listen_unix(self, path: str, *, backlog: int = BACKLOG_MAX, mode: Optional[int] = None) -> Listener:
        """Listen on a Unix-domain socket (unix(7)); not on Windows.

        Args:
            path: where its file is made, up to 107 bytes. A socket file that nobody listens on is replaced.
            backlog: as for listen().
            mode: permissions of the file, such as 0o660; None = by the umask.
        The file is removed when the listener is closed. Raises: as listen().
        """
        check_int("backlog", backlog, 1, BACKLOG_MAX)
        self._check_open()
        from fastaccept.sockets import open_unix_socket

        return self._take_over([open_unix_socket(path, mode)], backlog, path)[0]

    def adopt(self, sock: socket.socket, *, backlog: int = BACKLOG_MAX) -> Listener:
        """Listen on a socket that is bound already, from systemd or a parent process, say; the server owns it from now on.

        Args:
            sock: a bound stream socket, listening or not; afterwards it is detached. backlog: as for listen().
        Raises: as listen(), and ValueError if it is no stream socket; then it is still the caller's.
        """
        from fastaccept.sockets import check_adoptable

        check_adoptable(sock)
        check_int("backlog", backlog, 1, BACKLOG_MAX)
        self._check_open()
        return self._take_over([sock], backlog)[0]

    def _take_over(self, sockets: list[socket.socket], backlog: int, path: Optional[str] = None) -> list[Listener]:
        made: list[Listener] = []
        if self._limits.max_connections == "auto" and not self._listeners:
            self._run_in_loop(self._apply_limits, self._limits)
        try:
            for sock in sockets:
                address, family = sock.getsockname(), sock.family
                number = self._run_in_loop(self._loop.add_listener, sock.fileno(), backlog)
                sock.detach()
                made.append(Listener(self, number, address, family, path))
                self._listeners[number] = made[-1]
        except BaseException:
            for listener in made:
                listener.close()
            for sock in sockets:
                sock.close()
            raise
        return made

    def _close_listener(self, listener: Listener) -> None:
        if not listener._is_closed and not self._is_closed:
            self._run_in_loop(self._loop.close_listener, listener._number)
            self._forget_listener(listener._number)

    @property
    def listeners(self) -> list[Listener]:
        """The listeners that are open."""
        return list(self._listeners.values())

    # ---- running

    def serve_forever(self, *, handle_signals: bool = True) -> Optional[DrainResult]:
        """Serve in this thread until close(), stop() or drain(), then close everything; return what drain() came to, if that was it.

        Args:
            handle_signals: in the main thread, let the first SIGINT or SIGTERM (on Windows also SIGBREAK, Ctrl-Break) drain for
                `Timeouts.drain` seconds and the second one raise KeyboardInterrupt; a signal that the program has a handler of
                its own for is left alone.
        Raises:
            RuntimeError: the loop runs already. ServerClosed: after close(). KeyboardInterrupt, SystemExit: from a callback or a
            signal; connections are still open then, until close() or the end of `with`.
        """
        self._check_open()
        from contextlib import nullcontext

        from fastaccept.process import drain_on_signals

        is_main = threading.current_thread() is threading.main_thread()
        with drain_on_signals(self._on_signal) if is_main and handle_signals else nullcontext():
            self._loop.run(SIGNAL_CHECK_MS if is_main else -1)
        return self._finish()

    def _on_signal(self) -> None:
        """The first signal drains, the next one interrupts."""
        if self._loop.draining:
            raise KeyboardInterrupt
        self._loop.begin_drain(to_ms(self._timeouts.drain) or -1)

    def start(self) -> None:
        """Serve in a thread of its own, until stop() or close(); at the program's end it stops by itself.

        Raises:
            RuntimeError: the loop runs already. ServerClosed: after close().
        """
        from fastaccept.process import close_at_exit

        self._check_open()
        if self._loop.is_running or self._thread is not None:
            raise RuntimeError("the loop is already running")
        running = threading.Event()
        self._loop.call_soon_threadsafe(running.set)
        self._thread = threading.Thread(target=self._run_thread, name="fastaccept", daemon=True)
        close_at_exit(self)
        self._thread.start()
        running.wait()

    def _run_thread(self) -> None:
        try:
            self._loop.run()
            self._finish()
        except BaseException as error:
            self._logger.critical("the loop of %r has ended: %r", self, error)
            self._loop.close()
            raise

    def _finish(self) -> Optional[DrainResult]:
        """The loop has stopped because it was told to."""
        if self._loop.draining:
            self._drain_result = DrainResult(*self._loop.drained)
        self._close_now()
        return self._drain_result

    def stop(self) -> None:
        """The same as close()."""
        self.close()

    def close(self) -> None:
        """Stop the loop and close everything; wait until that is done, unless called from a callback.

        Connections that have nothing left to send are closed, the others are closed too and hear of it in on_close. Closing a closed
        server does nothing.
        """
        if self._is_closed:
            return
        if not self._loop.is_running:
            self._join()
            self._close_now()
            return
        ended = threading.Event()
        self._loop.at_close(ended.set)
        self._loop.stopping = True
        self._loop.wake()
        if self._loop.in_loop:
            return
        while not ended.wait(0.1) and self._loop.is_running:
            pass  # an exception that leaves serve_forever() ends the loop, and closes nothing
        self._join()

    def _join(self) -> None:
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _close_now(self) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        for number in list(self._listeners):
            self._forget_listener(number)
        self._loop.close()
        self._memory.close()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __del__(self) -> None:
        if not getattr(self, "_is_closed", True):
            warnings.warn(f"unclosed {self!r}", ResourceWarning, stacklevel=2, source=self)
            if not self._loop.is_running:
                self._close_now()

    # ---- while running

    @property
    def limits(self) -> Limits:
        """The Limits in force. May be set while running: a max_connections below the open ones cuts nobody off, and nobody is
        accepted until so many have gone."""
        return self._limits

    @limits.setter
    def limits(self, limits: Limits) -> None:
        self._check_open()
        self._run_in_loop(self._apply_limits, check_instance("limits", limits, Limits))

    def _apply_limits(self, limits: Limits) -> None:
        self._memory.open()
        memory_limit = self._memory.limit(limits.max_kernel_memory)
        maximum = limits.max_connections
        if maximum == "auto":
            maximum = auto_max_connections(limits.reserve_fds) or auto_by_memory(memory_limit)
            if maximum is not None:  # what our own connections hold now will be free for connections
                maximum += self._loop.active
        high, low = limits.marks(maximum)  # type: ignore[arg-type]
        self._loop.set_limits(
            high, low, limits.reserve_fds, limits.write_high_water, limits.max_write_buffer, limits.max_write_buffer_total
        )
        self._loop.set_memory_limit(memory_limit)
        self._limits = limits

    def pause(self, how: str = "refuse") -> None:
        """Stop accepting on every listener until resume(); connections live on. No other reason's end undoes it.

        Args:
            how: "refuse" (default): new clients are refused, and those in the queue are reset; "queue": they wait.
        """
        check_choice("how", how, PAUSE_MODES)
        self._check_open()
        self._run_in_loop(self._loop.pause, how)

    def resume(self) -> None:
        """Undo pause(). Other reasons for a pause stay until their own end."""
        self._check_open()
        self._run_in_loop(self._loop.resume)

    def drain(self, timeout: Optional[float] = None, *, wait: bool = True) -> Optional[DrainResult]:
        """Close the listeners, let the connections finish, abort what is left at the deadline, and close the server.

        Args:
            timeout: seconds, 0..2,000,000; default Timeouts.drain.
            wait: False: return None at once; serve_forever() returns the result. In a callback nothing else is possible.
        Returns:
            DrainResult: how many connections finished, and how many were cut.
        Raises:
            RuntimeError: wait is True in the loop's own thread. ServerClosed: after close().
        """
        check_seconds("timeout", timeout, -1e-9)
        self._check_open()
        timeout_ms = to_ms(self._timeouts.drain) or -1 if timeout is None else round(timeout * 1000)
        if not wait:
            self._run_in_loop(self._loop.begin_drain, timeout_ms)
            return None
        if self._loop.in_loop:
            raise RuntimeError("drain() would wait for the loop that it is called from; use drain(wait=False)")
        if not self._loop.is_running and self._thread is None:
            self._loop.begin_drain(timeout_ms)
            self._loop.run(SIGNAL_CHECK_MS)
            return self._finish()
        ended = threading.Event()
        self._loop.at_close(ended.set)
        self._run_in_loop(self._loop.begin_drain, timeout_ms)
        ended.wait()
        return self._drain_result

    def connect(
        self,
        host: str,
        port: int,
        *,
        source: Optional[tuple[str, int]] = None,
        context: Any = None,
    ) -> Any:
        """Begin to connect to a server; return the Connection at once. on_connect follows, or on_close with the error.

        Args:
            host: a numeric IPv4 or IPv6 address: looking a name up would block the loop.
            port: 1..65535.
            source: (address, port) to connect from; port 0 = any that is free. Default: the system's choice.
            context: becomes Connection.context.
        Outgoing connections do not count against max_connections. Threads: the loop's, or any while it does not run.
        Raises:
            OSError: it fails at once (EMFILE, EADDRNOTAVAIL, ENETUNREACH ...). ValueError: not a numeric address.
        """
        check_int("port", port, 1, 65535)
        self._check_open()
        if source is None:
            return self._loop.connect(host, port, None, 0, context)
        return self._loop.connect(host, port, source[0], check_int("source port", source[1], 0, 65535), context)

    def call_soon_threadsafe(self, callback: Callable[..., Any], *args: Any) -> None:
        """Have the loop call callback(*args) in its next turn. An exception goes to on_error. Threads: any."""
        self._check_open()
        self._loop.call_soon_threadsafe(check_callback("callback", callback), *args)

    def call_later(self, delay: float, callback: Callable[..., Any], *args: Any) -> Any:
        """Have the loop call callback(*args) after delay seconds (0..2,000,000); return a handle with cancel(). Never early, late by
        a turn. Threads: the loop's, or any while it does not run."""
        check_seconds("delay", delay, -1e-9)
        self._check_open()
        return self._loop.call_later(delay, check_callback("callback", callback), *args)

    @property
    def connections(self) -> list[Any]:
        """The open connections, accepted and outgoing, as a new list. Threads: the loop's, or any while it does not run."""
        return [] if self._is_closed else self._loop.handles()

    @property
    def active(self) -> int:
        """Accepted connections that are not released yet."""
        return self._loop.active

    def stats(self) -> Stats:
        """Return a snapshot of the server's figures. Cheap, needs no descriptor, and is safe from any thread."""
        return snapshot(self._loop, [listener._number for listener in self.listeners], self._memory.used())

    def __repr__(self) -> str:
        if self._is_closed:
            return "<fastaccept.Server closed>"
        limit = self._loop.limit
        where = ", ".join(f"{listener.address} {listener.state}" for listener in self.listeners) or "not listening"
        return f"<fastaccept.Server {where}; {self._loop.active} of {'any number' if limit is None else limit} connections>"

    # ---- between threads

    def _check_open(self) -> None:
        if self._is_closed:
            raise ServerClosed("the server is closed")

    def _run_in_loop(self, call: Callable[..., Any], *args: Any) -> Any:
        """Call something in the loop's thread and return what it returns; directly if no loop runs or this is its thread."""
        loop = self._loop
        if loop.in_loop or not loop.is_running:
            value = call(*args)
            if not loop.is_running:
                loop.settle()
            return value
        done = threading.Event()  # set by the call, or by the loop's end if that comes first
        outcome: list[Any] = []
        loop.at_close(done.set)

        def run() -> None:
            try:
                value = call(*args)
                loop.settle()  # so that the caller finds it in force
                outcome.append((True, value))
            except BaseException as error:
                outcome.append((False, error))
            done.set()

        loop.call_soon_threadsafe(run)
        done.wait()
        loop.not_at_close(done.set)
        if not outcome:
            raise ServerClosed("the server was closed meanwhile")
        succeeded, value = outcome[0]
        if not succeeded:
            raise value
        return value
