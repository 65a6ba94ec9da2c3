"""Ensures that a sub-interpreter is told no by an ImportError, and that the main one goes on."""

import sys

import pytest

from helpers import net

SOURCE = """
import _interpreters, fastaccept
for kind in ("isolated", "legacy"):
    interpreter = _interpreters.create(kind)
    failure = _interpreters.exec(interpreter, "import fastaccept")
    print(failure.type.__name__)
    _interpreters.destroy(interpreter)
fastaccept.Server().close()
"""


@pytest.mark.skipif(sys.version_info < (3, 13), reason="the module _interpreters came with Python 3.13")
def test_a_subinterpreter_is_told_no():
    done = net.run_python(SOURCE)
    assert (done.returncode, done.stdout.split(), done.stderr) == (0, ["ImportError", "ImportError"], "")
