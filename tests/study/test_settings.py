"""Settings of a study that cannot work, refused before any work."""

from __future__ import annotations

import argparse
import itertools
from dataclasses import fields
from pathlib import Path

import pytest

from difficulty_prune.policies.uniform import Hardest
from difficulty_prune.study.options import add_options, read_options
from difficulty_prune.study.settings import IN_EPOCHS, POLICIES, Settings
from difficulty_prune.study.tasks import slug
from difficulty_prune.study.train import Recipe


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"models": ("mlp", "cnn", "mlp")}, "model: got 'mlp' twice"),
        ({"policies": ("soft", "hardest", "soft")}, "policy: got 'soft' twice"),
        ({"scores": ("el2n", "el2n")}, "scores: got 'el2n' twice"),
        ({"keep": (0.5, 0.7, 0.5)}, r"keep: got 0\.5 twice"),
    ],
)
def test_a_value_given_twice_is_refused_by_name(changes: dict[str, tuple[object, ...]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Settings(**changes)


def test_models_whose_results_would_have_the_same_file_name_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("nets", "nets-small"):
        (tmp_path / f"{name}.py").write_text("def small(shape, classes): ...\ndef net(shape, classes): ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert Settings(models=("nets:small", "nets:net")).models == ("nets:small", "nets:net")
    assert slug("nets:small-net") == slug("nets-small:net")
    monkeypatch.setattr("difficulty_prune.study.settings.find_model", lambda name: None)
    with pytest.raises(ValueError, match=r"model: got 'nets:small-net' and 'nets-small:net'.*'nets-small-net'"):
        Settings(models=("nets:small-net", "nets-small:net"))


def test_shares_whose_results_would_have_the_same_file_name_are_refused() -> None:
    with pytest.raises(ValueError, match=r"keep: got 0\.5 and 0\.50000001, whose results .* same file name.* '0\.5'"):
        Settings(keep=(0.5, 0.50000001))


def test_one_value_a_list_and_a_folder_as_text_are_understood() -> None:
    given = Settings(models="mlp", scores=["el2n", "aum"], keep=0.5, policies=["soft"], out="results")
    assert given == Settings(
        models=("mlp",), scores=("el2n", "aum"), keep=(0.5,), policies=("soft",), out=Path("results")
    )


@pytest.mark.parametrize("keep", [0.001, 0.05, 0.3, 0.9, 0.95, 0.999, 1.0])
def test_every_policy_can_be_made_with_any_share(keep: float) -> None:
    assert Settings(policies=(*POLICIES, *IN_EPOCHS), keep=(keep,)).keep == (keep,)


def test_a_policy_that_cannot_be_made_with_a_share_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(POLICIES, "doubled", lambda keep: Hardest(2 * keep))
    assert Settings(policies=("doubled",), keep=(0.5,)).policies == ("doubled",)
    with pytest.raises(ValueError, match=r"policy: 'doubled' cannot be made with keep 0\.7: keep: got 1\.4"):
        Settings(policies=("doubled",), keep=(0.5, 0.7))


def test_the_default_policies_are_those_that_the_scores_allow() -> None:
    assert Settings().policy_names == ("without-wrong", "stratified", "soft")
    assert Settings(scores=("el2n",)).policy_names == ("stratified", "soft")
    assert Settings(policies=("hardest",)).policy_names == ("hardest",)
    with pytest.raises(ValueError, match=r"without-wrong needs margin or aum among the scores.*got el2n"):
        Settings(policies=("without-wrong",), scores=("el2n",))


@pytest.mark.parametrize(("options", "says"), [({"seeds": 1}, "seeds: got 1"), ({"until": 0.0}, "until: got 0.0")])
def test_a_comparison_that_would_show_no_spread_is_refused(options, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Settings(**options)


@pytest.mark.parametrize("seed", [-1, 2**62])
def test_a_seed_that_no_generator_takes_is_refused(seed: int) -> None:
    with pytest.raises(ValueError, match=f"seed: got {seed}, expected 0 or more"):
        Settings(seed=seed)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("math:pi", "pi is 3.14"),
        ("math:nothing", "no attribute 'nothing'"),
        ("no_such_module:net", "No module named 'no_such_module'"),
        (".net:make", "relative"),
        (":make", "Empty module name"),
    ],
)
def test_a_model_that_is_no_function_is_refused(model: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"model: got '{model}', expected cnn.*{message}"):
        Settings(models=(model,))


def test_a_model_without_a_colon_is_not_looked_for_in_modules(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "tidy_up.py").write_text("raise SystemExit('imported')\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match="model: got 'tidy_up', expected cnn"):
        Settings(models=("tidy_up",))


def test_no_training_that_is_compared_has_the_seed_of_a_scoring_run() -> None:
    settings = Settings(seed=7, runs=20)
    assert list(settings.scoring_seeds) == list(range(7, 27))
    assert len(settings.comparison_seeds) == 5
    assert len(Settings(seeds=9).comparison_seeds) == 9
    assert not set(settings.scoring_seeds) & set(settings.comparison_seeds)


def test_each_field_is_an_option_whose_default_is_that_of_the_field() -> None:
    parser = argparse.ArgumentParser()
    add_options(parser, Settings)
    assert read_options(parser.parse_args([]), Settings) == Settings()
    given = {
        "--data": "table:d",
        "--test": "t",
        "--model": "mlp",
        "--runs": "2",
        "--epochs": "3",
        "--scores": "loss",
        "--keep": "0.1",
        "--policy": "soft",
        "--seeds": "8",
        "--until": "0.5",
        "--hold-out": "0.5",
        "--out": "o",
        "--seed": "5",
        "--executor": "dask:e",
        "--size": "7",
        "--plant-wrong": "0.25",
        "--batch-size": "9",
        "--lr": "0.05",
        "--label": "y",
    }
    expected = Settings(
        data="table:d", label="y", test="t", models=("mlp",), runs=2, epochs=3, scores=("loss",), keep=(0.1,),
        policies=("soft",),
        seeds=8, until=0.5, hold_out=0.5, plant_wrong=0.25, batch_size=9, lr=0.05, no_augment=True, regression=True,
        out=Path("o"), seed=5, executor="dask:e", size=7,
    )  # fmt: skip
    arguments = [*itertools.chain(*given.items()), "--no-augment", "--regression"]
    assert read_options(parser.parse_args(arguments), Settings) == expected
    # --no-augment, --regression, and --workers, which goes without --executor
    assert len(fields(Settings)) == len(given) + 3


def test_the_recipe_is_what_was_asked_for_else_what_is_usual_for_the_data() -> None:
    assert Settings().recipe == Recipe(epochs=12, batch_size=64)
    assert Settings(data="sklearn:iris").recipe == Recipe(epochs=30, batch_size=32, learning_rate=0.1)
    assert Settings(data="imagefolder:a", size=96).recipe == Recipe(epochs=10, batch_size=128, learning_rate=0.2)
    assert Settings(data="imagefolder:a", size=97).recipe == Recipe(epochs=10, batch_size=64, learning_rate=0.1)
    asked = Settings(size=224, epochs=3, batch_size=2, lr=0.5, no_augment=True)
    assert asked.recipe == Recipe(epochs=3, batch_size=2, learning_rate=0.5, augment=False)


def test_a_recipe_of_earlier_versions_is_described_as_they_did() -> None:
    assert "augment" not in Settings().recipe.facts()
    assert Settings(no_augment=True).recipe.facts()["augment"] is False


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"batch_size": 1}, "batch_size: got 1, expected 2 or more"),
        ({"batch_size": 0}, "batch_size: got 0"),
        ({"lr": 0.0}, r"lr: got 0\.0, expected a learning rate above 0"),
        ({"lr": float("nan")}, "lr: got nan"),
        ({"lr": float("inf")}, "lr: got inf"),
    ],
)
def test_batches_and_rates_that_cannot_train_are_refused(options, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Settings(**options)
