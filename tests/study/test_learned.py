"""A study says first where its trainings learned nothing, and stops where one diverged."""

from __future__ import annotations

import types
from pathlib import Path

import pytest
import torch
from study_here import study_here

import difficulty_prune as dp
from difficulty_prune.study.learned import nothing_learned
from difficulty_prune.study.settings import Settings
from difficulty_prune.study.study_data import load_data
from difficulty_prune.study.train import Recipe, train


def data_with(labels: torch.Tensor, regression: bool = False):
    return types.SimpleNamespace(test=types.SimpleNamespace(labels=labels), regression=regression)


def test_an_accuracy_that_one_answer_reaches_is_said_to_be_nothing_learned() -> None:
    data = data_with(torch.tensor([0] * 40 + [1] * 60))  # one standard error of 0.6 is 0.049
    said = nothing_learned(0.65, data, ["cat", "dog"])
    assert "reaches 0.6500" in said
    assert "always answering 'dog' (0.6000)" in said
    assert "raise --epochs" in said
    assert nothing_learned(0.71, data, ["cat", "dog"]) == ""


def test_a_loss_that_the_mean_reaches_is_said_to_be_nothing_learned() -> None:
    data = data_with(torch.tensor([-1.0, 1.0, 2.0, 0.0]), regression=True)  # mean square 1.5
    assert "always answering the mean of the training data (1.5000)" in nothing_learned(1.5, data, [])
    assert nothing_learned(1.4, data, []) == ""


def test_a_training_that_diverged_is_named_and_counts_for_nothing() -> None:
    data = load_data("sklearn:diabetes")
    sampler = dp.PruneSampler(dp.policies.Random(1.0), torch.zeros(len(data.train)))
    with pytest.raises(
        ValueError, match=r"mlp, seed 7: the training diverged, .*; take a lower learning rate than 1e\+06"
    ):
        train(data, "mlp", sampler, Recipe(epochs=1, batch_size=32, learning_rate=1e6), 7)


def test_numbers_are_learned_at_a_rate_of_their_own() -> None:
    assert Settings(data="sklearn:diabetes").recipe.learning_rate == 0.01
    assert Settings(data="sklearn:iris").recipe.learning_rate == 0.1
    assert Settings(data="sklearn:diabetes", regression=True).recipe.learning_rate == 0.01  # which it says anyway


def test_a_study_that_learned_nothing_says_so_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = ["--data", "sklearn:iris", "--epochs", "1", "--lr", "1e-6", "--runs", "2", "--scores", "el2n"]
    out = study_here(*arguments, "--keep", "0.5", "--policy", "easiest", "--seeds", "2")
    assert out.startswith("This says nothing of pruning: trained on all data the model reaches 0.")


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("irises.csv", "for this file say table:irises.csv --label COLUMN"),
        ("photos", "for this folder say imagefolder:photos"),
        ("saved", "for this folder say datasets:saved"),
    ],
)
def test_a_file_or_folder_alone_is_told_how_to_be_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, hint: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("irises.csv").touch()
    Path("photos").mkdir()
    Path("saved").mkdir()
    Path("saved/dataset_info.json").touch()
    with pytest.raises(ValueError, match=hint):
        load_data(name)


def test_a_network_of_torchvision_is_told_how_to_be_named() -> None:
    with pytest.raises(ValueError, match="for torchvision's say torchvision:resnet50"):
        Settings(models=("resnet50",))
