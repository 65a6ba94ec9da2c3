"""The command line: fastaccept COMMAND, or python -m fastaccept COMMAND.

This file owns the table of commands, the manners of errors, and the exit codes:

  0    done                        2    wrong usage, or the system refused: one line on stderr
  1    the command's own "no"      130  Ctrl-C        141  whoever read our output has gone

A command is a module of this package with `add_parser(subparsers)` and `run(args) -> int`. Only the chosen
command's module is imported, so that `fastaccept --help` neither loads the engine nor waits for it.
A command imports the engine inside `run`, so that its own --help is quick as well.
"""

from __future__ import annotations

import argparse
import errno
import importlib
import os
import sys
from collections.abc import Sequence

__all__ = ["COMMANDS", "CommandError", "main", "package_version"]

# Name of the command = name of its module here; the line is what --help says about it. In the order of --help.
COMMANDS = {
    "serve": "run a server: echo, discard or chargen",
    "storm": "test a server with very many connections",
    "demo": "fill, starve and pump a server, and see which promises it keeps",
    "doctor": "say which limit of this machine bites first, and how to raise it",
}

EXIT_ERROR = 2
EXIT_INTERRUPTED = 128 + 2  # what a shell reports for SIGINT
EXIT_BROKEN_PIPE = 128 + 13  # what a shell reports for SIGPIPE


class CommandError(Exception):
    """A command cannot do what it was asked to; the message is one line for the user. Exit code 2."""


class HelpFormatter(argparse.HelpFormatter):
    """Shows each option's default, except where there is none to speak of (None, a flag that is off)."""

    def _get_help_string(self, action: argparse.Action) -> str:
        text = action.help or ""
        if "%(default)" in text or action.default is argparse.SUPPRESS:
            return text
        if action.default is None or action.default is False or not action.option_strings:
            return text
        return text + " (default: %(default)s)"


class Parser(argparse.ArgumentParser):
    """Reports a wrong command line in one line instead of a page of usage."""

    def __init__(self, *args, **kwargs):
        kwargs.setdefault("allow_abbrev", False)
        kwargs.setdefault("formatter_class", HelpFormatter)
        super().__init__(*args, **kwargs)

    def error(self, message: str):
        raise CommandError(f"{message} (see {self.prog} --help)")


class VersionAction(argparse.Action):
    """Looks the version up only when asked: importlib.metadata costs more than the rest of the start."""

    def __init__(self, option_strings, dest, **kwargs):
        super().__init__(option_strings, dest, nargs=0, default=argparse.SUPPRESS, **kwargs)

    def __call__(self, parser, namespace, values, option_string=None):
        print(f"fastaccept {package_version()}")
        parser.exit()


def package_version() -> str:
    from importlib import metadata

    try:
        return metadata.version("fastaccept")
    except metadata.PackageNotFoundError:
        return "unknown (not installed)"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; nothing but a bug leaves here as an exception."""
    try:
        code = _run(sys.argv[1:] if argv is None else list(argv))
        if sys.stdout is not None:
            sys.stdout.flush()  # a reader that has gone is met here, not in the interpreter's exit
        return code
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except CommandError as error:
        return _report(str(error))
    except OSError as error:
        if _is_broken_pipe(error):
            _forget_stdout()
            return EXIT_BROKEN_PIPE
        where = f"{error.filename}: " if error.filename is not None else ""
        return _report(f"{where}{error.strerror or error}")


def _run(argv: list[str]) -> int:
    chosen = next((word for word in argv if not word.startswith("-")), None)
    parser = _parser(chosen)
    try:
        args = parser.parse_args(argv)
    except SystemExit as done:  # --help and --version
        return done.code if isinstance(done.code, int) else 0
    if args.command is None:
        parser.error("no command given: " + ", ".join(COMMANDS))
    return importlib.import_module(f"fastaccept.cli.{args.command}").run(args)


def _parser(chosen: str | None) -> Parser:
    parser = Parser(prog="fastaccept", description="A TCP server core that never gets stuck at its limits.")
    parser.add_argument("--version", action=VersionAction, help="print the version and exit")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    for name, summary in COMMANDS.items():
        if name == chosen:
            importlib.import_module(f"fastaccept.cli.{name}").add_parser(subparsers)
        else:
            subparsers.add_parser(name, help=summary)
    return parser


def _report(message: str) -> int:
    try:
        print("fastaccept: error:", " ".join(message.split()), file=sys.stderr)
    except OSError:
        pass  # nobody is left to be told
    return EXIT_ERROR


def _is_broken_pipe(error: OSError) -> bool:
    # Of a pipe with no reader the C runtime of Windows says EINVAL; what the system itself refuses has a winerror.
    is_from_runtime = error.errno == errno.EINVAL and error.filename is None and getattr(error, "winerror", 0) is None
    return isinstance(error, BrokenPipeError) or is_from_runtime


def _forget_stdout() -> None:
    # The interpreter flushes stdout once more as it exits and would complain: let that go nowhere.
    try:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)
    except (OSError, ValueError, AttributeError):
        pass
