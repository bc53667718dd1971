"""The commands `consistency` and `fingerprint` on run files with known truth."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import difficulty_prune as dp
from difficulty_prune.cli.consistency import Options, collect
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
    assert answers["reliability"]["runs_needed_interval"] == list(expected.runs_needed_interval(0.99))
    assert answers["rank_error"] == dp.consistency.rank_error(runs, "aum").to_dict()
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
    assert fingerprint.describe(dp.fingerprint.sensitive_examples(runs, "el2n")) in text
    assert set(fingerprint.examples.tolist()) <= set(range(SENSITIVE))
    assert f"most sensitive first: {', '.join(map(str, fingerprint.examples.tolist()))}" in text


def test_a_run_is_recognised_and_not_learned_from(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = folder / "runs" / "mlp-3.safetensors"
    text = said(capsys, "fingerprint", folder, "--identify", own)
    assert text.startswith("14 runs of 400 examples: 5 cnn, 4 mlp, 5 vit")
    assert f"{own} was made by mlp (probability" in text
    assert "), as its file says.\n" in text


def test_a_run_to_recognise_of_perhaps_other_data_is_warned_of(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, scores = tmp_path / "unknown.safetensors", made_run("mlp", 7).scores
    for known, shown in (
        ({}, False),
        ({"labels": np.zeros(SIZE, int)}, False),
        ({"dataset_fingerprint": "f00d"}, True),
    ):
        dp.Run(scores, architecture="mlp", seed=7, **known).save(path)
        assert main(["fingerprint", str(folder), "--identify", str(path), "--json"]) == 0
        out, err = capsys.readouterr()
        assert json.loads(out)["identified"][str(path)]["shown to be of the same data"] is shown
        warned = [line for line in err.splitlines() if "warning" in line]
        assert len(warned) == (not shown)
        assert all(f"warning: nothing shows that {path} is of the same data in the same order" in w for w in warned)


def test_labels_show_that_a_run_to_recognise_is_of_the_same_data_or_of_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = np.arange(SIZE) % 3
    for name in ("cnn", "mlp"):
        for seed in range(4):
            run = dp.Run(made_run(name, seed).scores, architecture=name, seed=seed, labels=labels)
            run.save(tmp_path / f"{name}-{seed}.safetensors")
    unknown = tmp_path / "unknown" / "mlp-3.safetensors"
    unknown.parent.mkdir()
    (tmp_path / "mlp-3.safetensors").rename(unknown)
    assert main(["fingerprint", str(tmp_path), "--identify", str(unknown)]) == 0
    assert "warning" not in capsys.readouterr().err
    dp.Run(made_run("mlp", 3).scores, architecture="mlp", seed=3, labels=np.roll(labels, 1)).save(unknown)
    assert main(["fingerprint", str(tmp_path), "--identify", str(unknown)]) == 2
    assert "is of other data than the known runs: 399 examples have other labels" in capsys.readouterr().err


def partly_constant(folder: Path, **constant: tuple[str, ...]) -> Path:
    """Three runs each of two architectures, of which some scores are the same for all examples."""
    for architecture in ("cnn", "mlp"):
        for seed in range(3):
            run = made_run(architecture, seed)
            flat = {score: np.zeros(SIZE) for score in constant.get(architecture, ())}
            run.with_scores(flat).save(folder / f"{architecture}-{seed}.safetensors")
    return folder


def test_a_score_that_ranks_nothing_is_said_to_and_the_rest_is_answered(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = partly_constant(tmp_path, cnn=("vog_loss",), mlp=("vog_loss",))
    text = said(capsys, "consistency", folder, "--score", "el2n")
    assert "  vog_loss: not known: the runs rank nothing" in text
    assert "of 4 pairs of score and architecture" in text, "not of those of vog_loss"
    found = json.loads(said(capsys, "consistency", folder, "--json"))
    assert found["of_scores"]["vog_loss"] is None
    assert found["of_scores"]["el2n"] == found["reliability"]
    assert main(["consistency", str(folder), "--score", "vog_loss"]) == 2
    err = capsys.readouterr().err
    assert "vog_loss: the runs rank nothing: " in err
    assert err.endswith("; ask for another score, --score el2n or aum\n")


def test_an_architecture_that_ranks_nothing_is_said_to(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = partly_constant(tmp_path, cnn=("el2n",))
    text = said(capsys, "consistency", folder, "--score", "el2n")
    assert "  Of cnn alone: not known: the runs rank nothing" in text
    assert "  Of mlp alone: With 3 runs" in text
    found = json.loads(said(capsys, "consistency", folder, "--score", "el2n", "--json"))["of_architectures"]
    assert found["cnn"] is None
    assert found["mlp"]["value"] > 0.5


def test_runs_that_rank_nothing_at_all_need_more_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed in range(2):
        run = dp.Run({"el2n": np.zeros(9)}, architecture="mlp", seed=seed, vary=seed, dataset_fingerprint="f00d")
        run.save(tmp_path / f"{seed}.safetensors")
    assert main(["consistency", str(tmp_path)]) == 2
    assert capsys.readouterr().err.endswith("; train for more epochs\n")


def test_a_run_unlike_any_known_is_said_to_be(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    foreign = tmp_path / "foreign.safetensors"
    made_run("other", 0).save(foreign)
    assert f"{foreign} is unlike any known architecture" in said(capsys, "fingerprint", folder, "--identify", foreign)
    answers = json.loads(said(capsys, "fingerprint", folder, "--identify", foreign, "--json"))
    assert answers["identified"][str(foreign)]["predicted"] is None
    assert sum(answers["identified"][str(foreign)]["probabilities"].values()) == pytest.approx(1)


def test_a_run_whose_file_says_otherwise_is_said_to(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scores = made_run("mlp", 7).scores
    texts = {}
    for claimed in ("vit", "resnet8", "mlp"):
        path = tmp_path / f"{claimed}.safetensors"
        dp.Run(scores, architecture=claimed, seed=7, dataset_fingerprint="f00d").save(path)
        texts[claimed] = said(capsys, "fingerprint", folder, "--identify", path)
        found = json.loads(said(capsys, "fingerprint", folder, "--identify", path, "--json"))["identified"][str(path)]
        assert (found["predicted"], found["said to be"], found["agree"]) == ("mlp", claimed, claimed == "mlp")
    assert "vit.safetensors looks like mlp (probability " in texts["vit"]
    assert ", but its file says vit: they disagree. The fingerprint recognised 15 of 15 (" in texts["vit"]
    assert ", but its file says resnet8, which the fingerprint does not know.\n" in texts["resnet8"]
    assert "mlp.safetensors was made by mlp (probability " in texts["mlp"]


def test_a_run_unlike_any_known_whose_file_says_a_known_one_is_a_contradiction(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    foreign = tmp_path / "foreign.safetensors"
    dp.Run(made_run("other", 0).scores, architecture="vit", seed=9, dataset_fingerprint="f00d").save(foreign)
    text = said(capsys, "fingerprint", folder, "--identify", foreign)
    assert f"{foreign} is unlike any known architecture; of those, " in text
    assert " is nearest. Its file says vit: they disagree." in text


def few_and_noisy(folder: Path, **known: object) -> Path:
    """Two runs of ten examples that hardly agree."""
    generator = np.random.default_rng(3)
    hard = generator.normal(size=10)
    for seed in range(2):
        run = dp.Run({"el2n": hard + generator.normal(size=10)}, architecture="mlp", seed=seed, **known)
        run.save(folder / f"{seed}.safetensors")
    return folder


def test_what_is_not_known_is_said_in_words_and_in_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = few_and_noisy(tmp_path, dataset_fingerprint="f00d")
    text = said(capsys, "consistency", folder)
    assert "enough" not in text
    assert "train 2 more runs like these and ask again." in text
    found = json.loads(said(capsys, "consistency", folder, "--json"))["reliability"]
    assert found["runs_needed"] is None
    assert found["runs_needed_interval"][1] is None


@pytest.mark.parametrize("command", ["consistency", "fingerprint"])
@pytest.mark.parametrize("known", [{}, {"labels": [0] * 10}, {"dataset_fingerprint": "f00d"}])
def test_runs_of_perhaps_other_data_are_warned_of_once_in_a_line(
    command: str, known: dict[str, object], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("cnn", "mlp"):
        for seed in range(3):
            scores = {"el2n": np.random.default_rng([seed, len(name)]).normal(size=10)}
            dp.Run(scores, architecture=name, seed=seed, **known).save(tmp_path / f"{name}-{seed}.safetensors")
    assert main([command, str(tmp_path)] + (["--examples", "1"] if command == "fingerprint" else [])) == 0
    warned = [line for line in capsys.readouterr().err.splitlines() if "warning" in line]
    if known:
        assert warned == []
        return
    (line,) = warned
    assert line.startswith(f"difficulty-prune {command}: warning: nothing shows that these 6 runs are of the same data")
    assert "dp.dataset_fingerprint(dataset)" in line


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


def test_a_file_that_changes_meanwhile_is_not_taken_for_runs_that_rank_nothing(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "study")
    runs, file = dp.RunSet.load(tmp_path / "study"), tmp_path / "study" / "runs" / "cnn-0.safetensors"
    made_run("cnn", 9).save(file)
    with pytest.raises(ValueError, match=f"{file}.* changed"):
        collect(runs, Options(runs=(str(folder),)))


@pytest.fixture(scope="module")
def two_versions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three runs of each architecture before ten examples were removed and ten added, and three after."""
    out, rng = tmp_path_factory.mktemp("versions"), np.random.default_rng(0)
    shared, own = rng.normal(size=70), 3.0 * (np.arange(70) % 3 == 0)
    for first, name in ((0, "cnn"), (0, "mlp"), (10, "cnn"), (10, "mlp")):
        place, ids = slice(first, first + 60), [f"{i}.png" for i in range(first, first + 60)]
        for seed in range(3):
            values = (shared + own * (name == "cnn"))[place] + 0.3 * rng.normal(size=60)
            run = dp.Run({"el2n": values}, architecture=name, seed=first + seed, ids=ids)
            run.save(out / f"{name}-{first + seed}.safetensors")
    return out


