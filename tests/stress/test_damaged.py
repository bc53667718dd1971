"""Each file with digests: cut at every byte, a thousand flipped bits. It is refused by name, or says what it said."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from file_kinds import KINDS, check_refused_or_same, good

pytestmark = pytest.mark.stress
FLIPS = 1000


@pytest.mark.parametrize("kind", KINDS)
def test_every_truncation(kind: str, tmp_path: Path, tell) -> None:
    content, _ = good(kind)
    for left in range(len(content)):
        assert check_refused_or_same(kind, tmp_path / "file", content[:left]), left
    tell(f"{kind} cut short", f"{len(content)} lengths", "all refused")


@pytest.mark.parametrize("kind", KINDS)
def test_flipped_bits(kind: str, tmp_path: Path, tell) -> None:
    content, _ = good(kind)
    places = random.Random(1)
    refused = 0
    for _ in range(FLIPS):
        flipped = bytearray(content)
        flipped[places.randrange(len(content))] ^= 1 << places.randrange(8)
        refused += check_refused_or_same(kind, tmp_path / "file", bytes(flipped))
    tell(f"{kind} with a flipped bit", f"{FLIPS} bits", f"{refused} refused, {FLIPS - refused} without effect")


def test_a_checkpoint_of_a_trainer(tmp_path: Path, tell) -> None:
    pytest.importorskip("transformers")
    import torch

    import difficulty_prune as dp
    from difficulty_prune.integrations import kept_scores

    tracker = dp.DifficultyTracker(6, scores=("el2n",))
    tracker.update(torch.arange(6), torch.eye(6), torch.arange(6))
    path = tmp_path / "difficulty.pt"
    kept_scores._write_state(str(path), {"tracker": tracker.state_dict()})
    content = path.read_bytes()
    places = random.Random(2)
    damaged = [content[:left] for left in range(len(content))]
    for _ in range(FLIPS):
        flipped = bytearray(content)
        flipped[places.randrange(len(content))] ^= 1 << places.randrange(8)
        damaged.append(bytes(flipped))
    for wrong in damaged:
        path.write_bytes(wrong)
        with pytest.raises(ValueError, match=r"difficulty\.pt: got"):
            kept_scores._read_state(str(path))
    tell("difficulty.pt of a trainer", f"{len(content)} lengths and {FLIPS} bits", "all refused")
