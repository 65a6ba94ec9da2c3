"""One process of a storm: opens its share of the connections with the engine itself, so that it can outrun what it tests.

It is told what to do by one line of JSON on stdin, tells how it goes by lines of JSON on stdout, and takes three words on stdin
meanwhile: "go" (everybody has opened: pump, or hold), "stop" (open no more) and "close".

    opening --all tried or "stop"--> answering --answered or the time is up--> opened --"go"--> pumping --> done --"close"--> closed
"""

from __future__ import annotations

import collections
import json
import random
import sys
import threading
import time
from typing import Any

import fastaccept

# What has become of a connection.
CONNECTING, WAITING, SERVED, REFUSED, RESET, EOF, TIMEOUT, REJECTED, ERROR, QUEUED = range(10)
CLASSES = ("connecting", "waiting", "served", "refused", "reset", "eof", "timeout", "rejected", "error", "queued")
FAILURES = (REFUSED, RESET, EOF, TIMEOUT, REJECTED, ERROR)
PROBE = b"?"
IN_FLIGHT = 64  # connects under way at once: enough to fill the pipe, few enough for any backlog
TELL_EVERY_S = 0.1
PACE_S = 0.01
MESSAGES = 251  # different ones, so that an echo on the wrong connection is noticed


class Storm:
    """The connections of this process, by number. Threads: all in the loop's, but for _listen_to_parent()."""

    def __init__(self, order: dict[str, Any]) -> None:
        self.order = order
        self.total: int = order["connections"]
        self.status = bytearray(self.total)  # what has become of each that was tried
        self.tried = 0
        self.in_flight = 0
        self.unanswered = 0
        self.lost: collections.Counter[str] = collections.Counter()
        self.errors: collections.Counter[str] = collections.Counter()
        self.started = time.monotonic()
        self.opened_s = 0.0
        self.phase = "opening"
        self.stopped = False
        self.source = 0
        self.pump: Pump | None = None
        self.server = fastaccept.Server(
            on_connect=self.on_connect,
            on_data=self.on_data,
            on_close=self.on_close,
            on_error=self.on_error,
            limits=fastaccept.Limits(max_connections=None),
            timeouts=fastaccept.Timeouts(connect=order["timeout"], close=5),
        )

    # ---- opening

    def open_more(self) -> None:
        while self.tried < self.total and self.in_flight < IN_FLIGHT and not self.stopped:
            number = self.tried
            self.tried += 1
            try:
                self.server.connect(*self.order["target"], source=self.next_source(), context=number)
                self.in_flight += 1
            except OSError as error:
                self.failed_at_once(number, error)
        if self.phase == "opening" and not self.in_flight and (self.stopped or self.tried == self.total):
            self.enter_answering()

    def next_source(self) -> tuple[str, int] | None:
        sources = self.order["sources"]
        return (sources[self.source % len(sources)], 0) if sources else None

    def failed_at_once(self, number: int, error: OSError) -> None:
        """EADDRNOTAVAIL: this source has no port left; the next one may have."""
        import errno

        if error.errno == errno.EADDRNOTAVAIL and self.source + 1 < len(self.order["sources"]):
            self.source += 1
            self.tried -= 1
            return
        self.ended(number, ERROR, error)

    def on_connect(self, conn: Any) -> None:
        number = conn.context
        self.in_flight -= 1
        if self.order["probe"]:
            self.status[number] = WAITING
            self.unanswered += 1
            conn.write(PROBE)
        else:
            self.status[number] = SERVED
        if self.order["per_source"] and (number + 1) % self.order["per_source"] == 0:
            self.source += 1
        self.open_more()

    def on_data(self, conn: Any, data: bytes) -> None:
        number = conn.context
        if self.status[number] == WAITING or self.status[number] == QUEUED:
            was_waiting = self.status[number] == WAITING
            self.status[number] = SERVED if data == PROBE else REJECTED
            if was_waiting:
                self.unanswered -= 1
                self.answered()
        elif self.pump is not None:
            self.pump.received(conn, number, data)

    def on_close(self, conn: Any, error: BaseException | None) -> None:
        number = conn.context
        status = self.status[number]
        if status == CONNECTING:
            self.in_flight -= 1
        elif status == WAITING:
            self.unanswered -= 1
        if status in (CONNECTING, WAITING, QUEUED):
            self.ended(number, classify(error), error)
        elif status == REJECTED:
            self.ended(number, REJECTED, None)
        elif self.phase not in ("closing", "closed"):
            self.lost[CLASSES[classify(error)]] += 1
        self.open_more()
        self.answered()

    def ended(self, number: int, status: int, error: BaseException | None) -> None:
        self.status[number] = status
        if status == ERROR and error is not None:
            self.errors[str(error)] += 1
        if not self.order["keep_going"] and not self.stopped and self.phase == "opening":
            self.stopped = True
            self.tell(failed=CLASSES[status])

    def on_error(self, event: Any) -> None:
        self.errors[str(event)] += 1

    # ---- the phases after it

    def enter_answering(self) -> None:
        self.phase = "answering"
        self.opened_s = time.monotonic() - self.started
        self.answer_timer = self.server.call_later(self.order["answer"], self.enter_opened)
        self.answered()

    def answered(self) -> None:
        if self.phase == "answering" and self.unanswered == 0:
            self.answer_timer.cancel()
            self.enter_opened()

    def enter_opened(self) -> None:
        """Who has not answered by now waits in the server's queue."""
        self.phase = "opened"
        for number in range(self.tried):
            if self.status[number] == WAITING:
                self.status[number] = QUEUED
        self.unanswered = 0
        self.tell()

    def go(self) -> None:
        if self.order["pump"] is None:
            self.server.call_later(max(self.order["hold"], 0.0), self.finished)
            return
        self.phase = "pumping"
        self.pump = Pump(self, self.order["pump"])
        self.pump.start()

    def finished(self) -> None:
        if self.phase in ("opened", "pumping"):
            self.phase = "done"
            self.tell()

    def close(self) -> None:
        self.phase = "closing"
        started = time.monotonic()
        for conn in self.server.connections:
            conn.abort() if self.order["abort"] else conn.close()
        self.wait_closed(started)

    def wait_closed(self, started: float) -> None:
        if self.server.connections and time.monotonic() - started < 10:
            self.server.call_later(0.005, self.wait_closed, started)
            return
        self.phase = "closed"
        self.tell(closed_s=time.monotonic() - started)
        self.server.stop()

    # ---- talking to the parent

    def tell(self, **more: Any) -> None:
        classes = collections.Counter(CLASSES[status] for status in self.status[: self.tried])
        report = {
            "phase": self.phase, "tried": self.tried, "classes": classes, "lost": self.lost, "errors": self.errors,
            "opened_s": self.opened_s, "pump": self.pump.report() if self.pump is not None else None, **more,
        }  # fmt: skip
        print(json.dumps(report), flush=True)

    def tell_again(self) -> None:
        if self.phase in ("opening", "answering", "pumping"):
            self.tell()
        self.server.call_later(TELL_EVERY_S, self.tell_again)

    def listen_to_parent(self) -> None:
        words = {"go": self.go, "stop": self.stop, "close": self.close}
        try:
            for line in sys.stdin:
                self.server.call_soon_threadsafe(words[line.strip()])
            self.server.call_soon_threadsafe(self.server.stop)  # the parent is gone, perhaps before the loop has begun
        except fastaccept.ServerClosed:
            pass

    def stop(self) -> None:
        self.stopped = True
        self.open_more()

    def run(self) -> None:
        with self.server:
            self.server.call_later(0, self.open_more)
            self.server.call_later(TELL_EVERY_S, self.tell_again)
            threading.Thread(target=self.listen_to_parent, daemon=True).start()
            self.server.serve_forever(handle_signals=False)


