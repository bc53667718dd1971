"""The parts of `benchmarks/studies` that could be quietly wrong: what is compared, in which pieces, and the sums."""

from __future__ import annotations

import importlib
import io
import json
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

import difficulty_prune as dp

STUDIES = Path(__file__).parents[1] / "benchmarks" / "studies"
RESULTS = STUDIES.parent / "results"


@pytest.fixture
def study(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Imports a study by name."""
    monkeypatch.syspath_prepend(str(STUDIES))
    return importlib.import_module


@dataclass
class Piece:
    name: str
    done: bool = False
    ran: list[str] = field(default_factory=list)

    def is_done(self) -> bool:
        return self.done

    def run(self) -> str:
        self.ran.append(self.name)
        self.done = True
        return "ran"


def test_pieces_are_done_once_in_order_and_not_after_the_time(study: Any, capsys: pytest.CaptureFixture[str]) -> None:
    finish = study("pieces").finish
    ran: list[str] = []
    pieces = [Piece("a", ran=ran), Piece("b", done=True, ran=ran), Piece("c", ran=ran)]
    with ThreadPoolExecutor(1) as pool:
        assert not finish(pool, pieces, 1, until=time.time() - 1)
        assert ran == []
        assert finish(pool, pieces, 1, until=time.time() + 60)
        assert ran == ["a", "c"]
        assert finish(pool, pieces, 1, until=time.time() - 1)  # nothing is left to begin
    assert "a: ran" in capsys.readouterr().out


def test_a_piece_that_fails_ends_the_study(study: Any) -> None:
    class Broken(Piece):
        def run(self) -> str:
            raise OSError("the disk is full")

    with ThreadPoolExecutor(1) as pool, pytest.raises(OSError, match="the disk is full"):
        study("pieces").finish(pool, [Broken("a")], 1, until=time.time() + 60)


def test_what_the_prune_study_compares(study: Any) -> None:
    prune = study("prune")
    found = prune.blocks()
    assert len(found) == len(set(found))
    for equal in ("epochs", "steps"):
        assert {b.keep for b in found if (b.labels, b.equal, b.runs) == ("clean", equal, 2)} == set(prune.KEEP)
        assert {b.labels for b in found if (b.keep, b.equal, b.runs) == (0.5, equal, 2)} == set(prune.LABELS)
    assert {b.keep for b in found if (b.labels, b.score) == ("clean", "dual")} == set(prune.KEEP)
    assert {b.runs for b in found if (b.labels, b.keep, b.equal) == ("clean", 0.5, "epochs")} == {1, 2, 4, 8}


@pytest.mark.parametrize("keep", [0.1, 0.5, 0.9])
def test_every_policy_of_the_prune_study_keeps_as_many(study: Any, keep: float) -> None:
    difficulty = torch.rand(200, generator=torch.Generator().manual_seed(0))
    for policy in study("prune").policies(keep, np.arange(60), 200).values():
        assert len(dp.PruneSampler(policy, difficulty, seed=1)) == round(200 * keep)


@pytest.mark.parametrize("arm", ["full", "soft", "random", "fewer steps", "Importance", "Hardest"])
def test_what_the_dynamic_study_visits(study: Any, arm: str) -> None:
    """As many examples as the learning rate is planned for; random has those of soft in every epoch."""
    dynamic = study("dynamic_pruning")
    setting = dynamic.Setting(Path(), Path(), 40, "mlp", epochs=8, keep=0.7, anneal=0.25, curve=1)
    tracker = dp.DifficultyTracker(40, ("loss",))
    sampler = dynamic.make_sampler(setting, arm, tracker, seed=0)
    lengths = []
    for epoch in range(8):
        sampler.set_epoch(epoch)
        drawn = list(sampler)
        lengths.append(len(drawn))
        tracker.update(torch.tensor(drawn), torch.randn(len(drawn), 3), torch.zeros(len(drawn), dtype=torch.int64))
    soft = [40, 28, 28, 28, 28, 28, 40, 40]
    expected = {
        "full": [40] * 8,
        "soft": soft,
        "random": soft,
        "fewer steps": [sum(soft) // 8] * 8,
        "Importance": [40] + [28] * 7,
        "Hardest": [40] + [28] * 7,
    }
    assert lengths == expected[arm]
    assert setting.visited == soft


def test_an_unknown_policy_of_the_dynamic_study_is_refused(study: Any) -> None:
    dynamic = study("dynamic_pruning")
    setting = dynamic.Setting(Path(), Path(), 40, "mlp", epochs=8, keep=0.7, anneal=0.25, curve=1)
    with pytest.raises(ValueError, match="got 'Best', expected a policy"):
        dynamic.named_policy("Best", setting)


def test_steps_to_an_accuracy(study: Any) -> None:
    dynamic = study("dynamic_pruning")
    full = [{"curve": [[10, 0.5], [20, 0.6], [30, 0.7]]}, {"curve": [[10, 0.4], [20, 0.7], [30, 0.6]]}]
    half = [{"curve": [[5, 0.3], [10, 0.6], [15, 0.7]]}, {"curve": [[5, 0.2], [11, 0.6], [15, 0.65]]}]
    assert dynamic.steps_to(full[0]["curve"], 0.6) == 20
    assert dynamic.steps_to(full[0]["curve"], 0.8) is None
    found = dynamic.fraction_of_steps(half, full, 0.6, 1)
    assert found["fraction"] == pytest.approx((10 / 20 * 11 / 20) ** 0.5, abs=1e-3)
    assert found["low"] < found["fraction"] < found["high"]
    assert dynamic.fraction_of_steps(half, full, 0.7, 1) is None  # one seed did not get there


def test_ratios_are_of_neighbours_in_a_round(study: Any) -> None:
    cost = study("cost")
    alone = [{"seconds": s, "cpu": s, "bytes": 100} for s in (1.0, 2.0, 4.0)]
    scored = [{"seconds": 1.1 * s, "cpu": 2 * s, "bytes": 150} for s in (1.0, 2.0, 4.0)]
    rows = cost.compared({"nothing": alone, "scored": scored, "aum": [{"missing": "No module named 'aum'"}]})
    assert rows["scored"]["seconds ratio"] == [1.1, 1.1, 1.1]
    assert rows["scored"]["cpu ratio"][1] == 2
    assert rows["scored"]["bytes ratio"][1] == 1.5
    assert rows["aum"] == {"missing": "No module named 'aum'"}


def test_the_page_has_the_committed_costs() -> None:
    page = (STUDIES.parents[1] / "docs" / "performance.md").read_text()
    section = page[page.index("## What scoring costs") : page.index("## Starting")]
    for of_model in json.loads((RESULTS / "cost.json").read_text())["models"]:
        for way, row in of_model["rows"].items():
            low, middle, high = row["seconds ratio"]
            if way != "nothing":
                memory = max(row["more megabytes"], 0)
                assert f"| {middle:.2f} ({low:.2f} to {high:.2f}) | {memory:.0f} MB |" in section, way


def test_a_missing_package_is_said(study: Any) -> None:
    cost = study("cost")
    with pytest.raises(cost.MissingError, match="no_such_package"):
        cost.peer("no_such_package")


def test_the_committed_verdicts_follow_from_the_committed_accuracies(study: Any) -> None:
    prune = study("prune")
    result = json.loads((RESULTS / "prune.json").read_text())
    tables = [(block["labels"], block["equal"], block["score"]) for block in result["blocks"]]
    for block in result["blocks"]:
        of_name = {name: row for row in block["rows"] for name in row["names"]}
        share = f"{100 * block['keep']:g} %"
        others = {
            "chance": f"a random {share}",
            "all": "all data",
            "few": f"all data, a random {share} in each epoch",
        }
        for row in block["rows"]:
            assert len(row["accuracy"]) == len(block["seeds"])
            for kind, said in row["against"].items():
                other = of_name[others["few" if kind == "chance" and "soft" in row["names"] else kind]]
                found = dp.verdict(row["accuracy"], other["accuracy"], cells=said["cells"])
                assert prune.say(found) == pytest.approx(said, abs=0.03), (row["names"], kind)
                assert said["cells"] % tables.count((block["labels"], block["equal"], block["score"])) == 0
    written = io.StringIO()
    prune.print_tables(result, Console(width=150, file=written))
    assert "without wrong" in written.getvalue()


def test_the_page_has_the_committed_results_of_the_dynamic_study(study: Any) -> None:
    page = (STUDIES.parents[1] / "docs" / "results.md").read_text()
    section = page[page.index("## Dynamic pruning") : page.index("## Mixup")]
    result = json.loads((RESULTS / "dynamic.json").read_text())
    for row in result["rows"].values():
        assert f" {row['steps']:,} | {np.mean(row['accuracy']):.4f} |" in section
        for found in (row["against"].get(other) for other in ("full", "random")):
            if found is not None:
                said = f"{found['points']:+.1f} ({found['low']:+.1f} to {found['high']:+.1f})"
                assert (f"**{said}**" if found["word"] in ("better", "worse") else f" {said} ") in section
        for goal in map(str, result["goals"]):
            if None not in row["steps to"][goal]:
                assert f"| {np.mean(row['steps to'][goal]):,.0f}" in section


def test_the_page_has_the_committed_verdicts() -> None:
    page = (STUDIES.parents[1] / "docs" / "results.md").read_text()
    result = json.loads((RESULTS / "prune.json").read_text())
    blocks = [block for block in result["blocks"] if len(block["seeds"]) == result["seeds"]]
    assert len(blocks) == result["blocks_complete"]
    assert f"{len(blocks)} of the study's {result['blocks_in_all']} blocks have been run" in page
    for block in blocks:
        for row in block["rows"]:
            assert f" {np.mean(row['accuracy']):.3f} |" in page or row["kind"] == "policy"
            if (found := row["against"].get("chance")) is not None:
                text = f"{found['points']:+.1f} ({found['low']:+.1f} to {found['high']:+.1f})"
                bold = "" if found["word"] == "no difference seen" else "**"
                assert f"| {bold}{text}{bold} |" in page, (row["names"], text)
    rows = {
        row["kind"]: np.mean(row["accuracy"])
        for block in blocks
        if (block["labels"], block["equal"], block["keep"]) == ("clean", "steps", 0.3)
        for row in block["rows"]
    }
    readme = " ".join((STUDIES.parents[1] / "README.md").read_text().split())
    assert f"reached {rows['few']:.3f} where all data, in as many steps, reached {rows['all']:.3f}" in readme


def test_the_page_has_the_committed_claims() -> None:
    page = (STUDIES.parents[1] / "docs" / "results.md").read_text()
    section = page[page.index("## CIFAR-10: what the VoG paper claims") : page.index("## How many runs")]
    result = json.loads((RESULTS / "vog-claims.json").read_text())
    assert "{} ± {}".format(*(f"{value:.3f}" for value in result["accuracy"])) in section
    for images, kind in (("test", "true"), ("unlabelled test", "predicted")):
        for score in ("vog", "vog_probability", "vog_loss"):
            tenths = result["test"][f"{images}/{score}/late"]["error_by_tenth"]
            assert f"| `{score}` | {kind} | {' | '.join(f'{mean:.2f}' for mean, _ in tenths)} |" in section
            stages = [result["test"][f"{images}/{score}/{stage}"] for stage in ("early", "middle", "late", "all")]
            quarters = [row["accuracy_of_lowest"][1] for row in stages]
            assert f"| {kind} | {' | '.join(f'{mean:.2f} ± {half:.2f}' for mean, half in quarters)} |" in section
    of_true_class = {
        word
        for row, claims in result["claims"].items()
        for claim, word in claims.items()
        if row.split("/")[0] in ("vog", "vog, within class") and "predicted class" not in claim
    }
    assert of_true_class == {"not held: the reverse"}, "the page says so"


def test_the_page_has_the_committed_memory_of_photographs() -> None:
    page = " ".join((STUDIES.parents[1] / "docs" / "study.md").read_text().split())
    result = json.loads((RESULTS / "photographs-memory.json").read_text())
    (row,) = (row for row in result["rows"] if row["files"] == 100_000)
    assert f"took {row['peak_megabytes'] / 1000:.1f} GB at its peak" in page
    assert f"each further file adds {result['kilobytes_per_file']:.1f} KB" in page
    assert row["peak_megabytes"] < 3000


def test_every_study_with_a_figure_has_it_beside_its_numbers(study: Any) -> None:
    for name, (file, draw) in study("figures").FIGURES.items():
        axes = draw(json.loads((RESULTS / file).read_text()))
        assert axes.get_title(), name
        assert len(axes.get_legend().get_texts()) > 1, name
        assert (RESULTS / "figures" / f"{name}.png").exists(), "run benchmarks/studies/figures.py benchmarks/results"
