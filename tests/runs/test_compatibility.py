"""Runs that do not mix: other data, other options, the same run twice."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from small_runs import GRADIENT, SIZE, make_run, scored

import difficulty_prune as dp


def test_no_runs_are_refused():
    with pytest.raises(ValueError, match="no runs"):
        dp.RunSet([])


def test_different_fingerprints_do_not_mix():
    with pytest.raises(ValueError, match="fingerprints, aaaa and bbbb"):
        dp.RunSet([make_run(fingerprint="aaaa"), make_run(seed=1, fingerprint="bbbb")])


def test_different_lengths_do_not_mix():
    with pytest.raises(ValueError, match="numbers of examples, 40 and 39"):
        dp.RunSet([make_run(), make_run(size=39)])


def test_different_labels_do_not_mix():
    labels = np.arange(SIZE) % 3
    other = labels.copy()
    other[:2] = 7
    with pytest.raises(ValueError, match="different labels for 2 examples"):
        dp.RunSet([make_run(labels=labels), make_run(seed=1, labels=other)])


def test_different_labels_do_not_mix_behind_a_run_without_labels():
    labels = np.arange(SIZE) % 3
    with pytest.raises(ValueError, match="different labels"):
        dp.RunSet([make_run(), make_run(seed=1, labels=labels), make_run(seed=2, labels=labels[::-1])])


def check_do_not_mix(runs, *reasons):
    """Neither in a set nor one after the other."""
    running = dp.RunningMean()
    for run in runs[:-1]:
        running.update(run)
    before = running.mean(running.scores[0])
    for mix in (lambda: dp.RunSet(runs), lambda: running.update(runs[-1])):
        with pytest.raises(ValueError, match=reasons[0]) as refusal:
            mix()
        for reason in reasons:
            assert re.search(reason, str(refusal.value))
    assert len(running) == len(runs) - 1
    np.testing.assert_array_equal(running.mean(running.scores[0]), before)


def test_different_options_do_not_mix():
    first = scored(0, options={"gradient": {**GRADIENT, "pixels": 256}})
    fields = {**GRADIENT, "m2_dtype": "bfloat16"}
    check_do_not_mix(
        [first, scored(1, options={"gradient": fields})],
        "options.gradient.pixels: 256 and None",
        "options.gradient.m2_dtype: 'float32' and 'bfloat16'",
        r"seed=0.* and .*seed=1.* computed 'vog' with different options",
    )


def test_different_temporal_options_do_not_mix():
    runs = [scored(w, ("tdds",), options={"temporal": {"window": w, "decay": 0.9}}) for w in (10, 5)]
    check_do_not_mix(runs, "'tdds'.* options.temporal.window: 10 and 5; ")


def test_different_options_do_not_mix_behind_runs_that_say_nothing():
    options = [None, {}, {"gradient": GRADIENT}, {"gradient": {**GRADIENT, "every": 2}}]
    runs = [scored(s, **({} if o is None else {"options": o})) for s, o in enumerate(options)]
    check_do_not_mix(runs, r"seed=2.*seed=3.*options\.gradient\.every: 1 and 2")


def test_scores_of_predicted_labels_do_not_mix_with_those_of_true_ones():
    runs = [scored(0, ("loss",), options={}), scored(1, ("loss",), options={"label": "predicted"})]
    check_do_not_mix(runs, "'loss'.*options.label: None and 'predicted'")


def test_different_layers_of_an_architecture_do_not_mix():
    runs = [scored(s, ("prediction_depth",), layers=["stem", f"block{s}"]) for s in range(2)]
    check_do_not_mix(runs, r"layers of cnn: \['stem', 'block0'\] and \['stem', 'block1'\]")


def test_options_that_concern_no_score_of_both_runs_may_differ():
    other = {**GRADIENT, "pixels": 64}
    assert len(
        dp.RunSet([scored(0, options={"gradient": GRADIENT}), scored(1, ("el2n",), options={"gradient": other})])
    )
    assert len(
        dp.RunSet([scored(0, options={"gradient": GRADIENT}), scored(1, ("vog_loss",), options={"gradient": other})])
    )
    assert len(dp.RunSet([scored(0, options={"gradient": GRADIENT}), scored(1, options="those of my own")]))
    assert len(dp.RunSet(scored(s, options={"lr": 0.1 * s}) for s in range(2)))
    depths = [scored(s, ("prediction_depth",), architecture=str(s), layers=[f"block{s}"]) for s in range(2)]
    assert len(dp.RunSet(depths))
    assert len(dp.RunSet(scored(s, layers=[f"block{s}"]) for s in range(2)))


def test_trackers_with_different_options_give_runs_that_do_not_mix():
    def run(seed, pixels):
        tracker = dp.DifficultyTracker(4, scores=("vog", "el2n"), gradient=dp.GradientOptions(pixels=pixels))
        generator = torch.Generator().manual_seed(seed)
        for _ in range(2):
            x = torch.rand(4, 3, 4, 4, generator=generator, requires_grad=True)
            tracker.update(torch.arange(4), x.flatten(1)[:, :3] ** 2, torch.tensor([0, 1, 2, 0]), inputs=x)
        return tracker.finish(architecture="mlp", seed=seed)

    assert len(dp.RunSet([run(0, 8), run(1, 8)])) == 2
    check_do_not_mix([run(0, 8), run(1, None)], "options.gradient.pixels: 8 and None")


@pytest.mark.parametrize("missing", [(), (2, 3), range(SIZE)], ids=["all", "holes", "none"])
def test_a_run_and_its_copy_do_not_mix(tmp_path, missing):
    run = make_run(seed=3, missing=missing)
    check_do_not_mix([make_run(seed=2), run, make_run(seed=3, missing=missing, note="copied")], r"seed=3.*once")
    for name in "ab":
        run.save(tmp_path / f"{name}.safetensors")
    with pytest.raises(ValueError, match=r"runs 0 and 1 are the same.*a\.safetensors and .*b\.safetensors") as refusal:
        dp.RunSet.load(tmp_path)
    assert "same architecture, seed and scores. A copy always agrees with its original" in str(refusal.value)
    more = run.with_scores({"loss": np.zeros(SIZE)})
    with pytest.raises(ValueError, match="runs 0 and 1 are the same"):
        dp.RunSet([run, more])


@pytest.mark.filterwarnings("ignore:nothing shows that these")
def test_equal_scores_of_another_seed_or_architecture_or_other_scores_of_the_same_are_no_copies():
    values = np.zeros(SIZE)
    runs = [dp.Run({"loss": values}, architecture=a, seed=s) for a, s in (("a", 0), ("b", 0), ("a", 1))]
    runs.append(dp.Run({"loss": values + 1}, architecture="a", seed=0))
    runs.append(dp.Run({"loss": values, "aum": values}, architecture="c", seed=0))
    runs.append(dp.Run({"loss": values, "aum": values + 1}, architecture="c", seed=0))
    assert len(dp.RunSet(runs)) == 6
    running = dp.RunningMean(["loss"])
    for run in runs[:4]:
        running.update(run)
    assert len(running) == 4