class Pump:
    """Echo traffic on the connections that were served: each message is checked byte by byte, and timed."""

    def __init__(self, storm: Storm, order: dict[str, Any]) -> None:
        self.storm = storm
        self.size: int = order["size"]
        self.rate: float | None = order["rate"]
        self.seconds: float = order["seconds"]
        noise = random.Random(self.size).randbytes(self.size + MESSAGES) if hasattr(random.Random, "randbytes") else None
        noise = noise or bytes(random.Random(self.size).getrandbits(8) for _ in range(self.size + MESSAGES))
        self.messages = [noise[i : i + self.size] for i in range(MESSAGES)]
        self.got: dict[int, int] = {}  # bytes of the running message that came back, by connection
        self.sent_ns: dict[int, int] = {}
        self.idle: collections.deque[Any] = collections.deque()
        self.latencies: collections.Counter[int] = collections.Counter()  # by microseconds, three digits kept
        self.n_messages = 0
        self.wrong = 0
        self.is_over = False

    def start(self) -> None:
        self.started = time.monotonic()
        self.due = 0.0
        self.storm.server.call_later(self.seconds, self.end)
        for conn in self.storm.server.connections:
            if conn.context is not None and self.storm.status[conn.context] == SERVED:
                self.idle.append(conn)
        if self.rate is None:
            while self.idle:
                self.send(self.idle.popleft())
        else:
            self.pace()

    def pace(self) -> None:
        """Send what the rate allows by now; a connection that still waits for its echo is passed over."""
        if self.is_over:
            return
        self.due = min(self.due + self.rate * PACE_S, self.rate)
        while self.due >= 1 and self.idle:
            self.due -= 1
            self.send(self.idle.popleft())
        self.storm.server.call_later(PACE_S, self.pace)

    def send(self, conn: Any) -> None:
        number = conn.context
        if conn.is_closing:
            return
        self.got[number] = 0
        self.sent_ns[number] = time.perf_counter_ns()
        conn.write(self.messages[number % MESSAGES])

    def received(self, conn: Any, number: int, data: bytes) -> None:
        message = self.messages[number % MESSAGES]
        at = self.got.get(number, 0)
        if data != (message if len(data) == len(message) else message[at : at + len(data)]):
            self.wrong += 1
        self.got[number] = at + len(data)
        if self.got[number] < self.size:
            return
        took_us = (time.perf_counter_ns() - self.sent_ns[number]) // 1000
        self.latencies[took_us if took_us < 1000 else int(float(f"{took_us:.3g}"))] += 1
        self.n_messages += 1
        if self.is_over:
            return
        if self.rate is None:
            self.send(conn)
        else:
            self.idle.append(conn)

    def end(self) -> None:
        self.is_over = True
        self.ended_s = time.monotonic() - self.started
        self.storm.server.call_later(0.2, self.storm.finished)  # what is under way still comes back, and is checked

    def report(self) -> dict[str, Any]:
        seconds = self.ended_s if self.is_over else time.monotonic() - self.started
        return {
            "messages": self.n_messages, "bytes": self.n_messages * self.size, "wrong": self.wrong, "seconds": seconds,
            "latencies_us": self.latencies if self.is_over else {},
        }  # fmt: skip


def classify(error: BaseException | None) -> int:
    """What on_close's error makes of a connection that was not served yet."""
    if error is None:
        return EOF
    if isinstance(error, ConnectionRefusedError):
        return REFUSED
    if isinstance(error, TimeoutError):
        return TIMEOUT
    if isinstance(error, (ConnectionResetError, BrokenPipeError)):
        return RESET
    return ERROR


def main() -> None:
    try:
        Storm(json.loads(sys.stdin.readline())).run()
    except (KeyboardInterrupt, BrokenPipeError):
        pass  # the parent says what there is to say


if __name__ == "__main__":
    main()
