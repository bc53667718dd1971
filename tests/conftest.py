"""Lets tests import the modules of `helpers`, and sets what every property test shares."""

import os
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from hypothesis import settings

sys.path.insert(0, str(Path(__file__).parent / "helpers"))

# No deadline: the first example of a property test also pays for imports and for the operators' first call. The same
# examples in every run, so that a change fails by what it changes; EXPLORE=1 looks for others.
settings.register_profile("difficulty_prune", deadline=None, derandomize="EXPLORE" not in os.environ)
settings.load_profile("difficulty_prune")


HAS_TORCHVISION = find_spec("torchvision") is not None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Iterator[None]:
    """As `pytest_runtest_call`, of what fixtures need."""
    return (yield from pytest_runtest_call(item))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """A PyTorch without a torchvision that imports beside it, such as the CPU build of 2.13, runs all other tests."""
    try:
        return (yield)
    except ModuleNotFoundError as error:
        if HAS_TORCHVISION or error.name != "torchvision":
            raise
        pytest.skip("torchvision is not installed")


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Networks and batches as small as those of tests only wait for a second thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
