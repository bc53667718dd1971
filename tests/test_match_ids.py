"""Earlier examples among today's, by id: against a loop over dictionaries, in a run set, in a sampler."""

from __future__ import annotations

import os
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import difficulty_prune as dp

names = st.lists(st.sampled_from("abcdefgh"), min_size=1, unique=True)
classes = st.lists(st.integers(0, 2), min_size=8, max_size=8)


class Named:
    """A dataset that knows ids, labels and class names."""

    def __init__(self, ids: list[Any], labels: list[int], class_names: list[str] | None = None) -> None:
        self.samples = [(f"root/{name}", label) for name, label in zip(ids, labels, strict=True)]
        self.root = "root"
        self.targets = labels
        if class_names is not None:
            self.classes = class_names

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Any:
        return float(index), self.targets[index]


@given(names, names, classes, classes)
def test_against_a_loop(before: list[str], today: list[str], old: list[int], new: list[int]) -> None:
    old, new = old[: len(before)], new[: len(today)]
    values = np.arange(len(before)) + 0.5
    if not set(before) & set(today):
        with pytest.raises(ValueError, match=f"none of {len(before)} ids"):
            dp.match_ids(before, Named(today, new))
        return
    match = dp.match_ids(before, Named(today, new), labels=old)
    expected = [before.index(name) if name in before else -1 for name in today]
    assert match.positions.tolist() == expected
    np.testing.assert_array_equal(match.align(values), [values[i] if i >= 0 else np.nan for i in expected])
    np.testing.assert_array_equal(match.align(np.stack([values, -values], 1))[:, 1], -match.align(values))
    report = match.report
    assert report.matched == len(set(before) & set(today))
    assert report.vanished == len(set(before) - set(today))
    assert report.new == len(set(today) - set(before))
    assert report.moved_class == sum(i >= 0 and old[i] != new[place] for place, i in enumerate(expected))
    assert report.all_match == (set(before) == set(today) and not report.moved_class)
    assert match.labels is not None
    assert match.labels.tolist() == new


def test_the_report_names_the_first_of_each() -> None:
    today = Named(["a", "f", "b", "g", "h", "i", "j"], [0, 0, 1, 1, 1, 1, 1])
    report = dp.match_ids(["b", "x", "a", "y"], today, labels=[0, 0, 0, 0]).report
    assert str(report) == (
        "2 of 7 examples match; 2 vanished ('x', 'y'); 5 are new ('f', 'g', 'h' and 2 more); "
        "1 moved to another class ('b')"
    )
    assert (report.matched, report.vanished, report.new, report.moved_class) == (2, 2, 5, 1)


def test_classes_are_compared_by_name() -> None:
    today = Named(["a", "b"], [1, 2], ["ant", "bee", "cat"])  # a class came first since
    assert not dp.match_ids(["a", "b"], today, labels=[0, 1], class_names=["bee", "ant"]).report.all_match
    assert dp.match_ids(["a", "b"], today, labels=[0, 1], class_names=["bee", "cat"]).report.all_match
    assert dp.match_ids(["a", "b"], today, labels=[0, 1]).report.moved_class == 2


def test_ids_and_numbers_alone() -> None:
    match = dp.match_ids([7, 5], np.array([5, 6, 7]))
    assert match.positions.tolist() == [1, -1, 0]
    for values in (np.zeros(3), 1.0):
        with pytest.raises(ValueError, match=r"values: got shape .* expected \[2, \.\.\.\]"):
            match.align(values)
    assert match.labels is None


