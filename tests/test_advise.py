"""`dp.advise`: each rule chooses what it says, and quotes what was measured."""

from __future__ import annotations

import json

import numpy as np
import pytest
from places import ROOT

import difficulty_prune as dp
from difficulty_prune import advise as advise_function
from difficulty_prune.policies import Random, Stratified, WithoutWrong

MEASURED = json.loads((ROOT / "benchmarks/results/advice.json").read_text())
PHOTOGRAPHS = json.loads((ROOT / "benchmarks/results/prune.json").read_text())


def make_runs(wrong, size=1000, classes=5, runs=3, noise=0.05, seed=0):
    """Runs whose margins are negative for so many examples."""
    rng = np.random.default_rng(seed)
    labels = np.arange(size) % classes
    hard = rng.uniform(0.2, 0.9, size)
    hard[rng.permutation(size)[: round(wrong * size)]] *= -1
    return dp.RunSet(
        dp.Run(
            {"margin": np.clip(hard + noise * rng.normal(size=size), -1, 1)}, architecture="mlp", seed=s, labels=labels
        )
        for s in range(runs)
    )


@pytest.mark.parametrize("keep", [0.25, 0.5, 0.8])
@pytest.mark.parametrize("wrong", [0.06, 0.2, 0.4])
def test_wrong_labels_are_left_out_as_far_as_there_is_room(wrong, keep):
    runs = make_runs(wrong)
    advice = dp.advise(runs, keep)
    assert isinstance(advice.policy, WithoutWrong)
    assert advice.wrong == pytest.approx(wrong, abs=0.01)
    assert f"{round(advice.wrong * 1000):,} of 1,000 labels are likely wrong" in advice.words
    plan = advice.policy(runs.difficulty("margin"), runs.labels)
    assert len(plan) == 1000 * keep
    hardest = np.argsort(-runs.difficulty("margin"))[: min(round(advice.wrong * 1000), round(1000 * (1 - keep)))]
    assert not set(plan.index.tolist()) & set(hardest.tolist())
    assert ("there is room" in advice.words) == (round(advice.wrong * 1000) > 1000 - 1000 * keep)


@pytest.mark.parametrize(
    ("keep", "options", "policy", "says"),
    [
        (0.5, {}, Stratified(0.5), "1.7 to 1.8 points better than chance"),
        (0.8, {}, Random(0.8), "nothing was seen to beat chance at 80 %"),
        (0.3, {}, Random(0.3), "nothing was measured below 50 %"),
        (0.5, {"classes": 20}, Random(0.5), "25 of the smallest class would be left"),
        (1.0, {}, Random(1.0), "nothing is to be left out"),
        (0.5, {"runs": 1}, Stratified(0.5), "is not known of one run"),
    ],
)
def test_of_right_labels(keep, options, policy, says):
    advice = dp.advise(make_runs(0.0, **options), keep)
    assert advice.policy == policy
    assert says in advice.words
    assert advice.words == str(advice)
    assert "dp.compare" in advice.words


def test_a_ranking_that_does_not_repeat_is_chance():
    rng = np.random.default_rng(0)
    runs = dp.RunSet(
        dp.Run({"margin": rng.uniform(-0.9, 0.9, 400)}, architecture="mlp", seed=s, labels=np.arange(400) % 2)
        for s in range(3)
    )
    advice = dp.advise(runs, 0.5)
    assert advice.policy == Random(0.5)
    assert "chance itself" in advice.words


@pytest.mark.parametrize("runs", [1, 2])
def test_a_ranking_of_examples_that_are_all_alike_is_none(runs):
    margin = 0.8 + np.linspace(0, 0.1, 400)
    facts = dict(architecture="mlp", labels=np.arange(400) % 2)
    found = dp.RunSet(
        dp.Run({"margin": margin + 0.001 * seed * margin**2, "forgetting": np.zeros(400)}, seed=seed, **facts)
        for seed in range(runs)
    )
    assert isinstance(dp.advise(found, 0.5).policy, Stratified)
    advice = dp.advise(found, 0.5, score="forgetting")
    assert advice.policy == Random(0.5)
    assert "all examples have the same score" in advice.words
    assert f"is not known of {'one run' if runs == 1 else 'these 2 runs'}." in advice.words


def test_a_class_of_suspects_only_is_not_left_out():
    margin = np.full(400, 0.8) + np.linspace(0, 0.1, 400)
    labels = np.arange(400) % 10
    margin[labels == 3] = -0.8 + np.linspace(0, 0.1, 40)
    labels_of_two = np.where(labels == 3, 1, 0)
    run = dp.Run({"margin": margin}, architecture="mlp", seed=0, labels=labels_of_two)
    advice = dp.advise(run, 0.5)
    assert advice.policy == Random(0.5)
    assert "all examples of a class" in advice.words


def test_an_estimate_that_says_little_is_not_followed():
    run = dp.Run({"margin": -np.linspace(0.5, 0.9, 100)}, architecture="mlp", seed=0, labels=np.arange(100) % 2)
    advice = dp.advise(run, 0.5)
    assert (advice.policy, advice.wrong) == (Random(0.5), None)
    assert "cannot be estimated" in advice.words


def test_it_can_be_written():
    advice = dp.advise(make_runs(0.2), 0.5)
    kept = json.loads(json.dumps(advice.to_dict(), allow_nan=False))
    assert kept["policy"] == "WithoutWrong(Random(keep=0.5), wrong=200 examples)"
    assert kept["per_class"] == 100


