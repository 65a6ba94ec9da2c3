"""Ensures that figures are readable, that a pipe gets plain lines, and a terminal one that is redrawn."""

import io
import os
import struct
import sys

import pytest

from fastaccept.cli import terminal
from fastaccept.cli.terminal import ERASE_TO_END, StatusLine, progress, table

needs_pty = pytest.mark.linux("pseudo-terminals")


class Clock:
    def __init__(self):
        self.now_s = 100.0

    def __call__(self):
        return self.now_s


class Pty:
    """A terminal of so many columns: `stream` is the program's side, `shown()` what reached the screen."""

    def __init__(self, columns):
        import fcntl
        import pty
        import termios

        self._screen, program = pty.openpty()
        fcntl.ioctl(program, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        self.stream = os.fdopen(program, "w", encoding="utf-8")

    def shown(self):
        self.stream.flush()
        # What was written is there already; the mark says where it ends.
        self.stream.write("\0")
        self.stream.flush()
        text = b""
        while not text.endswith(b"\0"):
            text += os.read(self._screen, 65536)
        return text[:-1].decode()

    def close(self):
        self.stream.close()
        os.close(self._screen)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def pty_of(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    opened = []

    def open_one(columns):
        opened.append(Pty(columns))
        return opened[-1]

    yield open_one
    for one in opened:
        one.close()


@pytest.fixture
def without_rich(monkeypatch):
    monkeypatch.setitem(sys.modules, "rich.progress", None)


@pytest.mark.parametrize(
    ("n", "text"), [(0, "0"), (999, "999"), (19000, "19,000"), (1.25, "1.2"), (12345.6, "12,346"), (2.0, "2")]
)
def test_counts(n, text):
    assert terminal.format_count(n) == text


@pytest.mark.parametrize(
    ("n", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1536, "1.5 KiB"),
        (2**20 - 1, "1.0 MiB"),
        (24684084 * 1024, "23.5 GiB"),
        (2**62, "4.0 EiB"),
    ],
)
def test_bytes(n, text):
    assert terminal.format_bytes(n) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (0.00035, "350 us"),
        (0.0012, "1.2 ms"),
        (0.9996, "1.0 s"),
        (1.26, "1.3 s"),
        (59.97, "1 min 0 s"),
        (90, "1 min 30 s"),
        (7500, "2 h 5 min"),
        (-2, "-2.0 s"),
    ],
)
def test_durations(seconds, text):
    assert terminal.format_duration(seconds) == text


def test_a_table_puts_numbers_to_the_right():
    text = table(("name", "count", "size"), [("a", 19000, "1.5 KiB"), ("longer", None, "10.0 MiB")])
    assert text.splitlines() == [
        "name     count      size",
        "------  ------  --------",
        "a       19,000   1.5 KiB",
        "longer       -  10.0 MiB",
    ]


def test_a_table_of_no_rows_is_its_head():
    assert table(("a", "bc"), []) == "a  bc\n-  --"


def test_a_pipe_gets_a_line_at_most_every_so_often_and_the_last_one(clock):
    stream = io.StringIO()
    with StatusLine(stream, every_s=5, clock=clock) as line:
        for n in range(1, 13):
            line.update(f"at {n}")
            clock.now_s += 1
    assert stream.getvalue().splitlines() == ["at 1", "at 6", "at 11", "at 12"]


def test_a_pipe_gets_no_line_twice(clock):
    stream = io.StringIO()
    line = StatusLine(stream, every_s=5, clock=clock)
    line.update("same")
    clock.now_s += 60
    line.update("same")
    line.close()
    line.close()
    assert stream.getvalue() == "same\n"


def test_a_line_that_stays_goes_between(clock):
    stream = io.StringIO()
    with StatusLine(stream, clock=clock) as line:
        line.update("1 active")
        line.print("paused")
        line.update("2 active")
    assert stream.getvalue() == "1 active\npaused\n2 active\n"


