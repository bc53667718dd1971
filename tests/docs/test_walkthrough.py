"""The whole way of docs/walkthrough.md, on real photographs with human label errors and on digits with planted ones."""

from __future__ import annotations

import csv
import re
import shlex
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from places import ROOT

import difficulty_prune as dp
from difficulty_prune.cli.main import main

PAGE = (ROOT / "docs" / "walkthrough.md").read_text()
BLOCKS = re.findall(r"```(python|console)\n(.*?)```", PAGE, flags=re.DOTALL)
CIFAR = ROOT.parent / "shared" / "data"
PLANTED = 0.1
Truth = dict[str, str]  # id -> the right class


def digits(folder: Path) -> Truth:
    """Handwritten digits of four classes, of which one in ten lies in a wrong folder."""
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(n_class=4, return_X_y=True)
    rng = np.random.default_rng(0)
    truth = {}
    for number, (values, label) in enumerate(zip(pixels[:400], labels[:400], strict=True)):
        shown = (label + rng.integers(1, 4)) % 4 if rng.random() < PLANTED else label
        name = f"digit-{shown}/{number:04d}.png"
        image = Image.fromarray((values.reshape(8, 8) * 15).astype(np.uint8)).convert("RGB")
        save(image.resize((16, 16)), folder / name)
        truth[name] = f"digit-{label}"
    return truth


def photographs(folder: Path) -> Truth:
    """CIFAR-10's ships, trucks and horses, in folders by the labels that people gave them."""
    if not CIFAR.is_dir():
        pytest.skip("needs the real photographs with human labels, which are not here")
    with np.load(CIFAR / "cifar10_index.npz") as file:
        index = dict(file)
    with np.load(CIFAR / "cifar10_train_truth.npz") as file:
        people = file["human_label_first"]
    names = [str(name) for name in index["classes"]]
    chosen = {names.index(name) for name in ("ship", "truck", "horse")}
    starts = np.concatenate([[0], np.cumsum(index["size"])])
    truth: Truth = {}
    with open(CIFAR / "cifar10.jpegs", "rb") as blob:
        for i in np.flatnonzero(~index["test"].astype(bool)):
            label, given = int(index["label"][i]), int(people[index["number"][i]])
            if label in chosen and given in chosen and (label != given or len(truth) % 8):
                name = f"{names[given]}/{index['number'][i]:05d}.jpg"
                blob.seek(int(starts[i]))
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_bytes(blob.read(int(index["size"][i])))
                truth[name] = names[label]
            if len(truth) == 600:
                break
    return truth


def save(image: Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


def review(truth: Truth) -> list[dict[str, str]]:
    """What a person who knows writes of the fifty: most are corrected, the others dropped, left or confirmed."""
    rows = []
    to_review = csv.DictReader(Path("to_review.csv").read_text().splitlines())
    for number, name in enumerate(row["id"] for row in to_review):
        wrong = truth[name] != name.split("/")[0]
        word = ("drop", "wrong", "wrong", "wrong")[number % 4] if wrong else ("keep", "unsure")[number % 2]
        corrected = wrong and word == "wrong" and number % 4 != 3
        rows.append({"id": name, "decision": word, "label": truth[name] if corrected else "", "note": "looked at"})
    write("decisions.csv", rows)
    return rows


def write(path: str, rows: list[dict[str, str]]) -> None:
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, ["id", "decision", "label", "note"])
        writer.writeheader()
        writer.writerows(rows)


def change(truth: Truth, rows: list[dict[str, str]]) -> dict[str, list[str]]:
    """Removes, renames, moves and adds files; two of each were decided on, if so many were."""
    left_alone = [name for name in truth if name not in {row["id"] for row in rows}]
    some = [row["id"] for row in rows]
    removed, renamed, moved = [*some[:2], *left_alone[:3]], left_alone[3:6], left_alone[6:8]
    classes = sorted({name.split("/")[0] for name in truth})
    for name in removed:
        Path("photos", name).unlink()
    for name in renamed:
        Path("photos", name).rename(Path("photos", f"{name.split('.')[0]}-renamed.png"))
    for name in moved:  # to another class: another path, and so another id
        other = next(c for c in classes if c != name.split("/")[0])
        Path("photos", name).rename(Path("photos", other, Path(name).name))
    added = [f"{classes[0]}/new-{number}.png" for number in range(4)]
    for name in added:
        Image.new("RGB", (16, 16) if "digit" in name else (32, 32), (9, 9, 9)).save(Path("photos", name))
    return {"removed": removed, "renamed": renamed, "moved": moved, "added": added}


