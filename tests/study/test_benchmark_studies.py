"""The studies of benchmarks/studies: their measures against slow references, and tiny ones from beginning to end."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from places import ROOT

import difficulty_prune as dp

sys.path.insert(0, str(ROOT / "benchmarks" / "studies"))
vog_claims = importlib.import_module("vog_claims")
detect_wrong = importlib.import_module("detect_wrong")
architectures = importlib.import_module("architectures")

TASKS = {
    "architectures": "ScoringRun",
    "every_score": "Training",
    "mixing": "Training",
    "wrong_labels": "Training",
}
scores = st.lists(st.integers(-3, 3).map(float), min_size=1, max_size=12).map(np.array)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Folders of images of 8 x 8 named by position, 350 to train on and 50 to test, and the labels that people gave."""
    folder, rng = tmp_path_factory.mktemp("photographs"), np.random.default_rng(0)
    for part, size in (("train", 350), ("test", 50)):
        for position in range(size):
            path = folder / part / str(position % 5) / f"{position:05d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            shade = 40 * (position % 5) + rng.integers(0, 40, (8, 8, 3))
            Image.fromarray(shade.astype(np.uint8)).save(path)
    given = np.arange(350) % 5
    given[::4] = (given[::4] + 1) % 5
    np.savez(folder / "truth.npz", human_label_first=given, human_label_aggregate=given)
    return folder, folder / "truth.npz"


def run(module, *arguments: object, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(sys, "argv", [module.__name__, *map(str, arguments)])
    module.main()
    return capsys.readouterr().out


@pytest.mark.parametrize("name", TASKS)
def test_trainings_have_what_the_executor_asks_for(name: str) -> None:
    task = getattr(importlib.import_module(name), TASKS[name])
    assert all(callable(getattr(task, method)) for method in ("describe", "steps", "is_done", "run"))


@given(scores, scores)
def test_false_alarms_are_those_of_the_best_threshold(own: np.ndarray, foreign: np.ndarray) -> None:
    thresholds = [t for t in foreign if (foreign >= t).mean() >= 0.95]
    assert vog_claims.false_alarms(own, foreign) == pytest.approx(min((own >= t).mean() for t in thresholds))


def test_errors_by_tenth_go_from_low_to_high() -> None:
    score = np.random.default_rng(0).permutation(100)
    errors = vog_claims.error_by_tenth(score, right=score < 55)
    assert errors == [0, 0, 0, 0, 0, 0.5, 1, 1, 1, 1]


def test_a_claim_holds_only_if_its_interval_is_above_zero() -> None:
    words = [vog_claims.verdict(d) for d in ([0.2, 0.1], [0.1, 0.1], [-0.1, 0.2], [-0.2, 0.1])]
    assert words == ["held", "not held", "not held", "not held: the reverse"]


def test_within_the_class_of_own_images() -> None:
    own, classes = np.array([1.0, 3.0, 10.0, 30.0, 20.0]), np.array([0, 0, 1, 1, 1])
    scaled = vog_claims.within_own_class(own, classes, own, classes)
    np.testing.assert_allclose(scaled, dp.class_normalize(own, classes))
    foreign = vog_claims.within_own_class(np.array([2.0, 5.0, 20.0]), np.array([0, 0, 1]), own, classes)
    np.testing.assert_allclose(foreign, [0, 3, 0])


def test_stages_are_nine_different_epochs() -> None:
    for epochs in (9, 12, 15, 40):
        kept = [epoch for stage in vog_claims.stages(epochs).values() for epoch in stage]
        assert kept == sorted(set(kept))
        assert (len(kept), kept[0], kept[-1]) == (9, 0, epochs - 1)


def test_textures_are_the_pixels_of_the_photographs_once() -> None:
    from sklearn.datasets import load_sample_images

    crops = vog_claims.textures().images.numpy()
    photograph = load_sample_images().images[1]
    across = photograph.shape[1] // 32
    half = len(crops) // 2
    np.testing.assert_array_equal(crops[half + across + 2].transpose(1, 2, 0), photograph[32:64, 64:96])
    assert len(crops) == 2 * (photograph.shape[0] // 32) * across
    assert vog_claims.digits().images.shape == (599, 3, 32, 32)


def test_vog_claims_continue_and_print_what_they_wrote(photographs, tmp_path: Path, capsys, monkeypatch) -> None:
    few = {name: getattr(vog_claims, name)().select(np.arange(0, 500, 50)) for name in vog_claims.FOREIGN}
    for name, images in few.items():
        monkeypatch.setattr(vog_claims, name, lambda images=images: images)
    folder, truth = photographs
    sizes = ["--size", 160, "--test", 40, "--suspects", 100, "--epochs", 9, "--seeds", 2]
    command = [vog_claims, folder, truth, "--work", tmp_path / "work", *sizes, "--out", tmp_path / "found.json"]
    fixtures = {"capsys": capsys, "monkeypatch": monkeypatch}
    assert "8 pieces are left" in run(*command, "--minutes", 0, **fixtures)
    printed = run(*command, **fixtures)
    found = json.loads((tmp_path / "found.json").read_text())
    assert run(vog_claims, "--show", tmp_path / "found.json", **fixtures) == printed
    assert found["seeds"] == [0, 1]
    targets = [f"{score}{kind}" for score in vog_claims.VOG for kind in ("", ", within class")]
    assert set(found["claims"]) == {f"{s}/{stage}" for s in targets for stage in ("early", "middle", "late", "all")}
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "work").rglob("*.*")}
    assert run(*command, **fixtures) == printed
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "work").rglob("*.*")}

    kept = np.load(next((tmp_path / "work").rglob("human-0/scores.npz")))
    settings = vog_claims.Settings(160, 40, 100, 9)
    _, wrong = vog_claims.load(folder, truth, settings, "human")
    measured = dp.scores.ood(
        *(kept["suspects/late/vog_loss"][wrong[vog_claims.suspects(settings)] == w] for w in (False, True))
    )
    row = found["suspects"]["vog_loss/late"]
    mean, half = row["auroc"]
    assert abs(measured.auroc - mean) == pytest.approx(half / 12.706, abs=1e-3)  # Student's t of one of two seeds


