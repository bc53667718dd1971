"""The type of an option that is a file."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..support.remote import Url, path_or_url


def file_name(text: str) -> Path | Url:
    """A file of this machine, or one under a URL, which a path would lose a slash of.

    >>> file_name("file:///tmp/plan.safetensors"), file_name("s3://bucket/plan.safetensors")
    (PosixPath('/tmp/plan.safetensors'), Url(text='s3://bucket/plan.safetensors'))
    """
    try:
        return path_or_url(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
