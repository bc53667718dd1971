"""Turns, ratios and workloads, of tiny size: what is timed and how often, never how long it takes."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
import torch

from difficulty_prune.bench.bench import bench
from difficulty_prune.bench.ratio import Ratio
from difficulty_prune.bench.turns import in_turns
from difficulty_prune.bench.workloads import Job, Sizes, jobs
from difficulty_prune.cli.bench import Options, measure
from difficulty_prune.cli.main import main

TINY = Sizes(examples=64, batches=((8, 4), (8, 20)), images=(4, 8), moments=16, epoch=100, copy=1 << 14, ring=1 << 12)
NAMES = [str(job) for job in jobs(TINY, "cpu")]


@pytest.mark.parametrize(("rounds", "seconds", "expected"), [(3, 60.0, 3), (60, 0.0, 5), (2, 0.0, 2)])
def test_there_are_as_many_rounds_as_fit_and_never_too_few(rounds: int, seconds: float, expected: int) -> None:
    waits = itertools.count()
    taken = in_turns([lambda: None, lambda: sum(range(50))], rounds, seconds, lambda: next(waits))
    assert taken.shape == (2, expected)
    assert (taken > 0).all()
    assert next(waits) == 2 * (4 + expected), "after each turn, and after each of the calls that count the repeats"


def test_functions_take_turns() -> None:
    order: list[str] = []
    functions = [lambda: order.append("a"), lambda: order.append("b")]
    in_turns(functions, 3, 60.0)
    turns = [name for name, _ in itertools.groupby(order)]
    assert turns == ["a", "b"] * 4, "once to count the repeats, and three rounds"


def test_a_ratio_is_of_the_rounds_and_not_of_the_medians() -> None:
    ours, theirs = np.array([1.0, 2.0, 4.0]), np.array([3.0, 8.0, 8.0])
    found = Ratio("work", "other", "cpu", ours, theirs, moved=8, copied=np.array([16.0, 8.0, 2.0]))
    assert found.quartiles == (2.5, 3.0, 3.5)
    assert found.of_copy == 0.5
    assert found.to_dict()["ratio_quartiles"] == [2.5, 3.5]
    assert Ratio("work", "other", "cpu", ours, theirs).of_copy is None


def test_every_workload_is_timed_once_in_order_and_memory_is_compared_where_it_is_the_limit() -> None:
    seen: list[str] = []

    def follow(work: list[Job]) -> list[Job]:
        seen.extend(map(str, work))
        return work

    found = bench(["cpu"], TINY, rounds=1, seconds=0.0, follow=follow)
    assert seen == NAMES
    assert len(found) == len(NAMES) == 10
    assert [ratio.work.split(",")[0] for ratio in found if ratio.of_copy is not None] == [
        "record_gradients_",
        "gradient_variance",
    ]
    moments = next(ratio for ratio in found if ratio.work.startswith("record_gradients_"))
    assert moments.moved == 4 * 64 * 4 * 7, "three channels read; mean and M2 read and written"


def test_the_command_prints_a_line_for_each_and_json_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    options = Options(device="cpu", rounds=1, seconds=0.01)
    assert measure(options, TINY, as_json=False) == 0
    text, progress = capsys.readouterr()
    assert "above 1 ours is faster" in text
    assert f"timing {len(NAMES)} of {len(NAMES)} ({NAMES[-1]}) finished" in progress
    assert measure(options, TINY, as_json=True) == 0
    facts = json.loads(capsys.readouterr().out)
    assert set(facts) == {"machine", "seconds", "rows", "slow"}
    assert facts["machine"]["processor"] in text
    assert len(facts["rows"]) == len(NAMES)
    for row in facts["rows"]:
        low, high = row["ratio_quartiles"]
        assert 0 < low <= row["ratio"] <= high
        assert (row["device"], row["rounds"]) == ("cpu", 1)
        (line,) = (line for line in text.splitlines() if line.startswith(row["work"]) and row["against"] + "  " in line)
        assert line.count("x ") >= 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rounds", "0"], "rounds: got 0, expected at least 1"),
        (["--seconds", "0"], "seconds: got 0.0, expected more than 0"),
        (["--seconds", "nan"], "seconds: got nan, expected more than 0"),
    ],
)
def test_what_cannot_be_timed_is_refused(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", *arguments]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--device", "cuda"]) == 2
    assert "device: got cuda, but PyTorch sees no GPU" in capsys.readouterr().err


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_all_but_samplers_run_on_a_gpu() -> None:
    found = bench(["cuda"], TINY, rounds=1, seconds=0.0)
    assert len(found) == len(NAMES) - 2