class Walk:
    """The page's blocks, one after another; a command is run as the shell would."""

    def __init__(self) -> None:
        self.names: dict[str, Any] = {}
        self._blocks: Iterator[tuple[str, str]] = iter(BLOCKS)

    def step(self) -> None:
        kind, text = next(self._blocks)
        if kind == "python":
            exec(text, self.names)
            return
        words = shlex.split(text.removeprefix("$ "))
        assert words[0] == "difficulty-prune"
        assert main(words[1:]) == 0

    @property
    def finished(self) -> bool:
        return next(self._blocks, None) is None


@pytest.mark.parametrize("make", [digits, photographs])
def test_the_whole_way(
    make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.set_num_threads(1)
    truth = make(Path("photos"))
    wrong = {name for name, right in truth.items() if right != name.split("/")[0]}
    walk = Walk()

    walk.step()  # score
    assert len(list(Path("runs").glob("*.safetensors"))) == 2
    walk.step()  # export
    assert f"{len(truth):,} examples" in capsys.readouterr().out
    walk.step()  # pandas
    suspects = set(walk.names["suspects"]["id"])
    assert len(suspects) == 50
    assert len(suspects & wrong) / 50 > 3 * len(wrong) / len(truth), "far more wrong labels than by chance"

    rows = review(truth)
    capsys.readouterr()
    walk.step()  # decisions
    assert "50 decisions: " in (said := capsys.readouterr().out)
    assert f"50 of 50 decisions are of examples of this data ({len(truth):,} examples)" in said

    changed = change(truth, rows)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        walk.step()  # today's data
    said = " ".join(str(w.message) for w in caught)
    assert "2 are of ids that it lacks" in said
    assert f"{sum(bool(row['label']) for row in rows)} of {len(truth)} ids have different labels" in said
    report = walk.names["runs"].match(walk.names["today"]).report
    assert (report.vanished, report.new) == (5 + 3 + 2, 3 + 2 + 4)
    assert str(report) in capsys.readouterr().out
    walk.step()  # plan by command
    said = capsys.readouterr()
    assert "plan.safetensors" in said.out
    assert "10 vanished" in said.err
    assert "9 are new" in said.err
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        walk.step()  # plan in Python
    assert any("10 vanished" in str(w.message) for w in caught)

    seen = visits(walk.names["today"], walk.names["sampler"])
    expect_as_decided(seen, rows, changed, truth)
    walk.step()  # train
    walk.step()  # by the plan of the command
    assert visits(walk.names["today"], walk.names["by_file"]).keys() == seen.keys()
    assert walk.finished

    for use_wrongly in WRONG_USES:
        use_wrongly(walk.names, rows)


def visits(today: dp.IndexedDataset, sampler: dp.PruneSampler) -> dict[str, int]:
    """The label under which a training would see each example that it sees."""
    return {today.ids[i]: int(today[i][1]) for i in sampler}


def expect_as_decided(
    seen: dict[str, int], rows: list[dict[str, str]], changed: dict[str, list[str]], truth: Truth
) -> None:
    classes = sorted(set(truth.values()))
    for row in rows:
        if row["decision"] == "drop" or (row["decision"] == "wrong" and not row["label"]):
            assert row["id"] not in seen
        elif row["decision"] == "wrong" and row["id"] in seen:
            assert classes[seen[row["id"]]] == truth[row["id"]]
    assert set(changed["added"]) <= set(seen), "what has no score is kept"
    assert not set(changed["removed"]) & set(seen)


# Ten ways to get it wrong


def another_folder(names: dict[str, Any], rows: Any) -> None:
    other = dp.IndexedDataset([("x", 0), ("y", 1)], key=0, ids=["x", "y"])
    with pytest.raises(ValueError, match=r"none of .* ids, such as .* it is another dataset"):
        names["runs"].difficulty("aum", dataset=other)


def new_ones_without_a_word(names: dict[str, Any], rows: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(ValueError, match=r"examples are NaN.*unseen='keep'"):
            dp.PruneSampler(dp.policies.Easiest(0.9), names["difficulty"], dataset=names["today"])


def old_difficulty_by_position(names: dict[str, Any], rows: Any) -> None:
    with pytest.raises(ValueError, match=r"but the dataset has .* to match them by id, give ids=runs.ids"):
        dp.PruneSampler(names["policy"], names["runs"].difficulty("aum"), dataset=names["today"])


def old_runs_among_new_ones(names: dict[str, Any], rows: Any) -> None:
    today = names["today"]
    new = dp.Run({"aum": np.zeros(len(today))}, architecture="cnn", seed=9, ids=today.ids, labels=today.labels)
    new.save("later/cnn-9.safetensors")
    with pytest.raises(ValueError, match=r"examples|ids|labels"):
        dp.RunSet.load(["runs", "later"])
    with pytest.warns(UserWarning, match="ids have different labels in different runs"):
        assert len(dp.RunSet.load(["runs", "later"], join="ids", decisions=names["decisions"])) == 3


def decisions_of_other_data(names: dict[str, Any], rows: Any) -> None:
    other = dp.Decisions([{"id": "elsewhere/1.png", "decision": "drop"}])
    with pytest.raises(ValueError, match="the only decision is of an id that the data lacks"):
        dp.PruneSampler(names["policy"], names["difficulty"], dataset=names["today"], decisions=other)


def a_decision_twice(names: dict[str, Any], rows: list[dict[str, str]]) -> None:
    other = {"drop": "keep"}.get(rows[0]["decision"], "drop")
    write("twice.csv", [*rows, {"id": rows[0]["id"], "decision": other, "label": "", "note": ""}])
    with pytest.raises(ValueError, match=r"twice.csv: line 2 and line 52 are both of .* and contradict each other"):
        dp.Decisions.load("twice.csv")


def a_word_that_is_no_decision(names: dict[str, Any], rows: list[dict[str, str]]) -> None:
    write("word.csv", [{**rows[0], "decision": "remove", "label": ""}])
    with pytest.raises(ValueError, match=r"word.csv: line 2: decision: got 'remove', expected one of keep, wrong"):
        dp.Decisions.load("word.csv")


def a_label_that_is_no_class(names: dict[str, Any], rows: list[dict[str, str]]) -> None:
    present = next(row["id"] for row in rows if row["id"] in set(names["today"].ids))
    write("label.csv", [{"id": present, "decision": "wrong", "label": "whale", "note": ""}])
    with pytest.raises(ValueError, match=r"label.csv: line 2: label 'whale' is no class"):
        dp.IndexedDataset(names["today"].dataset, decisions=dp.Decisions.load("label.csv"))


def labels_that_nobody_serves(names: dict[str, Any], rows: Any) -> None:
    plain = dp.IndexedDataset(names["today"].dataset)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        dp.PruneSampler(names["policy"], names["difficulty"], dataset=plain, decisions=names["decisions"])
    assert any("labels are corrected, but the dataset serves them as they were" in str(w.message) for w in caught)


def scores_under_the_old_label(names: dict[str, Any], rows: Any) -> None:
    with pytest.warns(UserWarning, match="ids have different labels in different runs"):
        runs = dp.RunSet.load("runs/*.safetensors", decisions=names["decisions"])
    corrected = [row["id"] for row in rows if row["label"]]
    places = [list(runs.ids).index(name) for name in corrected]
    assert np.isnan(runs.mean("aum")[places]).all()


def a_plan_of_other_data(names: dict[str, Any], rows: Any) -> None:
    plan = dp.Plan(torch.tensor([0, len(names["today"]) + 5]), torch.ones(2))
    with pytest.raises(ValueError, match="keeps position"):
        dp.PruneSampler(plan, torch.zeros(len(names["today"])), dataset=names["today"])


def two_examples_of_one_id(names: dict[str, Any], rows: Any) -> None:
    with pytest.raises(ValueError, match="'a' names both example 0 and example 1"):
        dp.IndexedDataset([("x", 0), ("y", 1)], ids=["a", "a"])


WRONG_USES = (
    another_folder,
    new_ones_without_a_word,
    old_difficulty_by_position,
    old_runs_among_new_ones,
    decisions_of_other_data,
    a_decision_twice,
    a_word_that_is_no_decision,
    a_label_that_is_no_class,
    labels_that_nobody_serves,
    scores_under_the_old_label,
    a_plan_of_other_data,
    two_examples_of_one_id,
)
