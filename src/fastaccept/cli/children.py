"""Children: processes of a command's own, which are spoken to by lines over their pipes."""

from __future__ import annotations

import subprocess
import sys

END_S = 10.0  # more than any child needs to close its connections


def start_child(module: str) -> subprocess.Popen[str]:
    """Run a module of this package in a process of its own, with pipes. Ctrl-C in the terminal is for the parent alone, which ends
    its children by closing their stdin: one that is still importing could only answer it with a traceback."""
    apart = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP} if sys.platform == "win32" else {"start_new_session": True}
    return subprocess.Popen(
        [sys.executable, "-m", module], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1, **apart
    )


def end_child(process: subprocess.Popen[str]) -> None:
    """Let a child come to its end, or make it."""
    if process.poll() is None:
        try:
            process.stdin.close()
        except OSError:  # what was still to be written has no reader
            pass
        try:
            process.wait(END_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
