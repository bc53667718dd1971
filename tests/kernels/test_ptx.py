"""What the CUDA compiler made of the kernels, read from the built module: no spills, and accesses of 16 bytes."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from fresh_python import read_setup

import difficulty_prune as dp

_host = pytest.importorskip("difficulty_prune._host", reason="no compiled module")
FACTS = _host.build_facts()
pytestmark = pytest.mark.skipif(not FACTS["cuda"], reason="built without CUDA: no nvcc")

ARCHITECTURES = FACTS["cuda_architectures"].split()
WIDE_KERNELS = {"softmax_stats", "record_stats", "record_gradients", "merge_moments", "gradient_variance"}
RECORD_KERNELS = {"record_stats", "record_given_stats"}
KERNELS = WIDE_KERNELS | RECORD_KERNELS | {"record_temporal"}
# In the mangled name of `softmax_stats_kernel<8, ...>`: its name and its first argument, the elements read at a time.
# Kernels without such an argument read one.
KERNEL_NAME = re.compile(r"\d+([a-z_]+)_kernel(?:ILi(\d+)E)?")
SIXTEEN_BYTES = r"\.global[.\w]*\.(?:v4\.[bfsu]32|v2\.[bfsu]64)\b"


def find_cuobjdump() -> str | None:
    triton = importlib.util.find_spec("triton")
    folders = list(triton.submodule_search_locations or ()) if triton else []
    candidates = [Path("/usr/local/cuda/bin/cuobjdump"), *(Path(f, "backends/nvidia/bin/cuobjdump") for f in folders)]
    return shutil.which("cuobjdump") or next((str(path) for path in candidates if path.is_file()), None)


@pytest.fixture(scope="module")
def cuobjdump() -> str:
    path = find_cuobjdump()
    if path is None:
        pytest.skip("no cuobjdump, neither of a CUDA toolkit nor of triton")
    return path


def dump(cuobjdump: str, option: str, file: Path) -> str:
    return subprocess.run([cuobjdump, option, file], capture_output=True, text=True, check=True).stdout


def library() -> Path:
    return next(Path(dp.__file__).parent.glob("_C*.so"))


def memory_on_the_stack(resource_usage: str) -> dict[str, dict[str, int]]:
    """Bytes of local memory per thread, by architecture and kernel. Spilled registers and local arrays need some."""
    found: dict[str, dict[str, int]] = {}
    for part in resource_usage.split("\narch = ")[1:]:  # one for each .cu file and architecture
        architecture = part.split()[0]
        functions = re.findall(r"Function (\w+):\s+REG:\d+ STACK:(\d+) SHARED:\d+ LOCAL:(\d+)", part)
        for name, stack, local in functions:
            found.setdefault(architecture, {})[name] = int(stack) + int(local)
    return found


def test_no_kernel_spills_on_any_architecture(cuobjdump: str) -> None:
    found = memory_on_the_stack(dump(cuobjdump, "-res-usage", library()))
    assert set(found) == {a for a in ARCHITECTURES if a.startswith("sm_")}
    for architecture, kernels in found.items():
        assert {KERNEL_NAME.search(name)[1] for name in kernels} == KERNELS, architecture
        assert not {name: size for name, size in kernels.items() if size}, architecture


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
    assert list(memory_on_the_stack(usage)["one"].values()) == [256]


@pytest.fixture(scope="module")
def sixteen_byte_accesses(cuobjdump: str) -> dict[tuple[str, int], list[tuple[int, int]]]:
    """The number of loads and stores of 16 bytes in each kernel, by its name and width."""
    if not any(a.startswith("compute_") for a in ARCHITECTURES):
        pytest.skip(f"built without PTX: {FACTS['cuda_architectures']}")
    found: dict[tuple[str, int], list[tuple[int, int]]] = {}
    for kernel in dump(cuobjdump, "--dump-ptx", library()).split(".entry ")[1:]:
        name, width = KERNEL_NAME.search(kernel).groups()
        counts = tuple(len(re.findall(rf"\b{access}{SIXTEEN_BYTES}", kernel)) for access in ("ld", "st"))
        found.setdefault((name, int(width or 1)), []).append(counts)
    return found


def test_kernels_load_and_store_16_bytes_at_a_time(sixteen_byte_accesses) -> None:
    widths = {name: {w for n, w in sixteen_byte_accesses if n == name} for name in KERNELS}
    for name in KERNELS:
        assert 1 in widths[name]
        assert (len(widths[name]) > 1) == (name in WIDE_KERNELS)
    for (name, width), kernels in sixteen_byte_accesses.items():
        for loads, stores in kernels:
            assert (loads > 0) == (width > 1 or name in RECORD_KERNELS), (name, width)  # a record is 64 bytes
            state_is_wide = name in ("record_gradients", "merge_moments") and width > 1
            assert (stores > 0) == (state_is_wide or name in RECORD_KERNELS), (name, width)