def test_runs_of_two_versions_are_joined_where_asked(two_versions: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["consistency", str(two_versions)]) == 2
    assert "as does --join of the commands" in capsys.readouterr().err
    text = said(capsys, "consistency", two_versions, "--join")
    assert text.startswith("12 runs of 70 examples: 6 cnn, 6 mlp\n")
    assert f"  {dp.consistency.reliability(dp.RunSet.load(two_versions, join='ids'), 'el2n')}" in text


def test_a_fingerprint_of_two_versions_knows_a_run_of_either(
    two_versions: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old, new = two_versions / "mlp-0.safetensors", two_versions / "cnn-10.safetensors"
    text = said(capsys, "fingerprint", two_versions, "--join", "--identify", old, new)
    assert text.startswith("10 runs of 70 examples: 5 cnn, 5 mlp\n")
    assert f"{old} was made by mlp" in text
    assert f"{new} was made by cnn" in text
    facts = json.loads(said(capsys, "fingerprint", two_versions, "--join", "--identify", new, "--json"))
    assert set(facts["ids"]) <= {f"{i}.png" for i in range(10, 60)}, "examples that all have, by their ids"
    assert f"most sensitive first: {', '.join(facts['ids'])}" in said(
        capsys, "fingerprint", two_versions, "--join", "--identify", new
    )
