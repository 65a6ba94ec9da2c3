"""Ensure that the architecture is what it is said to be: who may know whom, and how large a file may grow.

The tables come first, to be read; a new module needs its line here. The source is read as text, not imported.
"""
import re
import statistics
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[2] / "src" / "fastaccept"

# What a module may import or cimport of this package, from the bottom up (a folder is one module):
#
#  cli ─► server ─► _control ─► _reactor ─► _connection ─► _conns ─► _buffers
#  aio ─┘   │                      ├─► _input ─► _conns
#           ├─► listeners          ├─► _acceptor ─► _admission   _timers  _slots  _spin  _stats   pure leaves
#           ├─► options, errors    └─► _backend ◄── _epoll | _iocp | _testing   know nothing above _backend
#           └─► backends ─► _epoll | _iocp             └──────┴─► _platform     nobody else cimports it
LEAVES = {"_admission", "_buffers", "_slots", "_spin", "_stats", "_timers"}
PYTHON_LEAVES = {"descriptors", "errors", "listeners", "memory", "options", "records", "stats"}
BELOW_A_BACKEND = {"_backend", "_buffers", "_slots", "_platform"}
MAY_IMPORT = {
    "_admission": set(),
    "_buffers": set(),
    "_slots": set(),
    "_spin": set(),
    "_stats": set(),
    "_timers": set(),
    "_backend": {"_buffers"},
    "_platform": {"_backend", "_buffers"},          # for the classes, addresses and slices that it translates
    "_epoll_accept": BELOW_A_BACKEND,
    "_epoll": BELOW_A_BACKEND | {"_epoll_accept"},
    "_iocp_accept": BELOW_A_BACKEND,
    "_iocp_slots": {"_slots", "_platform"},
    "_iocp": BELOW_A_BACKEND | {"_iocp_accept", "_iocp_slots"},
    "_iocp_faults": {"_iocp", "_platform"},         # imported by tests alone
    "_testing": {"_backend", "_buffers", "errors"},
    "_calls": {"_timers"},
    "_conns": {"_backend", "_buffers", "_slots", "_stats", "_timers"},
    "_connection": {"_backend", "_buffers", "_conns", "_slots", "_stats", "_timers", "errors"},
    "_input": {"_backend", "_conns", "_slots"},
    "_acceptor": {"_admission", "_backend", "_stats", "errors"},
    "_reactor": LEAVES | {"_acceptor", "_backend", "_calls", "_connection", "_conns", "_input", "errors"},
    "_control": LEAVES | {"_acceptor", "_backend", "_calls", "_connection", "_conns", "_reactor", "errors"},
    "descriptors": set(),
    "records": set(),
    "errors": {"records", "winerrors"},
    "winerrors": set(),
    "listeners": set(),
    "memory": set(),
    "sockets": {"errors"},
    "options": {"records"},
    "stats": {"descriptors", "records"},
    "process": set(),
    "reports": {"_admission", "errlog", "errors"},
    "errlog": {"errors"},
    "backends": {"_epoll", "_iocp"},
    "server": PYTHON_LEAVES | {"_admission", "_connection", "_control", "backends", "process", "reports", "sockets"},
    "__init__": PYTHON_LEAVES | {"_connection", "server"},
    "aio": PYTHON_LEAVES | {"__init__", "_connection", "server"},
    "cli": PYTHON_LEAVES | {"__init__", "server"},
    "__main__": {"cli"},
}

# Pure leaves: arithmetic and memory. No clock, files or sockets; Python objects in the view for tests only.
PURE = {"_admission", "_slots", "_spin", "_stats", "_timers"}
PURE_MAY_CIMPORT = {"libc.errno", "libc.limits", "libc.stdint", "libc.stdlib", "libc.string"}

# The systems' own words, and who may use them.
BACKENDS = {"_epoll", "_epoll_accept", "_iocp", "_iocp_accept", "_iocp_faults", "_iocp_slots", "_platform", "_testing"}
SYSTEM_WORDS = re.compile(r"\b(?:EPOLL\w*|epoll_\w+|WSA\w+|OVERLAPPED|int\s+\w*fd)\b")

MAX_FILE_LINES = 500                                # of .py and .pyx
OVER_BUDGET = {}                                    # a name and its lines: may shrink, not grow
MAX_FUNCTION_LINES = 60
MAX_MEDIAN_FUNCTION_LINES = 15

# How the source is read.

