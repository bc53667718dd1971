"""The examples of several processes run as they stand, in a few processes without a GPU, and print what they claim."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest
from places import EXAMPLES


def facts(name: str, *options: str, processes: int = 2) -> list[str]:
    """The lines that an example prints under torchrun."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    settings = {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true", "PYTHONWARNINGS": "error"}
    settings["CUDA_VISIBLE_DEVICES"] = ""  # a machine with one GPU has none for the second process
    command += [str(EXAMPLES / f"{name}.py"), *options]
    result = subprocess.run(
        command, env=os.environ | settings, capture_output=True, text=True, check=False, timeout=300
    )
    # Judged by what they print: a thread of Gloo's may end a process with SIGABRT after its work.
    assert result.stdout, result.stderr
    return [line for line in result.stdout.splitlines() if not line.startswith("[Gloo]")]  # PyTorch 2.10 prints these


def test_processes_of_ddp_plan_the_same_epochs_and_share_them():
    # 1797 examples: all of them at first and at last, 1258 in between, and in each epoch the same number for each.
    whole, pruned = "visited 898 + 898 of 1797", "visited 629 + 629 of 1797"
    *epochs, last = facts("ddp")
    assert epochs == [
        f"epoch {epoch}: plans 1, {visited}, twice 0"
        for epoch, visited in enumerate([whole, pruned, pruned, pruned, whole])
    ]
    assert last.startswith("presentations 7366, ")


def test_processes_with_parts_shard_a_model_and_go_on_as_half_as_many(tmp_path):
    folder = str(tmp_path / "checkpoint")
    assert facts("many_processes", "--save", folder, "--until", "3", processes=4) == [
        "epoch 0: keeps 1797 of 1797, records here 450, steps [15, 15, 15, 15]",
        "epoch 1: keeps 1258 of 1797, records here 450, steps [10, 10, 10, 10]",
        "epoch 2: keeps 1258 of 1797, records here 450, steps [10, 10, 10, 10]",
    ]
    assert facts("many_processes", "--resume", folder) == [
        "epoch 3: keeps 1258 of 1797, records here 899, steps [20, 20]",
        "epoch 4: keeps 1797 of 1797, records here 899, steps [29, 29]",
    ]


def test_processes_of_accelerate_with_parts_visit_their_own_and_resume_exactly():
    pytest.importorskip("accelerate", reason="accelerate is not installed")
    records, *epochs, cut, order, scores = facts("accelerate_partition")
    assert records == "records in each process [899, 898]"
    assert epochs[0] == "epoch 0: visited 1796, twice 0", "equally many in each"
    visited = [int(re.fullmatch(rf"epoch {n}: visited (\d+), twice 0", line)[1]) for n, line in enumerate(epochs)]
    assert all(number % 2 == 0 and 1150 < number <= 1258 for number in visited[1:])
    assert (cut, order, scores) == ("cut off after 4 batches of epoch 3", "same order True", "same scores True")


def test_processes_of_accelerate_share_epochs_and_resume_exactly():
    pytest.importorskip("accelerate", reason="accelerate is not installed")
    assert facts("accelerate_training") == [
        "processes 2",
        "epoch 0: visited 1792, twice 0",
        *[f"epoch {epoch}: visited 1216, twice 0" for epoch in range(1, 5)],
        "cut off after 4 batches of epoch 3",
        "same order True",
        "same scores True",
    ]