@pytest.mark.parametrize(
    ("ids", "dataset", "labels", "said"),
    [
        (["a"], [(1, 2)], None, "list names no examples; wrap it"),
        (["a", "a"], np.array(["a"]), None, "'a' names both example 0 and example 1"),
        (["a"], np.array([1]), None, "none of 1 ids, such as 'a', is among the 1 of the dataset, such as 1"),
        (["a"], np.array(["a"]), [0, 1], "labels: got 2, expected 1"),
    ],
)
def test_what_cannot_be_matched(ids: Any, dataset: Any, labels: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        dp.match_ids(ids, dataset, labels=labels)


def runs(**facts: Any) -> dp.RunSet:
    facts = {"ids": ["a", "b", "c"], "labels": [0, 1, 1], **facts}
    return dp.RunSet(dp.Run({"aum": [s, 3.0, 5.0]}, architecture="mlp", seed=s, **facts) for s in range(2))


def test_difficulty_in_the_order_of_today() -> None:
    same = runs().difficulty("aum", dataset=Named(["c", "a", "b"], [1, 0, 1]))
    np.testing.assert_array_equal(same, [-5.0, -0.5, -3.0])
    with pytest.warns(UserWarning, match=r"2 of 3 examples match; 1 vanished \('b'\); 1 is new \('d'\)") as caught:
        other = runs().difficulty("aum", dataset=Named(["c", "d", "a"], [1, 0, 0]))
    assert caught[0].filename == __file__
    np.testing.assert_array_equal(other, [-5.0, np.nan, -0.5])
    with pytest.raises(ValueError, match="no run has ids"):
        runs(ids=None).difficulty("aum", dataset=Named(["a"], [0]))


def test_a_sampler_matches_by_id() -> None:
    known, today = runs(), dp.IndexedDataset(Named(["c", "d", "a"], [1, 0, 0]))
    policy = dp.policies.Easiest(keep=0.5, unseen="keep")
    with pytest.warns(UserWarning, match="1 is new") as caught:
        sampler = dp.PruneSampler(
            policy, known.difficulty("aum"), labels=known.labels, ids=known.ids, dataset=today, seed=0
        )
    assert caught[0].filename == __file__
    assert sorted(sampler) == [0, 1]  # the easiest of two, and the new one
    with pytest.warns(UserWarning, match="1 is new"):
        difficulty = known.difficulty("aum", dataset=today)
    assert sorted(dp.PruneSampler(policy, difficulty, labels=today.labels, dataset=today)) == [0, 1]
    with pytest.warns(UserWarning, match="1 is new"), pytest.raises(ValueError, match="1 of 3 examples are NaN"):
        dp.PruneSampler(dp.policies.Easiest(keep=0.5), known.difficulty("aum"), ids=known.ids, dataset=today)


def test_a_sampler_matches_what_the_policy_was_told_of_each_example() -> None:
    """Costs, confidences and positions are those of the examples of the runs, and not of the same place today."""
    known, policies = runs(), dp.policies
    today = dp.IndexedDataset(Named(["c", "a", "b"], [1, 0, 1]))
    easy_to_hard = sorted(range(3), key=list(known.difficulty("aum")).__getitem__)
    names = [known.ids[i] for i in easy_to_hard]
    for policy, kept in (
        (policies.WithoutWrong(policies.Easiest(0.34), wrong=easy_to_hard[:1]), [names[1]]),
        (policies.Budget(policies.Hardest(0.5), [1.0 if i == easy_to_hard[2] else 10.0 for i in range(3)]), [names[2]]),
    ):
        sampler = dp.PruneSampler(policy, known.difficulty("aum"), ids=known.ids, dataset=today)
        assert [["c", "a", "b"][i] for i in sorted(sampler)] == kept
    grown = dp.IndexedDataset(Named(["c", "d", "a", "b"], [1, 0, 0, 1]))
    for policy in (
        policies.WithoutWrong(policies.Easiest(0.4, unseen="keep"), wrong=easy_to_hard[:1]),
        policies.BetaSampling(1.0, [0.1, 0.5, 0.9], unseen="keep"),
    ):
        with pytest.warns(UserWarning, match="1 is new"):
            sampler = dp.PruneSampler(policy, -known.mean("aum") + 9, ids=known.ids, dataset=grown)
        assert 1 in sorted(sampler)  # the new one
    with pytest.warns(UserWarning, match="1 is new"), pytest.raises(ValueError, match="1 of 4 examples are new, and"):
        dp.PruneSampler(
            policies.Budget(policies.Random(0.5, unseen="keep"), [1, 2, 3]),
            known.difficulty("aum"), ids=known.ids, dataset=grown,
        )  # fmt: skip


def test_a_substitute_that_is_not_in_the_plan() -> None:
    class Next(Named):
        def __getitem__(self, index: int) -> Any:
            return {"name": ["a", "b", "c"][1 if index == 0 else index]}

    train = dp.IndexedDataset(Next(["a", "b", "c"], [0, 0, 0]), key="name", ids=["a", "b", "c"])
    for outside in ("raise", "zero"):
        sampler = dp.PruneSampler(dp.policies.Hardest(keep=0.3), [3.0, 1.0, 2.0], dataset=train, outside=outside)
        came = torch.tensor([train[i]["index"] for i in sampler])
        assert came.tolist() == [1]
        if outside == "zero":
            assert sampler.weight(came).tolist() == [0.0]
        else:
            with pytest.raises(ValueError, match=r"not in the plan .* where a file cannot be read"):
                sampler.weight(came)


def test_labels_of_runs_where_the_dataset_knows_none() -> None:
    today = np.array(["c", "b", "a"])
    policy, facts = dp.policies.Hardest(keep=0.3), {"ids": ["a", "b", "c"], "labels": [0, 1, 1]}
    with pytest.raises(ValueError, match="class 0"):
        dp.PruneSampler(policy, [1.0, 2.0, 3.0], dataset=today, **facts)


@pytest.mark.parametrize(
    ("arguments", "kind", "said"),
    [
        ({"difficulty": [1.0, 2.0], "dataset": Named(["a"], [0])}, ValueError, "got 2 examples, but the dataset has 1"),
        ({"difficulty": [1.0], "ids": ["a"]}, TypeError, "ids without dataset="),
        ({"difficulty": lambda: [1.0], "ids": ["a"], "dataset": Named(["a"], [0])}, TypeError, "still being measured"),
        ({"difficulty": [1.0, 2.0], "ids": ["a"], "dataset": Named(["a"], [0])}, ValueError, "ids: got 1, expected 2"),
        ({"difficulty": [1.0], "ids": ["b"], "dataset": Named(["a"], [0])}, ValueError, "none of 1 ids"),
    ],
)
def test_what_a_sampler_refuses(arguments: dict[str, Any], kind: type[Exception], said: str) -> None:
    with pytest.raises(kind, match=said):
        dp.PruneSampler(dp.policies.Random(keep=1.0), **arguments)


def test_runs_with_other_ids_do_not_mix() -> None:
    def run(seed: int, **facts: Any) -> dp.Run:
        return dp.Run({"aum": [1.0 + seed, 2.0]}, architecture="mlp", seed=seed, **facts)

    with pytest.raises(ValueError, match=r"different ids: runs of different data do not mix.*join='ids'"):
        dp.RunSet([run(0, ids=["a", "b"]), run(1, ids=["b", "a"])])
    dp.RunSet([run(0, ids=["a", "b"]), run(1), run(2, ids=["a", "b"])])  # one knows none
    dp.RunSet([run(0, ids=["a", "b"]), run(1, ids=["a", "b"], dataset_fingerprint="f")])  # the ids say enough
    with pytest.raises(ValueError, match="dataset fingerprints, f and g"):
        dp.RunSet(run(s, ids=["a", "b"], dataset_fingerprint=f) for s, f in enumerate((None, "f", "g")))
    with pytest.raises(ValueError, match="one was finished without dataset_fingerprint"):
        dp.RunSet([run(0), run(1, ids=["a", "b"], dataset_fingerprint="f")])


def test_ids_show_that_runs_are_of_the_same_data(tmp_path: Path) -> None:
    for seed in range(2):
        dp.Run({"aum": [1.0 + seed]}, architecture="mlp", seed=seed, ids=["a"]).save(tmp_path / f"{seed}.safetensors")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded = dp.RunSet.load(tmp_path)
    assert loaded.ids is not None
    assert loaded.ids.tolist() == ["a"]


def test_a_folder_that_changes_between_two_trainings(tmp_path: Path) -> None:
    from torchvision.datasets import ImageFolder

    for name in ("cat/a.png", "cat/b.png", "dog/a.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (2, 2)).save(tmp_path / name)
    run = dp.Run(
        {"el2n": [0.1, 0.2, 0.3]},
        architecture="mlp",
        seed=0,
        **{name: getattr(dp.IndexedDataset(ImageFolder(os.fspath(tmp_path))), name) for name in ("ids", "labels")},
    )
    (tmp_path / "cat" / "b.png").unlink()
    shutil.copytree(tmp_path / "dog", tmp_path / "ape")
    today = dp.IndexedDataset(ImageFolder(os.fspath(tmp_path)))
    with pytest.warns(UserWarning, match=r"1 vanished \('cat/b\.png'\); 1 is new \('ape/a\.png'\); 2 moved"):
        difficulty = dp.RunSet([run]).difficulty("el2n", dataset=today)
    np.testing.assert_allclose(difficulty, [np.nan, 0.1, 0.3], rtol=1e-6)


def test_no_ids_are_refused() -> None:
    with pytest.raises(ValueError, match="ids: got none"):
        dp.match_ids([], np.array(["a"], object))


def in_rows(labels: list[int], first: int = 0, class_names: list[str] | None = None) -> dp.IndexedDataset:
    """Examples whose ids are numbers of rows."""
    table = Named([""] * len(labels), labels, class_names)
    return dp.IndexedDataset(table, ids=np.arange(first, first + len(labels)))


EARLIER = [i % 3 for i in range(30)]


@pytest.mark.parametrize(
    ("today", "names"),
    [
        ([i // 10 for i in range(30)], None),  # agree by chance: a third
        ([0] * 20, None),
        ([0, 1] * 30, None),
        (EARLIER, ["setosa", "versicolor", "virginica"]),
    ],
)
def test_numbers_of_rows_prove_nothing_where_classes_disagree(today: list[int], names: list[str] | None) -> None:
    data = in_rows(today, class_names=names)
    facts: dict[str, Any] = {"labels": EARLIER, "class_names": ["a", "b", "c"]}
    for ids in (np.arange(30), [str(i) for i in range(30)]):
        other = data if isinstance(ids, np.ndarray) else dp.IndexedDataset(data.dataset, ids=list(map(str, data.ids)))
        with pytest.raises(ValueError, match=r"numbers of rows, which match whatever the data is: it is another"):
            dp.match_ids(ids, other, **facts)
    together = dp.RunSet([dp.Run({"aum": np.zeros(30)}, architecture="mlp", seed=0, ids=np.arange(30), **facts)])
    with pytest.raises(ValueError, match="numbers of rows"):
        together.difficulty("aum", dataset=data)


def test_corrected_labels_of_rows_and_keys_that_are_numbers_still_match() -> None:
    corrected = [(label + 1) % 3 if i < 12 else label for i, label in enumerate(EARLIER)]
    assert dp.match_ids(np.arange(30), in_rows(corrected), labels=EARLIER).report.moved_class == 12
    assert dp.match_ids(np.arange(30), in_rows([0] * 30), labels=[0] * 30).report.all_match
    moved = [(label + 1) % 3 for label in EARLIER]
    keys = np.arange(5_000, 5_030)
    assert dp.match_ids(keys, in_rows(moved, 5_000), labels=EARLIER).report.moved_class == 30


def test_what_a_study_set_aside_is_told_of() -> None:
    run = dp.Run({"aum": [1.0, 2.0]}, architecture="mlp", seed=0, ids=["a", "b"], set_aside=["c", "d"])
    report = dp.RunSet([run]).match(np.array(["a", "c", "e"], object)).report
    assert (report.matched, report.new) == (1, 2)
    assert str(report).endswith("; 1 of the new ones is test data of the study, not to be trained on")
