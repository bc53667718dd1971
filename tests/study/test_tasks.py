"""Tasks and their files: what counts as done, which data a worker accepts, what is measured."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import difficulty_prune as dp
from difficulty_prune.study.study_data import Images, load_data
from difficulty_prune.study.tasks import ComparisonTask, DataSource, ScoringTask, peak_memory, slug, unfinished_runs
from difficulty_prune.study.train import Recipe

DIGITS = DataSource.of("digits")


def comparison(path: Path) -> ComparisonTask:
    policy = dp.policies.Random(0.02)
    return ComparisonTask(
        DIGITS, "mlp", 4, Recipe(1), "random", 0.02, policy, np.zeros(1437), "el2n of 1 runs", str(path)
    )


def test_a_result_names_the_data_as_those_of_older_versions_do(tmp_path: Path) -> None:
    task = comparison(tmp_path / "result.json")
    assert not task.is_done()
    task.run(lambda steps: None)
    facts = json.loads((tmp_path / "result.json").read_text())["task"]
    assert facts["fingerprint"] == dp.dataset_fingerprint(load_data("digits").train)
    assert task.is_done()
    for part in ("train_digest", "test_digest"):
        assert not replace(task, source=replace(DIGITS, **{part: "0" * 32})).is_done(), part


def test_a_result_says_how_weights_of_several_sizes_were_used(tmp_path: Path) -> None:
    """Those of earlier versions, whose steps were larger by the mean weight, do not count as done."""
    task = replace(comparison(tmp_path / "result.json"), difficulty=np.arange(1437.0))
    task.run(lambda steps: None)
    assert "weights" not in json.loads((tmp_path / "result.json").read_text())["task"]
    soft = replace(task, policy=dp.policies.SoftPrune(0.02))
    assert not soft.is_done()
    soft.run(lambda steps: None)
    assert json.loads((tmp_path / "result.json").read_text())["task"]["weights"] == "over their mean"
    assert soft.is_done()


def test_an_edited_result_is_not_done_and_cannot_be_averaged(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    task = comparison(path)
    task.run(lambda steps: None)
    path.write_text(json.dumps({**json.loads(path.read_text()), "test_accuracy": 0.999}))
    assert not task.is_done()
    with pytest.raises(ValueError, match=r"result\.json: .* changed since"):
        task.result()


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"task": 1}', "null"])
def test_a_damaged_result_is_not_done(text: str, tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text(text)
    assert not comparison(tmp_path / "result.json").is_done()


@pytest.mark.parametrize(("part", "name"), [("train_digest", "training"), ("test_digest", "test")])
def test_a_worker_refuses_other_data_than_that_of_the_study(part: str, name: str, tmp_path: Path) -> None:
    source = replace(DIGITS, **{part: "0" * 32})
    task = ScoringTask(source, "mlp", 0, Recipe(1), ("el2n",), str(tmp_path / "run.safetensors"))
    message = rf"data: the {name} data of digits has digest {getattr(DIGITS, part)} in a worker, expected 0{{32}}"
    with pytest.raises(ValueError, match=message):
        task.run(lambda steps: None)
    assert not list(tmp_path.iterdir())


def test_a_digest_is_of_every_pixel_and_label() -> None:
    images, labels = torch.rand(300, 1, 4, 4), torch.arange(300) % 2
    digests = {Images(images, labels).digest, Images(images.double(), labels).digest}
    digests.add(Images(images.view(300, 1, 2, 8), labels).digest)
    for position in range(300):
        other, others = images.clone(), labels.clone()
        other[position, 0, 3, 3] += 1
        others[position] ^= 1
        digests |= {Images(other, labels).digest, Images(images, others).digest}
    assert len(digests) == 603
    assert Images(images.clone(), labels.clone()).digest in digests
    assert Images(images.bfloat16(), labels).digest not in digests
    channels_last = images.to(memory_format=torch.channels_last)
    assert Images(channels_last, labels).digest in digests


# The folder of the runs


def scoring(folder: Path, seed: int = 0, model: str = "mlp", **changes: Any) -> ScoringTask:
    path = folder / f"{slug(model)}-{seed}.safetensors"
    return replace(ScoringTask(DIGITS, model, seed, Recipe(1), ("el2n",), str(path), first_seed=seed), **changes)


def pretend(task: ScoringTask, **facts: Any) -> None:
    """Writes a run of the task as far as its description says; a fact that is None is not mentioned."""
    description = {
        key: want for key, (_, want) in task.differing(dp.Run({"el2n": [0.0]}, architecture="", seed=-1)).items()
    }
    described = {**description, "hold_out": task.hold_out, "architecture": task.model, "seed": task.seed, **facts}
    scores = np.random.default_rng(task.seed).random(1437)
    known = {key: value for key, value in described.items() if value is not None}
    dp.Run({"el2n": scores}, **known).save(task.path)


def test_runs_that_may_be_averaged_share_a_folder(tmp_path: Path) -> None:
    for task in (scoring(tmp_path), scoring(tmp_path, 7), scoring(tmp_path, 3, "cnn")):
        pretend(task)
    pretend(scoring(tmp_path, 4, "resnet8"), model_digest="0" * 32)  # of that model's own source
    wanted = [scoring(tmp_path, 7), scoring(tmp_path, 8)]
    assert unfinished_runs(wanted) == wanted[1:]
    assert unfinished_runs([scoring(tmp_path / "new")]) == [scoring(tmp_path / "new")]


@pytest.mark.parametrize("model", ["mlp", "cnn"])
@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"recipe": {"epochs": 5}}, "epochs is 5 there and "),
        ({"hold_out": 0.3}, r"hold_out is 0\.3 there and 0\.0 now"),
        ({"train_digest": "0" * 32}, "train_digest is "),
        ({"test_digest": "0" * 32}, "test_digest is "),
        ({"test_fingerprint": "0" * 32}, "test_fingerprint is "),
        ({"dataset_fingerprint": "0" * 32}, "dataset_fingerprint is "),
        ({"train_digest": None}, "it does not say its train_digest, as runs of earlier versions do not"),
    ],
)
def test_a_run_of_another_study_is_refused_under_whatever_name(
    model: str, facts: dict[str, Any], message: str, tmp_path: Path
) -> None:
    pretend(scoring(tmp_path, 1, model), **facts)
    with pytest.raises(ValueError, match=rf"{model}-1\.safetensors is of another study.*{message}.*another --out"):
        unfinished_runs([scoring(tmp_path)])


def test_a_run_of_the_same_model_before_it_was_edited_is_refused(tmp_path: Path) -> None:
    pretend(scoring(tmp_path, 1), model_digest="0" * 32)
    with pytest.raises(ValueError, match=r"mlp-1\.safetensors is of another study.*model_digest is "):
        unfinished_runs([scoring(tmp_path)])


def test_a_file_that_is_no_run_is_named(tmp_path: Path) -> None:
    (tmp_path / "mine.safetensors").write_text("mine")
    with pytest.raises(ValueError, match=r"mine\.safetensors"):
        unfinished_runs([scoring(tmp_path)])


def test_memory_is_measured_where_it_can_be(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("resource")
    peak = peak_memory()
    assert peak is not None
    assert 50e6 < peak < 1e12, "bytes, with torch in memory"
    monkeypatch.setitem(sys.modules, "resource", None)
    assert peak_memory() is None


def test_a_study_can_be_imported_without_the_module_that_windows_lacks() -> None:
    code = "import sys; sys.modules['resource'] = None; import difficulty_prune.study"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
