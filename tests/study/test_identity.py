"""What a study reuses is of the same data, test data, model and recipe; and only one study is in a folder."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from difficulty_prune.cli.main import main
from difficulty_prune.study.folder_lock import locked
from difficulty_prune.study.study_data import load_data

ARGUMENTS = ("study", "--runs", "2", "--epochs", "2", "--workers", "1", "--out", "out")
MINE = """
import torch
from torch.utils.data import TensorDataset

from head import head

def make(n, seed, flip=False):
    g = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % 2
    x = torch.randn(n, 1, 8, 8, generator=g) + (2.0 * y - 1.0).view(-1, 1, 1, 1)
    return TensorDataset(x, 1 - y if flip else y)

def train(): return make(96, 0)
def test(): return make(96, 1)
def flipped(): return make(60, 1, True)
def edited():
    data = test()
    data.tensors[0][2] *= -1
    return data
def net(shape, classes): return torch.nn.Sequential(torch.nn.Flatten(), head(classes))
"""
HEAD = "import torch\ndef head(classes): return torch.nn.Linear(64, classes)\n"


@pytest.fixture
def own_modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with data and a model, as the current one; what is imported from it is forgotten."""
    (tmp_path / "mine.py").write_text(MINE)
    (tmp_path / "head.py").write_text(HEAD)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    forget()
    yield tmp_path
    forget()


def forget() -> None:
    """As a process does that ends."""
    load_data.cache_clear()
    for name in ("mine", "head"):
        sys.modules.pop(name, None)


def study(capsys: pytest.CaptureFixture[str], *more: str) -> tuple[int, str, str]:
    """Exit status, what it printed, and what it said on stderr."""
    status = main([*ARGUMENTS, "--data", "mine:train", "--model", "mine:net", *more])
    return status, *capsys.readouterr()


@pytest.mark.slow  # the trainings start PyTorch in a process of their own
def test_other_test_data_and_an_edited_model_are_refused_and_what_is_reused_is_said(
    own_modules: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--test", "mine:test", "--keep", "0.9", "--policy", "window", "easiest", "--seeds", "2")
    status, said, err = study(capsys, *options)
    assert status == 0, err
    assert "Reused" not in said
    assert "  the same plan: the easiest 90 % by el2n" in said.splitlines()
    _, said, _ = study(capsys, *options)
    assert "Reused, of the same data, test data, models and recipe: 2 scoring runs and 8 trainings" in said
    before = json.loads((own_modules / "out" / "summary.json").read_text())
    status, _, err = study(capsys, "--test", "mine:flipped", "--keep", "0.9")
    assert status == 2
    assert "of another study" in err
    assert "test_fingerprint" in err
    status, _, err = study(capsys, "--test", "mine:edited", "--keep", "0.9")  # outside the 64 of a fingerprint
    assert status == 2
    assert "test_digest" in err
    assert "test_fingerprint" not in err
    (own_modules / "head.py").write_text(HEAD.replace("classes)", "classes, bias=False)"))
    forget()
    status, _, err = study(capsys, *options)
    assert status == 2
    assert "model_digest" in err
    assert json.loads((own_modules / "out" / "summary.json").read_text()) == before


def test_one_study_at_a_time_and_a_dead_one_bars_nobody(tmp_path: Path) -> None:
    holds = "import sys, time, pathlib; from difficulty_prune.study.folder_lock import locked\n"
    holds += "with locked(pathlib.Path(sys.argv[1])): print('in', flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", holds, str(tmp_path)], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "in\n"
        with pytest.raises(BlockingIOError, match="another study is running in"), locked(tmp_path):
            pass
        other.kill()
        other.wait()
    deadline = time.monotonic() + 10
    while True:
        try:
            with locked(tmp_path):
                return
        except BlockingIOError:
            assert time.monotonic() < deadline


def photographs(folder: Path, sizes: list[tuple[int, int]]) -> None:
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (folder / name).mkdir(parents=True)
        for k, size in enumerate(sizes):
            pixels = rng.integers(0, 255, (*size, 3)).astype("uint8")
            Image.fromarray(pixels).save(folder / name / f"{k:03d}.jpg")


def test_photographs_of_any_size_are_resized_when_asked(tmp_path: Path) -> None:
    photographs(tmp_path, [(40, 60), (80, 41), (64, 64), (50, 50), (41, 90)])
    with pytest.raises(ValueError, match=r"001\.jpg has shape \(3, 80, 41\).*--size"):
        load_data(f"imagefolder:{tmp_path}")
    data = load_data(f"imagefolder:{tmp_path}", None, 32)
    assert data.shape == (3, 32, 32)
    assert data.train.images.dtype == torch.uint8


def test_a_damaged_image_is_named(tmp_path: Path) -> None:
    photographs(tmp_path, [(32, 32)] * 6)
    victim = tmp_path / "dog" / "003.jpg"
    victim.write_bytes(victim.read_bytes()[:300])
    with pytest.raises(ValueError, match=r"dog/003\.jpg cannot be read"):
        load_data(f"imagefolder:{tmp_path}")
