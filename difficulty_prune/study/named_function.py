"""Functions of the user that a command names as your.module:function."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, Final

_OTHERS: Final = ("datasets", "imagefolder", "regression", "sklearn", "table", "torchvision")


def names_function(name: str) -> bool:
    """Whether the text has the form your.module:function, and is no other form of `--data`.

    >>> [name for name in ("digits", "imagefolder:DIR", "torchvision:MNIST:ROOT", "mine:make") if names_function(name)]
    ['mine:make']
    """
    kind, colon, _ = name.partition(":")
    return bool(colon) and kind not in _OTHERS


def import_function(name: str) -> Callable[..., Any]:
    """The function that your.module:function names.

    Raises:
        ImportError: the module cannot be imported, has no such attribute, or has one that is not callable.

    >>> import_function("math:sqrt")(4)
    2.0
    """
    module, _, attribute = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (AttributeError, TypeError, ValueError) as error:  # no such attribute; ".relative", or an empty name
        raise ImportError(str(error)) from error
    if not callable(found):
        raise ImportError(f"{attribute} is {found!r}, expected a function")
    function: Callable[..., Any] = found
    return function
