"""What the commands show: a status line, a progress bar, tables, and numbers for people.

The one place that writes escape codes. In a terminal a line is redrawn in place; in a pipe or a log file the
same calls print plain lines, seldom. rich draws the bars where it is installed; nothing needs it.
Called from one thread; the clock can be replaced, so that tests need not wait.
"""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Iterable, Sequence
from typing import Callable, TextIO

REDRAW_S = 0.1  # a terminal: faster than this nobody can read
PLAIN_EVERY_S = 5.0  # a pipe: one line is enough to see that it lives
DEFAULT_WIDTH = 80  # columns, where the terminal does not say
ERASE_TO_END = "\x1b[K"

Clock = Callable[[], float]


# ---- numbers for people

def format_count(n: float) -> str:
    """19000 -> "19,000"; a fraction keeps one digit below ten, where it still means something."""
    if isinstance(n, float) and not n.is_integer() and abs(n) < 10:
        return f"{n:.1f}"
    return f"{round(n):,}"


def format_bytes(n: float) -> str:
    """1536 -> "1.5 KiB"; three digits or so, binary units."""
    if abs(n) < 1024:
        return f"{round(n)} B"
    for unit in ("KiB", "MiB", "GiB", "TiB", "PiB"):
        n /= 1024
        # 1023.95 would be rounded to "1024.0": that is one of the next unit.
        if abs(n) < 1023.95:
            return f"{n:.1f} {unit}"
    return f"{n / 1024:,.1f} EiB"


def format_duration(seconds: float) -> str:
    """0.00035 -> "350 us", 1.25 -> "1.2 s", 90 -> "1 min 30 s", 7500 -> "2 h 5 min"."""
    if seconds < 0:
        return "-" + format_duration(-seconds)
    if seconds == 0:
        return "0 s"
    if seconds < 0.9995e-3:
        return f"{seconds * 1e6:.0f} us"
    if seconds < 0.9995:
        return f"{seconds * 1e3:.3g} ms"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min"


def format_rate(n: float, seconds: float) -> str:
    """n in so many seconds -> "1,234/s"; "-/s" before any time has passed."""
    return format_count(n / seconds) + "/s" if seconds > 0 else "-/s"


# ---- tables

_NUMBER = re.compile(r"[-+]?[\d][\d,.]*( ?(%|[a-zA-Z]{1,3})(/s)?)?|-|-?/s")


