"""Files under URLs, such as s3://bucket/runs/mlp-0.safetensors, by fsspec, which PyTorch brings along."""

from __future__ import annotations

import contextlib
import errno
import glob
import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from .optional import optional_module

_AHEAD: Final = 1 << 24
"""Bytes of an array that one request brings, 16 MB: with the latency of object stores, smaller requests take longer."""

_CHANGES: Final = ("size", "ETag", "Last-Modified", "Content-MD5", "Digest")
"""What a server may say of a file that is another after a change; fsspec takes those of HTTP for unchanging."""

_WHOLE: Final = ("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oci", "r2", "memory")
"""Protocols by which a file that is sent appears whole, or not at all."""


@dataclass(frozen=True, order=True)
class Url(os.PathLike[str]):
    """The name of a file that is not in a folder of this machine.

    >>> Url("s3://bucket/runs/mlp-0.safetensors").name
    'mlp-0.safetensors'
    """

    text: str

    @property
    def name(self) -> str:
        """The last part."""
        return self.text.rstrip("/").rpartition("/")[2]

    @property
    def suffix(self) -> str:
        """What ends the name, with its dot, as of a path."""
        return Path(self.name).suffix

    @property
    def protocol(self) -> str:
        """What stands before "://"."""
        return self.text.partition("://")[0].lower()

    def absolute(self) -> Url:
        """Itself, as a path gives its absolute form."""
        return self

    def __fspath__(self) -> str:
        return self.text

    def __str__(self) -> str:
        return self.text


def path_or_url(name: str | os.PathLike[str]) -> Path | Url:
    """What is meant: a URL has "://" in it; file:// names a path of this machine.

    >>> path_or_url("file:///tmp/a"), path_or_url("memory://a")
    (PosixPath('/tmp/a'), Url(text='memory://a'))
    """
    text = os.fspath(name)
    if "://" not in text:
        beginning, _, rest = text.partition(":/")
        if rest and beginning.lower() in (*_WHOLE, "http", "https", "sftp", "file"):
            url = f"{beginning}{':///' if beginning.lower() == 'file' else '://'}{rest}"
            raise ValueError(
                f"{text}: expected a URL as text, {url}: a URL with one slash, as pathlib.Path makes of it, would name "
                "a folder of this machine"
            )
        return Path(text)
    return Path(text.removeprefix("file://")) if text.startswith("file://") else Url(text)


@contextlib.contextmanager
def errors_name_url(url: Url) -> Iterator[None]:
    """Makes every error of the block, which file systems raise of many kinds, name the URL.

    Raises:
        FileNotFoundError: nothing is there.
        OSError: any other failure.
    """
    try:
        yield
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{url}: no such file, or nobody answers there") from error
    except Exception as error:  # each file system has kinds of its own
        reason = " ".join(str(error).split()) or type(error).__name__
        message = f"{reason}; check the address, your rights there, and the network"
        raise OSError(getattr(error, "errno", None) or errno.EIO, message, str(url)) from error


def file_system(url: Url) -> tuple[Any, str]:
    """The file system of fsspec, which is the same for all files of a place, and the path of the file in it.

    Raises:
        ImportError: the library for this protocol is missing.
        ValueError: an unknown protocol.
        OSError: it cannot be reached.
    """
    fsspec = optional_module("fsspec.core", "pip install fsspec", f"{url}")
    try:
        found: tuple[Any, str] = fsspec.url_to_fs(url.text)
    except ImportError as error:
        raise ImportError(f"{url}: {error}; pip install the library that it names") from error
    except ValueError as error:
        raise ValueError(f"{url}: {error}; expected a URL that fsspec knows, such as s3://bucket/name") from error
    except OSError as error:
        raise OSError(error.errno or errno.EIO, f"{error}; check the address", str(url)) from error
    return found


