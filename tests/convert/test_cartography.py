"""allenai/cartography's training dynamics: scores of a loop over the lines, and every malformed line by its number."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import difficulty_prune as dp

T, N, C = 3, 7, 4
NAMES = [f"premise-{i}" for i in range(N)]


def dynamics(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    logits, labels = rng.normal(size=(T, N, C)) * 3, rng.integers(0, C, N)
    logits[1, 2] = np.nan  # not presented in that epoch
    return logits, labels


def test_scores_are_those_of_the_papers_formulas(tmp_path: Path) -> None:
    logits, labels = dynamics()
    files = dp.convert.to_cartography(logits, labels, tmp_path, ids=NAMES)
    assert [f.name for f in files] == [f"dynamics_epoch_{t}.jsonl" for t in range(T)]
    run = dp.convert.from_cartography(tmp_path, task="nli")
    assert run.ids.tolist() == NAMES
    assert run.labels.tolist() == labels.tolist()
    assert (run.architecture, run.metadata["epochs"], run.metadata["task"]) == ("cartography", T, "nli")
    p = np.exp(logits) / np.exp(logits).sum(2, keepdims=True)
    for i in range(N):
        shown = [t for t in range(T) if not np.isnan(logits[t, i]).any()]
        gold = np.array([p[t, i, labels[i]] for t in shown])
        assert run.scores["confidence"][i] == pytest.approx(gold.mean(), abs=1e-6)
        assert run.scores["variability"][i] == pytest.approx(gold.std(), abs=1e-6)
        right = [logits[t, i].argmax() == labels[i] for t in shown]
        assert run.scores["accuracy"][i] == pytest.approx(np.mean(right))
        margins = [logits[t, i, labels[i]] - np.delete(logits[t, i], labels[i]).max() for t in shown]
        assert run.scores["aum"][i] == pytest.approx(np.mean(margins), abs=1e-5)


def test_lines_hold_what_they_were_given(tmp_path: Path) -> None:
    logits, labels = dynamics(1)
    dp.convert.to_cartography(logits, labels, tmp_path)
    found = np.full_like(logits, np.nan)
    for t in range(T):
        for line in (tmp_path / f"dynamics_epoch_{t}.jsonl").read_text().splitlines():
            entry = json.loads(line)
            assert set(entry) == {"guid", f"logits_epoch_{t}", "gold"}
            assert entry["gold"] == labels[entry["guid"]]
            found[t, entry["guid"]] = entry[f"logits_epoch_{t}"]
    np.testing.assert_array_equal(found, logits)


def test_order_and_other_fields_do_not_matter(tmp_path: Path) -> None:
    logits, labels = dynamics()
    dp.convert.to_cartography(logits, labels, tmp_path, ids=NAMES)
    before = dp.convert.from_cartography(tmp_path, scores=("el2n",))
    for path in tmp_path.iterdir():
        lines = [json.loads(line) | {"device": "cuda:0"} for line in path.read_text().splitlines()[::-1]]
        path.write_text("\n".join(map(json.dumps, lines)))
    (tmp_path / "notes.txt").write_text("of people")
    after = dp.convert.read(tmp_path, scores=("el2n",))
    order = [after.ids.tolist().index(name) for name in before.ids.tolist()]
    np.testing.assert_allclose(after.scores["el2n"][order], before.scores["el2n"], rtol=1e-6)


GOOD = {"guid": 1, "logits_epoch_0": [0.0, 1.0], "gold": 1}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"gold": 0}, r"gold of 1 is 0, and 1 before"),
        ({"gold": "x"}, "gold: got 'x', expected the number of a class"),
        ({"gold": -1}, "gold: got -1"),
        ({"gold": 10**20}, "gold: got 100000000000000000000, expected the number of a class"),
        ({"guid": 2, "gold": 2}, r"got 2 logits and gold 2, expected 2 logits and gold 0\.\.1"),
        ({"guid": 2, "logits_epoch_0": [0, 1, 2]}, "got 3 logits and gold 1, expected 2"),
        ({"guid": None}, "guid: got None, expected text, or a whole number"),
        ({"guid": 10**20}, "guid: got 100000000000000000000, expected text, or a whole number that int64 holds"),
        ({"guid": "b"}, "got the guid 'b' beside 1, expected one kind"),
        ({"guid": 1.5}, "guid: got 1.5"),
        ({"logits_epoch_0": [0, float("nan")]}, "logits_epoch_0: got .*expected a list of finite numbers"),
        ({"logits_epoch_0": [0, "1"]}, "logits_epoch_0: got"),
        ({"logits_epoch_0": 3}, "logits_epoch_0: got 3"),
    ],
)
def test_a_malformed_line_is_named(tmp_path: Path, line, message) -> None:
    lines = [GOOD, GOOD | line]
    (tmp_path / "dynamics_epoch_0.jsonl").write_text("\n".join(map(json.dumps, lines)))
    with pytest.raises(ValueError, match=f"dynamics_epoch_0.jsonl: line 2: {message}"):
        dp.convert.from_cartography(tmp_path)


def test_files_without_lines_are_refused(tmp_path: Path) -> None:
    (tmp_path / "dynamics_epoch_0.jsonl").write_text("")
    with pytest.raises(ValueError, match=r"dynamics_epoch_0\.jsonl: there are no lines"):
        dp.convert.from_cartography(tmp_path)


def test_a_file_of_another_epoch_and_no_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no files dynamics_epoch_0\.jsonl"):
        dp.convert.from_cartography(tmp_path)
    (tmp_path / "dynamics_epoch_3.jsonl").write_text(json.dumps(GOOD))
    with pytest.raises(ValueError, match=r"line 1: logits_epoch_3: got none \(there are guid, logits_epoch_0, gold\)"):
        dp.convert.from_cartography(tmp_path)


def test_other_shapes_are_refused(tmp_path: Path) -> None:
    for logits, message in (([[[0.0, 1.0]]], r"shape \(1, 2\)"), ([[[0, np.inf], [0, 1]]], "an infinite number")):
        with pytest.raises(ValueError, match=rf"logits of epoch 0: got {message}, expected finite numbers \[2, C\]"):
            dp.convert.to_cartography(logits, [0, 1], tmp_path)
    with pytest.raises(ValueError, match="ids: got 1, expected 2"):
        dp.convert.to_cartography([], [0, 1], tmp_path, ids=["a"])
    with pytest.raises(ValueError, match=r"labels: got float64 \(2,\)"):
        dp.convert.to_cartography([], [0.5, 1], tmp_path)
