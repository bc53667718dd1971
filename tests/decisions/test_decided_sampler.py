"""What people decided, in the plans of a sampler."""

from __future__ import annotations

import pickle
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

import difficulty_prune as dp
from difficulty_prune.policies import Hardest, Random, SoftPrune

LABELS = [0, 1] * 6
IDS = [f"{i}.png" for i in range(12)]
DIFFICULTY = torch.arange(12.0)


def data(decisions: dp.Decisions | None = None, ids: list[str] = IDS) -> dp.IndexedDataset:
    return dp.IndexedDataset([(name, label) for name, label in zip(ids, LABELS, strict=False)], ids=ids, key=0,
                             decisions=decisions)  # fmt: skip


def decided(*rows: tuple[str, str]) -> dp.Decisions:
    return dp.Decisions({"id": name, "decision": word} for name, word in rows)


def test_the_policy_plans_what_decisions_leave() -> None:
    decisions = decided(("11.png", "drop"), ("10.png", "wrong"), ("9.png", "keep"), ("8.png", "unsure"))
    sampler = dp.PruneSampler(Hardest(keep=0.5), DIFFICULTY, dataset=data(), decisions=decisions, seed=0)
    assert sampler.plan.index.tolist() == [5, 6, 7, 8, 9]  # half of the ten that stay
    summary = sampler.plan.summary()
    assert summary["decisions"] == {"left": 2, "relabelled": 0, "weighted": 0, "missing": 0}
    assert summary["examples"] == 12


def test_weights_are_multiplied() -> None:
    decisions = dp.Decisions([{"id": "3.png", "decision": "keep", "weight": 0.25}, {"id": "4.png", "decision": "drop"}])
    sampler = dp.PruneSampler(
        dp.Plan(torch.tensor([3, 4, 5]), torch.tensor([2.0, 1.0, 3.0])), DIFFICULTY, dataset=data(), decisions=decisions
    )
    assert sampler.plan.index.tolist() == [3, 5]
    assert sampler.plan.weight.tolist() == [0.5, 3.0]


def test_what_leaves_needs_no_difficulty() -> None:
    values = DIFFICULTY.clone()
    values[4] = torch.nan
    sampler = dp.PruneSampler(Hardest(0.5), values, dataset=data(), decisions=decided(("4.png", "drop")))
    assert 4 not in sampler.plan.index
    with pytest.raises(ValueError, match="1 of 11 examples are NaN"):
        dp.PruneSampler(Hardest(0.5), values, dataset=data(), decisions=decided(("5.png", "drop")))


def test_plans_of_difficulty_that_is_being_measured_leave_it_out_in_every_epoch() -> None:
    decisions = decided(("11.png", "drop"), ("0.png", "drop"))
    values = {"now": DIFFICULTY}
    sampler = dp.PruneSampler(SoftPrune(0.5), lambda: values["now"], dataset=data(), decisions=decisions, seed=3)
    for epoch in range(6):
        values["now"] = torch.rand(12, generator=torch.Generator().manual_seed(epoch))
        sampler.set_epoch(epoch)
        assert not {0, 11} & set(sampler)
        assert sampler.plan.summary()["decisions"]["left"] == 2
        again = pickle.loads(pickle.dumps(dp.PruneSampler(Random(0.5), DIFFICULTY, decisions=None)))  # noqa: S301
        assert len(again) == 6


def test_a_state_goes_on_with_the_same_plan() -> None:
    decisions = decided(("11.png", "drop"))
    make = {"dataset": data(), "seed": 1}
    sampler = dp.PruneSampler(Hardest(0.5), DIFFICULTY, decisions=decisions, **make)
    state = sampler.state_dict()
    dp.PruneSampler(Hardest(0.5), DIFFICULTY, decisions=decisions, **make).load_state_dict(state)
    with pytest.raises(ValueError, match="another plan"):
        dp.PruneSampler(Hardest(0.5), DIFFICULTY, **make).load_state_dict(state)


def test_decisions_by_index_need_no_dataset() -> None:
    decisions = dp.Decisions([{"index": 11, "decision": "drop"}])
    assert 11 not in dp.PruneSampler(Hardest(0.5), DIFFICULTY, decisions=decisions).plan.index
    with pytest.raises(ValueError, match=r"names its example by the id 'x.png', but the data has no ids"):
        dp.PruneSampler(Hardest(0.5), DIFFICULTY, decisions=decided(("x.png", "drop")))


