"""The data that `--data` names, for commands that ask for ids, labels and class names."""

from __future__ import annotations

from ..data import IndexedDataset
from ..study.named_function import names_function
from ..study.study_data import open_data
from .study import look_in_current_folder


def open_named_data(spec: str) -> IndexedDataset:
    """`open_data`, where a function of the user may be in the current folder.

    Raises:
        TypeError, ValueError, FileNotFoundError: as for `open_data`.
    """
    if names_function(spec):
        look_in_current_folder()
    return open_data(spec)