STRING_OR_COMMENT = re.compile(
    r"'''[\s\S]*?'''|\"\"\"[\s\S]*?\"\"\"|'(?:\\.|[^'\\\n])*'|\"(?:\\.|[^\"\\\n])*\"|#[^\n]*"
)
FROM = re.compile(r"^[ \t]*from[ \t]+([\w.]+)[ \t]+c?import[ \t]*(\([^)]*\)|[^\n]*)", re.M)
IMPORT = re.compile(r"^[ \t]*c?import[ \t]+([^\n]+)", re.M)
DEFINITION = re.compile(
    r"^[ \t]*(?:(?:async[ \t]+)?def|cpdef|cdef(?![ \t]+(?:class|struct|enum|union|extern)\b))\b"
)


def blank(match):
    """A string or a comment without its words, with its lines and columns."""
    text = match.group()
    quotes = 0 if text[0] == "#" else 3 if text[:3] in ('"""', "'''") else 1
    inner = re.sub(r"[^\n]", " ", text[quotes:len(text) - quotes])
    return text[:quotes] + inner + text[len(text) - quotes:]


def code_of(text):
    """The text without the words of its strings and comments, one logical line to a backslash."""
    return re.sub(r"\\\n", "  ", STRING_OR_COMMENT.sub(blank, text))


def imports_of(text, package="fastaccept"):
    """All modules that a text of a package imports or cimports: {"fastaccept._slots", "libc.stdint", ...}."""
    found = set()
    code = code_of(text)
    for source, names in FROM.findall(code):
        dots = len(source) - len(source.lstrip("."))
        if dots:
            above = package.split(".")[:len(package.split(".")) - dots + 1]
            source = ".".join([*above, *filter(None, [source[dots:]])])
        if source in ("fastaccept", package):       # from . import server
            found |= {f"{source}.{name}" for name in re.findall(r"(\w+)(?:\s+as\s+\w+)?", names)}
        else:
            found.add(source)
    for names in IMPORT.findall(code):
        found |= {name.split()[0] for name in names.split(",") if name.strip()}
    return found


def package_imports_of(path):
    """The modules of this package that a file imports, as the table calls them."""
    package = ".".join(["fastaccept", *path.relative_to(SOURCE).parts[:-1]])
    names = [name.split(".") for name in imports_of(path.read_text("utf-8"), package)]
    modules = {name[1] if len(name) > 1 else "__init__" for name in names if name[0] == "fastaccept"}
    return {module if module in MAY_IMPORT else "__init__" for module in modules}


def functions_of(text):
    """(first line, number of lines, header) of each function with a body, nested ones too."""
    lines = code_of(text).split("\n")
    found = []
    for i, line in enumerate(lines):
        if not DEFINITION.match(line):
            continue
        end, header = i, line
        while header.count("(") > header.count(")"):
            end += 1
            header += lines[end]
        has_body = header.rstrip().endswith(":") or re.match(r"\s*(async\s+)?def\b", header)
        if "(" not in header or not has_body:
            continue                                # a declaration
        indent = len(line) - len(line.lstrip())
        last = end
        for j in range(end + 1, len(lines)):
            if lines[j].strip():
                if len(lines[j]) - len(lines[j].lstrip()) <= indent:
                    break
                last = j
        found.append((i + 1, last - i + 1, header.strip()))
    return found


def module_of(path):
    """The name in the tables: the file's, or _platform for what is in that folder."""
    inner = path.relative_to(SOURCE)
    return inner.stem if len(inner.parts) == 1 else inner.parts[0]


FILES = sorted(path for path in SOURCE.rglob("*") if path.suffix in (".py", ".pyx", ".pxd"))
every_file = pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(SOURCE).as_posix())
pure_file = pytest.mark.parametrize("path", [path for path in FILES if module_of(path) in PURE],
                                    ids=lambda path: path.name)


def test_the_source_is_found():
    names = {path.name for path in FILES}
    assert names >= {"__init__.py", "_admission.pxd", "_backend.pxd", "_slots.pyx", "_timers.pyx"}


# The arrows

@every_file
def test_imports_follow_the_arrows(path):
    module = module_of(path)
    assert module in MAY_IMPORT, f"{module} has no line in MAY_IMPORT: decide what it may know"
    upward = package_imports_of(path) - MAY_IMPORT[module] - {module}
    assert not upward, f"{path.name} must not know {', '.join(sorted(upward))}"


@every_file
def test_nothing_is_included(path):
    assert not re.search(r"^\s*include\b", code_of(path.read_text("utf-8")), re.M)


