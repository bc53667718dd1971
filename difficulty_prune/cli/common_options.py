"""The metadata of options that several commands have, named and explained once."""

from __future__ import annotations

from typing import Any

from ..study.cluster_address import FORM
from ..study.options import option
from ..study.study_data import FORMS
from ..support.complete_data import complete_data
from .file_name import file_name


def data_option(what: str, *, otherwise: str = "", **how: Any) -> dict[str, Any]:
    """`--data`: data that are named by text.

    Args:
        what: what they are for.
        otherwise: what is done without them.
    """
    default = f"; default: {otherwise}" if otherwise else ""
    return option(f"{what}: {FORMS}{default}", metavar="DATA", offer=complete_data, **how)


def out_option(what: str, **how: Any) -> dict[str, Any]:
    """`-o`, `--out`: the file to write."""
    return option(what, flag="-o --out", type=file_name, metavar="FILE", **how)


def join_option() -> dict[str, Any]:
    """`--join`: runs over several versions of the data."""
    return option("join runs over several versions of the data by id", action="store_true")


def executor_option() -> dict[str, Any]:
    """`--executor`: where the work of statistics is done."""
    return option(
        f"{FORM} of a Dask scheduler, whose workers read the run files and do the work; default: this machine",
        metavar="WHERE",
    )
