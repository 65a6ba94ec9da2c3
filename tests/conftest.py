"""Fixtures for all tests: a server that leaves nothing behind, and a check of that after each test."""

import gc
import os
import sys

import pytest

sys.path.insert(0, os.path.dirname(__file__))

from helpers import net
from helpers.scene import Scene


def pytest_addoption(parser):
    default = 100_000 if sys.platform == "linux" else 5_000  # Wine takes some 500 a second
    parser.addoption(
        "--short-connections", type=int, default=default, help="how many the leak test makes; 1000000 takes about two minutes"
    )


def pytest_collection_modifyitems(items):
    """Tests that name a Linux facility are left out elsewhere, and say which."""
    for item in items:
        for marker in item.iter_markers("linux"):
            (facility,) = marker.args  # what the test can't be without
            if not sys.platform.startswith("linux"):
                item.add_marker(pytest.mark.skip(reason=f"names a Linux facility: {facility}"))


@pytest.fixture(autouse=True)
def nothing_left_open():
    """Each test gives back the descriptors that it took."""
    before = net.open_descriptors()
    yield
    if net.open_descriptors() > before:
        gc.collect()
    assert net.open_descriptors() <= before, "the test left descriptors open"


@pytest.fixture
def serve():
    """serve(**options) -> a Running server with a thread of its own, on a free loopback port; closed after the test."""
    running = []

    def start(**options):
        running.append(net.Running(**options))
        return running[-1]

    yield start
    for one in running:
        one.close()


@pytest.fixture
def scene():
    """scene(kind=Scene, **options) -> a server over a scripted system; closed after the test."""
    made = []

    def make(kind=Scene, **options):
        made.append(kind(**options))
        return made[-1]

    yield make
    for one in made:
        one.close()
