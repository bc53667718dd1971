"""Fingerprints of architectures on simulated runs, in which it is known what tells them apart."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

import difficulty_prune as dp
from difficulty_prune.fingerprint.accuracy import Accuracy
from difficulty_prune.fingerprint.architecture_fingerprint import ArchitectureFingerprint
from difficulty_prune.fingerprint.classifier import Classifier
from difficulty_prune.fingerprint.compare_selectors import compare_selectors
from difficulty_prune.fingerprint.groups import group_runs
from difficulty_prune.fingerprint.held_out import always, recognise_held_out, split_runs
from difficulty_prune.fingerprint.selection import rank_examples

pytestmark = pytest.mark.usefixtures("one_thread")

NAMES = ("cnn", "mlp", "vit", "resnet", "lstm")


class World:
    """Examples of which the first `sensitive` differ between architectures; runs add noise of their own.

    Of five architectures each has its own mean at a sensitive example; at the others all have the same.
    """

    def __init__(self, seed: int, examples: int, sensitive: int, effect: float = 1.5) -> None:
        self.generator = np.random.default_rng(seed)
        self.base = self.generator.normal(2.0, 1.0, examples)
        moved = np.arange(examples) < sensitive
        self.moves = [effect * moved * self.generator.normal(size=examples) for _ in NAMES]

    def run(self, name: str, seed: int = 0, **metadata) -> dp.Run:
        noise = self.generator.normal(size=len(self.base))
        scores = self.base + self.moves[NAMES.index(name)] + 0.5 * noise
        return dp.Run({"el2n": scores}, architecture=name, seed=seed, **metadata)

    def runs(self, each: int, architectures: int = 3, **metadata) -> dp.RunSet:
        return dp.RunSet(self.run(n, s, **metadata) for n in NAMES[:architectures] for s in range(each))


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
    with pytest.raises(ValueError, match="a run did not present 4; choose others"):
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
        (lambda vectors, header: header["architectures"].pop(), r"coefficient: got \(3, 10\)"),
        (lambda vectors, header: vectors.update(scale=vectors["scale"][:4]), r"scale: got \(4,\)"),
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
    with pytest.raises(ValueError, match="dataset fingerprint xyz, expected abc"):
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


# Rankings


def test_hardest_follows_the_direction_of_the_score() -> None:
    scores = np.array([0.3, 0.9, 0.1])
    for name, expected in (("el2n", [1, 0, 2]), ("aum", [2, 0, 1])):
        runs = dp.RunSet(dp.Run({name: scores}, architecture=a, seed=s) for a in "ab" for s in range(2))
        assert rank_examples(group_runs(runs, name, 2), "hardest", 0).tolist() == expected


def test_pca_is_the_share_of_variance_in_the_first_components_of_the_svd() -> None:
    groups = group_runs(World(5, examples=50, sensitive=10).runs(each=4), "el2n", 2)
    x = groups.runs.matrix("el2n")
    left, _, _ = np.linalg.svd(x - x.mean(0), full_matrices=False)
    parts = (left[:, :2].T @ (x - x.mean(0))) ** 2
    share = parts.sum(0) / ((x - x.mean(0)) ** 2).sum(0)
    assert rank_examples(groups, "pca", 0).tolist() == np.argsort(-share).tolist()
    assert set(rank_examples(groups, "pca", 0)[:8]) <= set(range(10))


@pytest.mark.parametrize("select", ["sensitive", "random", "hardest", "pca"])
def test_every_ranking_holds_each_example_that_all_runs_presented_once(select) -> None:
    x = np.random.default_rng(6).normal(size=(6, 30))
    x[2, 4] = x[3, 7] = np.nan
    x[:, 9] = 1.0
    runs = dp.RunSet(dp.Run({"el2n": row}, architecture="ab"[i % 2], seed=i) for i, row in enumerate(x))
    ranked = rank_examples(group_runs(runs, "el2n", 2), select, 0)
    assert ranked.dtype == np.int64
    assert sorted(ranked) == [i for i in range(30) if i not in (4, 7)]


# The comparison


def test_sensitive_examples_recognise_held_out_runs_better_than_random_ones() -> None:
    runs = World(7, examples=1000, sensitive=20, effect=2.0).runs(each=6, architectures=4)
    found = compare_selectors(runs, "el2n", examples=(1, 10, 100))
    rows = {(row.select, row.examples): row for row in found.rows}
    assert len(rows) == len(found.rows) == 12
    assert rows["sensitive", 10].accuracy > 0.95
    assert rows["pca", 10].accuracy > 0.95
    assert rows["random", 10].accuracy < 0.7
    assert rows["sensitive", 10].clustering > 0.9
    assert rows["random", 10].clustering < 0.8
    assert rows["hardest", 10].accuracy < rows["sensitive", 10].accuracy
    assert (found.answers, found.chance) == (24, 0.25)
    fitted = ArchitectureFingerprint.fit(runs, "el2n", 10).accuracy
    assert (rows["sensitive", 10].accuracy, rows["sensitive", 10].interval) == (fitted.value, fitted.interval)


def test_examples_of_other_architectures_tell_a_pair_apart() -> None:
    runs = World(8, examples=1000, sensitive=40, effect=2.0).runs(each=5, architectures=5)
    found = compare_selectors(
        runs, "el2n", examples=[10], select=["sensitive", "random"], protocol="held-out architectures"
    )
    sensitive, random = found.rows
    assert (sensitive.select, random.select) == ("sensitive", "random")
    assert sensitive.accuracy > 0.95 > 0.8 > random.accuracy
    assert sensitive.clustering > 0.95 > 0.85 > random.clustering
    assert (found.answers, found.chance) == (100, 0.5)


def test_without_any_difference_no_way_is_better_than_chance() -> None:
    correct = {}
    for seed in range(3):
        runs = World(seed, examples=300, sensitive=0).runs(each=5, architectures=4)
        for protocol in ("held-out runs", "held-out architectures"):
            found = compare_selectors(
                runs, "el2n", examples=[10], select=["sensitive", "pca"], protocol=protocol, seed=seed
            )
            for row in found.rows:
                correct.setdefault((protocol, row.select), []).append(row.accuracy - found.chance)
    for differences in correct.values():
        assert abs(np.mean(differences)) < 0.17


def test_chance_is_the_largest_architecture() -> None:
    world = World(9, examples=40, sensitive=5)
    runs = dp.RunSet([*world.runs(each=4), *(world.run("cnn", seed) for seed in range(4, 8))])
    found = compare_selectors(runs, "el2n", examples=[2], select=["random"])
    assert (found.answers, found.chance) == (16, 0.5)
    pairs = compare_selectors(runs, "el2n", examples=[2], select=["random"], protocol="held-out architectures")
    assert (pairs.answers, pairs.chance) == (12 + 12 + 8, (8 + 8 + 4) / 32)


def test_scores_with_fewer_values_than_architectures_are_clustered() -> None:
    runs = dp.RunSet(dp.Run({"forgetting": [1.0, a == "b"]}, architecture=a, seed=s) for a in "abc" for s in range(4))
    found = compare_selectors(runs, "forgetting", examples=[1, 2], select=["sensitive", "hardest"])
    assert [row.clustering for row in found.rows] == pytest.approx([2 / 3, 2 / 3, 1 / 3, 2 / 3])


def test_the_comparison_is_a_table_json_and_a_figure() -> None:
    runs = World(10, examples=200, sensitive=20).runs(each=4)
    found = compare_selectors(runs, "el2n", examples=(1, 10), select=("sensitive", "random"))
    head, columns, *lines = str(found).splitlines()
    assert head.startswith("cnn, mlp and vit are told apart best by ")
    assert columns.split() == ["chosen", "examples", "accuracy", "95%", "interval", "k-means"]
    assert [line.split()[:2] for line in lines] == [
        ["sensitive", "1"],
        ["sensitive", "10"],
        ["random", "1"],
        ["random", "10"],
    ]
    assert len({len(line) for line in (columns, *lines)}) == 1
    facts = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert [row["accuracy"] for row in facts["rows"]] == [row.accuracy for row in found.rows]
    ax = dp.plots.fingerprint_accuracy(found)
    assert ax.get_xscale() == "log"
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["chance", "sensitive", "random"]
    assert next(line for line in ax.get_lines() if line.get_label() == "chance").get_ydata()[0] == found.chance


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (dict(examples=[1, 201]), ValueError, "examples: got 201, expected 1 to 200"),
        (dict(examples=[]), ValueError, "0 numbers of examples, expected one or more"),
        (dict(select=[]), ValueError, "got 0 ways"),
        (dict(select="random"), TypeError, "select: got the string 'random'"),
        (dict(select=["best"]), ValueError, "select: got 'best'"),
        (dict(protocol="loo"), ValueError, "protocol: got 'loo', expected one of 'held-out runs'"),
        (dict(protocol="held-out architectures"), ValueError, "expected at least 4 of them: .*'sensitive' chooses"),
        (dict(score="aum"), ValueError, "has no score 'aum'"),
    ],
)
def test_bad_arguments_of_the_comparison_are_refused(arguments, error, message: str) -> None:
    runs = World(11, examples=200, sensitive=20).runs(each=4)
    with pytest.raises(error, match=message):
        compare_selectors(runs, **{"score": "el2n", "examples": [1], **arguments})


def test_the_comparison_takes_as_many_runs_as_two_halves_need() -> None:
    world = World(12, examples=30, sensitive=5)
    with pytest.raises(ValueError, match="runs of 'cnn': got 3, expected at least 4"):
        compare_selectors(world.runs(each=3), "el2n", examples=[1])
    three = compare_selectors(
        world.runs(each=3), "el2n", examples=[1], select=["random"], protocol="held-out architectures"
    )
    assert three.answers == 18
    with pytest.raises(ValueError, match=r"expected at least 3 of them: .* chosen from others"):
        compare_selectors(world.runs(3, 2), "el2n", examples=[1], select=["random"], protocol="held-out architectures")