@every_file
def test_only_backends_use_the_words_of_a_system(path):
    if module_of(path) not in BACKENDS:
        assert SYSTEM_WORDS.findall(code_of(path.read_text("utf-8"))) == []


def test_the_arrows_have_no_circle():
    left = {module: targets - {module} for module, targets in MAY_IMPORT.items()}
    while left:
        bottom = {module for module, targets in left.items() if not targets & set(left)}
        assert bottom, f"a circle among {sorted(left)}"
        left = {module: targets for module, targets in left.items() if module not in bottom}


# Purity

@pure_file
def test_pure_leaves_cimport_arithmetic_and_memory_only(path):
    assert imports_of(path.read_text("utf-8")) - {f"fastaccept.{path.stem}"} <= PURE_MAY_CIMPORT


@pure_file
def test_pure_leaves_declare_nothing_foreign(path):
    assert not re.search(r"\bextern\b", code_of(path.read_text("utf-8")))


@pure_file
def test_c_functions_of_pure_leaves_touch_no_python_object(path):
    headers = [header for _, _, header in functions_of(path.read_text("utf-8")) if header.startswith("cdef")]
    assert [header for header in headers if not header.endswith("noexcept nogil:")] == []


# The budgets

@every_file
def test_file_fits_its_budget(path):
    text = path.read_text("utf-8")
    if path.suffix != ".pxd":
        assert len(text.splitlines()) <= OVER_BUDGET.get(path.name, MAX_FILE_LINES)
    functions = functions_of(text)
    too_long = [f"line {line}: {n} lines" for line, n, _ in functions if n > MAX_FUNCTION_LINES]
    assert too_long == []
    assert statistics.median([n for _, n, _ in functions] or [0]) <= MAX_MEDIAN_FUNCTION_LINES


# The reader itself

@pytest.mark.parametrize("text, modules", [
    ("import os, sys as s\n", {"os", "sys"}),
    ("from libc.stdint cimport int64_t\n", {"libc.stdint"}),
    ("from fastaccept._slots cimport slots_t\n", {"fastaccept._slots"}),
    ("from fastaccept cimport _slots, _timers as t\n", {"fastaccept._slots", "fastaccept._timers"}),
    ("from . import (\n    server,\n    cli,\n)\n", {"fastaccept.server", "fastaccept.cli"}),
    ("from ._slots import Slots\n", {"fastaccept._slots"}),
    ("cimport fastaccept._epoll as e\n", {"fastaccept._epoll"}),
    ("def f():\n    import fastaccept.server\n", {"fastaccept.server"}),
    ("from fastaccept._platform.linux cimport accept4\n", {"fastaccept._platform.linux"}),
    ("from libc.stdint \\\n    cimport int64_t\n", {"libc.stdint"}),
    ('"""\nimport os\n"""\n# import sys\n', set()),
])
def test_reader_finds_imports(text, modules):
    assert imports_of(text) == modules


@pytest.mark.parametrize("text, modules", [
    ("from .options import a\n", {"fastaccept.cli.options"}),
    ("from ..options import a\n", {"fastaccept.options"}),
    ("from . import storm\n", {"fastaccept.cli.storm"}),
    ("from .. import server\n", {"fastaccept.server"}),
])
def test_reader_finds_relative_imports_of_a_folder(text, modules):
    assert imports_of(text, "fastaccept.cli") == modules


def test_reader_finds_functions():
    text = (
        "cdef int declared(int a) noexcept nogil\n"
        "cdef class C(Base):\n"
        "    cdef int field\n"
        "    def method(self, a,\n"
        "               b):\n"
        '        """Doc.\n'
        "\n"
        '        More."""\n'
        "\n"
        "cdef int f(\n"
        "    int a,\n"
        ") noexcept nogil:\n"
        "    # why\n"
        "    return a\n"
        "\n"
        "    # after\n"
        "def g(): return 1\n"
    )
    assert [(line, n) for line, n, _ in functions_of(text)] == [(4, 5), (10, 5), (17, 1)]


@pytest.mark.parametrize("text, words", [
    ("if events & EPOLLIN:", ["EPOLLIN"]),
    ("cdef int accept_it(int fd)", ["int fd"]),
    ("error == WSAENOBUFS", ["WSAENOBUFS"]),
    ("# EPOLLIN, WSARecv", []),
    ('"""EPOLLIN"""', []),
    ("cdef int fds_free", []),
])
def test_reader_finds_words_of_a_system_in_code_only(text, words):
    assert SYSTEM_WORDS.findall(code_of(text)) == words
