"""What the operators refuse: in Python, in the compiled look and in the kernels themselves."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
from operator_inputs import Moments, kernels
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from difficulty_prune import ops
from difficulty_prune.ops.layout import FIELD, STATS

# The compiled look


BATCH = (torch.tensor([3, 0]), torch.zeros(2, 5), torch.tensor([4, 0]))
RIGHT = {  # arguments that fit together
    "record_stats_": (ops.new_table(4), *BATCH),
    "record_temporal_": (ops.new_temporal_table(4, 3, 5), *BATCH),
    "record_gradients_": (
        torch.zeros(4, dtype=torch.int32),
        torch.zeros(4, 2),
        torch.zeros(4, 2),
        torch.tensor([3, 0]),
        torch.zeros(2, 3, 2, 2),
        torch.ones(2),
        torch.tensor([0, 3]),
    ),
}
WRONG = {
    "dtype": lambda t: t.to(torch.int16),
    "rows": lambda t: torch.cat([t, t]),
    "dimension": lambda t: t.unsqueeze(0),
    "device": lambda t: t.to("meta"),
    "strides": lambda t: torch.stack([t, t], -1)[..., 0],
    "width": lambda t: torch.cat([t, t[..., :1]], -1),
    "below": lambda t: t - 5,
    "above": lambda t: t + 5,
}


ATTEMPTS = {
    "record_stats_": kernels.try_record_stats_.default,
    "record_temporal_": kernels.try_record_temporal_.default,
    "record_gradients_": kernels.try_record_gradients_.default,
}
RECORDERS = {
    "record_stats_": ops.record_stats_,
    "record_temporal_": ops.record_temporal_,
    "record_gradients_": ops.record_gradients_,
}


def right_arguments(name: str) -> list[Tensor]:
    arguments = [*(t.clone() for t in RIGHT[name]), ops.new_skipped()]
    if name == "record_stats_":
        arguments[0] = ops.new_table(4)  # a clone need not start at a cache line
    return arguments + ([ops.new_table(4)] if name == "record_temporal_" else [])


def with_options(name: str, tensors: list[Tensor]) -> list[Tensor | float]:
    """All arguments in order: window and decay stand between the tensors."""
    return [*tensors[:4], 3, 0.9, *tensors[4:]] if name == "record_temporal_" else [*tensors]


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
@pytest.mark.parametrize("name", ATTEMPTS)
def test_opcheck_of_the_looks(name: str) -> None:
    """Without the checks of tracing: a look at values is never traced."""
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(ATTEMPTS[name], with_options(name, right_arguments(name)), test_utils=checks)


class ChecksAlone(TorchDispatchMode):
    """Lets every attempt fail, so that only the checks in Python decide."""

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        return False if function in ATTEMPTS.values() else function(*arguments, **(options or {}))


def refuses(function: Callable[..., None], arguments: list[Tensor | float]) -> bool:
    try:
        with ChecksAlone():
            function(*arguments)
    except (TypeError, ValueError, IndexError):
        return True
    return False


@pytest.mark.parametrize("fault", [None, *WRONG])
@pytest.mark.parametrize(("name", "position"), [(name, i) for name in RIGHT for i in range(len(right_arguments(name)))])
def test_the_compiled_look_accepts_what_the_checks_accept(name: str, position: int, fault: str | None) -> None:
    """Every argument in turn is made wrong: the quick look and the checks in Python, which a look that is content
    bypasses, have to agree."""
    tensors = right_arguments(name)
    if fault is not None:
        tensors[position] = WRONG[fault](tensors[position])
    before = [t.clone() for t in tensors]
    content = ATTEMPTS[name](*with_options(name, tensors))
    if fault == "strides" and position == 2 and name != "record_gradients_":
        assert not content  # logits of such strides are copied, for which the quick way is not made
        return
    if not content:
        assert all(t.is_meta or torch.equal(t, old) for t, old in zip(tensors, before, strict=True))
    assert content == (not refuses(RECORDERS[name], with_options(name, tensors)))


# The kernels themselves refuse arguments that do not fit together, even without the Python checks.


def test_an_unknown_statistic_is_refused_by_the_kernel_itself() -> None:
    with pytest.raises(RuntimeError, match="'std' or 'variance', got 'median'"):
        kernels.gradient_variance(torch.zeros(2, 1, 1, 1), "median")


def test_kernels_refuse_arguments_that_do_not_fit_together() -> None:
    logits, labels, index = torch.zeros(2, 3), torch.zeros(2).long(), torch.arange(2)
    table, skipped, m = ops.new_table(4), ops.new_skipped(), Moments(4, 6)
    stats = torch.zeros(2, len(STATS))
    narrow, wide = ops.new_temporal_table(4, 3), ops.new_temporal_table(4, 3, 3)
    gradients = torch.zeros(2, 1, 6)
    wrong: list[Callable[[], object]] = [
        lambda: kernels.softmax_stats(logits, labels[:1]),
        lambda: kernels.softmax_stats(logits, labels.int()),
        lambda: kernels.softmax_stats(logits.double(), labels),
        lambda: kernels.softmax_stats(logits.long(), labels),
        lambda: kernels.softmax_stats(logits[0], labels),
        lambda: kernels.record_stats_(table, index[:1], logits, labels, skipped),
        lambda: kernels.record_stats_(table, index.int(), logits, labels, skipped),
        lambda: kernels.record_stats_(table[:, :15], index, logits, labels, skipped),
        lambda: kernels.record_stats_(table.double(), index, logits, labels, skipped),
        lambda: kernels.record_stats_(table.t().contiguous().t(), index, logits, labels, skipped),
        lambda: kernels.record_stats_(table, index, logits, labels, skipped[:2]),
        lambda: kernels.record_given_stats_(table, index[:1], stats, labels, 3, skipped),
        lambda: kernels.record_given_stats_(table, index, stats, labels[:1], 3, skipped),
        lambda: kernels.record_given_stats_(table, index, stats[:, :7], labels, 3, skipped),
        lambda: kernels.record_given_stats_(table, index, stats[0], labels, 3, skipped),
        lambda: kernels.record_given_stats_(table, index, stats.double(), labels, 3, skipped),
        lambda: kernels.record_given_stats_(table[:, :15], index, stats, labels, 3, skipped),
        lambda: kernels.record_given_stats_(table, index, stats, labels, 3, skipped[:2]),
        lambda: kernels.record_temporal_(narrow, index, logits, labels, 4, 0.9, skipped),
        lambda: kernels.record_temporal_(wide, index, logits[:, :2], labels, 3, 0.9, skipped),
        lambda: kernels.record_temporal_(wide[:, :0], index, logits, labels, 3, 0.9, skipped),
        lambda: kernels.record_temporal_(wide[0], index, logits, labels, 3, 0.9, skipped),
        lambda: kernels.record_temporal_(wide[:, 2:], index, logits, labels, 2, 0.9, skipped),
        lambda: kernels.record_temporal_(wide[:, :1], index, logits, labels, -1, 0.9, skipped),
        lambda: kernels.record_temporal_(wide, index, logits, labels, 3, 0.0, skipped),
        lambda: kernels.record_temporal_(wide, index, logits, labels, 3, math.nan, skipped),
        lambda: kernels.record_temporal_(wide.double(), index, logits, labels, 3, 0.9, skipped),
        lambda: kernels.record_temporal_(wide, index[:1], logits, labels, 3, 0.9, skipped),
        lambda: kernels.record_temporal_(wide, index, logits, labels, 3, 0.9, skipped[:2]),
        lambda: kernels.record_temporal_(wide, index, logits, labels, 3, 0.9, skipped, table[:3]),
        lambda: kernels.record_temporal_(wide, index, logits, labels, 3, 0.9, skipped, table[:, :15]),
        lambda: kernels.record_temporal_(wide, index, logits, labels, 3, 0.9, skipped, table.double()),
        lambda: kernels.record_gradients_(m.count, m.mean[:, :5], m.m2, index, gradients, None, None, skipped),
        lambda: kernels.record_gradients_(m.count, m.mean, m.m2[:3], index, gradients, None, None, skipped),
        lambda: kernels.record_gradients_(m.count.long(), m.mean, m.m2, index, gradients, None, None, skipped),
        lambda: kernels.record_gradients_(m.count, m.mean, m.m2, index, gradients, torch.ones(1), None, skipped),
        lambda: kernels.record_gradients_(m.count, m.mean, m.m2, index, gradients.long(), None, None, skipped),
        lambda: kernels.gradient_variance(torch.zeros(2, 3)),
    ]
    for number, call in enumerate(wrong):
        with pytest.raises(RuntimeError):
            print("call", number, call())
    assert not table.any()
    assert not wide.any()
    assert not m.count.any()


@pytest.mark.parametrize(
    ("error", "message", "changes"),
    [
        (ValueError, r"table: .*expected contiguous torch.float32 \[N, 16\]", {"table": torch.zeros(4, 15)}),
        (TypeError, "index: got torch.int32, expected int64", {"index": torch.arange(3).int()}),
        (IndexError, "index: got -2, expected 0..3 for 4 examples, or -1", {"index": torch.tensor([0, -1, -2])}),
        (IndexError, "index: got 4, expected 0..3", {"index": torch.tensor([0, -1, 4])}),
        (TypeError, "stats: got list", {"stats": [0.0]}),
        (ValueError, r"stats: got .*\(3, 5\), expected float32 \[3, 8\]", {"stats": torch.zeros(3, 5)}),
        (ValueError, "stats: got torch.float64", {"stats": torch.zeros(3, 8).double()}),
        (ValueError, r"labels: got shape \(2,\), expected \[3\]", {"labels": torch.zeros(2).long()}),
        (ValueError, "labels: got 5, expected 0..4 for 5 classes", {"labels": torch.tensor([5, 9, 0])}),
        (ValueError, "num_classes: got 0", {"num_classes": 0}),
        (ValueError, "num_classes: got 5.0", {"num_classes": 5.0}),
        (ValueError, "stats on meta", {"stats": torch.zeros(3, 8, device="meta")}),
        (ValueError, "skipped: got", {"skipped": torch.zeros(3)}),
    ],
)
def test_statistics_that_do_not_fit_are_refused_with_what_to_do(error, message: str, changes: dict) -> None:
    right = {
        "table": ops.new_table(4),
        "index": torch.tensor([0, ops.PADDING, 3]),
        "stats": torch.zeros(3, 8),
        "labels": torch.tensor([4, 9, 0]),  # of padding any
        "num_classes": 5,
        "skipped": ops.new_skipped(),
    }
    ops.record_given_stats_(**right)
    assert right["table"][:, FIELD["count"]].tolist() == [1, 0, 0, 1]
    with pytest.raises(error, match=message):
        ops.record_given_stats_(**{**right, **changes})
    assert right["table"][:, FIELD["count"]].sum() == 2


UNUSUAL_CALLS = {
    "none, to see that the child processes work": """
        assert call(ops.record_stats_, torch.zeros(4, 16), index, torch.zeros(2, 3), index, skipped)
        assert not call(ops.softmax_stats, torch.zeros(2, 3), index.int())
    """,
    "record_gradients_ without channels": """
        m, gradients = torch.zeros(4, 50_000), torch.zeros(2, 0, 50_000)
        call(ops.record_gradients_, torch.zeros(4).int(), m, m.clone(), index, gradients, None, None, skipped)
    """,
    "gradient_variance without channels": """
        call(ops.gradient_variance, torch.zeros(3, 2, 0, 50_000))
    """,
    "record_gradients_ with counts of two dimensions": """
        m, gradients = torch.zeros(2, 4), torch.zeros(2, 1, 4)
        call(ops.record_gradients_, torch.zeros(2, 0).int(), m, m.clone(), index, gradients, None, None, skipped)
    """,
    "record_stats_ into a table that does not start at a cache line, and record_temporal_ beside one": """
        for offset in range(1, 16):  # as a memory-mapped file or a slice of a larger buffer may begin
            table = torch.zeros(5 * 16)[offset : offset + 64].view(4, 16)
            if call(ops.record_stats_, table, index, torch.zeros(2, 3), index, skipped):
                assert table[:, 0].tolist() == [1, 1, 0, 0]
            call(ops.record_temporal_, torch.zeros(4, 5), index, torch.zeros(2, 3), index, 3, 0.9, skipped, table)
    """,
}

IN_CHILD_PROCESSES = """
import json, os, sys, textwrap
import torch, difficulty_prune
torch.set_num_threads(1)  # a forked child has no thread pool
ops = torch.ops.difficulty_prune
index, skipped = torch.arange(2), difficulty_prune.ops.new_skipped()

def call(op, *arguments):
    try:
        op(*arguments)
    except RuntimeError:  # refused: fine
        return False
    return True

results = {}
for name, code in json.loads(sys.argv[1]).items():
    child = os.fork()
    if child == 0:
        exec(textwrap.dedent(code))
        os._exit(0)
    results[name] = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
print(json.dumps(results))
"""


@pytest.fixture(scope="module")
def exit_status() -> dict[str, int]:
    command = [sys.executable, "-c", IN_CHILD_PROCESSES, json.dumps(UNUSUAL_CALLS)]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


@pytest.mark.parametrize("case", UNUSUAL_CALLS)
def test_unusual_arguments_are_served_or_refused_but_do_not_crash(case: str, exit_status: dict[str, int]) -> None:
    """In a process of its own, because what is tested for is a segmentation fault."""
    assert exit_status[case] == 0
