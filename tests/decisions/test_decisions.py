"""Decisions: read and written in every format, refused by line, and what they mean for data that has changed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import difficulty_prune as dp

FORMATS = ("csv", "tsv", "json", "jsonl", "parquet")
ROWS = [
    {"id": "cat/1.png", "index": 0, "decision": "keep", "note": "fine, really"},
    {"id": "cat/2.png", "index": 1, "decision": "wrong", "label": "dog"},
    {"id": "dog/1.png", "index": 2, "decision": "wrong", "weight": 0.5},
    {"id": "dog/2.png", "index": 3, "decision": "drop"},
    {"id": "dog/3 \n.png", "index": 4, "decision": "unsure", "weight": 0.25, "reviewer": "A"},
]
IDS = [row["id"] for row in ROWS]


def load(path: Path, text: str) -> dp.Decisions:
    path.write_text(text)
    return dp.Decisions.load(path)


@pytest.mark.parametrize("suffix", FORMATS)
def test_what_is_saved_is_loaded(tmp_path: Path, suffix: str) -> None:
    if suffix == "parquet":
        pytest.importorskip("pyarrow")
    decisions = dp.Decisions(ROWS)
    decisions.save(tmp_path / f"d.{suffix}")
    again = dp.Decisions.load(tmp_path / f"d.{suffix}")
    assert [(e.id, e.index, *e.said, e.note) for e in again] == [(e.id, e.index, *e.said, e.note) for e in decisions]
    assert again.other_columns == ("reviewer",)
    assert again.repeated == 0
    assert [p.name for p in tmp_path.iterdir()] == [f"d.{suffix}"]


def test_words_say_what_there_is() -> None:
    decisions = dp.Decisions([*ROWS, ROWS[0]])
    assert str(decisions) == (
        "5 decisions: 1 keep, 2 wrong (1 with the right label), 1 drop, 1 unsure; 1 row repeats an earlier one; "
        "columns that are not used: reviewer"
    )
    assert repr(decisions) == "Decisions(5 from 'decisions')"
    assert decisions == dp.Decisions(ROWS)
    assert decisions != dp.Decisions(ROWS[:2])


def test_cells_as_pandas_and_spreadsheets_write_them(tmp_path: Path) -> None:
    text = "\ufeffindex,decision,label,weight\r\n3.0, Wrong ,2.0,\r\n\r\n4,KEEP,,1.5\r\n"
    first, second = load(tmp_path / "d.csv", text)
    assert (first.index, first.decision, first.weight) == (3, "wrong", 1)
    assert dp.Decisions([first.cells()]).corrections(5) == {3: 2}
    assert second.said == ("keep", None, 1.5)


# Malformed


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ({"id": "a", "decision": "maybe"}, "decision: got 'maybe', expected one of keep, wrong, drop, unsure"),
        ({"id": "a"}, "got the columns 'id', expected 'decision' among them"),
        ({"id;decision": "a;drop"}, "expected 'decision' among them; separate columns by commas"),
        ({"id": "a", "decision": "wrong", "Label": "dog"}, "got the column 'Label', which is not 'label'"),
        ({"id": "a", "decision": "keep", "weight": 1e39}, "weight: got 1e.39, expected a number that float32 holds"),
        ({"index": "9" * 5000, "decision": "drop"}, "index: got '999"),
        ({"id": "", "decision": "drop"}, "has neither id nor index"),
        ({"id": True, "decision": "drop"}, "id: got True"),
        ({"index": -1, "decision": "drop"}, "index: got -1, expected a position"),
        ({"index": 1.5, "decision": "drop"}, "index: got 1.5"),
        ({"index": "x", "decision": "drop"}, "index: got 'x'"),
        ({"id": "a", "decision": "wrong", "label": -2}, "label: got -2"),
        ({"id": "a", "decision": "wrong", "label": [1]}, r"label: got \[1\]"),
        ({"id": "a", "decision": "keep", "label": 1}, "has the label 1 with 'keep'"),
        ({"id": "a", "decision": "keep", "weight": -1}, "weight: got -1"),
        ({"id": "a", "decision": "keep", "weight": "heavy"}, "weight: got 'heavy'"),
        ({"id": "a", "decision": "keep", "weight": float("inf")}, "weight: got inf"),
        ({"id": "a", "decision": "keep", "note": 3}, "note: got 3, expected text"),
    ],
)
def test_a_malformed_row_is_refused_by_its_number(cells, message) -> None:
    with pytest.raises(ValueError, match=f"^review: row 2.*{message}"):
        dp.Decisions([{"id": "b", "decision": "keep"}, cells], source="review")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("d.csv", "id,decision\na,keep\nb\n", "line 3 has 1 cells, expected 2: id, decision"),
        ("d.csv", 'id,decision,note\na,keep,"x\ny"\nb,no,\n', "line 4: decision: got 'no'"),
        ("d.csv", 'id,decision\na,"keep\n', "line 2 is malformed"),
        ("d.csv", "id,id\na,keep\n", r"line 1 is \['id', 'id'\]"),
        ("d.csv", "", "is empty"),
        ("d.json", "{}", "got dict, expected a list of objects"),
        ("d.json", '[{"id": "a", "decision": "keep"}, 3]', "entry 2 is int, expected an object"),
        ("d.json", "[", "not JSON"),
        ("d.jsonl", '{"id": "a", "decision": "keep"}\n{"id": "b"\n', "line 2 is no JSON"),
        ("d.jsonl", '\n{"id": "a", "id": "b"}\n', "line 2 is no JSON .a key occurs twice"),
        ("d.parquet", "PAR1", "not a Parquet file, or damaged"),
    ],
)
def test_a_malformed_file_is_refused_by_name_and_line(tmp_path: Path, name, text, message) -> None:
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
    with pytest.raises(ValueError, match=message) as refusal:
        load(tmp_path / name, text)
    assert str(tmp_path / name) in str(refusal.value)


def test_other_files_and_missing_ones_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"got a file of kind '\.xlsx', expected one of \.csv, \.tsv, \.json"):
        dp.Decisions.load(tmp_path / "d.xlsx")
    with pytest.raises(FileNotFoundError, match="no such file"):
        dp.Decisions.load(tmp_path / "d.csv")
    (tmp_path / "d.csv").write_bytes(b"id,decision\n\xff\xfe,keep\n")
    with pytest.raises(ValueError, match=r"d\.csv: not text in UTF-8"):
        dp.Decisions.load(tmp_path / "d.csv")


@pytest.mark.parametrize("other", ["drop,,", "wrong,cat,", "wrong,,", "wrong,dog,0.5"])
def test_contradictions_are_refused_with_both_lines(tmp_path: Path, other: str) -> None:
    text = f"id,decision,label,weight\na,wrong,dog,\nb,keep,,\na,{other}\n"
    with pytest.raises(ValueError, match=r"d\.csv: line 2 and line 4 are both of id a and contradict each other"):
        load(tmp_path / "d.csv", text)


def test_repetitions_are_counted_and_their_notes_kept(tmp_path: Path) -> None:
    decisions = load(tmp_path / "d.csv", "id,decision,note\na,drop,blurred\na,drop,dark\na,drop,dark\n7,keep,\n")
    assert decisions.repeated == 2
    assert [e.note for e in decisions] == ["blurred\ndark", ""]
    assert dp.Decisions([{"id": 7, "decision": "keep"}, {"id": "7", "decision": "keep"}]).repeated == 1


# Today's data


def test_ids_that_the_data_lacks_are_counted_and_named() -> None:
    check = dp.Decisions(ROWS).check([*IDS[:2], "new.png"])
    assert check.position.tolist() == [0, 1, -1, -1, -1]
    assert check.missing == tuple(IDS[2:])
    assert "2 of 5 decisions are of examples of this data (3 examples); 3 are of ids that it lacks" in str(check)
    assert json.loads(json.dumps(check.to_dict())) == {
        "decisions": 5,
        "examples": 3,
        "missing": IDS[2:],
        "by_index": 0,
    }
    with pytest.raises(ValueError, match=r"all 5 decisions are of ids that the data lacks, such as 'cat/1\.png'"):
        dp.Decisions(ROWS).plan(["x", "y"])


def test_an_id_counts_more_than_an_index() -> None:
    decisions = dp.Decisions([{"id": "a", "index": 0, "decision": "drop"}])
    assert decisions.plan(["b", "a"]).index.tolist() == [0]


def test_ids_of_whole_numbers_are_found_by_text_and_number() -> None:
    decisions = dp.Decisions([{"id": "17", "decision": "drop"}, {"id": 3, "decision": "drop"}])
    assert decisions.plan(np.array([3, 5, 17])).index.tolist() == [1]


def test_an_index_is_checked_against_the_length() -> None:
    decisions = dp.Decisions([{"index": 5, "decision": "drop"}])
    assert decisions.check(6).by_index == 1
    with pytest.raises(ValueError, match=r"row 1 is of index 5, but the data has 5 examples, 0\.\.4"):
        decisions.check(5)


def test_ids_need_data_with_ids() -> None:
    with pytest.raises(ValueError, match=r"row 1 names its example by the id 'a', but the data has no ids"):
        dp.Decisions([{"id": "a", "index": 0, "decision": "drop"}]).check(5)
    with pytest.raises(TypeError, match=r"data: got set, expected a dp\.IndexedDataset"):
        dp.Decisions([]).check({"a"})


def test_decisions_by_id_and_by_index_on_one_example_must_agree() -> None:
    rows = [{"id": "b", "decision": "drop"}, {"index": 1, "decision": "keep"}]
    with pytest.raises(ValueError, match=r"row 1 \(id b\) and row 2 \(index 1\) are of the same example"):
        dp.Decisions(rows).check(["a", "b"])
    assert dp.Decisions(rows).check(["b", "a"]).position.tolist() == [0, 1]


def test_runs_say_which_example_is_which() -> None:
    run = dp.Run(
        {"el2n": [0.1] * 5}, architecture="a", seed=0, labels=[0, 0, 1, 1, 1], ids=IDS, class_names=["cat", "dog"]
    )
    for data in (run, dp.RunSet([run])):
        assert dp.Decisions(ROWS).corrections(data) == {1: 1}
        assert dp.Decisions(ROWS).relabel(run.labels, data).tolist() == [0, 1, 1, 1, 1]


@pytest.mark.parametrize(
    ("label", "names", "found"),
    [
        ("dog", ["cat", "dog"], 1),
        ("1", ["cat", "dog"], 1),
        (1, None, 1),
        ("1", None, 1),
        ("1", ["0", "1"], 1),
        (0, ["1", "0"], 0),
    ],
)
def test_labels_are_numbers_or_names(label, names, found) -> None:
    decisions = dp.Decisions([{"index": 0, "decision": "wrong", "label": label}])
    assert decisions.corrections(1, names) == {0: found}


@pytest.mark.parametrize(
    ("label", "names", "message"),
    [
        ("0", ["1", "0"], r"label '0' may be any of the classes \[0, 1\]"),
        ("dog", ["dog", "dog"], r"may be any of the classes \[0, 1\]"),
        ("bird", ["cat", "dog"], "label 'bird' is no class: 'cat', 'dog'"),
        (2, ["cat", "dog"], "label 2 is no class"),
        ("dog", None, "no names of classes are known"),
        ("-1", None, "label '-1' is no class"),
    ],
)
def test_a_label_that_is_no_class_or_two_is_refused(label, names, message) -> None:
    with pytest.raises(ValueError, match=f"decisions: row 1: .*{message}"):
        dp.Decisions([{"index": 0, "decision": "wrong", "label": label}]).corrections(1, names)


# Plans


def test_what_leaves_a_plan_and_what_is_weighted() -> None:
    plan = dp.Plan(torch.arange(6), torch.full((6,), 2.0), {"policy": "mine"})
    left = dp.Decisions(ROWS).apply_to_plan(plan, [*IDS, "new"], labels=[0, 1, 1, 1, 1, 2])
    assert left.index.tolist() == [0, 1, 4, 5]
    assert left.weight.tolist() == [2, 2, 0.5, 2]
    summary = left.summary()
    assert summary["policy"] == "mine, as decided"
    assert summary["decisions"] == {"left": 2, "relabelled": 1, "weighted": 1, "missing": 0}
    assert summary["classes"]["1"] == {"examples": 4, "kept": 2, "dropped": 2}


def test_decisions_compose_with_policies() -> None:
    difficulty = torch.arange(6.0)
    decided = dp.Decisions([{"index": 5, "decision": "drop"}, {"index": 4, "decision": "keep", "weight": 3}]).plan(6)
    plan = dp.policies.within(decided, dp.policies.Hardest(0.4), difficulty)
    assert (plan.index.tolist(), plan.weight.tolist()) == ([3, 4], [1, 3])


def test_a_plan_of_other_data_and_an_empty_one_are_refused() -> None:
    decisions = dp.Decisions([{"index": 0, "decision": "drop"}])
    with pytest.raises(ValueError, match="plan: it keeps position 3, but the data has 3"):
        decisions.apply_to_plan(dp.Plan(torch.tensor([3]), torch.ones(1)), 3)
    with pytest.raises(ValueError, match="no example of the plan is left, 1 is wrong or to be dropped"):
        decisions.apply_to_plan(dp.Plan(torch.tensor([0]), torch.ones(1)), 3)


def test_rows_that_are_no_mappings_are_refused() -> None:
    with pytest.raises(TypeError, match=r"row 1: got 'd', expected a mapping.*dp.Decisions.load"):
        dp.Decisions("decisions.csv")


def test_numbers_of_numpy_and_pytorch_are_numbers() -> None:
    rows = [{"id": np.int64(7), "decision": "drop"}, {"id": torch.tensor(8), "decision": "wrong", "label": np.int32(2)}]
    assert dp.Decisions(rows).relabel([0, 0], [7, 8]).tolist() == [0, 2]
    assert [entry.index for entry in dp.Decisions({"index": i, "decision": "drop"} for i in np.arange(2))] == [0, 1]


def test_a_label_too_large_for_a_class_is_refused() -> None:
    with pytest.raises(ValueError, match="is no class"):
        dp.Decisions([{"index": 0, "decision": "wrong", "label": 2**64}]).relabel([0])


def test_a_plan_of_yesterday_is_checked_by_its_ids_and_keeps_them() -> None:
    decisions = dp.Decisions([{"id": "a", "decision": "drop"}])
    plan = dp.Plan(torch.tensor([0, 2]), torch.ones(2)).with_ids(["a", "b", "c"])
    with pytest.raises(ValueError, match="plan: it is of other data: its 3 ids are others, or in another order"):
        decisions.apply_to_plan(plan, ["a", "c", "b"])
    kept = decisions.apply_to_plan(plan, ["a", "b", "c"])
    assert kept.index.tolist() == [2]
    assert kept.ids_digest == plan.ids_digest


def test_two_decisions_on_one_example_count_once() -> None:
    by_id = {"id": "a", "decision": "keep", "weight": 2}
    plan = dp.Decisions([by_id, {**by_id, "id": None, "index": 0}]).plan(["a", "b"])
    assert plan.weight.tolist() == [2, 1]
    assert plan.summary()["decisions"] == {"left": 0, "relabelled": 0, "weighted": 1, "missing": 0}


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_name_that_is_no_text_in_utf8_is_named_and_nothing_is_written(tmp_path: Path, suffix: str) -> None:
    if suffix == "parquet":
        pytest.importorskip("pyarrow")
    with pytest.raises(
        ValueError, match=rf"d\.{suffix}: cannot be written, .*cat/bad\\udcff.png.* is no text in UTF-8"
    ):
        dp.Decisions([{"id": "cat/bad\udcff.png", "decision": "drop"}]).save(tmp_path / f"d.{suffix}")
    assert not list(tmp_path.iterdir())


names = st.text(min_size=1, max_size=4)
choices = st.sampled_from(["keep", "wrong", "relabel", "drop", "unsure", None])


@settings(max_examples=60)
@given(
    before=st.dictionaries(names, st.tuples(choices, st.sampled_from([None, 0.5, 2.0])), min_size=1, max_size=8),
    removed=st.sets(st.integers(0, 7)),
    added=st.lists(names, max_size=4, unique=True),
    order=st.randoms(use_true_random=False),
    suffix=st.sampled_from(["csv", "json"]),
)
def test_the_sampler_sees_just_what_was_decided_whatever_became_of_the_data(
    tmp_path_factory, before, removed, added, order, suffix
) -> None:
    rows = [
        {"id": name, "index": i, "decision": "wrong" if choice == "relabel" else choice, "weight": weight}
        | ({"label": 9} if choice == "relabel" else {})
        for i, (name, (choice, weight)) in enumerate(before.items())
        if choice is not None
    ]
    path = tmp_path_factory.mktemp("d") / f"d.{suffix}"
    dp.Decisions(rows).save(path)
    decisions = dp.Decisions.load(path)
    today = [name for i, name in enumerate(before) if i not in removed] + [a for a in added if a not in before]
    order.shuffle(today)
    expected = {}
    for i, name in enumerate(today):
        choice, weight = before.get(name, (None, None))
        if choice not in ("wrong", "drop"):
            expected[i] = (1.0 if weight is None or choice is None else weight, 9 if choice == "relabel" else 0)
    known = {row["id"] for row in rows} & set(today)
    if (rows and not known) or not expected:
        with pytest.raises(ValueError, match=r"of (an id|ids) that the data lacks|is left|expected \[K\] for both"):
            decisions.plan(today)
        return
    sampler = dp.PruneSampler(decisions.plan(today), np.zeros(len(today)), seed=0)
    seen = sorted(sampler)
    weights = sampler.weight(torch.tensor(seen)).tolist()
    labels = decisions.relabel(np.zeros(len(today), np.int64), today)
    assert {i: (w, int(labels[i])) for i, w in zip(seen, weights, strict=True)} == expected
    assert decisions.check(today).missing == tuple(row["id"] for row in rows if row["id"] not in known)
