"""Writes a table of ids in bounded memory: by parts into a temporary file, there into groups, then sorted by group."""

from __future__ import annotations

import math
import os
import reprlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ..support.arrays import as_tensor
from ..support.file_errors import errors_name
from ..support.files import local_path, save_parts
from ..support.hashing import hash_ids
from ..support.ids import id_array
from ..support.safetensors_header import ArrayKind
from ..support.spool import Spool
from ..support.unnamed_file import zeros_in_file

KIND: Final = "table of inclusion probabilities"
FORMAT: Final = 1
_SORTED_BITS: Final = 10  # of a hash: groups that are sorted at once; 1 MB each of 100 million examples
_PER_START: Final = 128  # examples, about: what a search for one id starts from
_BLOCK: Final = 1 << 20


@dataclass(frozen=True)
class Rules:
    """What the header of a table says; see `InclusionTable`.

    Attributes:
        salt: of the hashes.
        bits: the first bits of a hash, by which `starts` [2^bits + 1] says where those with the same begin.
    """

    kind: str
    weighted: bool
    redrawn: bool
    full_from: int | None
    policy: str
    salt: int
    bits: int

    @classmethod
    def parse(cls, header: Mapping[str, Any]) -> Rules:
        """From the header of a file; ValueError, TypeError or KeyError if it is malformed."""
        rules = cls(**header["rules"])
        texts, flags, numbers = (rules.kind, rules.policy), (rules.weighted, rules.redrawn), (rules.salt, rules.bits)
        if not all(isinstance(text, str) for text in texts) or not all(isinstance(flag, bool) for flag in flags):
            raise TypeError(f"got {rules}")
        if rules.kind not in ("text", "number") or any(type(number) is not int or number < 0 for number in numbers):
            raise ValueError(f"got {rules}")
        if rules.bits > 40 or not (rules.full_from is None or type(rules.full_from) is int):
            raise ValueError(f"got {rules}")
        return rules


def write_table(path: str | os.PathLike[str], blocks: Iterable[tuple[Any, Any]], rules: Rules) -> None:
    """Writes the file; see `InclusionTable.write`."""
    folder = local_path(path).absolute().parent
    spool, counts, kind = _spooled(blocks, rules)
    size = int(counts.sum())
    rules = replace(rules, kind=kind, bits=max(0, int(math.log2(size / _PER_START))) if size > _PER_START else 0)
    kinds = {
        "hash": ArrayKind(np.dtype("<u8"), (size,)),
        "starts": ArrayKind(np.dtype("<u8"), (2**rules.bits + 1,)),
        "p": ArrayKind(np.dtype("<f4"), (size,)),
    }
    with errors_name(path):
        folder.mkdir(parents=True, exist_ok=True)
        hashes, p = zeros_in_file((size,), np.uint64, folder), zeros_in_file((size,), np.float32, folder)
    ends = counts.cumsum()
    _group(spool, ends - counts, hashes, p)
    parts = _parts(spool, ends, hashes, p, rules)
    save_parts(path, KIND, FORMAT, kinds, parts, {"rules": asdict(rules)})


def _spooled(blocks: Iterable[tuple[Any, Any]], rules: Rules) -> tuple[Spool, NDArray[np.int64], str]:
    """Hashes and probabilities in order of arrival, how many hashes begin with each of the first bits, and the kind."""
    spool, kind, first = Spool(), "", None
    counts = np.zeros(2**_SORTED_BITS, np.int64)
    for given, chances in _pairs(blocks):
        ids = id_array(given)
        if len(ids) == 0:
            continue
        kind, first = (
            kind or ("text" if ids.dtype == object else "number"),
            ids[:1].tolist()[0] if first is None else first,
        )
        if (ids.dtype == object) != (kind == "text"):
            raise TypeError(
                f"ids: got both texts and numbers, such as {first!r} and {ids[:1].tolist()[0]!r}, expected one kind"
            )
        p = _checked(chances, ids, rules.weighted)
        hashes = hash_ids(ids, rules.salt)
        counts += np.bincount(_group_of(hashes), minlength=len(counts))
        spool.append("hash", hashes)
        spool.append("p", p)
    if not kind:
        raise ValueError("ids: got none, expected at least one")
    return spool, counts, kind