def test_a_plan_follows_from_it():
    runs = make_runs(0.2)
    advice = dp.advise(runs, 0.6)
    sampler = dp.PruneSampler(advice.policy, runs.difficulty(advice.score), labels=runs.labels)
    assert len(sampler) == 600


@pytest.mark.parametrize(
    ("keep", "options", "error", "says"),
    [
        (1.5, {}, ValueError, "keep: got 1.5"),
        (0.5, {"score": "el2n"}, ValueError, "el2n"),
        (0.5, {"score": "bogus"}, ValueError, "there is no score 'bogus'"),
        (0.5, {"labels": [0]}, ValueError, "labels"),
    ],
)
def test_what_cannot_work_is_refused(keep, options, error, says):
    runs = make_runs(0.1)
    for given in (runs, runs[0]):  # of one run no reliability asks for the score
        with pytest.raises(error, match=says):
            dp.advise(given, keep, **options)


def points(share, arm):
    """What the committed study found: points over chance, lowest and highest end, and the word."""
    (row,) = (row for row in MEASURED["rows"] if row["wrong"] == share)
    return row["against"][arm]["chance"]


def test_what_the_rules_quote_was_measured():
    """The numbers in `advise`, and in its words."""
    text = advise_function.__doc__ or ""
    leaving = [points(share, f"without wrong {keep}") for share in (0.05, 0.1, 0.2, 0.4) for keep in ("50%", "80%")]
    assert all(found["word"] == "better" for found in leaving)
    lowest, highest = (f"{end(found['points'] for found in leaving):.1f}" for end in (min, max))
    assert f"by {lowest} to {highest} points" in text
    for share, said in ((0.05, "0.9 to 1.7"), (0.1, "1.7 to 3.3"), (0.2, "4.5 to 6.6"), (0.4, "6.3 to 13.8")):
        found = sorted(points(share, f"without wrong {keep}")["points"] for keep in ("50%", "80%"))
        assert " to ".join(f"{value:.1f}" for value in found) == said
        assert said in dp.advise(make_runs(share), 0.5).words
    strata = [points(share, "stratified 50%") for share in (0.0, 0.02)]
    assert [f"{found['points']:.1f} {found['word']}" for found in strata] == ["1.7 better", "1.8 better"]
    worst = min(found["hardest 50%"]["chance"]["points"] for found in (row["against"] for row in MEASURED["rows"]))
    assert f"up to {-worst:.0f} points" in text
    for share in (0.0, 0.02):
        assert not any(points(share, f"{arm} 80%")["word"] == "better" for arm in ("hardest", "stratified", "soft"))


def test_what_is_quoted_of_photographs_was_measured():
    (block,) = (
        block
        for block in PHOTOGRAPHS["blocks"]
        if (block["labels"], block["keep"], block["equal"], block["score"]) == ("first", 0.5, "epochs", "el2n")
    )
    rows = {name: row for row in block["rows"] for name in row["names"]}
    chance, all_data = (rows["without wrong"]["against"][kind] for kind in ("chance", "all"))
    hardest = rows["hardest"]["against"]["chance"]
    assert [found["word"] for found in (chance, all_data, hardest)] == ["better", "worse", "worse"]
    assert rows["all data"]["presentations"] == 2 * rows["without wrong"]["presentations"]
    gain, loss, ruin = (f"{abs(found['points']):.1f}" for found in (chance, all_data, hardest))
    words, text = dp.advise(make_runs(0.2), 0.5).words, " ".join((advise_function.__doc__ or "").split())
    assert f"{gain} points better than a random half, and {loss} worse than all data in twice the steps" in words
    assert f"{100 * block['wrong']:.0f} % of them wrong" in words
    assert f"by {gain} on a half" in text
    assert f"better by another {loss}, and the hardest half was {ruin} worse than chance" in text


def test_what_is_said_of_photographs_with_clean_labels_is_what_was_measured():
    clean = {
        block["keep"]: {name: row["against"] for row in block["rows"] for name in row["names"]}
        for block in PHOTOGRAPHS["blocks"]
        if (block["labels"], block["equal"], block["runs"], block["score"]) == ("clean", "epochs", 2, "el2n")
    }
    found = {keep: rows["without wrong"]["chance"] for keep, rows in clean.items()}
    assert [found[keep]["word"] for keep in (0.1, 0.3)] == ["no difference seen", "better"]
    assert f"30 % so chosen were {found[0.3]['points']:.1f} points better" in dp.advise(make_runs(0.2), 0.3).words
    assert {rows["stratified"]["chance"]["word"] for rows in clean.values()} == {"no difference seen"}
    assert "on photographs no difference was seen" in dp.advise(make_runs(0.0), 0.5).words
    little = [block for block in PHOTOGRAPHS["blocks"] if block["labels"] == "clean" and block["keep"] < 0.5]
    rows = [row for block in little for row in block["rows"] if {"hardest", "stratified"} & set(row["names"])]
    assert len(rows) == 8
    assert "better" not in {row["against"]["chance"]["word"] for row in rows}
    words = dp.advise(make_runs(0.0), 0.3).words
    assert "neither the hardest nor strata were seen to beat a random 10 or 30 %" in words
    drawn = {
        block["keep"]: row["against"]["chance"]
        for block in little
        for row in block["rows"]
        if "Beta-sampled by dual" in row["names"]
    }
    assert {found["word"] for found in drawn.values()} == {"better"}
    assert "by {:.1f} and {:.1f} points".format(*(drawn[keep]["points"] for keep in (0.1, 0.3))) in words
