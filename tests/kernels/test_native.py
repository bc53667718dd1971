"""The CUDA kernels without a GPU: the same `.cu` files, compiled by g++ and run by the emulator in `native/`.

A small program (`native/calls.cpp`) makes the calls of `native_calls.py`: once for each order in which blocks, warps
and lanes can get their turn, once under AddressSanitizer and UndefinedBehaviorSanitizer, and once under
ThreadSanitizer. All of them must leave the same bits, and these must agree with `difficulty_prune.ops.reference`.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from native_calls import LAUNCHERS, Call, all_calls
from native_programs import CSRC, KERNELS, NATIVE, SANITIZERS, Run, Workshop

pytestmark = [
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="not Linux: no ucontext.h and link.h"),
    pytest.mark.skipif(shutil.which("g++") is None, reason="no g++"),
    pytest.mark.slow,
]

TURING, HOPPER = 65536, 232448  # bytes of shared memory that a block can have


FORWARD, REVERSE, SHUFFLED = Run(0, TURING), Run(1, TURING), Run(2, HOPPER)


@dataclass(frozen=True)
class Fault:
    """A change of the kernels' text, and how it shows: in a report, or without one in wrong results."""

    name: str
    text: str
    replacement: str
    launcher: str
    report: str | None


# By file and sanitizer. Faults of one file are planted together, and each is looked for in calls of its launcher.
PLANTED = {
    ("softmax.cu", "address"): (
        Fault(
            "one element too far",
            "store_stats(out + row * kStats, r)",
            "store_stats(out + row * kStats + 4, r)",
            "softmax_stats",
            "AddressSanitizer: heap-buffer-overflow",
        ),
        Fault(
            "alignment not looked at",
            "if (aligned(stats)) {",
            "if (true) {",
            "record_given_stats",
            "which requires 16 byte alignment",
        ),
    ),
    ("gradients.cu", "plain"): (
        Fault(
            "no barrier",
            "  __syncthreads();\n  if (threadIdx.x == 0) {\n    total = 0;",
            "  if (threadIdx.x == 0) {\n    total = 0;",
            "gradient_variance",
            None,
        ),
    ),
    ("temporal.cu", "thread"): (
        Fault(
            "two warps at one example",
            "presentations(links, head)",
            "presentations(&kLast - head, head)",
            "record_temporal",
            "ThreadSanitizer: data race",
        ),
    ),
    ("gradients.cu", "thread"): (
        Fault(
            "two blocks at one example",
            "presentations(links, head)",
            "presentations(&kLast - head, head)",
            "record_gradients",
            "ThreadSanitizer: data race",
        ),
    ),
}


def plant(tree: Path, file: str, faults: Sequence[Fault]) -> Path:
    """The file with the faults, in a copy of the sources because kernels include their neighbours."""
    shutil.copytree(CSRC, tree)
    source = tree / "cuda" / file
    text = source.read_text()
    for fault in faults:
        text = text.replace(fault.text, fault.replacement)  # the fault's test sees to it that there is such text
    source.write_text(text)
    return source


class Everything:
    """All programs and runs of this file, begun at once."""

    def __init__(self, workshop: Workshop) -> None:
        self.workshop = workshop
        emulator, driver = (workshop.compile(NATIVE / name, ()) for name in ("emulator.cpp", "calls.cpp"))
        kernels = {
            sanitizer: {name: workshop.compile(CSRC / "cuda" / name, SANITIZERS[sanitizer]) for name in KERNELS}
            for sanitizer in ("address", "thread", "plain")  # the longest first
        }
        calls = all_calls()
        batch, thinned = workshop.batch(calls), workshop.batch(calls[::3])
        programs = {
            name: workshop.link(SANITIZERS[name], [emulator, driver, *own.values()]) for name, own in kernels.items()
        }
        self.runs = {
            "forward": workshop.make_calls(programs["plain"], batch, FORWARD),
            "reverse": workshop.make_calls(programs["plain"], batch, REVERSE),
            "shuffled": workshop.make_calls(programs["plain"], batch, SHUFFLED),
            "address": workshop.make_calls(programs["address"], batch, FORWARD),
            "thread": workshop.make_calls(programs["thread"], thinned, SHUFFLED),
        }
        self.faults = {
            name: workshop.link(flags, [emulator, workshop.compile(NATIVE / "faults.cpp", flags)])
            for name, flags in SANITIZERS.items()
        }
        self.planted = {}
        for (file, sanitizer), faults in PLANTED.items():
            faulty = workshop.compile(plant(workshop.new_path("csrc"), file, faults), SANITIZERS[sanitizer])
            objects = {**kernels[sanitizer], file: faulty}
            program = workshop.link(SANITIZERS[sanitizer], [emulator, driver, *objects.values()])
            for fault in faults:
                batch = workshop.batch(call for call in calls if call.launcher == fault.launcher)
                self.planted[fault.name] = workshop.make_calls(program, batch, FORWARD)


