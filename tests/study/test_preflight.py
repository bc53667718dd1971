"""What is bound to fail, refused before the first training and before anything is written."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import difficulty_prune as dp
from difficulty_prune.study.models import MODELS
from difficulty_prune.study.preflight import check_fit, check_model, check_out, check_random_subsets, make_folders
from difficulty_prune.study.settings import Settings
from difficulty_prune.study.study_data import Images, StudyData, load_data


def data_of(labels: list[int], shape: tuple[int, int, int] = (1, 8, 8)) -> StudyData:
    generator = torch.Generator().manual_seed(0)
    images = Images(torch.rand(len(labels), *shape, generator=generator), torch.tensor(labels))
    return StudyData(images, images, num_classes=max(labels) + 1)


@pytest.mark.parametrize("name", MODELS)
def test_the_models_fit_the_digits_and_their_check_draws_no_random_number(name: str) -> None:
    data = load_data("digits")
    before = torch.get_rng_state()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_model(name, data, with_grand=True)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_model_that_does_not_take_the_images_is_refused() -> None:
    settings = Settings(models=("cnn", "vit"))
    with pytest.raises(ValueError, match=r"model: 'vit' does not work with images \[1, 28, 28\].* 28 x 28, expected"):
        check_fit(settings, data_of([0, 1] * 4, (1, 28, 28)))


class Returns(nn.Module):
    """A model that returns what `wrap` makes of its logits, in training alone."""

    def __init__(self, wrap: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.linear, self.wrap = nn.Linear(64, 2), wrap

    def forward(self, x: Tensor) -> Any:
        logits = self.linear(x.flatten(1))
        return self.wrap(logits) if self.training else logits


class Drawn(nn.Linear):
    """Its logits depend on chance, which GraNd refuses."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.flatten(1)) + torch.rand(len(x), self.out_features)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda shape, classes: nn.Sequential(nn.Flatten(), nn.Linear(64, 5)), r"shape \[2, 5\], expected \[2, 2\]"),
        (lambda shape, classes: nn.Sequential(nn.Flatten(), nn.Linear(9, 2)), "cannot be multiplied"),
        (lambda shape, classes: nn.Flatten(), "no parameters to train"),
        (lambda shape, classes: None, "got NoneType, expected a torch.nn.Module"),
        (lambda shape: nn.Flatten(), "takes 1 positional argument"),
        (
            lambda shape, classes: Returns(lambda x: (x, x)),
            r"in training mode it returns a tuple, expected logits \[2, 2\]",
        ),
        (lambda shape, classes: Returns(lambda x: {"logits": x}), "in training mode it returns a dict"),
        (lambda shape, classes: Drawn(64, 2), "grand|chance|random"),
    ],
)
def test_a_model_that_cannot_be_trained_or_scored_is_refused(
    make: Callable[..., nn.Module], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(MODELS, "own", make)
    with pytest.raises(
        ValueError, match=rf"(?s)model: 'own' does not work with images \[1, 8, 8\].*{message}"
    ) as raised:
        check_model("own", data_of([0, 1] * 4), with_grand=True)
    assert "\n" not in str(raised.value)


def test_a_part_of_a_single_example_is_refused() -> None:
    """Where numbers are predicted no class would be lacking."""
    with pytest.raises(ValueError, match=r"keep: got 0\.001, which keeps 1 of 353 examples, expected 2 or more"):
        check_random_subsets(Settings(data="sklearn:diabetes", keep=(0.001,)), load_data("sklearn:diabetes"))


def lacks_a_class(data: StudyData, keep: float, seed: int) -> bool:
    """Whether a comparison with this seed, by whatever difficulty, trains on a random subset that lacks a class."""
    difficulty = torch.arange(float(len(data.train)))
    chosen = dp.PruneSampler(dp.policies.Random(keep), difficulty, seed=seed).plan.index
    return len(data.train.labels[chosen].unique()) < data.num_classes


def test_a_random_subset_that_will_lack_a_class_is_refused_and_no_other() -> None:
    data = data_of([0] * 30 + [1] * 3)
    several = [Settings(seed=seed, keep=(0.3,)) for seed in range(12)]
    bad = [s for s in several if any(lacks_a_class(data, 0.3, seed) for seed in s.comparison_seeds)]
    assert 0 < len(bad) < len(several)
    for settings in several:
        if settings in bad:
            with pytest.raises(ValueError, match=r"keep: got 0\.3, expected more: .* would drop class 1"):
                check_random_subsets(settings, data)
        else:
            check_random_subsets(settings, data)


def test_fewer_examples_than_classes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"keep: got 0\.001, expected more.* every class, but .* drop class"):
        check_fit(Settings(models=("mlp",), keep=(0.5, 0.001)), load_data("digits"))


def test_a_hold_out_that_leaves_a_run_a_single_example_is_refused() -> None:
    data = data_of([0, 1, 0])
    check_fit(Settings(models=("mlp",), keep=(), hold_out=0.3), data)
    with pytest.raises(ValueError, match=r"hold_out: got 0\.5, which may leave a run 1 of 3 examples"):
        check_fit(Settings(models=("mlp",), keep=(), hold_out=0.5), data)


# Where results go


@pytest.mark.parametrize("blocking", ["out", "out/runs", "out/trainings", "out/figures", "."])
def test_a_file_in_the_way_of_results_is_refused_and_nothing_is_written(blocking: str, tmp_path: Path) -> None:
    place = tmp_path / "home" / blocking
    place.parent.mkdir(parents=True, exist_ok=True)
    place.rmdir() if place.is_dir() else None
    place.write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(NotADirectoryError, match=r"out: .* is a file, expected a folder; choose another --out"):
        check_out(Settings(out=tmp_path / "home" / "out"))
    assert sorted(tmp_path.rglob("*")) == before


def test_a_folder_that_may_not_be_written_to_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(out=tmp_path / "new" / "out")
    check_out(settings)
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path)  # root may write everywhere
    with pytest.raises(PermissionError, match=f"out: the folder {tmp_path} cannot be written to; choose another --out"):
        check_out(settings)
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs a folder in which even root cannot write")
def test_folders_are_made_and_tried_before_training() -> None:
    with pytest.raises(OSError, match=r"out: /proc/study cannot be written to .*; choose another --out"):
        make_folders(Settings(out=Path("/proc/study")))


def test_folders_are_made_as_far_as_something_is_written_there(tmp_path: Path) -> None:
    make_folders(Settings(out=tmp_path / "all"))
    make_folders(Settings(out=tmp_path / "scores", keep=()))
    assert sorted(path.name for path in (tmp_path / "all").iterdir()) == ["figures", "runs", "trainings"]
    assert sorted(path.name for path in (tmp_path / "scores").iterdir()) == ["figures", "runs"]
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
