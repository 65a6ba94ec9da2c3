"""Ensures that docs/reference.md says what the docstrings say."""

import importlib.util
import pathlib
import sys

import fastaccept

SCRIPT = pathlib.Path(__file__).parents[2] / "docs" / "make_reference.py"


def load_script():
    spec = importlib.util.spec_from_file_location("make_reference", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.dont_write_bytecode, before = True, sys.dont_write_bytecode
    try:
        spec.loader.exec_module(module)
    finally:
        sys.dont_write_bytecode = before
    return module


def test_reference_is_current():
    script = load_script()
    assert set(script.NAMES) == set(fastaccept.__all__)
    assert script.PAGE.read_text(encoding="utf-8") == script.page(), "run docs/make_reference.py"
