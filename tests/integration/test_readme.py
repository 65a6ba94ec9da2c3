"""Ensures that the examples of README and guide run as they stand."""

import pathlib
import re
import socket
import subprocess
import sys

import pytest

from helpers import net

ROOT = pathlib.Path(__file__).parents[2]


def examples(name):
    return re.findall(r"```python\n(.*?)```", (ROOT / name).read_text(encoding="utf-8"), re.S)


def test_ten_line_echo_echoes():
    source = examples("README.md")[0]
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    child = subprocess.Popen([sys.executable, "-c", source.replace("7000", str(port))], stderr=subprocess.PIPE)
    try:
        net.wait_until(lambda: net.connects(("127.0.0.1", port)) == "connected", "the server")
        with socket.create_connection(("127.0.0.1", port), timeout=net.DEADLINE_S) as sock:
            sock.sendall(b"ten lines")
            assert net.receive(sock, 9) == b"ten lines"
    finally:
        child.terminate()
        _, errors = child.communicate(timeout=40)
    assert errors == b""


@pytest.mark.parametrize("name", ["README.md", "docs/guide.md"])
def test_other_examples_run(name):
    for source in examples(name)[1 if name == "README.md" else 0 :]:
        done = net.run_python("import fastaccept\n" + source)
        assert (done.returncode, done.stderr) == (0, "")