def table(headers: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Aligned plain text: numbers (and numbers with a unit) to the right, all else to the left; None is "-"."""
    cells = [[_cell(value) for value in row] for row in rows]
    lines = [list(headers), *cells]
    widths = [max(len(line[i]) for line in lines) for i in range(len(headers))]
    right = [bool(cells) and all(_NUMBER.fullmatch(row[i]) for row in cells) for i in range(len(headers))]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join(
        "  ".join(
            text.rjust(width) if numeric else text.ljust(width)
            for text, width, numeric in zip(line, widths, right)
        ).rstrip()
        for line in lines
    )


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return format_count(value)
    return str(value)


# ---- the terminal

def is_terminal(stream: TextIO) -> bool:
    try:
        return stream.isatty()
    except (AttributeError, ValueError):  # no stream at all, or a closed one
        return False


def terminal_width(stream: TextIO) -> int:
    """Columns, asked anew each time: people resize their windows. A pty that was told no size says 0."""
    try:
        return os.get_terminal_size(stream.fileno()).columns or DEFAULT_WIDTH
    except (OSError, ValueError, AttributeError):
        return DEFAULT_WIDTH


def _understands_escapes() -> bool:
    if os.environ.get("TERM") == "dumb":
        return False
    if sys.platform != "win32":
        return True
    # A Windows console understands them once it is asked to (Windows 10 1511).
    import ctypes

    kernel32 = ctypes.windll.kernel32
    kernel32.GetStdHandle.restype = ctypes.c_void_p
    handle = ctypes.c_void_p(kernel32.GetStdHandle(-11))  # STD_OUTPUT_HANDLE
    mode = ctypes.c_uint32()
    if not kernel32.GetConsoleMode(handle, ctypes.byref(mode)):
        return False
    return bool(kernel32.SetConsoleMode(handle, mode.value | 0x0004))  # ENABLE_VIRTUAL_TERMINAL_PROCESSING


class StatusLine:
    """One line that says how things stand.

    In a terminal `update` redraws it in place, clipped to the width. In a pipe it prints a plain line at most
    every `every_s` seconds, and `close` prints the last one if it was held back.
    """

    def __init__(
        self, stream: TextIO | None = None, *, every_s: float = PLAIN_EVERY_S, clock: Clock = time.monotonic
    ):
        self._stream = sys.stdout if stream is None else stream
        self._clock = clock
        self._terminal = is_terminal(self._stream)
        self._escapes = self._terminal and _understands_escapes()
        self._every_s = REDRAW_S if self._terminal else every_s
        self._written_at: float | None = None
        self._drawn_length = 0
        self._text = ""
        self._pending = False

    def __enter__(self) -> StatusLine:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def update(self, text: str) -> None:
        """Say this now, or soon: held back while the last one is too recent."""
        text = " ".join(text.splitlines())
        self._pending = self._pending or text != self._text
        self._text = text
        now = self._clock()
        if self._pending and (self._written_at is None or now - self._written_at >= self._every_s):
            self._write()
            self._written_at = now

    def print(self, line: str) -> None:
        """Write a line that stays; the status goes on below it."""
        if self._terminal and self._drawn_length:
            self._draw("")
        self._stream.write(line + "\n")
        if self._terminal and self._text:
            self._write()
        self._stream.flush()

    def close(self) -> None:
        """Write what was held back and end the line. Safe to call twice."""
        if self._pending:
            self._write()
        if self._drawn_length:
            self._stream.write("\n")
            self._stream.flush()
        self._drawn_length = 0
        self._text = ""

    def _write(self) -> None:
        if self._terminal:
            self._draw(self._text)
        else:
            self._stream.write(self._text + "\n")
        self._stream.flush()
        self._pending = False

    def _draw(self, text: str) -> None:
        # One column stays free: many terminals wrap as soon as the last one is written.
        text = text[: max(1, terminal_width(self._stream) - 1)]
        erase = ERASE_TO_END if self._escapes else " " * max(0, self._drawn_length - len(text))
        self._stream.write("\r" + text + erase + ("" if text else "\r"))
        self._drawn_length = len(text)


# ---- progress

class PlainProgress:
    """Progress without rich: label, count, total, percentage, rate and note on a StatusLine."""

    def __init__(
        self,
        total: int | None,
        label: str,
        *,
        stream: TextIO | None = None,
        every_s: float = PLAIN_EVERY_S,
        clock: Clock = time.monotonic,
    ):
        self.total = total
        self.label = label
        self.count = 0
        self.remark = ""
        self._clock = clock
        self._started_at = clock()
        self._open(sys.stdout if stream is None else stream, every_s)

    def __enter__(self):
        self._show()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._close()

    def advance(self, n: int = 1) -> None:
        """n more are done; advance(0) only lets the time go on."""
        self.count += n
        self._show()

    def note(self, text: str) -> None:
        """What stands behind the figures from now on, such as "17 refused"."""
        self.remark = text
        self._show()

    def _elapsed_s(self) -> float:
        return self._clock() - self._started_at

    def _rate(self) -> str:
        return format_rate(self.count, self._elapsed_s())

    def _open(self, stream: TextIO, every_s: float) -> None:
        self._line = StatusLine(stream, every_s=every_s, clock=self._clock)

    def _show(self) -> None:
        self._line.update(self._plain_text())

    def _close(self) -> None:
        self._show()
        self._line.close()

    def _plain_text(self) -> str:
        text = f"{self.label}: {format_count(self.count)}"
        if self.total:
            # Rounded down: 100 % is said when all is done, and not before.
            text += f" of {format_count(self.total)} ({100 * self.count // self.total} %)"
        elapsed_s = self._elapsed_s()
        text += f", {format_rate(self.count, elapsed_s)}, {format_duration(elapsed_s)}"
        return f"{text}, {self.remark}" if self.remark else text


class RichProgress(PlainProgress):
    """The same as a bar. No refresh thread: a command that forks its workers must not have one."""

    def _open(self, stream: TextIO, every_s: float) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[figures]}"),
            console=Console(file=stream),
            auto_refresh=False,
            get_time=self._clock,
        )
        self._task = self._bar.add_task(_escape(self.label), total=self.total, figures="")
        self._drawn_at: float | None = None

    def __enter__(self):
        self._bar.start()
        return super().__enter__()

    def _show(self) -> None:
        now = self._clock()
        if self._drawn_at is None or now - self._drawn_at >= REDRAW_S:
            self._draw()
            self._drawn_at = now

    def _close(self) -> None:
        self._draw()
        self._bar.stop()

    def _draw(self) -> None:
        figures = format_count(self.count)
        if self.total:
            figures += f"/{format_count(self.total)}"
        figures += f"  {self._rate()}  {format_duration(self._elapsed_s())}"
        if self.remark:
            figures += f"  {_escape(self.remark)}"
        self._bar.update(self._task, completed=self.count, figures=figures)
        self._bar.refresh()


def _escape(text: str) -> str:
    from rich.markup import escape  # square brackets are rich's markup

    return escape(text)


def progress(
    total: int | None,
    label: str,
    *,
    stream: TextIO | None = None,
    every_s: float = PLAIN_EVERY_S,
    clock: Clock = time.monotonic,
) -> PlainProgress:
    """Progress towards `total` (None: unknown), as a context manager with advance(n) and note(text).

    A bar where the stream (stdout unless given) is a terminal and rich is installed, else a status line.
    """
    stream = sys.stdout if stream is None else stream
    kind = RichProgress if is_terminal(stream) and _has_rich() else PlainProgress
    return kind(total, label, stream=stream, every_s=every_s, clock=clock)


def _has_rich() -> bool:
    if os.environ.get("TERM") == "dumb":
        return False
    try:
        import rich.progress  # noqa: F401
    except ImportError:
        return False
    return True
