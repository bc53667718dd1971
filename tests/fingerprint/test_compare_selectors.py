"""Ways of choosing the examples of a fingerprint, compared on runs held out."""

from __future__ import annotations

import json

import numpy as np
import pytest
from worlds import World

import difficulty_prune as dp
from difficulty_prune.fingerprint.architecture_fingerprint import ArchitectureFingerprint
from difficulty_prune.fingerprint.compare_selectors import compare_selectors

pytestmark = pytest.mark.usefixtures("one_thread")


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
        (dict(select="random"), TypeError, "select: got 'random'"),
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
    with pytest.raises(ValueError, match=r"expected at least 3 of them: .* others choose the examples"):
        compare_selectors(world.runs(3, 2), "el2n", examples=[1], select=["random"], protocol="held-out architectures")