@needs_pty
def test_a_terminal_gets_one_line_redrawn_and_clipped(clock, pty_of):
    screen = pty_of(20)
    with StatusLine(screen.stream, clock=clock) as line:
        line.update("x" * 50)
        line.update("not yet")  # within the redraw interval
        clock.now_s += 1
        line.update("two\nlines")
    assert screen.shown() == f"\r{'x' * 19}{ERASE_TO_END}\rtwo lines{ERASE_TO_END}\r\n"


@needs_pty
def test_a_terminal_of_unknown_width_is_taken_for_80_columns(clock, pty_of):
    screen = pty_of(0)
    StatusLine(screen.stream, clock=clock).update("x" * 200)
    assert screen.shown() == "\r" + "x" * 79 + ERASE_TO_END


@needs_pty
def test_a_terminal_without_escapes_is_overwritten_with_blanks(clock, pty_of, monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    screen = pty_of(40)
    line = StatusLine(screen.stream, clock=clock)
    line.update("longer")
    clock.now_s += 1
    line.update("abc")
    assert screen.shown() == "\rlonger\rabc   "


@needs_pty
def test_a_line_that_stays_in_a_terminal_pushes_the_status_down(clock, pty_of):
    screen = pty_of(40)
    with StatusLine(screen.stream, clock=clock) as line:
        line.update("1 active")
        line.print("paused")
    erase = ERASE_TO_END
    assert screen.shown() == f"\r1 active{erase}\r{erase}\rpaused\r\n\r1 active{erase}\r\n"


def test_progress_in_a_pipe_says_count_total_percentage_and_rate(clock):
    stream = io.StringIO()
    with progress(20000, "connect", stream=stream, every_s=5, clock=clock) as bar:
        for _ in range(10):
            clock.now_s += 1
            bar.advance(1999)
        bar.note("10 refused")
    assert stream.getvalue().splitlines() == [
        "connect: 0 of 20,000 (0 %), -/s, 0 s",
        "connect: 9,995 of 20,000 (49 %), 1,999/s, 5.0 s",
        "connect: 19,990 of 20,000 (99 %), 1,999/s, 10.0 s",
        "connect: 19,990 of 20,000 (99 %), 1,999/s, 10.0 s, 10 refused",
    ]


def test_progress_without_a_total(clock):
    stream = io.StringIO()
    with progress(None, "accept", stream=stream, clock=clock) as bar:
        clock.now_s += 2
        bar.advance(3)
    assert stream.getvalue().splitlines()[-1] == "accept: 3, 1.5/s, 2.0 s"


def test_progress_ends_its_line_when_interrupted(clock):
    stream = io.StringIO()
    with pytest.raises(KeyboardInterrupt), progress(10, "work", stream=stream, clock=clock) as bar:
        bar.advance(4)
        raise KeyboardInterrupt
    assert stream.getvalue().endswith("work: 4 of 10 (40 %), -/s, 0 s\n")


@needs_pty
def test_progress_in_a_terminal_without_rich_is_a_status_line(clock, pty_of, without_rich):
    screen = pty_of(80)
    with progress(10, "work", stream=screen.stream, clock=clock) as bar:
        clock.now_s += 1
        bar.advance(10)
    assert screen.shown().endswith(f"\rwork: 10 of 10 (100 %), 10/s, 1.0 s{ERASE_TO_END}\r\n")


@needs_pty
def test_progress_in_a_terminal_with_rich_is_a_bar(clock, pty_of):
    pytest.importorskip("rich")
    screen = pty_of(120)
    with progress(20000, "open [all]", stream=screen.stream, clock=clock) as bar:
        clock.now_s += 2
        bar.advance(10000)
        bar.note("[17] queued")
    shown = screen.shown()
    for part in ("open [all]", "50%", "10,000/20,000", "5,000/s", "2.0 s", "[17] queued", "\x1b["):
        assert part in shown
