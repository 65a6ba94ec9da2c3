"""Write reference.md from the docstrings, which are the one place where the public names are described.

    python docs/make_reference.py          (with the package installed; a test tells when it has to be run)
"""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import fastaccept

PAGE = Path(__file__).with_name("reference.md")
# In the order in which somebody who writes a server meets them.
NAMES = (
    "Server", "Connection", "Limits", "Timeouts", "Listener", "Stats", "ErrorEvent", "DrainResult",
    "ConnectionClosed", "ServerClosed", "WriteBufferFull",
)  # fmt: skip
HEAD = """# Reference

<!-- Written by docs/make_reference.py from the docstrings. -->

Everything that `import fastaccept` gives. Times are in seconds and sizes in bytes where nothing else is said.

"""
# "Args:" and the like open a section; in it an entry begins with names, or a call, and a colon, at the first indentation.
SECTION = re.compile(r"^((?:Args|Attributes|Raises|Returns|Errors|Threads)[\w ,]*):(?: (.*))?$")
ENTRY = re.compile(r'^ {4}("?[a-z_]\w*"?(?:, "?[a-z_]\w*"?)*(?:\(.*?\))?|[A-Z]\w+(?:, [A-Z]\w+)*): (.*)$')


def call_of(function: Any) -> str:
    """The arguments as one writes them: names and defaults."""
    shown: list[str] = []
    is_named_only = False
    for parameter in inspect.signature(function).parameters.values():
        if parameter.name == "self" or parameter.name.startswith("_"):
            continue
        if parameter.kind is parameter.KEYWORD_ONLY and not is_named_only:
            is_named_only = True
            shown.append("*")
        star = "*" if parameter.kind is parameter.VAR_POSITIONAL else ""
        default = "" if parameter.default is parameter.empty else f"={parameter.default!r}"
        shown.append(star + parameter.name + default)
    return f"({', '.join(shown)})"


def to_markdown(doc: str) -> str:
    """A docstring with its sections' entries as lists."""
    lines: list[str] = []
    in_section = False
    for line in inspect.cleandoc(doc).split("\n"):
        section, entry = SECTION.match(line), ENTRY.match(line)
        if section:
            in_section = section[2] is None
            lines += ["", f"**{section[1]}:** {section[2]}"] if section[2] else ["", f"**{section[1]}:**", ""]
        elif in_section and entry:
            lines.append(f"- `{entry[1]}`: {entry[2]}")
        elif in_section and line.startswith("    "):
            lines.append("  " + line.strip() if lines[-1].startswith(("- ", "  ")) else line.strip())
        else:
            if in_section and line:
                in_section = False
                lines.append("")
            lines.append(line)
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()


def members_of(kind: type) -> list[tuple[str, Any]]:
    """Public methods and properties that have something to say, in the order of the source."""
    return [
        (name, member)
        for name, member in vars(kind).items()
        if not name.startswith("_") and (inspect.isroutine(member) or inspect.isdatadescriptor(member)) and member.__doc__
    ]


def describe(name: str) -> str:
    kind = getattr(fastaccept, name)
    is_exception = issubclass(kind, Exception)
    is_made_by_us = name in ("Connection", "Listener", "Stats", "ErrorEvent", "DrainResult") or is_exception
    parts = [f"## {name}"]
    if not is_made_by_us:
        parts.append(f"```text\nfastaccept.{name}{call_of(kind)}\n```")
    parts.append(to_markdown(kind.__doc__))
    for member_name, member in [] if is_exception or issubclass(kind, tuple) else members_of(kind):
        parts.append(f"### {name}.{member_name}{call_of(member) if inspect.isroutine(member) else ''}")
        parts.append(to_markdown(member.__doc__))
    return "\n\n".join(parts)


def page() -> str:
    """The whole page."""
    contents = ", ".join(f"[{name}](#{name.lower()})" for name in NAMES)
    return HEAD + contents + "\n\n" + "\n\n".join(map(describe, NAMES)) + "\n"


if __name__ == "__main__":
    PAGE.write_bytes(page().encode())
