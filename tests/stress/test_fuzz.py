"""Every reader of files, given damaged ones: an object or a ValueError that names the file, and nothing is executed.

STRESS_INPUTS=1000000 files in all, shared among the readers, and a few more where that does not divide. They are made
from good files by a seeded generator of its own, the same in every run; STRESS_SEED=1 makes others. Hypothesis, which
tries to find the smallest damage, takes ten times as long for each. The property tests in
`tests/runs/test_damaged_files.py` use it. Parquet is left out, since pyarrow reads it.
"""

from __future__ import annotations

import io
import json
import math
import os
import random
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from file_kinds import KINDS, good
from small_runs import SIZE, make_run

import difficulty_prune as dp
from difficulty_prune.comparison import compare as comparing
from difficulty_prune.study.plant import read_planted
from difficulty_prune.support.digest import Digests
from difficulty_prune.support.safetensors_header import header_bytes, in_order
from difficulty_prune.support.vector_file import DIGESTS, VectorFile

pytestmark = pytest.mark.stress
INPUTS = int(os.environ.get("STRESS_INPUTS", "1000000"))
SEED = os.environ.get("STRESS_SEED", "")

Reader = tuple[str, bytes, Callable[[Path], Any]]
"""Name of the file, good content, and what reads it."""


def with_table(path: Path) -> Any:
    return dp.RunSet([make_run()]).with_table(path)


def columns() -> dict[str, np.ndarray]:
    return {"index": np.arange(SIZE), "c_score": np.linspace(0, 1, SIZE)}


def npz(save: Callable[..., None], **values: Any) -> bytes:
    file = io.BytesIO()
    save(file, **values)
    return file.getvalue()


def npy() -> bytes:
    table = np.empty(SIZE, [("index", "i4"), ("c_score", "f8")])
    for name, values in columns().items():
        table[name] = values
    file = io.BytesIO()
    np.save(file, table)
    return file.getvalue()


def lines(rows: list[dict[str, Any]]) -> bytes:
    return "\n".join(json.dumps(row) for row in rows).encode()


def text_table(separator: str) -> bytes:
    rows = [
        separator.join(columns()),
        *(separator.join(map(str, row)) for row in zip(*columns().values(), strict=True)),
    ]
    return "\n".join(rows).encode()


DECIDED = [
    {"id": "a/1.png", "index": 3, "decision": "wrong", "label": 2, "weight": 1.5, "note": "blurred"},
    {"id": "a/2.png", "index": 5, "decision": "keep", "label": None, "weight": None, "note": "größer"},
    {"id": "b/7.png", "index": 9, "decision": "unsure", "label": None, "weight": 0.5, "note": 'a "quoted", one'},
]
DECIDED_CSV = b'id,index,decision,label,weight,note\na/1.png,3,wrong,2,1.5,blurred\na/2.png,5,keep,,,"two\nlines"\n'
TASKS = [
    {
        "data": {"id": name, "index": number, "label": "cat"},
        "annotations": [{"result": [{"from_name": "choice", "type": "choices", "value": {"choices": ["dog"]}}]}],
    }
    for number, name in enumerate("abc")
]
SAMPLES = {"samples": [{"filepath": f"data/{name}.png", "tags": ["wrong"]} for name in "abc"]}
ISSUES = b"is_label_issue,label_quality,given_label,predicted_label\nTrue,0.1,0,1\nFalse,0.9,1,1\n"
DYNAMICS = [{"guid": number, "logits_epoch_0": [0.5, -1.0, 2.0], "gold": number % 3} for number in range(6)]
MANIFEST = {"format": 1, "examples": 7, "difficulty": "ab" * 16, "train": "largest.train", "source": "cd" * 16}


def with_manifest(path: Path) -> None:
    comparing._check_folder(path.parent, MANIFEST)


def trainer_state() -> bytes:
    """`difficulty.pt` of a trainer; nothing without transformers."""
    if find_spec("transformers") is None:
        return b""
    from difficulty_prune.integrations import kept_scores

    tracker = dp.DifficultyTracker(6, scores=("el2n",))
    tracker.update(torch.arange(6), torch.eye(6), torch.arange(6))
    with tempfile.TemporaryDirectory() as folder:
        kept_scores._write_state(f"{folder}/{kept_scores.STATE_NAME}", {"tracker": tracker.state_dict()})
        return Path(folder, kept_scores.STATE_NAME).read_bytes()