class RemoteFile(io.RawIOBase):
    """A file under a URL of which only the ranges are read that are asked for, and none is kept.

    Attributes:
        size: in bytes.

    Raises:
        FileNotFoundError, OSError: it is not there, or cannot be read; the message names the URL.
    """

    def __init__(self, url: Url) -> None:
        self._url = url
        self._files, self._path = file_system(url)
        with errors_name_url(url):
            self._files.invalidate_cache(self._path)
            info = self._files.info(self._path)
            self._state = str((self._files.ukey(self._path), *(info.get(name) for name in _CHANGES)))
        if info["type"] == "directory":
            raise FileNotFoundError(f"{url}: a folder, expected a file")
        if info.get("size") is None:
            raise OSError(errno.EIO, "the server does not say how long it is; copy the file to a folder", str(url))
        self.size = int(info["size"])
        self.expect(0, 0)

    def expect(self, start: int, stop: int) -> None:
        """Goes to the byte `start`; what is read from there may be brought in advance, up to the byte `stop`."""
        self._position, self._stop = start, stop
        self._window, self._window_start = b"", start

    def state(self) -> str:
        """What tells the file from one that replaced it."""
        return self._state

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        """The next bytes, fewer only at the end of the file."""
        size = self.size - self._position if size < 0 else min(size, self.size - self._position)
        offset = self._position - self._window_start
        if offset + size > len(self._window):
            self._window, self._window_start, offset = self._fetch(size), self._position, 0
        self._position += size
        return self._window[offset : offset + size]

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        content = self.read(len(view))
        view[: len(content)] = content
        return len(content)

    def _fetch(self, size: int) -> bytes:
        start = self._position
        stop = start + max(size, min(_AHEAD, self._stop - start))
        if size == 0:
            return b""
        with errors_name_url(self._url):
            content = bytes(self._files.cat_file(self._path, start=start, end=stop))
        if len(content) == self.size:  # a server that knows no ranges, such as Python's own, sends all of the file
            content = content[start:stop]
        if not size <= len(content) <= stop - start:
            raise OSError(errno.EIO, f"got {len(content)} of {stop - start} bytes; try again", str(self._url))
        return content


def write_remote(url: Url, content: bytes) -> None:
    """Writes a file under a URL, whole or not at all.

    Raises:
        ValueError: where files may be seen half written; or a name that ends like a folder's.
        OSError: it cannot be written; the message names the URL.
    """
    if url.protocol not in _WHOLE:
        raise ValueError(
            f"{url}: a file may be seen half written by {url.protocol}://; write it to a folder and copy it there, or "
            f"to one of {', '.join(f'{name}://' for name in _WHOLE)}"
        )
    if url.text.endswith("/"):  # a store would take the name without it, beside all that is in the folder
        raise ValueError(f"{url}: names a folder, expected the name of a file, such as {url}name.safetensors")
    files, path = file_system(url)
    with errors_name_url(url):
        files.pipe_file(path, content)


def find_remote(url: Url) -> list[Url]:
    """The run files that a URL names, as `find_run_files` says of paths; sorted, none where there is nothing.

    Raises:
        ImportError, ValueError, OSError: as for `file_system`.
    """
    files, path = file_system(url)
    with errors_name_url(url):
        files.invalidate_cache()  # also of the folders below, in which others may have written since
        if files.isfile(path):
            found = [path]
        elif files.isdir(path):
            folder = f"{path.rstrip('/')}/runs" if files.isdir(f"{path.rstrip('/')}/runs") else path.rstrip("/")
            found = files.glob(f"{glob.escape(folder)}/*.safetensors")
        else:
            folder, _, last = path.rpartition("/")
            literal = glob.has_magic(folder) and files.isdir(folder)
            found = files.glob(f"{glob.escape(folder)}/{last}" if literal else path)
    start = _beginning(url, path)
    return [Url(name if "://" in name else start + name.lstrip("/")) for name in sorted(found)]


def _beginning(url: Url, path: str) -> str:
    """What a file system leaves away of a URL, such as s3:// or sftp://host/."""
    text, rest = url.text.rstrip("/"), path.strip("/")
    return text[: -len(rest)] if rest and text.endswith(rest) else f"{url.protocol}://"