def test_bad_input() -> None:
    with pytest.raises(TypeError, match=r"decisions: got 'd.csv', expected dp.Decisions"):
        dp.PruneSampler(Hardest(0.5), DIFFICULTY, dataset=data(), decisions="d.csv")
    with pytest.raises(ValueError, match="the only decision is of an id that the data lacks"):
        dp.PruneSampler(Hardest(0.5), DIFFICULTY, dataset=data(), decisions=decided(("x.png", "drop")))
    with pytest.raises(ValueError, match="no example of the plan is left"):
        dp.PruneSampler(Hardest(0.5), DIFFICULTY, dataset=data(), decisions=decided(*((name, "drop") for name in IDS)))
    with pytest.raises(ValueError, match="none of its 1 examples is among the 11 of the plan"):
        dp.PruneSampler(
            dp.Plan(torch.tensor([3]), torch.ones(1)), DIFFICULTY, dataset=data(), decisions=decided(("3.png", "drop"))
        )
    with pytest.warns(UserWarning, match=r"1 is of an id that it lacks: 'gone.png'"):
        dp.PruneSampler(
            Hardest(0.5), DIFFICULTY, dataset=data(), decisions=decided(("gone.png", "drop"), ("3.png", "keep"))
        )


def test_a_plan_that_knows_ids_and_a_dataset_that_does_not() -> None:
    plan = Hardest(0.5)(DIFFICULTY).with_ids(IDS)
    with pytest.warns(UserWarning, match="plan: it knows the ids of its data, but the dataset does not"):
        dp.PruneSampler(plan, DIFFICULTY, dataset=dp.IndexedDataset(list(zip(IDS, LABELS, strict=True)), key=0))
    within = dp.policies.within(plan, Hardest(0.5), DIFFICULTY)
    assert within.ids_digest == dp.policies.within(plan, within, DIFFICULTY).ids_digest == plan.ids_digest
    with pytest.raises(ValueError, match="a plan of other data than that of the plan"):
        dp.policies.within(plan, within.with_ids(IDS[::-1]), DIFFICULTY)


def test_labels_that_the_dataset_does_not_correct_are_said() -> None:
    decisions = dp.Decisions([{"id": "3.png", "decision": "wrong", "label": 0}])
    with pytest.warns(UserWarning, match="1 label is corrected, but the dataset serves it as it was"):
        dp.PruneSampler(Hardest(0.5), DIFFICULTY, dataset=data(), decisions=decisions)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        dp.PruneSampler(Hardest(0.5), DIFFICULTY, dataset=data(decisions), decisions=decisions)


WORDS = ("keep", "wrong", "wrong, corrected", "drop", "unsure")


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_training_sees_just_what_was_decided_on_data_that_changed(draw: st.DataObject) -> None:
    """Scores, decisions, files added, removed and put in another order, a plan, a pass over the data."""
    old = [f"{name}.png" for name in "abcdefgh"]
    label_of = {name: draw.draw(st.integers(0, 1), name) for name in [*old, "new 1", "new 2"]}
    words = draw.draw(st.dictionaries(st.sampled_from(old), st.sampled_from(WORDS), min_size=1), "decisions")
    weights = {name: draw.draw(st.sampled_from([0.5, 1.0, 2.0]), "weight") for name in words}
    today = draw.draw(st.permutations([*old, "new 1", "new 2"]), "order")
    today = today[: draw.draw(st.integers(3, len(today)), "size")]
    rows = [
        {"id": name, "decision": word.split(",")[0], "weight": weights[name]}
        | ({"label": 1 - label_of[name]} if word == "wrong, corrected" else {})
        for name, word in words.items()
    ]
    decisions = dp.Decisions(rows)
    stay = [n for n in today if words.get(n) not in ("wrong", "drop")]
    if not stay or not set(today) & set(words) or not set(today) & set(old):
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of what vanished and is new, which other tests look at
        train = dp.IndexedDataset([(n, label_of[n]) for n in today], key=0, ids=today, decisions=decisions)
        sampler = dp.PruneSampler(
            Hardest(1.0, unseen="keep"), np.arange(8.0), ids=old,
            dataset=train, decisions=decisions, seed=0,
        )  # fmt: skip
    seen = {}
    for names, labels, index in DataLoader(train, batch_size=3, sampler=sampler):
        seen |= {
            name: (int(label), float(weight))
            for name, label, weight in zip(names, labels, sampler.weight(index), strict=True)
        }
    corrected = {n: 1 - label_of[n] if words.get(n) == "wrong, corrected" else label_of[n] for n in stay}
    assert seen == {n: (corrected[n], weights.get(n, 1.0)) for n in stay}