def with_trainer_state(path: Path) -> Any:
    from difficulty_prune.integrations import kept_scores

    return kept_scores._read_state(str(path))


PLANTED = {"planted": {"index": [1, 4], "true": [0, 1], "given": [1, 0], "ids": None}}

READERS: dict[str, Reader] = {
    **{kind: ("file", good(kind)[0], load) for kind, (_, load, _) in KINDS.items()},
    "table .csv": ("table.csv", text_table(","), with_table),
    "table .tsv": ("table.tsv", text_table("\t"), with_table),
    "table .npz": ("table.npz", npz(np.savez_compressed, **columns()), with_table),
    "table .npy": ("table.npy", npy(), with_table),
    "decisions .csv": ("decisions.csv", DECIDED_CSV, dp.Decisions.load),
    "decisions .tsv": ("decisions.tsv", DECIDED_CSV.replace(b",", b"\t"), dp.Decisions.load),
    "decisions .json": ("decisions.json", json.dumps(DECIDED).encode(), dp.Decisions.load),
    "decisions .jsonl": ("decisions.jsonl", lines(DECIDED), dp.Decisions.load),
    "scores .csv": ("scores.csv", b"index,id,el2n,label\n0,a,0.5,1\n1,b,0.25,0\n2,c,,1\n", dp.convert.from_csv),
    "scores .npz": ("scores.npz", npz(np.savez, index=np.arange(4), el2n=np.ones(4)), dp.convert.from_npz),
    "aum": ("aum_values.csv", b"sample_id,aum\na,0.5\nb,-1.25\nc,3e-2\n", dp.convert.from_aum),
    "cartography": ("dynamics_epoch_0.jsonl", lines(DYNAMICS), lambda path: dp.convert.from_cartography(path.parent)),
    "cleanlab": ("issues.csv", ISSUES, dp.convert.from_cleanlab),
    "label studio": ("tasks.json", json.dumps(TASKS).encode(), dp.convert.from_label_studio),
    "fiftyone": ("samples.json", json.dumps(SAMPLES).encode(), dp.convert.from_fiftyone),
    "planted": ("summary.json", json.dumps(PLANTED).encode(), lambda path: read_planted(path.parent)),
    "manifest of a comparison": ("comparison.json", json.dumps(MANIFEST).encode(), with_manifest),
    "difficulty.pt": ("difficulty.pt", trainer_state(), with_trainer_state),
}  # fmt: skip
NEEDED = {"difficulty.pt": "transformers"}

DESCRIBED = [kind for kind in KINDS if kind not in ("result", "training", "checkpoint")]


def reader(name: str) -> Reader:
    """As in `READERS`; skips the test where a library is missing."""
    if name in NEEDED:
        pytest.importorskip(NEEDED[name])
    return READERS[name]


TOKENS = [
    *(
        b'"',
        b",",
        b"\n",
        b"\r",
        b"\t",
        b":",
        b"[",
        b"]",
        b"{",
        b"}",
        b"(",
        b"'",
        b"\\",
        b"\0",
        b"\xff",
        b"\xed\xa0\x80",
    ),
    *(b"null", b"NaN", b"-Infinity", b"1e999", b"-1", b"9" * 20, b"9" * 400, b"0.5", b"true", b"[" * 300, b"\\ud800"),
    *(b"__reduce__", b"O", b"cos\nsystem\n(S'touch executed'\ntR.", b"index", b"F64", b"data_offsets", b"__metadata__"),
]


def damaged(content: bytes, chance: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        at = chance.randrange(len(changed) + 1)
        size = chance.choice((1, 2, 4, 8, 30))
        kind = chance.randrange(8)
        if kind == 0 and at < len(changed):
            changed[at] ^= 1 << chance.randrange(8)
        elif kind == 1 and at < len(changed):
            changed[at] = chance.choice((0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)))
        elif kind == 2:
            del changed[at : at + size]
        elif kind == 3:
            changed[at:at] = changed[at : at + size]
        elif kind == 4:
            changed[at:at] = chance.choice(TOKENS)
        elif kind == 5:
            changed[at : at + size] = chance.choice(TOKENS)
        elif kind == 6:
            start = chance.randrange(len(changed) + 1)
            changed[at : at + size] = changed[start : start + size]
        elif chance.random() < 0.1:
            del changed[at:]
    return bytes(changed)


