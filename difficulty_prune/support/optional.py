"""Libraries that only some need: imported when asked for, with a word on how to get them."""

from __future__ import annotations

import importlib
from typing import Any


def optional_module(name: str, install: str, purpose: str) -> Any:
    """The module; ImportError that says what needs it and how to install it.

    >>> optional_module("no_such_module", "pip install no-such-module", "this example")
    Traceback (most recent call last):
        ...
    ImportError: this example needs no_such_module: pip install no-such-module
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(f"{purpose} needs {name.split('.')[0]}: {install}") from error


def pyarrow_parquet() -> Any:
    """The module `pyarrow.parquet`; ImportError if it is missing."""
    return optional_module("pyarrow.parquet", "pip install 'difficulty-prune[parquet]'", "a .parquet file")