def deviations(results: dict[Call, bytes], launcher: str) -> list[str]:
    """The launcher's calls whose results are not those of the reference, and why."""
    found = []
    for call, result in results.items():
        try:
            if call.launcher == launcher:
                call.check(result)
        except AssertionError as error:
            found.append(f"{call}: {error}")
    return found


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Everything]:
    workshop = Workshop(tmp_path_factory.mktemp("native"))
    yield Everything(workshop)
    workshop.pool.shutdown(cancel_futures=True)
    shutil.rmtree(workshop.folder)


@pytest.fixture(scope="module")
def missing_sanitizers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Those with which g++ here cannot build or run the empty program, and the reason."""
    folder = tmp_path_factory.mktemp("sanitizers")
    (folder / "empty.cpp").write_text("int main() {}\n")
    missing = {}
    for name, flags in SANITIZERS.items():
        for command in (["g++", *flags, "empty.cpp", "-o", name], [f"./{name}"]):
            done = subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False)
            if done.returncode != 0:
                missing[name] = f"no -fsanitize={name}: {done.stderr.strip()}"
                break
    return missing


@pytest.fixture
def sanitizer(request: pytest.FixtureRequest, missing_sanitizers: dict[str, str]) -> str:
    if request.param in missing_sanitizers:
        pytest.skip(missing_sanitizers[request.param])
    return request.param


@pytest.fixture
def one_torch_thread() -> Iterator[None]:
    """More would wait for processors that are at work on programs and runs."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("one_torch_thread")
@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_results_are_those_of_the_reference(everything: Everything, launcher: str) -> None:
    outcome = everything.runs["forward"].result()
    assert outcome.status == 0, outcome.report
    found = deviations(outcome.results, launcher)
    assert not found, "\n\n".join(found)


def assert_same_bits_as_forward(everything: Everything, run: str) -> None:
    outcome = everything.runs[run].result()
    assert outcome.status == 0, outcome.report
    forward = everything.runs["forward"].result().results
    different = [str(call) for call, result in outcome.results.items() if result != forward[call]]
    assert not different, "\n".join(different)


@pytest.mark.parametrize("run", ["reverse", "shuffled"])
def test_the_order_of_blocks_warps_and_lanes_changes_no_bit(everything: Everything, run: str) -> None:
    assert_same_bits_as_forward(everything, run)


@pytest.mark.parametrize("sanitizer", ["address", "thread"], indirect=True)
def test_sanitizers_find_nothing(everything: Everything, sanitizer: str) -> None:
    assert_same_bits_as_forward(everything, sanitizer)


@pytest.mark.parametrize(
    ("file", "sanitizer", "fault"),
    [pytest.param(*key, fault, id=fault.name) for key, faults in PLANTED.items() for fault in faults],
    indirect=["sanitizer"],
)
def test_a_fault_planted_in_the_kernels_is_found(
    everything: Everything, file: str, sanitizer: str, fault: Fault
) -> None:
    assert (CSRC / "cuda" / file).read_text().count(fault.text) == 1, f"no longer in {file}: {fault.text}"
    outcome = everything.planted[fault.name].result()
    if fault.report is None:
        assert outcome.status == 0, outcome.report
        assert deviations(outcome.results, fault.launcher)
    else:
        assert outcome.status != 0
        assert fault.report in outcome.report


@pytest.mark.parametrize("order", [0, 1, 2])
@pytest.mark.parametrize("sanitizer", SANITIZERS, indirect=True)
def test_a_kernel_without_a_fault_is_right(everything: Everything, sanitizer: str, order: int) -> None:
    done = everything.workshop.execute(everything.faults[sanitizer].result(), "none", order)
    assert (done.returncode, done.stdout) == (0, "right\n"), done.stderr


@pytest.mark.parametrize("order", [0, 1, 2])
@pytest.mark.parametrize(
    ("fault", "sanitizer", "report"),
    [
        ("leaves early", "plain", "deadlock; threads that have left the kernel: 1"),
        ("divergent barriers", "plain", "another thread waits in line"),
        ("divergent shuffle", "plain", "another thread waits in line"),
        ("no barrier", "plain", "wrong"),
        ("no barrier", "thread", "ThreadSanitizer: data race"),
        ("no warp barrier", "plain", "wrong"),
        ("no warp barrier", "thread", "ThreadSanitizer: data race"),
        ("same place", "thread", "ThreadSanitizer: data race"),
        ("uninitialised", "plain", "wrong"),
        ("static overrun", "address", "AddressSanitizer: global-buffer-overflow"),
        ("dynamic overrun", "address", "AddressSanitizer: heap-buffer-overflow"),
        ("global overrun", "address", "AddressSanitizer: heap-buffer-overflow"),
        ("misaligned", "address", "which requires 16 byte alignment"),
        ("too much shared memory", "plain", "not launched"),
    ],
    indirect=["sanitizer"],
)
def test_every_kind_of_fault_is_found(
    everything: Everything, fault: str, sanitizer: str, report: str, order: int
) -> None:
    done = everything.workshop.execute(everything.faults[sanitizer].result(), fault, order)
    assert report in done.stdout + done.stderr
