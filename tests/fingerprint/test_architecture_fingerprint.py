"""Fingerprints of architectures on simulated runs, in which it is known what tells them apart."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from worlds import NAMES, World

import difficulty_prune as dp
from difficulty_prune.fingerprint.accuracy import Accuracy
from difficulty_prune.fingerprint.architecture_fingerprint import ArchitectureFingerprint
from difficulty_prune.fingerprint.classifier import Classifier
from difficulty_prune.fingerprint.groups import group_runs
from difficulty_prune.fingerprint.held_out import always, recognise_held_out, split_runs
from difficulty_prune.fingerprint.selection import rank_examples

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def world() -> World:
    return World(0, examples=600, sensitive=40)


@pytest.fixture(scope="module")
def fingerprint(world: World) -> ArchitectureFingerprint:
    return ArchitectureFingerprint.fit(world.runs(each=8), "el2n", examples=10)


# Fit and predict


def test_planted_examples_are_chosen_and_new_runs_recognised(world: World, fingerprint) -> None:
    assert fingerprint.architectures == ("cnn", "mlp", "vit")
    assert len(fingerprint.examples) == 10
    assert (fingerprint.examples < 40).all()
    assert fingerprint.accuracy.value > 0.95
    assert fingerprint.accuracy.total == 24
    new = [world.run(name) for name in NAMES[:3] for _ in range(20)]
    assert sum(fingerprint.predict(run) == run.architecture for run in new) >= 57


def test_an_architecture_never_seen_is_unlike_any_known(world: World, fingerprint) -> None:
    strangers = [world.run(name) for name in NAMES[3:] for _ in range(20)]
    assert sum(fingerprint.predict(run) is None for run in strangers) >= 34
    assert all(fingerprint.distance(run) > fingerprint.limit for run in strangers if fingerprint.predict(run) is None)


def test_known_runs_are_rarely_refused() -> None:
    refused = 0
    for seed in range(8):
        world = World(seed, examples=300, sensitive=30)
        fingerprint = ArchitectureFingerprint.fit(world.runs(each=6), "el2n", examples=20, seed=seed)
        refused += sum(fingerprint.predict(world.run(name)) is None for name in NAMES[:3] for _ in range(20))
    assert refused <= 0.02 * 480


def test_probabilities_are_those_of_the_known_architectures(world: World, fingerprint) -> None:
    found = fingerprint.predict_proba(world.run("vit"))
    assert list(found) == ["cnn", "mlp", "vit"]
    assert math.fsum(found.values()) == pytest.approx(1)
    assert max(found, key=lambda name: found[name]) == "vit"


@pytest.mark.parametrize("groups", [2, 4])
def test_the_classifier_is_sklearns(groups: int) -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    generator = np.random.default_rng(1)
    group = np.repeat(np.arange(groups), 6)
    x = generator.normal(size=(len(group), 3)) + group[:, None]
    new = generator.normal(size=(10, 3))
    theirs = make_pipeline(StandardScaler(), LogisticRegression(C=1.0, max_iter=1000)).fit(x, group)
    np.testing.assert_allclose(Classifier.fit(x, group).probabilities(new), theirs.predict_proba(new), atol=1e-6)


def test_distance_is_the_root_mean_square_in_spreads_of_a_group() -> None:
    x = np.array([[0.0, 0.0], [2.0, 1.0], [10.0, 0.0], [12.0, 1.0]])  # both groups have the same spread
    classifier = Classifier.fit(x, np.array([0, 0, 1, 1]))
    spread = np.array([math.sqrt(2), math.sqrt(0.5)])  # ddof 1 within groups
    floor = 0.25 * x.std(0)
    centre, new = np.array([1.0, 0.5]), np.array([3.0, 2.5])
    expected = math.sqrt((((new - centre) / np.maximum(spread, floor)) ** 2).mean())
    assert classifier.distance(new[None], np.array([0]))[0] == pytest.approx(expected)


def test_scores_on_which_all_runs_of_an_architecture_agree_divide_by_nothing() -> None:
    runs = dp.RunSet(
        dp.Run({"forgetting": [far, 3, 0]}, architecture=name, seed=s)
        for name, far in (("cnn", 0), ("mlp", 5))
        for s in range(4)
    )
    fingerprint = ArchitectureFingerprint.fit(runs, "forgetting", examples=3)
    assert fingerprint.predict(runs[0]) == "cnn"
    assert fingerprint.distance(runs[7]) == pytest.approx(0, abs=1e-9)
    assert fingerprint.limit == 1
    assert fingerprint.predict(dp.Run({"forgetting": [5, 3, 40]}, architecture="?", seed=0)) is None


@pytest.mark.parametrize("select", ["sensitive", "random", "hardest", "pca"])
def test_random_and_hardest_examples_are_worse(select) -> None:
    runs = World(2, examples=2000, sensitive=20, effect=2.0).runs(each=6)
    accuracy = ArchitectureFingerprint.fit(runs, "el2n", examples=3, select=select).accuracy
    assert (accuracy.value > 0.9) == (select in ("sensitive", "pca"))
    assert accuracy.total == 18


def test_positions_of_ones_own_are_kept_in_order(world: World) -> None:
    fingerprint = ArchitectureFingerprint.fit(world.runs(each=5), "el2n", examples=np.array([39, 3, 7]))
    assert fingerprint.examples.tolist() == [39, 3, 7]
    assert fingerprint.predict(world.run("mlp")) in ("mlp", None)


def test_the_seed_decides_and_the_order_of_runs_does_not(world: World) -> None:
    runs = list(world.runs(each=4))
    first = ArchitectureFingerprint.fit(dp.RunSet(runs), "el2n", 5, seed=3)
    state = torch.get_rng_state()
    again = ArchitectureFingerprint.fit(dp.RunSet(runs[::-1]), "el2n", 5, seed=3)
    assert torch.equal(torch.get_rng_state(), state)
    np.testing.assert_array_equal(again.examples, first.examples)
    assert (again.accuracy, again.limit) == (first.accuracy, first.limit)


def test_examples_that_a_run_did_not_present_are_not_chosen() -> None:
    world = World(3, examples=60, sensitive=12)
    runs = list(world.runs(each=4))
    holes = runs[5].scores["el2n"].copy()
    holes[:6] = np.nan
    runs[5] = dp.Run({"el2n": holes}, architecture="mlp", seed=1)
    fingerprint = ArchitectureFingerprint.fit(dp.RunSet(runs), "el2n", examples=6)
    assert (fingerprint.examples >= 6).all()
    assert np.isfinite(fingerprint.distance(runs[5]))
    with pytest.raises(ValueError, match="expected 1 to 54, the examples that every run presented"):
        ArchitectureFingerprint.fit(dp.RunSet(runs), "el2n", examples=55)
    with pytest.raises(ValueError, match="a run did not present example 4; choose others"):
        ArchitectureFingerprint.fit(dp.RunSet(runs), "el2n", examples=[9, 4])


# Nothing leaks


def test_without_any_difference_accuracy_is_chance_but_choosing_outside_the_folds_would_flatter() -> None:
    honest, leaking, total = 0, 0, 0
    for seed in range(4):
        runs = World(seed, examples=5000, sensitive=0).runs(each=8)
        groups = group_runs(runs, "el2n", 3)
        accuracy = ArchitectureFingerprint.fit(runs, "el2n", examples=10, seed=seed).accuracy
        chosen = rank_examples(groups, "sensitive", seed)[:10]
        outside = recognise_held_out(groups, always(chosen), (10,), groups.known(), seed)[10]
        honest, leaking, total = honest + accuracy.correct, leaking + outside.correct.sum(), total + accuracy.total
    low, high = Accuracy.of(honest, total).interval
    assert low < 1 / 3 < high
    assert leaking / total > 0.9


@pytest.mark.parametrize("sizes", [(3, 3), (3, 4, 11), (12, 25), (5, 7, 6)])
def test_folds_split_every_architecture_evenly(sizes) -> None:
    runs = dp.RunSet(
        dp.Run({"el2n": [0.0]}, architecture=n, seed=s)
        for n, size in zip(NAMES, sizes, strict=False)
        for s in range(size)
    )
    groups = group_runs(runs, "el2n", 3)
    parts = min(10, *sizes)
    part = split_runs(groups, parts, seed=0)
    assert (part != split_runs(groups, parts, seed=1)).any()
    for g, size in enumerate(groups.sizes):
        counts = np.bincount(part[groups.members == g], minlength=parts)
        assert counts.min() == size // parts
        assert counts.max() == -(-size // parts)
        assert size - counts.max() >= 2  # what a test of the other runs takes


def test_every_run_is_held_out_once_from_choosing_and_learning() -> None:
    groups = group_runs(World(4, examples=20, sensitive=5).runs(each=5), "el2n", 3)
    learned = []

    def ranking(train):
        learned.append({(run.architecture, run.seed) for run in train.runs})
        return np.arange(20)

    recognise_held_out(groups, ranking, (2,), groups.known(), seed=0)
    everyone = {(run.architecture, run.seed) for run in groups.runs}
    held = [everyone - some for some in learned]
    assert sorted(run for some in held for run in some) == sorted(everyone)


# What is said, and files


def test_accuracy_has_wilsons_interval() -> None:
    accuracy = Accuracy.of(39, 40)
    z = 1.959963984540054
    centre, share = (39 + z**2 / 2) / (40 + z**2), 39 / 40
    half = z / (40 + z**2) * math.sqrt(40 * share * (1 - share) + z**2 / 4)
    assert accuracy.interval == pytest.approx((centre - half, centre + half))
    assert str(accuracy) == "39 of 40 (98%, 87% to 100%)"
    assert json.loads(json.dumps(accuracy.to_dict())) == {
        "value": 0.975,
        "interval": list(accuracy.interval),
        "correct": 39,
        "total": 40,
        "level": 0.95,
    }


def test_a_fingerprint_says_what_it_does(fingerprint) -> None:
    low, high = fingerprint.accuracy.interval
    expected = (
        f"10 examples tell cnn, mlp and vit apart by el2n: {fingerprint.accuracy.correct} of 24 held-out runs "
        f"recognised ({fingerprint.accuracy.value:.0%}, {low:.0%} to {high:.0%})."
    )
    assert str(fingerprint) == repr(fingerprint) == expected
    facts = json.loads(json.dumps(fingerprint.to_dict(), allow_nan=False))
    assert facts["examples"] == fingerprint.examples.tolist()
    assert facts["accuracy"]["total"] == 24


def test_a_saved_fingerprint_predicts_the_same(tmp_path: Path, world: World, fingerprint) -> None:
    fingerprint.save(tmp_path / "a.safetensors")
    loaded = ArchitectureFingerprint.load(tmp_path / "a.safetensors")
    for run in [world.run(name) for name in NAMES for _ in range(3)]:
        assert loaded.predict(run) == fingerprint.predict(run)
        assert loaded.predict_proba(run) == fingerprint.predict_proba(run)
    assert str(loaded) == str(fingerprint)
    assert loaded.to_dict() == fingerprint.to_dict()


def test_damaged_and_foreign_files_are_refused_by_name(tmp_path: Path, world: World, fingerprint) -> None:
    path = tmp_path / "a.safetensors"
    fingerprint.save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-9])
    with pytest.raises(ValueError, match=r"a\.safetensors: cut short"):
        ArchitectureFingerprint.load(path)
    world.run("cnn").save(path)
    with pytest.raises(ValueError, match=r"a\.safetensors: holds a run, expected a fingerprint"):
        ArchitectureFingerprint.load(path)
    path.write_bytes(whole.replace(b'\\"format\\": 1', b'\\"format\\": 9'))
    with pytest.raises(ValueError, match=r"a\.safetensors: format 9 is newer"):
        ArchitectureFingerprint.load(path)
    with pytest.raises(FileNotFoundError, match=r"b\.safetensors"):
        ArchitectureFingerprint.load(tmp_path / "b.safetensors")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda vectors, header: vectors.pop("mean"), "mean"),
        (lambda vectors, header: header.pop("limit"), "limit"),
        (lambda vectors, header: header["architectures"].pop(), r"coefficient: got float64 \(3, 10\)"),
        (lambda vectors, header: vectors.update(scale=vectors["scale"][:4]), r"scale: got float64 \(4,\)"),
        (lambda vectors, header: vectors.update(centre=vectors["centre"] * np.nan), "finite numbers"),
        (lambda vectors, header: header.update(num_examples=3), "expected positions below 3"),
        (lambda vectors, header: header["accuracy"].update(correct=99), "99"),
    ],
)
def test_a_file_that_does_not_fit_together_is_refused(tmp_path: Path, fingerprint, change, message: str) -> None:
    from difficulty_prune.support.files import load_vectors, save_vectors

    path = tmp_path / "a.safetensors"
    fingerprint.save(path)
    vectors, header = load_vectors(path, "fingerprint", 1)
    change(vectors, header)
    save_vectors(path, "fingerprint", 1, vectors, header)
    with pytest.raises(ValueError, match=rf"a\.safetensors: not a valid fingerprint file .*{message}|{message}.*"):
        ArchitectureFingerprint.load(path)


# What is refused


def test_runs_that_cannot_be_recognised_are_refused(world: World, fingerprint) -> None:
    with pytest.raises(TypeError, match="got RunSet, expected a Run"):
        fingerprint.predict(world.runs(each=1))
    with pytest.raises(ValueError, match="number of examples 2, expected 600"):
        fingerprint.predict(dp.Run({"el2n": [0, 1]}, architecture="cnn", seed=0))
    with pytest.raises(ValueError, match="has no score 'el2n', by which"):
        fingerprint.predict_proba(dp.Run({"aum": np.zeros(600)}, architecture="cnn", seed=0))
    holes = np.zeros(600)
    holes[fingerprint.examples[2:4]] = np.nan
    with pytest.raises(ValueError, match=f"2 of the fingerprint's 10 examples, the first is {fingerprint.examples[2]}"):
        fingerprint.predict(dp.Run({"el2n": holes}, architecture="cnn", seed=0))


def test_runs_of_other_data_are_refused_where_both_are_known(world: World) -> None:
    fingerprint = ArchitectureFingerprint.fit(world.runs(each=3, dataset_fingerprint="abc"), "el2n", 2)
    assert fingerprint.predict_proba(world.run("cnn"))
    assert fingerprint.predict_proba(world.run("cnn", dataset_fingerprint="abc"))
    with pytest.raises(ValueError, match="dataset_fingerprint xyz, expected abc"):
        fingerprint.predict(world.run("cnn", dataset_fingerprint="xyz"))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (dict(select="best"), ValueError, "select: got 'best', expected one of 'sensitive', 'random'"),
        (dict(examples=0), ValueError, "examples: got 0, expected 1 to 600"),
        (dict(examples=601), ValueError, "examples: got 601, expected 1 to 600"),
        (dict(examples=2.5), TypeError, "examples: got 2.5, expected a whole number"),
        (dict(examples=[0.5]), TypeError, "expected a number, or positions"),
        (dict(examples=[]), TypeError, "expected a number, or positions"),
        (dict(examples=[1, 1]), ValueError, "expected different positions from 0 to 599"),
        (dict(examples=[600]), ValueError, "expected different positions from 0 to 599"),
        (dict(score="aum"), ValueError, "has no score 'aum'"),
        (dict(seed=0.5), TypeError, "seed: got 0.5"),
    ],
)
def test_bad_arguments_of_fit_are_refused(world: World, arguments, error, message: str) -> None:
    with pytest.raises(error, match=message):
        ArchitectureFingerprint.fit(world.runs(each=3), **arguments)


def test_two_runs_of_an_architecture_are_too_few(world: World) -> None:
    with pytest.raises(ValueError, match="runs of 'cnn': got 2, expected at least 3"):
        ArchitectureFingerprint.fit(world.runs(each=2), "el2n")
