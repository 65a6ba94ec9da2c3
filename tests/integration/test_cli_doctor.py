"""Ensures that the command line has good manners, and that the doctor tells the limits it really has."""

import json
import os
import subprocess
import sys
import types

import pytest

from fastaccept import cli


def run(*arguments, **options):
    return subprocess.run(
        [sys.executable, "-m", "fastaccept", *arguments],
        stdout=options.pop("stdout", subprocess.PIPE),
        stderr=subprocess.PIPE,
        text=True,
        timeout=30,
        **options,
    )


def limited_to(soft, hard):
    """For preexec_fn: a child that may open so many files."""
    import resource

    return lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_the_report_begins_with_the_machine_and_ends_with_the_first_to_bite():
    done = run("doctor")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0].startswith(("Linux ", "Windows "))
    assert "Python " in lines[0] and "fastaccept " in lines[0]
    assert lines[-2].startswith("First to bite: ")
    assert lines[-1].startswith("  ")


def test_json_is_nothing_but_json():
    for arguments in (["--json"], ["--json", "-"]):
        done = run("doctor", *arguments)
        report = json.loads(done.stdout)
        assert (done.returncode, done.stderr) == (0, "")
        figures = [row["connections"] for row in report["limits"] if row["connections"] is not None]
        assert figures == sorted(figures)
        assert report["first"] in [row["name"] for row in report["limits"]]
        assert report["machine"]["cpus"] >= 1


def test_json_into_a_file_leaves_the_text(tmp_path):
    file = tmp_path / "report.json"
    done = run("doctor", "--json", str(file), "--connections", "1", "--role", "client")
    report = json.loads(file.read_text(encoding="utf-8"))
    assert (report["role"], report["wanted"], report["below"]) == ("client", 1, [])
    assert "First to bite: " in done.stdout


def test_a_wish_that_fits():
    done = run("doctor", "--connections", "1")
    assert done.returncode == 0
    assert done.stdout.rstrip().endswith("no limit is below")


def test_a_wish_that_does_not():
    done = run("doctor", "--connections", "1_000_000_000", "--json")
    report = json.loads(done.stdout)
    assert done.returncode == 1
    assert report["wanted"] == 10**9
    assert report["first"] in report["below"]


@pytest.mark.linux("RLIMIT_NOFILE")
def test_the_figure_follows_the_descriptor_limit():
    done = run("doctor", "--json", "--connections=200", preexec_fn=limited_to(100, 256))
    report = json.loads(done.stdout)
    rows = {row["name"]: row for row in report["limits"]}
    assert rows["descriptors, soft limit"]["value"] == 100
    assert rows["descriptors, soft limit"]["connections"] == 100 - 32
    assert rows["descriptors, soft limit"]["raise"] == "ulimit -n 256"
    assert rows["descriptors, hard limit"]["connections"] == 256 - 32
    assert (report["first"], report["below"]) == ("descriptors, soft limit", ["descriptors, soft limit"])
    assert done.returncode == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "no command given"),
        (["nonsense"], "nonsense"),
        (["doctor", "--nonsense"], "--nonsense"),
        (["doctor", "--connections"], "--connections"),
        (["doctor", "--connections", "many"], "'many'; allowed is a whole number"),
        (["doctor", "--connections", "0"], "allowed is a whole number from 1 on"),
        (["doctor", "--queued", "-1"], "--queued"),
        (["doctor", "--role", "both"], "both"),
        (["doctor", "--json", os.path.join("no", "such", "directory")], "No such file or directory"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(arguments, words):
    done = run(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("fastaccept: error: ")
    assert words in done.stderr
    assert done.stderr.count("\n") == 1


def test_help_says_defaults_and_units():
    done = run("doctor", "--help")
    assert done.returncode == 0
    assert "--queued BYTES" in done.stdout and "(default: 4096)" in done.stdout
    assert "(default: None)" not in done.stdout


def test_version():
    done = run("--version")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("fastaccept ")


def test_help_loads_no_command():
    program = (
        "import sys; from fastaccept.cli import main; code = main(['--help']);"
        "bad = [n for n in sys.modules if n.startswith('fastaccept.cli.')];"
        "print(bad, file=sys.stderr); sys.exit(code or bool(bad))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stderr) == (0, "[]\n")


def test_a_reader_that_has_gone_is_no_error():
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = run("doctor", stdout=writing)
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.fixture
def command(monkeypatch):
    """Adds one line to the table, and a module for it that does what the test says."""

    def add(body):
        module = types.ModuleType("fastaccept.cli.made_up")
        module.add_parser = lambda subparsers: subparsers.add_parser("made_up").add_argument("--n", default=7)
        module.run = body
        monkeypatch.setitem(sys.modules, "fastaccept.cli.made_up", module)
        monkeypatch.setitem(cli.COMMANDS, "made_up", "a command of the test's own")

    return add


def test_a_command_is_one_line_in_the_table(command, capsys):
    command(lambda args: int(args.n))
    assert cli.main(["made_up", "--n", "3"]) == 3
    assert cli.main(["--help"]) == 0
    assert "a command of the test's own" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (KeyboardInterrupt(), 130, ""),
        (cli.CommandError("no such\nhost"), 2, "fastaccept: error: no such host\n"),
        (OSError(98, "Address already in use"), 2, "fastaccept: error: Address already in use\n"),
    ],
)
def test_how_a_command_ends(command, capsys, error, code, said):
    def fail(args):
        raise error

    command(fail)
    assert cli.main(["made_up"]) == code
    assert capsys.readouterr().err == said
