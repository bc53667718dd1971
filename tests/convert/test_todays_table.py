"""Tables in the order of today's dataset, against a loop over its examples; and columns with names of classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import difficulty_prune as dp
from difficulty_prune.convert import score_table
from difficulty_prune.convert.score_table import percentile
from difficulty_prune.convert.todays_table import renumbered, todays_table

IDS, CLASSES = list("abcdef"), ["cat", "dog"]
LABELS = [0, 0, 0, 1, 1, 1]


class Data:
    """What a dataset says of its examples."""

    def __init__(self, names: list[str], labels: list[int], classes: list[str]) -> None:
        self.names, self.targets, self.classes = names, labels, classes

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, i: int) -> tuple[str, int]:
        return self.names[i], self.targets[i]


def runs() -> dp.RunSet:
    rng = np.random.default_rng(0)
    facts = {"labels": LABELS, "ids": IDS, "class_names": CLASSES}
    return dp.RunSet(
        dp.Run(
            {"el2n": rng.random(6), "aum": rng.normal(size=6)},
            architecture="a",
            seed=s,
            mean_probabilities=rng.dirichlet([1, 1], 6).astype(np.float32),
            **facts,
        )
        for s in range(3)
    )


@given(
    st.lists(st.sampled_from([*IDS, "x", "y"]), min_size=1, unique=True).filter(lambda names: set(names) & set(IDS)),
    st.permutations(["ape", "cat", "dog"]),
    st.data(),
)
def test_each_row_is_what_the_runs_know_of_its_example(names, classes, draw) -> None:
    labels = draw.draw(st.lists(st.integers(0, 2), min_size=len(names), max_size=len(names)))
    together, before = runs(), dp.convert.ScoreTable.of(runs())
    data = dp.IndexedDataset(Data(names, labels, classes), ids=names)
    table = todays_table(together, together.match(data), ids=data.ids, class_names=data.class_names, files=names)
    assert table["id"].tolist() == table["path"].tolist() == names
    assert table["label"].tolist() == labels
    assert table["index"].tolist() == list(range(len(names)))
    for row, name in enumerate(names):
        then = IDS.index(name) if name in IDS else None
        if then is None:
            assert (table["suggested"][row], table["el2n_runs"][row]) == (-1, 0)
            for column in ("suggested_probability", "label_quality", "el2n", "aum", "el2n_standard_error"):
                assert np.isnan(table[column][row])
            continue
        assert classes[table["suggested"][row]] == CLASSES[before["suggested"][then]]
        same = classes[labels[row]] == CLASSES[LABELS[then]]
        quality = before["label_quality"][then] if same else np.nan
        np.testing.assert_array_equal(table["label_quality"][row], quality)
        for column in ("suggested_probability", "el2n", "aum", "el2n_standard_error", "aum_runs"):
            assert table[column][row] == before[column][then]
    np.testing.assert_array_equal(table["el2n_percentile"], percentile(table["el2n"]))
    np.testing.assert_array_equal(table["aum_percentile"], percentile(-table["aum"]))


def test_a_class_that_is_gone_is_no_suggestion() -> None:
    together = runs()
    data = dp.IndexedDataset(Data(IDS, [0] * 6, ["cat"]), ids=IDS)
    table = todays_table(together, together.match(data), ids=data.ids, class_names=data.class_names)
    gone = dp.convert.ScoreTable.of(together)["suggested"] == 1
    assert 0 < gone.sum() < 6
    assert (table["suggested"] == -1).tolist() == gone.tolist()
    assert np.isnan(table["suggested_probability"]).tolist() == gone.tolist()
    assert len(table.to_run()) == 6


def test_numbers_stay_where_names_are_not_known() -> None:
    classes = np.array([0, 5, -1])
    assert renumbered(classes, None, ["a"]) is classes
    assert renumbered(classes, ["a"], None) is classes
    assert renumbered(classes, ["a", "b"], ["b"]).tolist() == [-1, -1, -1]


@pytest.mark.parametrize("suffix", ["csv", "npz", "parquet"])
def test_names_of_classes_go_out_block_by_block(tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if suffix == "parquet":
        pytest.importorskip("pyarrow")
    monkeypatch.setattr(score_table, "ROWS", 2)
    table = dp.convert.ScoreTable.of(runs())
    table.name_classes()
    table.append_words("decision", np.array([-1, -1, 9, 1, -1, 0], np.int8), ("keep", "drop"))  # a block without any
    assert len(table) == 6
    dp.convert.write(table, tmp_path / f"t.{suffix}")
    read = {"csv": dp.convert.from_csv, "npz": dp.convert.from_npz, "parquet": dp.convert.from_parquet}[suffix]
    found = read(tmp_path / f"t.{suffix}")
    assert found.columns == table.columns
    assert found["label_name"].tolist() == [CLASSES[label] for label in LABELS]
    assert found["suggested_name"].tolist() == [CLASSES[i] for i in table["suggested"]]
    assert [value for value in found["decision"].tolist() if value not in ("", None, "None")] == ["drop", "keep"]


def test_names_that_are_not_known_add_no_column() -> None:
    bare = dp.convert.ScoreTable.of(dp.Run({"el2n": [0.5, 1.0]}, architecture="a", seed=0, labels=[0, 1]))
    columns = bare.columns
    bare.name_classes()
    assert bare.columns == columns
