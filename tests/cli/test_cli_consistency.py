"""The commands `consistency` and `fingerprint` on run files with known truth."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import difficulty_prune as dp
from difficulty_prune.cli.main import main

SIZE, SENSITIVE = 400, 40
ARCHITECTURES = ("cnn", "mlp", "vit")


def made_run(architecture: str, seed: int) -> dp.Run:
    """A shared difficulty, noise of the run, and some examples that each architecture finds easier or harder."""
    shared = np.random.default_rng(0).normal(size=SIZE)
    place = ARCHITECTURES.index(architecture) if architecture in ARCHITECTURES else 9
    own = np.zeros(SIZE)
    own[:SENSITIVE] = 3 * np.random.default_rng([1, place]).normal(size=SENSITIVE)
    noise = np.random.default_rng([2, place, seed]).normal(size=(2, SIZE))
    el2n, aum = shared + own + 0.7 * noise[0], -shared - own + noise[1]
    return dp.Run({"el2n": el2n, "aum": aum}, architecture=architecture, seed=seed, dataset_fingerprint="f00d")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five runs of each architecture, as a study leaves them."""
    out = tmp_path_factory.mktemp("study")
    for architecture in ARCHITECTURES:
        for seed in range(5):
            made_run(architecture, seed).save(out / "runs" / f"{architecture}-{seed}.safetensors")
    return out


def said(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    assert main([str(argument) for argument in arguments]) == 0
    return capsys.readouterr().out


def test_consistency_answers_in_words_first(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = said(capsys, "consistency", folder)
    runs = dp.RunSet.load(folder / "runs")
    lines = text.splitlines()
    assert lines[0] == "15 runs of 400 examples: 5 cnn, 5 mlp, 5 vit"
    assert f"  {dp.consistency.reliability(runs, 'el2n')}" == lines[3]
    assert f"  Of vit alone: {dp.consistency.reliability(runs.where(architecture='vit'), 'el2n')}" in lines
    for answer in (
        dp.consistency.rank_error(runs, "el2n"),
        dp.consistency.variance_shares(runs, "el2n"),
        dp.consistency.stable_subset(runs, "el2n", dp.policies.Hardest(0.5)),
        dp.consistency.pca(runs),
        dp.consistency.correlation(runs, "el2n", between="architectures"),
    ):
        assert f"  {answer}" in lines


def test_consistency_as_json_has_the_same_numbers(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("--score", "aum", "--target", "0.99", "--keep", "0.2", "--policy", "easiest", "--json")
    answers = json.loads(said(capsys, "consistency", folder / "runs", *arguments))
    runs = dp.RunSet.load(folder / "runs")
    expected = dp.consistency.reliability(runs, "aum")
    assert answers["reliability"]["value"] == expected.value
    assert answers["reliability"]["runs_needed"] == expected.runs_needed(0.99)
    assert set(answers["of_scores"]) == {"el2n", "aum"}
    assert set(answers["of_architectures"]) == set(ARCHITECTURES)
    assert answers["stable"] == dp.consistency.stable_subset(runs, "aum", dp.policies.Easiest(0.2)).to_dict()


def test_consistency_of_one_architecture_says_nothing_about_others(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = json.loads(said(capsys, "consistency", folder / "runs" / "cnn-*.safetensors", "--json"))
    assert answers["runs"] == "5 runs of 400 examples: 5 cnn"
    assert answers["architectures"] is None
    assert answers["of_architectures"] == {}
    assert "Do architectures agree" not in said(capsys, "consistency", folder / "runs" / "cnn-*.safetensors")


def test_figures_are_written_where_asked(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said(capsys, "consistency", folder, "--figures", tmp_path / "figures")
    said(capsys, "fingerprint", folder, "--figures", tmp_path / "figures")
    names = {path.stem for path in (tmp_path / "figures").iterdir()}
    consistency = {"reliability", "rank-error", "variance", "stability", "scores", "components", "loadings"}
    assert names == consistency | {"architectures", "manhattan"}
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in (tmp_path / "figures").iterdir())


def test_fingerprint_names_the_sensitive_examples(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = said(capsys, "fingerprint", folder, "--examples", "5")
    runs = dp.RunSet.load(folder / "runs")
    fingerprint = dp.fingerprint.ArchitectureFingerprint.fit(runs, "el2n", 5)
    assert str(dp.fingerprint.sensitive_examples(runs, "el2n")) in text
    assert str(fingerprint) in text
    assert set(fingerprint.examples.tolist()) <= set(range(SENSITIVE))
    assert f"most sensitive first: {', '.join(map(str, fingerprint.examples.tolist()))}" in text


def test_a_run_is_recognised_and_not_learned_from(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = folder / "runs" / "mlp-3.safetensors"
    text = said(capsys, "fingerprint", folder, "--identify", own)
    assert text.startswith("14 runs of 400 examples: 5 cnn, 4 mlp, 5 vit")
    assert f"{own} was made by mlp (probability" in text


def test_a_run_unlike_any_known_is_said_to_be(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    foreign = tmp_path / "foreign.safetensors"
    made_run("other", 0).save(foreign)
    assert f"{foreign} is unlike any known architecture" in said(capsys, "fingerprint", folder, "--identify", foreign)
    answers = json.loads(said(capsys, "fingerprint", folder, "--identify", foreign, "--json"))
    assert answers["identified"][str(foreign)]["predicted"] is None
    assert sum(answers["identified"][str(foreign)]["probabilities"].values()) == pytest.approx(1)


def test_a_saved_fingerprint_is_the_one_that_was_printed(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "fingerprint.safetensors"
    answers = json.loads(said(capsys, "fingerprint", folder, "--save", path, "--json"))
    assert dp.fingerprint.ArchitectureFingerprint.load(path).examples.tolist() == answers["examples"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["consistency", "nowhere"], "nowhere: no run files there; expected run files, a folder of them"),
        (["consistency", "{}", "--score", "el3n"], "score: got 'el3n'; all runs have el2n, aum"),
        (["consistency", "{}", "--target", "1.5"], "target: got 1.5"),
        (["consistency", "{}", "--keep", "0"], "keep: got 0"),
        (["consistency", "{}/runs/cnn-0.safetensors"], "1 run"),
        (["fingerprint", "{}/runs/cnn-*"], "cnn"),
        (["fingerprint", "{}", "--examples", "0"], "examples: got 0"),
        (["fingerprint", "{}", "--identify", "nowhere"], "nowhere: no run files there"),
        (["fingerprint", "{}", "--identify", "{}"], "every run is one to identify"),
        (
            ["fingerprint", "{}", "--compare", "--identify", "{}/runs/cnn-[12].safetensors"],
            "--compare: got 3 runs of an architecture, expected 4",
        ),
    ],
)
def test_bad_input_is_one_clear_line_and_status_2(
    arguments: list[str], message: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([argument.format(folder) for argument in arguments]) == 2
    stderr = capsys.readouterr().err
    assert message in stderr
    assert len(stderr.strip().splitlines()) == 1, stderr
