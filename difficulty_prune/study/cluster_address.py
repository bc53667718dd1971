"""The address of a cluster, as people write it."""

from __future__ import annotations

from typing import Final

FORM: Final = "dask:ADDRESS"
_PREFIX: Final = "dask:"


def cluster_address(text: str) -> str:
    """The address in dask:ADDRESS; ValueError for anything else.

    >>> cluster_address("dask:tcp://10.0.0.1:8786")
    'tcp://10.0.0.1:8786'
    """
    address = text.removeprefix(_PREFIX)
    if address == text or not address:
        raise ValueError(f"executor: got {text!r}, expected {FORM}, such as dask:tcp://10.0.0.1:8786")
    return address
