"""Tables: which columns are features, what becomes of texts, and what is refused by line and column."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from study_here import study_here

import difficulty_prune as dp
from difficulty_prune.study.settings import Settings
from difficulty_prune.study.study_data import load_data, open_data
from difficulty_prune.study.train import Recipe, predict, train

HEADER = "id,size,colour,flat,species\n"


def write(path: Path, rows: int = 40, header: str = HEADER) -> Path:
    lines = [f"r{i},{i / 10},{('red', 'blue', 'green')[i % 3]},7,{('cat', 'dog')[i % 2]}\n" for i in range(rows)]
    path.write_text(header + "".join(lines))
    return path


def test_columns_become_numbers_by_the_training_data_alone(tmp_path: Path) -> None:
    train, test = write(tmp_path / "a.csv"), write(tmp_path / "b.csv", rows=8)
    test.write_text(test.read_text() + "new,100,violet,9,dog\n")
    data = load_data(f"table:{train}#species", f"table:{test}#species")
    assert (data.shape, data.num_classes, data.names_of_classes, data.table) == ((1, 1, 5), 2, ("cat", "dog"), True)
    rows = data.train.images[:, 0, 0].double()
    sizes = np.arange(40) / 10
    np.testing.assert_allclose(rows[:, 0], (sizes - sizes.mean()) / sizes.std(), rtol=1e-6)
    assert rows[:3, 1:4].tolist() == [[0, 0, 1], [1, 0, 0], [0, 1, 0]], "blue, green, red"
    assert rows[:, 4].unique().tolist() == [0]
    last = data.test.images[-1, 0, 0]
    assert last[0] == pytest.approx((100 - sizes.mean()) / sizes.std())
    assert last[1:].tolist() == [0, 0, 0, 2], "a text that no training row has"
    assert data.train.ids.tolist() == [f"r{i}" for i in range(40)]
    assert data.train.labels.tolist() == [0, 1] * 20


def test_without_test_data_a_fifth_is_set_aside_and_not_looked_at(tmp_path: Path) -> None:
    data = load_data(f"table:{write(tmp_path / 'a.csv')}#species")
    assert (len(data.train), len(data.test)) == (32, 8)
    assert float(data.train.images[:, 0, 0, 0].mean()) == pytest.approx(0, abs=1e-6)
    assert sorted([*data.train.ids, *data.test.ids]) == sorted(f"r{i}" for i in range(40))


def test_labels_that_are_numbers_keep_their_order(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"x": i, "y": (10, 2)[i % 2]}) + "\n" for i in range(20)))
    data = load_data(f"table:{path}#y")
    assert data.names_of_classes == ("2", "10")
    assert data.train.ids is None


def test_the_data_sets_of_scikit_learn_are_read_by_name() -> None:
    data = load_data("sklearn:wine")
    assert (len(data.train), len(data.test), data.shape, data.num_classes) == (142, 36, (1, 1, 13), 3)
    torch.testing.assert_close(data.train.images.mean(0), torch.zeros(1, 1, 13), atol=1e-6, rtol=0)
    assert open_data("sklearn:wine").ids.tolist() == list(range(178))


def test_other_commands_find_ids_labels_and_names(tmp_path: Path) -> None:
    data = open_data(f"table:{write(tmp_path / 'a.csv', rows=4)}#species")
    assert data.ids.tolist() == ["r0", "r1", "r2", "r3"]
    assert (data.labels.tolist(), data.class_names) == ([0, 1, 0, 1], ("cat", "dog"))


@pytest.mark.parametrize(
    ("text", "spec", "message"),
    [
        ("x,y\n1,a\n,b\n", "#y", r"a\.csv: line 3 has no value in the column 'x'; fill it in"),
        ("x,y\n1,a\n", "#z", r"label: .*a\.csv has no column 'z', expected one of 'x', 'y'"),
        ("x,y\n1,a\n", "", r"label: got none for the table .*a\.csv, expected .* --label COLUMN"),
        ("x,y\n", "#y", "the table has no rows"),
        ("id,y\n1,a\n2,b\n", "#y", "expected features to learn from"),
        ("x,y\n1,0.5\n2,1\n", "#y", r"line 2 has 0\.5 in the column 'y', expected classes"),
        (
            "x,y\n" + "".join(f"t{i},{i % 2}\n" for i in range(200)), "#y",
            r"'x' has 160 different texts, expected numbers",
        ),
        ("x,y\n1,a\nNA,b\n", "#y", r"a\.csv: line 3 has 'NA' in the column 'x', whose other cells are numbers"),
        ("x,y\n1,0\n2,nan\n", "#y", r"line 3 has 'nan' in the column 'y', whose other cells are numbers"),
        ("x,y\n1,0.5\n2,-inf\n", "#y", r"line 3 has '-inf' in the column 'y', whose other cells are numbers"),
        ("x,y\n" + "1,a\n1e300,b\n" * 9, "#y", r"line 3 has 1e\+300 in the column 'x', too large"),
        ("x,y\n" + "1,a\n" * 9 + "2,b\n", "#y", "a fifth of each class cannot be set aside"),
    ],
)  # fmt: skip
def test_a_table_that_cannot_be_used_is_refused_by_line_and_column(
    text: str, spec: str, message: str, tmp_path: Path
) -> None:
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        load_data(f"table:{tmp_path / 'a.csv'}{spec}")


def test_cells_that_hold_several_values_are_refused(tmp_path: Path) -> None:
    """Not each list a text of its own."""
    (tmp_path / "a.json").write_text(json.dumps([{"x": [i % 3, 1], "y": i % 2} for i in range(20)]))
    with pytest.raises(
        ValueError, match=r"a\.json: entry 1 has \[0, 1\] in the column 'x', expected a number or a text"
    ):
        load_data(f"table:{tmp_path / 'a.json'}#y")


def test_texts_that_only_look_like_numbers_stay_texts_and_large_classes_apart(tmp_path: Path) -> None:
    path, big = tmp_path / "a.csv", 2**53
    path.write_text("x,y\n" + "".join(f"1_{i % 3},{big + i % 3}\n" for i in range(30)))
    data = load_data(f"table:{path}#y")
    assert data.train.class_names == (str(big), str(big + 1), str(big + 2))
    assert data.shape == (1, 1, 3)
    assert data.train.images.unique().tolist() == [0, 1]


def test_test_labels_are_read_as_those_of_the_training_data(tmp_path: Path) -> None:
    """A class is "01" where another one is "x", also in test data that lack the other."""
    train, test = tmp_path / "a.csv", tmp_path / "b.csv"
    train.write_text("f,y\n" + "1,01\n2,x\n" * 9)
    test.write_text("f,y\n1,01\n")
    assert load_data(f"table:{train}#y", f"table:{test}#y").test.labels.tolist() == [0]


def test_a_column_that_never_changes_in_training_is_not_blown_up(tmp_path: Path) -> None:
    """The mean of many 0.1 is not 0.1, so that a deviation of 1e-17 would divide what test data differ by."""
    train, test = tmp_path / "a.csv", tmp_path / "b.csv"
    train.write_text("f,g,y\n" + "0.1,1,0\n0.1,2,1\n" * 100)
    test.write_text("f,g,y\n0.2,1,0\n")
    data = load_data(f"table:{train}#y", f"table:{test}#y")
    assert data.test.images[0, 0, 0, 0].item() == pytest.approx(0.1)
    assert data.train.images[:, 0, 0, 0].abs().max() < 1e-9
    with pytest.raises(ValueError, match=r"all numbers to predict are 0\.1, expected different ones"):
        load_data(f"regression:{train}#f")
    test.write_text("f,g,y\n1,1e99,0\n")
    load_data.cache_clear()
    with pytest.raises(ValueError, match=r"b\.csv: line 2 has 1e\+99 in the column 'g', too far from the numbers of"):
        load_data(f"table:{train}#y", f"table:{test}#y")


def test_a_column_that_the_first_row_lacks_is_not_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"f": i, "y": i % 2, **({"g": i} if i else {})}) + "\n" for i in range(20)))
    with pytest.raises(ValueError, match="line 1 has no value in the column 'g'"):
        load_data(f"table:{path}#y")


def test_test_tables_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    train = f"table:{write(tmp_path / 'a.csv')}#species"
    for text, message in (
        ("size,species\n1,cat\n", r"test: .*b\.csv has no column 'colour', 'flat'"),
        (HEADER + "1,1,red,7,cow\n", r"line 2 has label 'cow', of which there is no training example"),
        (HEADER + "1,big,red,7,cat\n", r"line 2 has 'big' in the column 'size', expected a number"),
    ):
        (tmp_path / "b.csv").write_text(text)
        load_data.cache_clear()
        with pytest.raises(ValueError, match=message):
            load_data(train, f"table:{tmp_path / 'b.csv'}#species")
    with pytest.raises(ValueError, match="test: got 'digits', expected a table"):
        load_data(train, "digits")
    with pytest.raises(ValueError, match="size: got 9 for"):
        load_data(train, None, 9)
    with pytest.raises(ValueError, match="expected one of sklearn:breast_cancer"):
        load_data("sklearn:boston")
    with pytest.raises(ValueError, match="label: got 'y' for digits"):
        Settings(label="y")


def test_a_study_of_a_table_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = ["--data", f"table:{write(tmp_path / 'a.csv')}", "--label", "species", "--runs", "2", "--epochs", "2"]
    assert "eeping the hardest 50 % by el2n" in study_here(
        *arguments, "--keep", "0.5", "--policy", "hardest", "--seeds", "2"
    )
    run = dp.Run.load("study/runs/mlp-0.safetensors")
    assert run.class_names == ("cat", "dog")
    assert not (tmp_path / "study" / "figures" / "hardest.png").exists()


# Numbers to predict


def test_numbers_to_predict_are_scaled_by_the_training_data(tmp_path: Path) -> None:
    table = write(tmp_path / "a.csv")
    settings = Settings(data=f"table:{table}", label="size", regression=True)
    assert settings.scores == ("loss", "vog_loss")
    data = load_data(*settings.data_specs)
    assert (data.regression, data.num_classes, data.classes, data.names_of_classes) == (True, 1, None, None)
    assert (len(data.train), len(data.test)) == (32, 8)
    assert float(data.train.labels.mean()) == pytest.approx(0, abs=1e-6)
    assert float(data.train.labels.std(correction=0)) == pytest.approx(1, abs=1e-6)
    both = torch.cat([data.train.labels, data.test.labels])
    numbers = np.array([int(name[1:]) / 10 for name in [*data.train.ids, *data.test.ids]])
    assert np.corrcoef(both, numbers)[0, 1] == pytest.approx(1)


@pytest.mark.parametrize(("data", "rate"), [("sklearn:diabetes", 1.0), ("sklearn:iris", 1e30)])
def test_a_training_that_diverges_is_no_result(data: str, rate: float) -> None:
    """Its loss is NaN, or its predictions are the first class for all."""
    loaded, settings = load_data(data), Settings(data=data)
    sampler = dp.PruneSampler(dp.policies.Random(1.0), np.zeros(len(loaded.train)), seed=0)
    with pytest.raises(ValueError, match=r"mlp, seed 3: the training diverged, .*; take a lower learning rate"):
        train(loaded, "mlp", sampler, replace(settings.recipe, epochs=1, learning_rate=rate), 3)


@pytest.mark.parametrize("epochs", [2, 5])
def test_numbers_are_learned_at_the_rate_that_is_usual(epochs: int) -> None:
    data, settings = load_data("sklearn:diabetes"), Settings(data="sklearn:diabetes", epochs=epochs)
    for seed, keep in enumerate((1.0, 0.3)):
        sampler = dp.PruneSampler(dp.policies.Random(keep), np.zeros(len(data.train)), seed=seed)
        assert train(data, "mlp", sampler, settings.recipe, seed).test_loss < 0.9  # that of the mean is 1


def test_the_loss_of_numbers_is_the_squared_error_and_is_scored(tmp_path: Path) -> None:
    data = load_data("sklearn:diabetes")
    tracker = dp.DifficultyTracker(len(data.train), scores=("loss", "vog_loss"))
    sampler = dp.PruneSampler(dp.policies.Random(1.0), torch.zeros(len(data.train)))
    outcome = train(data, "mlp", sampler, Recipe(epochs=5, batch_size=32, learning_rate=0.02), 0, tracker)
    errors = (predict(outcome.model, data, data.test)[:, 0] - data.test.labels).square()
    assert outcome.test_loss == pytest.approx(float(errors.mean()))
    assert outcome.test_accuracy is None
    assert outcome.test_loss < 0.9, "better than the mean, whose loss is 1"
    assert bool((tracker.compute()["vog_loss"] > 0).all())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"data": "digits", "regression": True}, "regression: got it for digits, expected --data table:FILE"),
        ({"data": "sklearn:diabetes", "scores": ("el2n",)}, "scores: got 'el2n', expected loss or recent_loss or vog"),
        ({"data": "sklearn:diabetes", "policies": ("hardest-per-class",)}, "there are no classes"),
    ],
)
def test_what_needs_classes_is_refused_where_numbers_are_predicted(options, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Settings(**options)


def test_tables_without_numbers_to_predict_are_refused(tmp_path: Path) -> None:
    table = write(tmp_path / "a.csv")
    with pytest.raises(ValueError, match=r"line 2 has 'red' in the column 'colour', expected a number to predict"):
        load_data(f"regression:{table}#colour")
    with pytest.raises(ValueError, match="all numbers to predict are 7, expected different ones"):
        load_data(f"regression:{table}#flat")
    with pytest.raises(ValueError, match="plant_wrong: got"):
        load_data("sklearn:diabetes", None, None, 0.1)
    with pytest.raises(ValueError, match="expected labels of the kind"):
        load_data(f"regression:{table}#size", "sklearn:iris")


def test_a_study_of_numbers_compares_losses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = ["--data", "sklearn:diabetes", "--runs", "2", "--epochs", "2", "--lr", "0.02", "--keep", "0.5"]
    out = study_here(*arguments, "--policy", "easiest", "--seeds", "2")
    assert "eeping the easiest 50 % by loss" in out
    assert "test loss" in out
    summary = json.loads(Path("study/summary.json").read_text())
    (row,) = [row for row in summary["comparison"] if row["policy"] == "easiest"]
    assert row["test_loss"] == pytest.approx(np.mean(row["test_losses"]))
    (verdict,) = [row for row in summary["verdicts"]["mlp"]["rows"] if row["kind"] == "policy"]
    chance = verdict["verdicts"]["test loss"]["chance"]
    assert chance["points"] is False
