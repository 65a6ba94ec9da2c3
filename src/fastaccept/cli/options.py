"""Option types that several commands share: each turns a word of the command line into a value, or says what is allowed."""

from __future__ import annotations

import argparse


def count(word: str) -> int:
    """A whole number from 1 on; 20k and 1.5m are understood."""
    factors = {"k": 1_000, "m": 1_000_000}
    text = word.strip().lower().replace(",", "").replace("_", "")
    factor = factors.get(text[-1:], 1)
    try:
        value = float(text[:-1] if factor > 1 else text) * factor
    except ValueError:
        value = -1.0
    if value < 1 or value != int(value) or value > 2**31 - 1:
        raise argparse.ArgumentTypeError(f"{word!r}; allowed is a whole number from 1 on, such as 500, 20k or 1.5m")
    return int(value)


def size(word: str) -> int:
    """Bytes from 1 on; 64k and 1m are understood (binary)."""
    factors = {"k": 1024, "m": 1024**2}
    text = word.strip().lower().removesuffix("b") if hasattr(str, "removesuffix") else word.strip().lower()
    factor = factors.get(text[-1:], 1)
    try:
        value = float(text[:-1] if factor > 1 else text) * factor
    except ValueError:
        value = -1.0
    if value < 1 or value != int(value) or value > 2**30:
        raise argparse.ArgumentTypeError(f"{word!r}; allowed are bytes from 1 to 1024m, such as 100, 64k or 1m")
    return int(value)


def seconds(word: str) -> float:
    """Seconds over 0."""
    try:
        value = float(word)
    except ValueError:
        value = -1.0
    if not 0 < value <= 1_000_000:
        raise argparse.ArgumentTypeError(f"{word!r}; allowed are seconds over 0, such as 0.5 or 30")
    return value


def rate(word: str) -> float:
    """A rate per second over 0."""
    try:
        value = float(word)
    except ValueError:
        value = -1.0
    if not 0 < value <= 1e9:
        raise argparse.ArgumentTypeError(f"{word!r}; allowed is a number over 0, per second")
    return value


def limit(word: str) -> int | str | None:
    """max_connections: a count, "auto" or "none"."""
    if word == "auto":
        return word
    return None if word == "none" else count(word)


def port(word: str) -> int:
    """0..65535."""
    if not word.isdigit() or int(word) > 65535:
        raise argparse.ArgumentTypeError(f"{word!r}; allowed is a port, 0..65535")
    return int(word)


def target(word: str) -> tuple[str, int]:
    """HOST:PORT or [IPV6]:PORT."""
    host, colon, number = word.rpartition(":")
    host = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not colon or not host or not number.isdigit() or not 1 <= int(number) <= 65535:
        raise argparse.ArgumentTypeError(f"{word!r}; allowed is HOST:PORT, such as 127.0.0.1:7000 or [::1]:7000")
    return host, int(number)
