"""Corrected labels where models train on them, and where runs are averaged."""

from __future__ import annotations

import pickle
import warnings
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader, Subset, TensorDataset

import difficulty_prune as dp
from difficulty_prune.data import dataset_labels

Pair = namedtuple("Pair", "x label")


def decisions(*rows: tuple) -> dp.Decisions:
    return dp.Decisions(
        {"id" if isinstance(name, str) else "index": name, "decision": "wrong", "label": label} for name, label in rows
    )


@pytest.mark.parametrize(
    ("sample", "corrected"),
    [
        (("x", 0), ("x", 2, 1)),
        (["x", 0, "y"], ["x", 2, "y", 1]),
        (Pair("x", 0), ("x", 2, 1)),
        ({"x": "x", "label": 0}, {"x": "x", "label": 2, "index": 1}),
        ({"x": "x", "labels": np.int32(0)}, {"x": "x", "labels": 2, "index": 1}),
        (("x", torch.tensor(0)), ("x", torch.tensor(2), 1)),
    ],
)
def test_a_corrected_label_is_served_in_the_place_and_type_of_the_other(sample, corrected) -> None:
    data = dp.IndexedDataset([sample, sample], decisions=decisions((1, 2)))
    found, before = data[1], data[0]
    assert found == corrected
    assert type(found) is type(before)
    kinds = [type(v) for v in (found.values() if isinstance(found, dict) else found)]
    assert kinds == [type(v) for v in (before.values() if isinstance(before, dict) else before)]
    assert sample in (("x", 0), ["x", 0, "y"], Pair("x", 0), ("x", torch.tensor(0))) or 0 in sample.values()


@pytest.mark.parametrize("workers", [0, 2])
def test_loaders_labels_and_trackers_see_it(workers: int) -> None:
    labels = torch.zeros(6, dtype=torch.int64)
    data = dp.IndexedDataset(TensorDataset(torch.randn(6, 3), labels), decisions=decisions((4, 2), (1, 1)))
    seen = {}
    for _, y, index in DataLoader(data, batch_size=4, num_workers=workers):
        seen |= dict(zip(index.tolist(), y.tolist(), strict=True))
    assert [seen[i] for i in range(6)] == [0, 1, 0, 0, 2, 0]
    assert data.labels.tolist() == dataset_labels(data).tolist() == [0, 1, 0, 0, 2, 0]
    assert data[[3, 4]][1].tolist() == [0, 2]
    assert labels.tolist() == [0] * 6
    assert dataset_labels(Subset(data, [4, 0])).tolist() == [2, 0]
    assert pickle.loads(pickle.dumps(data))[4][1] == 2  # noqa: S301 - written one call earlier
    plain = dp.IndexedDataset(data.dataset)
    assert dp.dataset_fingerprint(data) == dp.dataset_fingerprint(plain), "the data are the same, the labels not"


def test_ids_that_samples_bring() -> None:
    samples = [{"name": n, "label": 0} for n in "abc"]
    data = dp.IndexedDataset(samples, key="name", decisions=decisions(("b", 1), ("gone", 1)))
    with pytest.warns(UserWarning, match="decisions: 1 of 2 decisions is of examples of this data .*: 'gone'"):
        data.collect_ids()
    assert [data[i]["label"] for i in range(3)] == [0, 1, 0]


def test_labels_that_cannot_be_corrected_are_refused() -> None:
    for sample, message in (
        (("x", [0, 1]), "the label of example 0 is to be corrected to 1, but it is list"),
        (("x", torch.tensor([0.5])), "but it is Tensor"),
        (("x", True), "but it is bool"),
        ("x", "the sample is str; expected"),
        ({"x": 1}, "the sample is dict; expected"),
    ):
        with pytest.raises(TypeError, match=message):
            dp.IndexedDataset([sample], decisions=decisions((0, 1)))[0]
    with pytest.raises(TypeError, match=r"decisions: got 'd\.csv', expected dp\.Decisions"):
        dp.IndexedDataset([("x", 0)], decisions="d.csv")
    with pytest.raises(ValueError, match=r"row 1 is of index 3, but the data has 1 examples"):
        dp.IndexedDataset([("x", 0)], decisions=decisions((3, 1)))


# Runs


def save(folder: Path, seed: int, labels, values, ids="abcd") -> None:
    facts = {"labels": labels, "ids": list(ids), "dataset_fingerprint": "f00d"}
    dp.Run({"el2n": values}, architecture="a", seed=seed, **facts).save(folder / f"{seed}.safetensors")


def test_scores_under_another_label_are_left_out_and_counted(tmp_path: Path) -> None:
    save(tmp_path, 0, [0, 0, 1, 1], [1, 2, 3, 4])
    save(tmp_path, 1, [0, 1, 1, 1], [3, 4, 5, 6])
    corrected = decisions(("b", 1), ("d", 0))
    with pytest.warns(UserWarning, match=r"2 of 4 ids have .*'b', 'd'\); .*the label of the decisions"):
        runs = dp.RunSet.load(tmp_path, decisions=corrected)
    assert runs.labels.tolist() == [0, 1, 1, 0]
    np.testing.assert_array_equal(runs.mean("el2n"), [2, 4, 4, np.nan])
    assert dp.convert.ScoreTable.of(runs)["el2n_runs"].tolist() == [2, 1, 2, 0]


def test_runs_that_do_not_know_their_labels_are_refused(tmp_path: Path) -> None:
    save(tmp_path, 0, [0, 0, 1, 1], [1, 2, 3, 4])
    save(tmp_path, 1, None, [1, 2, 3, 5])
    with pytest.raises(ValueError, match="does not know its labels, so that it may have had others"):
        dp.RunSet.load(tmp_path, decisions=decisions(("b", 1)))


@given(
    corrected=st.dictionaries(st.integers(0, 4), st.integers(0, 2), min_size=1),
    labels=st.lists(st.lists(st.integers(0, 2), min_size=5, max_size=5), min_size=1, max_size=3),
)
def test_the_mean_is_that_of_a_loop_over_the_runs(tmp_path_factory, corrected, labels) -> None:
    folder, names = tmp_path_factory.mktemp("r"), "abcde"
    values = np.random.default_rng(0).random((len(labels), 5)).astype(np.float32)
    for seed, (of_run, scores) in enumerate(zip(labels, values, strict=True)):
        save(folder, seed, of_run, scores, names)
    right = [corrected.get(i, labels[-1][i]) for i in range(5)]
    if any(not any(a == b for a, b in zip(of_run, right, strict=True)) for of_run in labels):
        return  # all labels of a run are others: refused, see the tests of joining
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        runs = dp.RunSet.load(folder, decisions=decisions(*((names[i], label) for i, label in corrected.items())))
    assert runs.labels.tolist() == right
    for i in range(5):
        counted = [values[r, i] for r in range(len(labels)) if labels[r][i] == right[i]]
        expected = np.mean(counted, dtype=float) if counted else np.nan
        np.testing.assert_allclose(runs.mean("el2n")[i], expected)


def test_a_correction_that_changes_nothing_is_said() -> None:
    data = TensorDataset(torch.zeros(3, 1), torch.tensor([0, 1, 2]))
    with pytest.warns(UserWarning, match=r"decisions: 1 label is called wrong and corrected to what it is, .* 1:"):
        dp.IndexedDataset(data, decisions=decisions((1, 1), (2, 0)))
