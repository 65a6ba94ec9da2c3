"""Programs that are ended as a person ends them: by Ctrl-C in the terminal that they run in."""

import os
import signal
import subprocess
import sys

# Windows sends Ctrl-C to everything in the sender's console, so a keeper shares a console of their own with the program; it does as the
# lines on its stdin say, and ends as the program ends. A program inherits whether Ctrl-C is ignored, so the keeper ignores it afterwards.
# https://learn.microsoft.com/windows/console/generateconsolectrlevent
KEEPER = """
import ctypes, subprocess, sys
kernel32 = ctypes.windll.kernel32
kernel32.SetConsoleCtrlHandler(None, False)
program = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL)
kernel32.SetConsoleCtrlHandler(None, True)
for line in sys.stdin:
    if line.strip() == "interrupt":
        assert kernel32.GenerateConsoleCtrlEvent(0, 0), ctypes.WinError()
    else:
        program.kill()
sys.exit(program.wait())
"""


class InConsole:
    """A program in a terminal of its own; its output comes by pipes all the same."""

    def __init__(self, *args):
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        if sys.platform == "win32":
            hidden = subprocess.STARTUPINFO(dwFlags=subprocess.STARTF_USESHOWWINDOW, wShowWindow=subprocess.SW_HIDE)
            self.process = subprocess.Popen(
                [sys.executable, "-c", KEEPER, *args],
                stdin=subprocess.PIPE, bufsize=1, startupinfo=hidden, creationflags=subprocess.CREATE_NEW_CONSOLE, **pipes,
            )  # fmt: skip
        else:
            self.process = subprocess.Popen(args, start_new_session=True, **pipes)
        self.stdout = self.process.stdout

    def interrupt(self):
        """Ctrl-C, which a terminal sends to the program and all that it started."""
        if sys.platform == "win32":
            self.process.stdin.write("interrupt\n")
        else:
            os.killpg(self.process.pid, signal.SIGINT)

    def end(self):
        """Wait for the program's end: (exit code, what was left of its output, its errors)."""
        out, err = self.process.communicate(timeout=30)
        return self.process.returncode, out, err

    def kill(self):
        """End it, if it still runs."""
        if self.process.poll() is None:
            if sys.platform == "win32":
                self.process.stdin.write("kill\n")
            else:
                os.killpg(self.process.pid, signal.SIGKILL)
        self.process.communicate(timeout=30)
