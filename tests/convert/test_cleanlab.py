"""What cleanlab takes and gives, with the package where it is there."""

from __future__ import annotations

import numpy as np
import pytest

import difficulty_prune as dp

N, C = 60, 3


def run(wrong=(4, 17, 33)) -> dp.Run:
    rng = np.random.default_rng(0)
    truth = np.arange(N) % C
    p = rng.dirichlet(np.ones(C) * 0.3, N) * 0.2 + 0.8 * np.eye(C)[truth]
    labels = truth.copy()
    labels[list(wrong)] = (labels[list(wrong)] + 1) % C
    ids = [f"x{i}" for i in range(N)]
    facts = {"labels": labels, "mean_probabilities": p.astype(np.float32), "ids": ids}
    return dp.Run({"el2n": rng.random(N)}, architecture="a", seed=0, **facts)


def test_cleanlab_finds_the_issues_and_they_come_back_as_decisions() -> None:
    pytest.importorskip("cleanlab")
    from cleanlab.filter import find_label_issues
    from cleanlab.rank import get_label_quality_scores

    given = dp.convert.to_cleanlab(run())
    assert sorted(find_label_issues(**given, return_indices_ranked_by="self_confidence")) == [4, 17, 33]
    quality = get_label_quality_scores(given["labels"], given["pred_probs"], adjust_pred_probs=False)
    np.testing.assert_allclose(dp.convert.ScoreTable.of(run())["label_quality"], quality)


def test_its_own_table_of_issues_reads_as_decisions() -> None:
    pytest.importorskip("cleanlab")
    linear_model = pytest.importorskip("sklearn.linear_model")
    from cleanlab.classification import CleanLearning

    given = run()
    features = np.eye(C)[np.arange(N) % C] + np.random.default_rng(1).normal(size=(N, C)) * 0.05
    issues = CleanLearning(linear_model.LogisticRegression(), cv_n_folds=3).find_label_issues(features, given.labels)
    decisions = dp.convert.from_cleanlab(issues, ids=given.ids, relabel=True)
    assert decisions.corrections(given) == {i: i % C for i in (4, 17, 33)}
    assert all(entry.note.startswith("cleanlab: label quality 0.") for entry in decisions)
    left = dp.convert.from_cleanlab(issues, ids=given.ids).plan(given)
    assert sorted(set(range(N)) - set(left.index.tolist())) == [4, 17, 33]


def test_names_of_classes_and_positions() -> None:
    issues = {"is_label_issue": [False, True], "label_score": [1, 0.125], "predicted_label": ["cat", "dog"]}
    decisions = dp.convert.from_cleanlab(issues, relabel=True)
    assert decisions.corrections(2, ["cat", "dog"]) == {1: 1}
    assert [e.note for e in decisions] == ["cleanlab: label quality 0.125"]


def test_what_is_lacking_is_said() -> None:
    with pytest.raises(ValueError, match="issues: got the columns a, expected 'is_label_issue'"):
        dp.convert.from_cleanlab({"a": [1]})
    with pytest.raises(ValueError, match="expected 'predicted_label'"):
        dp.convert.from_cleanlab({"is_label_issue": [True]}, relabel=True)
    with pytest.raises(ValueError, match="ids: got 1, expected 2"):
        dp.convert.from_cleanlab({"is_label_issue": [True, False]}, ids=["a"])
    bare = dp.Run({"el2n": [0.5]}, architecture="a", seed=0)
    with pytest.raises(ValueError, match="no run knows the labels"):
        dp.convert.to_cleanlab(bare)
    p = [[0.5, 0.5], [np.nan, np.nan]]
    unseen = dp.Run({"el2n": [0.5, 1]}, architecture="a", seed=0, labels=[0, 1], mean_probabilities=p)
    with pytest.raises(ValueError, match="got 1 example without probabilities, as never presented, the first is 1"):
        dp.convert.to_cleanlab(unseen)


def test_a_file_of_issues_is_checked_row_by_row(tmp_path) -> None:
    path = tmp_path / "issues.csv"
    path.write_text("index,is_label_issue,label_score\n2,True,0.25\n0,False,0.5\n")
    (entry,) = dp.convert.from_cleanlab(path, ids=["a", "b", "c"])
    assert (entry.id, entry.decision, entry.note) == ("c", "wrong", "cleanlab: label quality 0.25")
    with pytest.raises(ValueError, match=r"issues\.csv: row 0: index: got '2', expected 0\.\.1"):
        dp.convert.from_cleanlab(path, ids=["a", "b"])
    path.write_text("index,is_label_issue\n-1,True\n")
    with pytest.raises(ValueError, match=r"row 0: index: got '-1', expected a position"):
        dp.convert.from_cleanlab(path)
    path.write_text("is_label_issue\nTrue\nmaybe\n")
    with pytest.raises(ValueError, match=r"row 1: is_label_issue: got 'maybe', expected True or False"):
        dp.convert.from_cleanlab(path)
    with pytest.raises(ValueError, match=r"got a file of kind '\.txt'"):
        dp.convert.from_cleanlab(tmp_path / "issues.txt")


def test_a_part_of_the_issues_in_another_order_means_the_same_examples() -> None:
    pandas = pytest.importorskip("pandas")
    issues = pandas.DataFrame({"is_label_issue": [True, False, True], "label_score": [0.5, 1.0, 0.25]})
    part = issues[issues.is_label_issue].sort_values("label_score")
    assert [e.index for e in dp.convert.from_cleanlab(part)] == [2, 0]
    assert [e.id for e in dp.convert.from_cleanlab(part, ids=["a", "b", "c"])] == ["c", "a"]
    with pytest.raises(ValueError, match=r"issues: row 0: index: got 2, expected 0\.\.1"):
        dp.convert.from_cleanlab(part, ids=["a", "b"])
    named = issues.set_index(pandas.Index(["x", "y", "z"]))
    assert [e.index for e in dp.convert.from_cleanlab(named)] == [0, 2]  # no positions: in order