EXECUTED = ("pickle.find_class", "exec", "os.system", "os.exec", "os.fork", "os.posix_spawn", "subprocess.Popen")
NEVER = (*EXECUTED, "socket.connect", "ctypes.dlopen", "import", "marshal.loads", "os.remove", "shutil.rmtree")
_seen: list[str] | None = None


def _watch(event: str, _arguments: Any) -> None:
    if _seen is not None and event in NEVER:
        _seen.append(event)


sys.addaudithook(_watch)


@contextmanager
def nothing_executed() -> Iterator[None]:
    """Whatever Python audits as running, importing, connecting or removing something, fails the test."""
    global _seen
    _seen = []
    try:
        yield
        assert not _seen, set(_seen)
    finally:
        _seen = None


def read(load: Callable[[Path], Any], path: Path, content: bytes) -> bool:
    """Whether it was read."""
    path.write_bytes(content)
    try:
        load(path)
    except ValueError as error:
        if type(error) is not ValueError or str(path) not in str(error):
            pytest.fail(f"{error!r} does not name {path}; content: {content!r}")
        return False
    except Exception as error:  # noqa: BLE001 - any other is what is looked for
        pytest.fail(f"{error!r}; content: {content!r}")
    return True


def fuzz(load: Callable[[Path], Any], path: Path, make: Callable[[random.Random], bytes], seed: str) -> tuple[int, int]:
    """How many files were read, and of how many."""
    count, chance, accepted = math.ceil(INPUTS / (len(READERS) + len(DESCRIBED))), random.Random(seed + SEED), 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(300):  # what is imported late is imported now
            read(load, path, make(chance))
        with nothing_executed():
            for _ in range(count):
                accepted += read(load, path, make(chance))
    assert not Path("executed").exists()
    return accepted, count


@pytest.mark.parametrize("name", READERS)
def test_a_damaged_file_is_read_or_refused_by_name(name: str, tmp_path: Path, tell) -> None:
    file, content, load = reader(name)
    assert read(load, tmp_path / file, content), "the good file"
    accepted, count = fuzz(load, tmp_path / file, lambda chance: damaged(content, chance), name)
    tell(f"damaged {name}", f"{count:,} files", f"{count - accepted:,} refused by name, {accepted:,} read")


@pytest.mark.parametrize("kind", DESCRIBED)
def test_a_damaged_description_whose_digest_fits(kind: str, tmp_path: Path, tell) -> None:
    """As of a program that writes such files, and errs."""
    path = tmp_path / "file"
    path.write_bytes(good(kind)[0])
    vectors = VectorFile(path)
    arrays = {name: vectors.read(name) for name in in_order(vectors.kinds)}
    text = vectors.metadata["difficulty_prune"].encode()
    body = b"".join(array.tobytes() for array in arrays.values())

    def make(chance: random.Random) -> bytes:
        texts = {"difficulty_prune": damaged(text, chance).decode(errors="replace")}
        return header_bytes(vectors.kinds, {**texts, DIGESTS: str(Digests.of(arrays, texts))}) + body

    accepted, count = fuzz(KINDS[kind][1], path, make, kind)
    tell(
        f"damaged description of {kind}", f"{count:,} files", f"{count - accepted:,} refused by name, {accepted:,} read"
    )


PICKLES = (
    b"cos\nsystem\n(S'touch executed'\ntR.",
    b"\x80\x04\x95\x1a\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94\x8c\x06system",
)


@pytest.mark.parametrize("name", READERS)
def test_pickles_in_its_place_are_not_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, _, load = reader(name)
    monkeypatch.chdir(tmp_path)
    objects = np.array([Evil()], dtype=object)
    made = io.BytesIO()
    np.save(made, objects, allow_pickle=True)
    for content in (*PICKLES, made.getvalue(), npz(np.savez, index=objects, c_score=objects, el2n=objects)):
        read(load, tmp_path / file, content)
    assert not (tmp_path / "executed").exists()


class Evil:
    """Runs a command where it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch executed",)
