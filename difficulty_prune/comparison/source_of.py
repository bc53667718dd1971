"""What tells a function from another: its source, and the values that it was given before it is called."""

from __future__ import annotations

import contextlib
import functools
import inspect
import re
import reprlib
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn

from ..support.digest import digest_of_array

_FIXED: Final = (int, float, complex, str, bytes, type(None), Path, np.ndarray, np.generic, Tensor, tuple, frozenset)
_CODE: Final = (type, functools.partial, torch.dtype, torch.device)
_ADDRESS: Final = re.compile(r" at 0x[0-9a-fA-F]+")  # of an object, another one in every process


def name_of(function: Any) -> str:
    """The name of a function, of what a partial calls, or of the class of an object that can be called."""
    if isinstance(function, functools.partial):
        return name_of(function.func)
    return str(getattr(function, "__qualname__", None) or type(function).__qualname__)


@reprlib.recursive_repr()
def source_of(function: Any) -> str:
    """The text of a function, its defaults, what a partial gives it, and the fixed values that it has.

    These are the numbers, texts, arrays, tuples, functions and classes that it encloses, or that the object has as
    attributes which can be called, or whose method it is. Arrays and models are told apart by what is in them,
    functions and classes by their text, other objects by how they print, or by such attributes where that is an
    address. Lists and objects that it has are not looked at, since it may fill them, nor are global variables. Without
    a text, as at a prompt, the values alone.

    >>> def scaled(by):
    ...     return lambda sampler, seed: by
    >>> source_of(scaled(1)) == source_of(scaled(1)), source_of(scaled(1)) == source_of(scaled(2))
    (True, False)
    """
    if isinstance(function, functools.partial):
        return f"{source_of(function.func)}\n{_told(function.args)} {_told(function.keywords)}"
    enclosed = [value for value in _enclosed(function) if _is_fixed(value)]
    has = _attributes(function)
    given = [getattr(function, "__defaults__", None), getattr(function, "__kwdefaults__", None), enclosed or None]
    return "\n".join([_text_of(function), *(_told(values) for values in [*given, has or None] if values is not None)])


def _is_fixed(value: Any) -> bool:
    return isinstance(value, _FIXED + _CODE) or inspect.isroutine(value)


def _attributes(value: Any) -> dict[str, Any]:
    """Fixed ones of a function, of the object whose method it is, or of another object."""
    owner = getattr(value, "__self__", value)
    if isinstance(owner, ModuleType | type):  # of which it is a function
        return {}
    slots = [field.name for field in fields(owner)] if is_dataclass(owner) else []
    has = {name: getattr(owner, name) for name in [*getattr(owner, "__dict__", {}), *slots]}
    return {name: value for name, value in has.items() if _is_fixed(value)}


def _text_of(value: Any) -> str:
    try:
        return inspect.getsource(value if inspect.isroutine(value) or inspect.isclass(value) else type(value))
    except (OSError, TypeError):
        return ""


def _enclosed(function: Any) -> Iterator[Any]:
    for cell in getattr(function, "__closure__", None) or ():
        with contextlib.suppress(ValueError):  # of one that is not assigned yet
            yield cell.cell_contents


@reprlib.recursive_repr()
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
    if inspect.isroutine(value) or inspect.isclass(value):
        return f"{name_of(value)} {_text_of(value)}"
    if isinstance(value, functools.partial):
        return source_of(value)
    text = repr(value)
    return f"{_ADDRESS.sub('', text)} {_told(_attributes(value))}" if _ADDRESS.search(text) else text
