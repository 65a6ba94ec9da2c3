"""Ensures that a sub-interpreter is told no by an ImportError, and that the main one goes on."""

import sys

from helpers import net

SINCE_313 = """
import _interpreters, fastaccept
for kind in ("isolated", "legacy"):
    interpreter = _interpreters.create(kind)
    failure = _interpreters.exec(interpreter, "import fastaccept")
    print(failure.type.__name__)
    _interpreters.destroy(interpreter)
fastaccept.Server().close()
"""
BEFORE = """
import sys, _xxsubinterpreters, fastaccept
for options in [{"isolated": True}, {"isolated": False}] if sys.version_info >= (3, 10) else [{}, {}]:
    interpreter = _xxsubinterpreters.create(**options)
    try:
        _xxsubinterpreters.run_string(interpreter, "import fastaccept")
    except _xxsubinterpreters.RunFailedError as failure:
        print("ImportError" if "ImportError" in str(failure) else failure)
    _xxsubinterpreters.destroy(interpreter)
fastaccept.Server().close()
"""


def test_a_subinterpreter_is_told_no():
    done = net.run_python(SINCE_313 if sys.version_info >= (3, 13) else BEFORE)
    assert (done.returncode, done.stdout.split(), done.stderr) == (0, ["ImportError", "ImportError"], "")
