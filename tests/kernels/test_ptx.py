"""What the CUDA compiler made of the kernels, read from the built module: spills, occupancy, wide accesses."""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from fresh_python import read_setup
from places import ROOT
from sass import functions, instructions_per_exponential

import difficulty_prune as dp

_host = pytest.importorskip("difficulty_prune._host", reason="no compiled module")
FACTS = _host.build_facts()
pytestmark = pytest.mark.skipif(not FACTS["cuda"], reason="built without CUDA: no nvcc")

sys.path.insert(0, str(ROOT / "benchmarks"))
occupancy = importlib.import_module("occupancy")

ARCHITECTURES = FACTS["cuda_architectures"].split()
STATISTICS = {"softmax_stats", "packed_stats", "strided_stats", "soft_stats", "strided_soft_stats", "sigmoid_stats"}
RECORDS = {"record_stats", "record_given_stats"}
MOMENTS = {"record_gradients", "merge_moments"}
REDUCTIONS = {"reduce_rows", "reduce_parts"}
# Kernels that are made for one element at a time, and for as many as 16 bytes hold.
TWO_WIDTHS = {"softmax_stats", "strided_stats", "soft_stats", "reduce_rows", "record_temporal", "gradient_variance"}
TWO_WIDTHS |= RECORDS | MOMENTS
KERNELS = TWO_WIDTHS | STATISTICS | REDUCTIONS | {"find_owners", "chain_few_rows", "chain_sorted_rows"}
SIXTEEN_BYTES = r"\.global[.\w]*\.(?:v4\.[bfsu]32|v2\.[bfsu]64)\b"


@pytest.fixture(scope="module")
def cuobjdump() -> str:
    path = occupancy.find_cuobjdump()
    if path is None:
        pytest.skip("no cuobjdump, neither of a CUDA toolkit nor of triton")
    return path


def dump(cuobjdump: str, option: str, file: Path) -> str:
    return subprocess.run([cuobjdump, option, file], capture_output=True, text=True, check=True).stdout


def library() -> Path:
    return next(Path(dp.__file__).parent.glob("_C*.so"))


@pytest.fixture(scope="module")
def instances(cuobjdump: str) -> list[occupancy.Instance]:
    return occupancy.read_instances(library(), cuobjdump)


def test_no_kernel_spills_on_any_architecture(instances: list[occupancy.Instance]) -> None:
    assert {i.architecture for i in instances} == {a for a in ARCHITECTURES if a.startswith("sm_")}
    for architecture in {i.architecture for i in instances}:
        assert {i.kernel for i in instances if i.architecture == architecture} == KERNELS, architecture
    assert not [(i.architecture, i.symbol, i.on_stack) for i in instances if i.on_stack]


def test_every_kernel_keeps_enough_threads_on_a_multiprocessor(instances: list[occupancy.Instance]) -> None:
    known = [i for i in instances if i.architecture in occupancy.LIMITS]
    if not known:
        pytest.skip(f"built for none of {sorted(occupancy.LIMITS)}")
    rows = occupancy.rows_of(known)
    assert not [row for row in rows if not row["occupancy"] >= occupancy.LOWEST]


@pytest.mark.parametrize(
    ("registers", "shared", "threads", "expected"),
    [
        (32, 0, 128, 1.0),
        (33, 0, 128, 0.75),  # allocated as 40: 12 blocks of 128 fit into 65,536
        (128, 0, 512, 0.25),
        (32, 100_000, 128, 0.125),  # two blocks, because of shared memory
        (32, 0, 32, 0.5),  # 32 blocks at most
    ],
)
def test_occupancy_is_that_of_the_scarcest(registers: int, shared: int, threads: int, expected: float) -> None:
    instance = occupancy.Instance("sm_90", "_Z10any_kernel", registers, shared, 0)
    assert occupancy.occupancy(instance, threads, 0) == expected


def test_the_committed_table_is_of_these_kernels() -> None:
    rows = json.loads(occupancy.RESULT.read_text())["rows"]
    assert {row["kernel"].split(",")[0] for row in rows} == KERNELS
    assert min(row["occupancy"] for row in rows) >= occupancy.LOWEST


def test_memory_on_the_stack_would_be_seen(cuobjdump: str, tmp_path: Path) -> None:
    nvcc = read_setup("NVCC").stdout.strip()
    if nvcc == "None":
        pytest.skip("no nvcc")
    source, target = tmp_path / "spill.cu", tmp_path / "spill.cubin"
    source.write_text("""
__global__ void spill(float* x, int n) {
  float array[64];
  for (int i = 0; i < n; ++i) array[i * 7 % 64] = x[i];
  x[0] = array[n];
}
""")
    architecture = ARCHITECTURES[0].replace("compute", "sm")
    subprocess.run([nvcc, "-cubin", f"-arch={architecture}", source, "-o", target], check=True)
    # A file of its own, and not of several architectures, has no heading.
    usage = "\narch = one\n" + dump(cuobjdump, "-res-usage", target)
    assert [i.on_stack for i in occupancy.instances_of(usage)] == [256]


@pytest.fixture(scope="module")
def sixteen_byte_accesses(cuobjdump: str) -> dict[tuple[str, int], list[tuple[int, int]]]:
    """The number of loads and stores of 16 bytes in each kernel, by its name and width."""
    if not any(a.startswith("compute_") for a in ARCHITECTURES):
        pytest.skip(f"built without PTX: {FACTS['cuda_architectures']}")
    found: dict[tuple[str, int], list[tuple[int, int]]] = {}
    for kernel in dump(cuobjdump, "--dump-ptx", library()).split(".entry ")[1:]:
        name, width = occupancy.kernel_of(kernel)
        counts = tuple(len(re.findall(rf"\b{access}{SIXTEEN_BYTES}", kernel)) for access in ("ld", "st"))
        found.setdefault((name, width), []).append(counts)
    return found


def test_kernels_load_and_store_16_bytes_at_a_time(sixteen_byte_accesses) -> None:
    widths = {name: {w for n, w in sixteen_byte_accesses if n == name} for name in KERNELS}
    for name in KERNELS:
        assert (1 in widths[name]) == (name != "packed_stats")
        assert (len(widths[name]) > 1) == (name in TWO_WIDTHS | {"packed_stats"})
    for (name, width), kernels in sixteen_byte_accesses.items():
        for loads, stores in kernels:
            if name != "reduce_parts":  # whose sums the compiler loads as it likes
                assert (loads > 0) == (width > 1 or name in RECORDS | {"chain_sorted_rows"}), (name, width)
            state_is_wide = width > 1 and name in MOMENTS | {"record_temporal"}
            assert (stores > 0) == (state_is_wide or name in STATISTICS | RECORDS | REDUCTIONS), (name, width)


@pytest.mark.skipif("sm_90" not in ARCHITECTURES, reason="built without sm_90, whose instructions are counted")
def test_a_class_takes_few_instructions(cuobjdump: str, instances: list[occupancy.Instance]) -> None:
    """With 27 of them, an H100 was bound by instructions and not by the bytes of long rows of 16-bit logits. One
    exponential a class, and one more for every 16 or 32 classes."""
    pattern = r"softmax_stats_kernelILi[48]ENS\w*ByBlock"
    names = [i.symbol for i in instances if i.architecture == "sm_90" and re.search(pattern, i.symbol)]
    found = functions(cuobjdump, library(), "sm_90", names)
    counts = {name: instructions_per_exponential(code) for name, code in found.items()}
    assert len(counts) == 3
    assert not {name: count for name, count in counts.items() if not 7 < count <= 13}