def _pairs(blocks: Iterable[tuple[Any, Any]]) -> Iterator[tuple[Any, Any]]:
    for block in blocks:
        if not isinstance(block, tuple | list) or len(block) != 2:
            raise TypeError(
                f"blocks: got {reprlib.repr(block)} among them, expected pairs of ids [n] and their probabilities [n], "
                "such as [(ids, p)]"
            )
        yield block[0], block[1]


def _checked(chances: Any, ids: NDArray[Any], weighted: bool) -> NDArray[np.float32]:
    values = as_tensor(chances, "p").cpu().double().numpy()
    if values.shape != ids.shape:
        raise ValueError(f"p: got shape {values.shape} for {len(ids)} ids, expected one probability for each")
    bad = ~((values >= 0) & (values <= 1 + 1e-9))
    if bad.any():
        raise ValueError(f"p: got {values[bad][0]} for id {ids[bad].tolist()[0]!r}, expected a probability in [0, 1]")
    p: NDArray[np.float32] = np.minimum(values, 1).astype(np.float32)
    never = p < np.finfo(np.float32).tiny
    if weighted and never.any():
        raise ValueError(
            f"p: got {values[never][0]} for id {ids[never].tolist()[0]!r}, which would never come, so that no weight "
            "makes up for it; give a probability above 1e-37, or weighted=False"
        )
    return p


def _group_of(hashes: NDArray[np.uint64]) -> NDArray[np.int64]:
    return (hashes >> np.uint64(64 - _SORTED_BITS)).astype(np.int64)


def _group(spool: Spool, starts: NDArray[np.int64], hashes: NDArray[np.uint64], p: NDArray[np.float32]) -> None:
    """Puts all of the spool where hashes with the same first bits follow each other."""
    nexts = starts.copy()
    for start in range(0, len(hashes), _BLOCK):
        rows = slice(start, start + _BLOCK)
        block, chances = spool.read("hash", rows), spool.read("p", rows)
        group = _group_of(block)
        order = group.argsort(kind="stable")
        block, chances = block[order], chances[order]
        counts = np.bincount(group, minlength=len(nexts))
        ends = counts.cumsum()
        for at in counts.nonzero()[0].tolist():
            first, last, to = int(ends[at] - counts[at]), int(ends[at]), int(nexts[at])
            hashes[to : to + last - first] = block[first:last]
            p[to : to + last - first] = chances[first:last]
        nexts += counts


def _parts(
    spool: Spool, ends: NDArray[np.int64], hashes: NDArray[np.uint64], p: NDArray[np.float32], rules: Rules
) -> Iterator[tuple[str, NDArray[Any]]]:
    """The content of the file: each group sorted, with the probabilities; where hashes begin; the probabilities."""
    groups = np.zeros(2**rules.bits, np.int64)
    start = 0
    for end in ends.tolist():
        if end == start:
            continue
        part = np.array(hashes[start:end])
        order = part.argsort()
        part = part[order]
        twice = part[1:][part[1:] == part[:-1]]
        if len(twice):
            _refuse_twice(spool, int(twice[0]), rules)
        p[start:end] = p[start:end][order]
        if rules.bits:
            np.add.at(groups, (part >> np.uint64(64 - rules.bits)).astype(np.int64), 1)
        yield "hash", part
        start = end
    yield "starts", np.concatenate([[0], groups.cumsum() if rules.bits else [start]]).astype(np.uint64)
    for start in range(0, len(p), _BLOCK):
        yield "p", np.array(p[start : start + _BLOCK])


def _refuse_twice(spool: Spool, wanted: int, rules: Rules) -> None:
    places: list[int] = []
    for start in range(0, spool.length("hash"), _BLOCK):
        block = spool.read("hash", slice(start, start + _BLOCK))
        places += (start + np.flatnonzero(block == np.uint64(wanted))).tolist()
    said = f"ids: number {places[0]} and number {places[1]}, counted from 0, "
    if rules.kind == "number":
        raise ValueError(f"{said}are the same; expected each once")
    raise ValueError(
        f"{said}have the same hash: they are the same, or two texts that happen to share it (1 chance in 4,000 for 100 "
        f"million texts), for which salt={rules.salt + 1} helps; expected each once"
    )
