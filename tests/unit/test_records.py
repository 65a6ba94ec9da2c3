"""Ensures that Limits, Timeouts, Stats and ErrorEvent are frozen dataclasses to whoever uses them, although importing fastaccept imports
none of what makes these slow to import."""

import copy
import dataclasses
import inspect
import pickle
import subprocess
import sys

import pytest

from fastaccept import ErrorEvent, Limits, Server, Stats, Timeouts
from fastaccept.records import Record


class Point(Record):
    x: int
    y: int = 2


class Point3(Point):
    z: int = 3


@pytest.mark.parametrize(("point", "said"), [
    (Point(1), "Point(x=1, y=2)"),
    (Point(1, 5), "Point(x=1, y=5)"),
    (Point(y=1, x=5), "Point(x=5, y=1)"),
    (Point3(0, z=4), "Point3(x=0, y=2, z=4)"),
])
def test_arguments_by_place_and_by_name(point, said):
    assert repr(point) == said


@pytest.mark.parametrize(("args", "options", "said"), [
    ((), {}, "Point() needs the arguments x"),
    ((1, 2, 3), {}, "Point() takes 2 arguments, 3 were given"),
    ((1,), {"x": 1}, "Point() got another argument 'x'"),
    ((1,), {"z": 1}, "Point() got an unknown argument 'z'"),
])
def test_wrong_arguments_are_named(args, options, said):
    with pytest.raises(TypeError) as caught:
        Point(*args, **options)
    assert str(caught.value) == said


def test_it_never_changes():
    limits = Limits()
    with pytest.raises(AttributeError, match="can't set reserve_fds: a Limits never changes"):
        limits.reserve_fds = 5
    with pytest.raises(AttributeError, match="can't delete reserve_fds"):
        del limits.reserve_fds
    with pytest.raises(AttributeError):
        limits.other = 5
    assert limits == Limits()


def test_equal_by_value_and_class():
    assert Timeouts(idle=5) == Timeouts(idle=5) != Timeouts(idle=6)
    assert len({Timeouts(), Timeouts(idle=None), Timeouts(idle=5)}) == 2
    assert Timeouts() != Limits() and Timeouts() != 5
    assert Point(1) != Point3(1)


@pytest.mark.parametrize("record", [Limits(reserve_fds=7), Timeouts(), ErrorEvent("listen", OSError(5, "x"))])
def test_copies(record):
    assert copy.copy(record) == record
    again = pickle.loads(pickle.dumps(record))
    assert type(again) is type(record) and repr(again) == repr(record)


def test_changed_copies_are_checked():
    assert Limits(reserve_fds=7).__replace__(max_connections=9) == Limits(max_connections=9, reserve_fds=7)
    assert dataclasses.replace(Timeouts(idle=7), drain=9) == Timeouts(idle=7, drain=9)
    for replace in (Limits.__replace__, dataclasses.replace):
        with pytest.raises(ValueError, match="reserve_fds is -1"):
            replace(Limits(), reserve_fds=-1)


def test_copy_replace():
    replace = getattr(copy, "replace", lambda record, **changes: record.__replace__(**changes))  # it came with Python 3.13
    assert replace(Timeouts(idle=7), drain=9) == Timeouts(idle=7, drain=9)


def test_dataclasses_takes_it_for_one_of_its_own():
    with Server(limits=Limits(max_connections=5)) as server:
        stats = server.stats()
    assert dataclasses.is_dataclass(stats)
    assert dataclasses.asdict(stats) == vars(stats)
    assert [field.name for field in dataclasses.fields(Stats)][:2] == ["active", "limit"]
    assert [field.default for field in dataclasses.fields(Point3)] == [dataclasses.MISSING, 2, 3]


def test_signature_shows_the_options():
    parameters = inspect.signature(Limits).parameters
    assert parameters["reserve_fds"].default == 32 and next(iter(parameters)) == "max_connections"
    assert str(inspect.signature(Point3)) == "(x: int, y: int = 2, z: int = 3) -> None"


def test_it_matches_by_place():
    assert Point3.__match_args__ == ("x", "y", "z")


def test_importing_fastaccept_imports_nothing_slow():
    slow = ["asyncio", "dataclasses", "enum", "inspect", "logging", "re", "socket", "typing"]
    code = f"import sys; before = set(sys.modules); import fastaccept; print(*(set(sys.modules) - before) & set({slow}))"
    told = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert told.stdout.split() == []