def test_detection_measures_what_is_finished(photographs, tmp_path: Path, capsys, monkeypatch) -> None:
    folder, truth = photographs
    sizes = ["--size", 260, "--sets", "first", "--seeds", 2, "--long", 0, "--models", "mlp"]
    command = [detect_wrong, folder / "train", truth, "--work", tmp_path, *sizes, "--out", tmp_path / "found.json"]
    fixtures = {"capsys": capsys, "monkeypatch": monkeypatch}
    assert "10 trainings are left" in run(*command, "--minutes", 0, **fixtures)
    printed = run(*command, **fixtures)
    assert printed.endswith(run(detect_wrong, "--show", tmp_path / "found.json", **fixtures))
    rows = json.loads((tmp_path / "found.json").read_text())["sets"]["first, 12 epochs"]["rows"]
    assert {"one run: el2n", "one run: el2n, since 6", "mean of 2 runs: forgetting", "cnn and mlp: margin"} <= set(rows)

    results = {path.stem: dict(np.load(path)) for path in (tmp_path / "260-images-12-epochs").iterdir()}
    run_1 = results["first-cnn-1-fold-0-of-1"]
    data, clean = detect_wrong.load(folder / "train", truth, 260, "first")
    labels = data.train.labels.numpy()
    wrong = labels != clean
    hardest = np.argsort(-run_1["el2n"], kind="stable")[: wrong.sum()]
    assert detect_wrong.measure(run_1["el2n"], wrong)["precision"] == pytest.approx(wrong[hardest].mean(), abs=1e-4)
    assert rows["one run: el2n"]["auroc_of_seeds"][1] == detect_wrong.measure(run_1["el2n"], wrong)["auroc"]

    halves = [results[f"first-cnn-0-fold-{fold}-of-2"] for fold in range(2)]
    assert all((np.isnan(half["el2n"]) == np.isfinite(half["held"][:, 0])).all() for half in halves)
    own = [half["held"][np.arange(260), labels] for half in halves]
    held_out = np.where(np.isnan(own[0]), own[1], own[0])
    in_step = np.where(np.isnan(halves[0]["el2n"]), halves[1]["el2n"], halves[0]["el2n"])
    assert rows["2 folds: held-out probability"] == pytest.approx(detect_wrong.measure(-held_out, wrong), abs=0.01)
    assert rows["2 folds, in step: el2n"] == detect_wrong.measure(in_step, wrong)


def test_windows_add_up() -> None:
    import torch

    windows, rng = detect_wrong.Windows(4, (2,)), np.random.default_rng(0)
    index, labels = torch.arange(4), torch.tensor([0, 1, 2, 0])
    logits = torch.from_numpy(rng.normal(size=(6, 4, 3))).float()
    for each in logits:
        windows.update(index, each, labels)
        windows.next_epoch(1)
    found = windows.difficulties()
    error = (logits.softmax(2) - torch.nn.functional.one_hot(labels, 3)).norm(dim=2)
    np.testing.assert_allclose(found["el2n"], error.mean(0), rtol=1e-5)
    np.testing.assert_allclose(found["el2n, since 2"], error[2:].mean(0), rtol=1e-5)


def test_each_model_has_its_own_order_unless_told() -> None:
    what = [Path("images"), 10, 1]
    runs = [(a, k) for a in architectures.ARCHITECTURES for k in range(10)]
    own = [architectures.ScoringRun(*what, a, k, Path("work")) for a, k in runs]
    shared = [architectures.ScoringRun(*what, a, k, Path("work"), shared_order=True) for a, k in runs]
    assert len({run.seed for run in own}) == 40
    assert len({run.seed for run in shared}) == 10
    assert len({run.path for run in own + shared}) == 80
