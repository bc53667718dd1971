"""What tells a function from another: its source, and the values that it was given before it is called."""

from __future__ import annotations

import contextlib
import functools
import inspect
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn

from ..support.digest import digest_of_array

_FIXED: Final = (int, float, complex, str, bytes, type(None), Path, np.ndarray, np.generic, Tensor)
_ADDRESS: Final = re.compile(r" at 0x[0-9a-fA-F]+")  # of an object, another one in every process


def name_of(function: Any) -> str:
    """The name of a function, of what a partial calls, or of the class of an object that can be called."""
    if isinstance(function, functools.partial):
        return name_of(function.func)
    return str(getattr(function, "__qualname__", None) or type(function).__qualname__)


def source_of(function: Any) -> str:
    """The text of a function, its defaults, what a partial gives it, and the numbers, texts and arrays it encloses.

    Arrays and models are told apart by what is in them, other objects by how they print, without addresses. Lists and
    objects that a function encloses are not looked at, since it may fill them, nor are global variables. Without a
    text, as at a prompt, the values alone.

    >>> def scaled(by):
    ...     return lambda sampler, seed: by
    >>> source_of(scaled(1)) == source_of(scaled(1)), source_of(scaled(1)) == source_of(scaled(2))
    (True, False)
    """
    if isinstance(function, functools.partial):
        return f"{source_of(function.func)}\n{_told(function.args)} {_told(function.keywords)}"
    enclosed = [value for value in _enclosed(function) if isinstance(value, _FIXED)]
    given = [getattr(function, "__defaults__", None), getattr(function, "__kwdefaults__", None), enclosed or None]
    return "\n".join([_text_of(function), *(_told(values) for values in given if values is not None)])


def _text_of(function: Any) -> str:
    try:
        return inspect.getsource(function if inspect.isroutine(function) else type(function))
    except (OSError, TypeError):
        return ""


def _enclosed(function: Any) -> Iterator[Any]:
    for cell in getattr(function, "__closure__", None) or ():
        with contextlib.suppress(ValueError):  # of one that is not assigned yet
            yield cell.cell_contents


def _told(value: Any) -> str:
    """A text that is the same of equal values in every process, and another of others."""
    if isinstance(value, Tensor):
        dense = value.detach().to_dense().cpu().resolve_conj().contiguous().reshape(-1)
        numbers = torch.view_as_real(dense).reshape(-1) if dense.is_complex() else dense
        return f"{value.dtype} {tuple(value.shape)} {digest_of_array(numbers.view(torch.uint8).numpy())}"
    if isinstance(value, np.ndarray) and not value.dtype.hasobject:
        return f"{value.dtype} {value.shape} {digest_of_array(np.ascontiguousarray(value).reshape(-1).view(np.uint8))}"
    if isinstance(value, nn.Module):
        return f"{value!r} {_told(value.state_dict())}"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{_told(key)}: {_told(item)}' for key, item in value.items())}}}"
    if isinstance(value, list | tuple):
        return f"{type(value).__name__}({', '.join(map(_told, value))})"
    if isinstance(value, set | frozenset):
        return f"{type(value).__name__}({', '.join(sorted(map(_told, value)))})"
    if inspect.isroutine(value):
        return f"{name_of(value)} {_text_of(value)}"
    if isinstance(value, functools.partial):
        return source_of(value)
    return _ADDRESS.sub("", repr(value))
