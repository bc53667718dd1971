"""The examples run as they stand, and print what they claim."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.util import find_spec

import pytest
from places import EXAMPLES


def lines_of(name: str) -> list[str]:
    """What an example prints; it warns of nothing but, on a machine with one core, of its two workers."""
    command = [sys.executable, "-W", "ignore:This DataLoader will create:UserWarning", EXAMPLES / f"{name}.py"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert not result.stderr
    return result.stdout.splitlines()


def numbers_by_row(name: str) -> dict[str, list[float]]:
    """The numbers that an example prints, by the first word of the line."""
    rows = (line.split(maxsplit=1) for line in lines_of(name))
    return {first: [float(number) for number in re.findall(r"\d\.\d+", rest)] for first, rest in rows}


def test_vog_tells_digits_that_were_never_trained_on() -> None:
    rows = numbers_by_row("ood_detection")
    for name, least in (("vog", 0.75), ("vog_probability", 0.8), ("vog_loss", 0.8), ("entropy", 0.8)):
        auroc, _, aupr, foreign_share = rows[name]
        assert auroc > least, name
        assert aupr > foreign_share + 0.2, name


def test_accuracy_is_higher_where_vog_is_low() -> None:
    rows = numbers_by_row("selective_prediction")
    for name in ("vog", "vog_probability", "vog_loss"):
        accuracy = rows[name]
        assert accuracy == sorted(accuracy, reverse=True), name
        assert accuracy[0] > accuracy[-1] + 0.05, name


def test_garbled_text_has_a_high_vog() -> None:
    pytest.importorskip("transformers")
    rows = numbers_by_row("text_vog")
    for name, least in (("vog_loss", 0.62), ("loss", 0.8)):
        auroc, _, aupr, garbled_share = rows[name]
        assert auroc > least, name
        assert aupr > garbled_share + 0.04, name


def test_spoiled_masks_come_out_hardest() -> None:
    pytest.importorskip("torchvision", reason="torchvision is not installed")
    rows = numbers_by_row("segmentation")
    for name, least in (("loss:", 0.85), ("el2n:", 0.8), ("accuracy:", 0.8)):
        spoiled, others, auroc, share = rows[name]
        assert spoiled < others - 0.2 if name == "accuracy:" else spoiled > others + 0.2, name
        assert auroc > least, name
        assert share > 0.4, name  # by chance 0.1


def test_pictures_with_a_wrong_label_among_ten_come_out_hardest() -> None:
    rows = numbers_by_row("multi_label")
    for name, least in (("loss:", 0.95), ("el2n:", 0.94), ("aum:", 0.85), ("accuracy:", 0.94)):
        _, _, auroc, share = rows[name]
        assert auroc > least, name
        assert share > 0.5, name  # by chance 0.1


def test_boxes_of_mosaics_count_for_the_image_that_they_show() -> None:
    pytest.importorskip("torchvision", reason="torchvision is not installed")
    rows = numbers_by_row("detection_mosaics")
    for name, least in (("loss:", 0.88), ("el2n:", 0.65), ("accuracy:", 0.6)):
        _, _, auroc, share = rows[name]
        assert auroc > least, name
        assert share > (0.45 if name == "loss:" else 0.2), name  # by chance 0.1


def test_what_looks_mislabelled_is_worth_leaving_out_and_the_hardest_are_not_worth_keeping() -> None:
    first = lines_of("compare_pruning")[0]
    assert first.startswith("Worse than chance: keeping the hardest 60 % by el2n (by ")
    assert ". The best: keeping a random 60 % without the hardest 20 % by el2n: 0.9" in first
    assert "points better than chance (" in first
    assert first.endswith("40 % fewer steps.")


@pytest.mark.parametrize(
    ("name", "library"),
    [("webdataset", "webdataset"), ("hugging_face", "datasets"), ("torchdata", "torchdata"), ("mosaicml", "streaming")],
)
def test_a_stream_of_a_library_is_pruned(name: str, library: str) -> None:
    pytest.importorskip("xxhash", reason="xxhash is not installed")
    if find_spec(library) is None:
        pytest.skip(f"{name}: {library} is not installed")
    *epochs, full, pruned = lines_of(f"stream_{name}")
    assert len(epochs) == 5
    for line in epochs:
        assert " of 1797, " in line
        share, weights = (float(number) for number in re.findall(r"\d\.\d{3}", line))
        assert abs(share - 0.6) < 0.04
        assert abs(weights - 1) < 0.08
    assert float(full.split()[1]) > 0.93
    assert float(pruned.split()[1]) > 0.9


def test_a_pruned_stream_has_the_same_samples_with_and_without_workers() -> None:
    pytest.importorskip("xxhash", reason="xxhash is not installed")
    *epochs, full, pruned = lines_of("stream_pruning")
    assert len(epochs) == 5
    for line in epochs:
        assert line.endswith("unknown 20, same without workers True")
        share, weights = (float(number) for number in re.findall(r"\d\.\d{3}", line))
        assert abs(share - 0.6) < 0.04
        assert abs(weights - 1) < 0.06
    assert float(full.split()[1]) > 0.85
    assert float(pruned.split()[1]) > 0.8
