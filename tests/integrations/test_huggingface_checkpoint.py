"""The file that the Hugging Face Trainer's checkpoints gain: damaged, cut short, foreign, newer, or of before."""

from __future__ import annotations

import errno
import io
import os
import pickle
import re
import shutil
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import nn

transformers = pytest.importorskip("transformers", reason="transformers is not installed: pip install transformers")
pytest.importorskip("accelerate", reason="accelerate is not installed: pip install accelerate")

import difficulty_prune as dp  # noqa: E402
from difficulty_prune.integrations.transformers import DifficultyTrainer  # noqa: E402

SIZE = 24
TRAIN = dp.IndexedDataset(
    [{"x": x, "labels": i % 3} for i, x in enumerate(torch.randn(SIZE, 6, generator=torch.Generator().manual_seed(0)))]
)
COMMENT = 63  # bytes at the end, which hold the digest

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore:'pin_memory' argument is set as true:UserWarning:torch"),
]


class Linear(nn.Module):
    """What a model of transformers looks like from the outside."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 3)

    def forward(self, x, labels=None):
        return {"logits": self.layer(x)}


def make_trainer(folder, *, sampler=True, scores=("loss", "el2n"), **arguments):
    tracker = dp.DifficultyTracker(SIZE, scores=scores)
    if sampler:
        policy = dp.policies.SoftPrune(keep=0.5)
        sampler = dp.PruneSampler(policy, tracker.source("loss"), seed=0, fixed_length=12)
    settings = {
        "per_device_train_batch_size": 6,
        "num_train_epochs": 3,
        "save_strategy": "no",
        "logging_strategy": "no",
        "use_cpu": True,
        "report_to": "none",
        "disable_tqdm": True,
    }
    args = transformers.TrainingArguments(str(folder), **{**settings, **arguments})
    torch.manual_seed(0)
    return DifficultyTrainer(Linear(), args, train_dataset=TRAIN, tracker=tracker, sampler=sampler or None)


def trained(folder, **options):
    """The scores of a training, and the file that its checkpoint holds."""
    trainer = make_trainer(folder, save_strategy="steps", save_steps=6, **options)
    trainer.train()
    (checkpoint,) = folder.glob("checkpoint-*")
    return trainer.tracker.compute(), checkpoint / "difficulty.pt"


def resumed(file, **options):
    """The scores with which a training goes on that resumes from the checkpoint, at its end."""
    trainer = make_trainer(file.parent.parent, **options)
    trainer.train(resume_from_checkpoint=str(file.parent))
    return trainer.tracker.compute()


@dataclass(repr=False)
class Saved:
    """A checkpoint: its scores, its file, that file as version 0.1.0 wrote it, and a trainer that can read it.

    The trainer reads without training, so that a file can be damaged in many ways.
    """

    scores: dict[str, torch.Tensor]
    file: Path
    content: bytes
    before: bytes
    trainer: DifficultyTrainer

    def read(self, content):
        """The scores in another content of the file."""
        try:
            self.file.write_bytes(content)
            self.trainer.tracker.reset()
            self.trainer._load_optimizer_and_scheduler(str(self.file.parent))
            return self.trainer.tracker.compute()
        finally:
            self.file.write_bytes(self.content)


def assert_refused(saved, content, what="damaged, cut short or of something else"):
    with pytest.raises(ValueError, match=f"^{re.escape(str(saved.file))}: got .*{what}.*expected"):
        saved.read(content)
    assert saved.trainer.tracker.presentations == 0


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    scores, file = trained(tmp_path_factory.mktemp("trainer"))
    before = io.BytesIO()
    torch.save(torch.load(file, weights_only=True), before)
    trainer = make_trainer(file.parent.parent)
    trainer.train(resume_from_checkpoint=str(file.parent))
    return Saved(scores, file, file.read_bytes(), before.getvalue(), trainer)


def same(scores, expected):
    pairs = [(scores[name], expected[name]) for name in expected]
    return scores.keys() == expected.keys() and all(torch.allclose(*pair, 0, 0, equal_nan=True) for pair in pairs)


def flipped(content, bit):
    damaged = bytearray(content)
    damaged[bit // 8] ^= 1 << bit % 8
    return bytes(damaged)


# What is read


def test_a_file_goes_on_with_its_scores_and_so_does_one_of_before(saved, tmp_path):
    assert all(score.isfinite().any() for score in saved.scores.values())
    assert same(resumed(saved.file), saved.scores)
    before = shutil.copytree(saved.file.parent, tmp_path / "checkpoint-6") / "difficulty.pt"
    before.write_bytes(saved.before)
    assert same(resumed(before), saved.scores)
    assert b"difficulty_prune checkpoint 1 " in saved.content[-COMMENT:]
    assert b"difficulty_prune checkpoint" not in saved.before


def test_other_programs_can_read_the_file(saved):
    assert torch.load(saved.file, weights_only=True)["tracker"]["num_examples"] == SIZE
    with zipfile.ZipFile(saved.file) as archive:
        assert archive.testzip() is None


# Damage


@settings(max_examples=100)
@given(place=st.floats(0, 1, exclude_max=True))
def test_one_flipped_bit_anywhere_is_refused(saved, place):
    assert_refused(saved, flipped(saved.content, int(place * 8 * len(saved.content))), "(damaged|format)")


def test_one_flipped_bit_of_what_holds_the_digest_is_refused(saved):
    bits = 8 * len(saved.content)
    for bit in range(bits - 8 * (COMMENT + 22), bits):
        assert_refused(saved, flipped(saved.content, bit), "(damaged|format)")


@settings(max_examples=40)
@given(back=st.integers(1, 20_000))
@example(back=1)
@example(back=COMMENT)  # just what is more than before
@example(back=COMMENT + 22)
@example(back=20_000)  # nothing is left
def test_a_file_that_is_cut_short_is_refused(saved, back):
    for content in (saved.content, saved.before):
        assert len(content) < 20_000
        assert_refused(saved, content[: max(0, len(content) - back)])


@settings(max_examples=100)
@given(place=st.floats(0, 1, exclude_max=True))
def test_damage_to_a_file_of_before_is_refused_or_has_touched_no_score(saved, place):
    content = flipped(saved.before, int(place * 8 * len(saved.before)))
    try:
        found = saved.read(content)
    except ValueError:
        assert_refused(saved, content)
    else:
        assert same(found, saved.scores)


# Other files


class Code:
    """What runs when a pickle of it is read."""

    def __reduce__(self):
        return os.mkdir, ("made by a pickle",)


def saved_by_torch(value, **options):
    file = io.BytesIO()
    torch.save(value, file, **options)
    return file.getvalue()


def archive(name="data", compression=zipfile.ZIP_STORED):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as writer:
        writer.writestr(name, "hello")
    return file.getvalue()


FOREIGN = {
    "empty": b"",
    "one byte": b"P",
    "text": b"hello",
    "text that is no UTF-8": "größer".encode("latin-1"),
    "zeros": bytes(5000),
    "zip": archive(),
    "compressed zip": archive(compression=zipfile.ZIP_DEFLATED),
    "zip that looks like torch's": archive("archive/data.pkl"),
    "pickle": pickle.dumps({"tracker": 1}),
    "code": pickle.dumps(Code()),
    "code by torch": saved_by_torch({"tracker": Code()}),
    "another dict": saved_by_torch({"a": 1}),
    "tensor": saved_by_torch(torch.ones(3)),
    "list": saved_by_torch(["tracker"]),
    "torch of before": saved_by_torch({"tracker": 1}, _use_new_zipfile_serialization=False),
}


@pytest.mark.parametrize("content", FOREIGN.values(), ids=FOREIGN)
def test_another_file_is_refused_and_not_executed(saved, tmp_path, monkeypatch, content):
    monkeypatch.chdir(tmp_path)
    assert_refused(saved, content)
    assert not list(tmp_path.iterdir())


def test_a_newer_file_asks_for_an_upgrade(saved):
    newer = saved.content.replace(b"difficulty_prune checkpoint 1", b"difficulty_prune checkpoint 2")
    with pytest.raises(ValueError, match=f"^{re.escape(str(saved.file))}: got format 2, expected at most 1; upgrade"):
        saved.read(newer)


@pytest.mark.parametrize("tracker", [1, {}, {"format": 99}, {"num_examples": SIZE}], ids=repr)
def test_the_state_of_no_tracker_is_refused(saved, tracker):
    content = saved_by_torch({"tracker": tracker, "sampler": {}})
    with pytest.raises(ValueError, match=f"^{re.escape(str(saved.file))}: load_state_dict: .*expected the state of"):
        saved.read(content)


def test_the_state_of_another_training_is_refused(saved, tmp_path):
    with pytest.raises(ValueError, match=f"^{re.escape(str(saved.file))}: .*scores.*'aum'.*resume from"):
        resumed(saved.file, scores=("loss", "aum"))
    _, without = trained(tmp_path, sampler=False, max_steps=6)
    with pytest.raises(ValueError, match=f"^{re.escape(str(without))}: .*without a sampler, expected one with"):
        resumed(without)


# Writing


def test_a_full_disk_leaves_the_file_of_before(tmp_path, monkeypatch):
    _, file = trained(tmp_path)
    before = file.read_bytes()
    fsync = os.fsync

    def full(descriptor):
        fsync(descriptor)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match=r"No space left.*make room.*difficulty\.pt"):
            make_trainer(tmp_path, save_strategy="steps", save_steps=6).train()
    assert file.read_bytes() == before
    assert not [path for path in file.parent.iterdir() if "difficulty" in path.name and path != file]
