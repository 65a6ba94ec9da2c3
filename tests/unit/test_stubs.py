"""Ensures that the stubs say what the compiled modules have, no more and no less, and that every public name is documented."""

import ast
import importlib
import inspect
from pathlib import Path

import pytest

import fastaccept

PACKAGE = Path(fastaccept.__file__).parent
STUBS = {"_connection": "Connection", "_admission": "Admission", "_control": "Control"}


def stub_members(module, name):
    tree = ast.parse((PACKAGE / f"{module}.pyi").read_text("utf-8"))
    found = next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name)
    members = {node.name: node for node in found.body if isinstance(node, ast.FunctionDef)}
    members.update({node.target.id: node for node in found.body if isinstance(node, ast.AnnAssign)})
    return {key: node for key, node in members.items() if not key.startswith("_")}


@pytest.mark.parametrize(("module", "name"), STUBS.items())
def test_stub_has_the_same_members_and_arguments(module, name):
    kind = getattr(importlib.import_module(f"fastaccept.{module}"), name)
    stub = stub_members(module, name)
    real = {key for key in dir(kind) if not key.startswith("_")}
    assert set(stub) == real
    for key, node in stub.items():
        member = inspect.getattr_static(kind, key)
        is_property = inspect.isdatadescriptor(member)
        if not isinstance(node, ast.FunctionDef):
            assert is_property, key
            continue
        assert is_property == any(getattr(mark, "id", "") == "property" for mark in node.decorator_list), key
        doc = (getattr(kind, key).__doc__ or "").split("\n")[0]
        assert doc or key == "turn", f"{name}.{key} has no docstring"
        if not is_property and not node.decorator_list:
            given = list(inspect.signature(member).parameters)
            wanted = [arg.arg for arg in node.args.posonlyargs + node.args.args] + ([node.args.vararg.arg] if node.args.vararg else [])
            assert given == wanted, key


def test_stubs_are_installed_and_the_package_is_typed():
    assert (PACKAGE / "py.typed").exists()
    assert {path.stem for path in PACKAGE.glob("*.pyi")} == set(STUBS)


@pytest.mark.parametrize("name", fastaccept.__all__)
def test_public_names_are_documented(name):
    thing = getattr(fastaccept, name)
    assert inspect.getdoc(thing), name
    if name in ("Server", "Listener"):
        for key, member in vars(thing).items():
            if not key.startswith("_"):
                assert inspect.getdoc(member), f"{name}.{key}"


def test_reserved_names_are_free():
    """What later versions will add is not taken by anything else."""
    for name in ("max_per_host", "accept_rate"):
        assert not hasattr(fastaccept.Limits(), name)
    assert not hasattr(fastaccept, "aio")
