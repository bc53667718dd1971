"""The middle of a training, kept in a file, so that a training that was killed goes on where it was."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import json
import time
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Final, NamedTuple

import torch

from ..comparison.counting_sampler import CountingSampler
from ..support.digest import digest_of_text
from ..support.files import MALFORMED, atomic_file
from ..support.json_text import parse_json

EVERY: Final = 60.0  # seconds between two checkpoints, so that short epochs are not slowed down
_SIZE: Final = 16  # bytes of a digest


class Position(NamedTuple):
    """Where a training goes on.

    Attributes:
        epoch: the next one.
        steps: done so far.
        seconds: spent so far.
    """

    epoch: int = 0
    steps: int = 0
    seconds: float = 0.0


class Checkpoint:
    """A checkpoint file of one training.

    It is a line of JSON, which says of what it is, and what `torch.save` wrote; it is read with `weights_only`, so that
    no code in it can run. A file of another training, of other settings or code, or a damaged one, is as if it were not
    there: a digest of the epoch and of all that follows tells.

    Args:
        path: of the file.
        task: everything that the training depends on, for JSON; the code of this library and the version of PyTorch
            are added.
        every: least number of seconds between two that are written.
    """

    def __init__(self, path: str | Path, task: Mapping[str, Any], every: float = EVERY) -> None:
        self.path = Path(path)
        self.every = every
        facts = {"task": task, "code": code_digest(), "torch": torch.__version__}
        self.identity = digest_of_text(json.dumps(facts, sort_keys=True))
        self._written = time.monotonic()

    def epoch(self) -> int | None:
        """The epoch at which the training goes on; 0 where there is no file, None for one that is not of it."""
        try:
            return self._checked()[0]
        except FileNotFoundError:
            return 0
        except (*MALFORMED, OSError):
            return None

    def read(self) -> dict[str, Any] | None:
        """What `write` was given; None where there is no such file of this training."""
        try:
            content = self._checked()[1]
            found: dict[str, Any] = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        except (*MALFORMED, OSError, UnpicklingError):
            return None
        return found

    def write(self, epoch: int, state: Mapping[str, Any]) -> None:
        """Writes, whole or not at all, if it is time to; `epoch` is the next one."""
        if time.monotonic() - self._written < self.every:
            return
        buffer = io.BytesIO()
        torch.save(dict(state), buffer)
        content = buffer.getbuffer()
        with atomic_file(self.path) as file:
            file.write(json.dumps(self._header(epoch, content)).encode() + b"\n")
            file.write(content)
        self._written = time.monotonic()

    def remove(self) -> None:
        """Once the result is written."""
        with contextlib.suppress(FileNotFoundError):
            self.path.unlink()

    def _checked(self) -> tuple[int, bytes]:
        """The epoch, and what was saved; one of `MALFORMED` for a file of another training, or a damaged one."""
        with self.path.open("rb") as file:
            header, content = parse_json(file.readline().decode()), file.read()
        epoch: int = header["epoch"]
        if header != self._header(epoch, content):
            raise ValueError("of another training, or damaged")
        return epoch, content

    def _header(self, epoch: int, content: bytes | memoryview) -> dict[str, Any]:
        total = hashlib.blake2b(f"{epoch}\n".encode(), digest_size=_SIZE)
        total.update(content)
        return {"identity": self.identity, "epoch": epoch, "digest": total.hexdigest()}


class Resumable:
    """What changes while a model trains, which a checkpoint holds and brings back.

    Args:
        checkpoint: None for none.
        sampler: whose count of presentations goes on, if it has one; its order depends on the epoch alone.
        parts: model, optimizer, and so on: all that have `state_dict` and `load_state_dict`.
    """

    def __init__(self, checkpoint: Checkpoint | None, sampler: Any, **parts: Any) -> None:
        self._checkpoint, self._sampler = checkpoint, sampler
        self._parts = {name: part for name, part in parts.items() if part is not None}

    def restore(self) -> Position:
        """Brings back what the checkpoint holds, with the global generators, and says where to go on."""
        state = None if self._checkpoint is None else self._checkpoint.read()
        if state is None:
            return Position()
        for name, part in self._parts.items():
            part.load_state_dict(state[name])
        torch.set_rng_state(state["generator"])
        if state["generators_of_gpus"]:
            torch.cuda.set_rng_state_all(state["generators_of_gpus"])
        if isinstance(self._sampler, CountingSampler):
            self._sampler.presentations = state["presentations"]
        return Position(state["epoch"], state["steps"], state["seconds"])

    def save(self, position: Position) -> None:
        """At the end of an epoch, of which another one follows."""
        if self._checkpoint is None:
            return
        self._checkpoint.write(
            position.epoch,
            {
                **position._asdict(),
                **{name: part.state_dict() for name, part in self._parts.items()},
                "generator": torch.get_rng_state(),
                "generators_of_gpus": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
                "presentations": getattr(self._sampler, "presentations", 0),
            },
        )


@functools.cache
def code_digest() -> str:
    """A hash of the source of this library."""
    package = Path(__file__).parents[1]
    total = hashlib.blake2b(digest_size=_SIZE)
    for path in sorted(package.rglob("*.py")):
        source = path.read_bytes()
        total.update(f"{path.relative_to(package).as_posix()} {len(source)}\n".encode() + source)
    return total.hexdigest()
