"""How many of its threads each multiprocessor can keep, for every kernel and architecture in the built module.

    python benchmarks/occupancy.py               prints the table; writes benchmarks/results/occupancy.json
    python benchmarks/occupancy.py RESULT.json   prints a result again, without a module that has CUDA kernels

Registers and shared memory are those that cuobjdump reads from the module; the limits are those of the CUDA C++
Programming Guide, "Compute Capabilities". No GPU is needed. Of a kernel's instances (element types, widths) the table
shows the one with the lowest occupancy. Dynamic shared memory is that of the work which stands beside the kernel.
"""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "benchmarks" / "results" / "occupancy.json"
LOWEST = 0.25
"""The occupancy below which no kernel is to fall: 16 warps hide the latency of loads that are four deep each."""


@dataclass(frozen=True)
class Limits:
    """Of a multiprocessor: threads, blocks, bytes of shared memory, and those that the system takes of each block."""

    threads: int
    blocks: int
    shared: int
    reserved: int
    registers: int = 65536


KIB = 1024
LIMITS = {
    "sm_75": Limits(1024, 16, 64 * KIB, 0),
    "sm_80": Limits(2048, 32, 164 * KIB, KIB),
    "sm_86": Limits(1536, 16, 100 * KIB, KIB),
    "sm_89": Limits(1536, 24, 100 * KIB, KIB),
    "sm_90": Limits(2048, 32, 228 * KIB, 0),  # from here on cuobjdump counts what the system takes
    "sm_100": Limits(2048, 32, 228 * KIB, 0),
    "sm_120": Limits(1536, 24, 100 * KIB, 0),
}
WARP, REGISTER_UNIT, SHARED_UNIT = 32, 256, 128


@dataclass(frozen=True)
class Instance:
    """A kernel for certain element types, as an architecture has it."""

    architecture: str
    symbol: str
    registers: int
    shared: int  # bytes per block that are fixed
    on_stack: int  # bytes per thread: spilled registers and local arrays

    @property
    def kernel(self) -> str:
        return kernel_of(self.symbol)[0]

    @property
    def name(self) -> str:
        """The kernel, and who reads a row."""
        reader = re.search(r"By(Thread|Block|WarpILi\d+ELi(\d+)E)", self.symbol)
        if reader is None:
            return self.kernel
        words = {"T": "a thread a row", "B": "a block a row"}
        return f"{self.kernel}, {words.get(reader[1][0]) or f'a warp a row of up to {reader[2]}'}"


def kernel_of(symbol: str) -> tuple[str, int]:
    """From a mangled name: `softmax_stats` of `softmax_stats_kernel<8, ...>`, and 8, the elements read at a time."""
    found = re.search(r"\d+([a-z_]+)_kernel(?:ILi(\d+)E)?", symbol)
    if found is None:
        raise ValueError(f"no kernel is called {symbol}")
    return found[1], int(found[2] or 1)


def element_bytes(symbol: str) -> int:
    """Bytes of the types that a kernel was made for, added up: 4 + 2 for float and BFloat16."""
    arguments = re.split(r"_kernelI(?:Li\d+E)?", symbol)[-1].split("EEv")[0]
    halves = re.findall(r"Float16|(?<!N)S\w?_", arguments)  # S3_ stands for a type that was named before
    return 2 * len(halves) + 4 * len(re.findall("f", re.sub(r"\d+[A-Z]\w*?16", "", arguments)))


def launches(instance: Instance) -> dict[str, tuple[int, int]]:
    """Threads per block and bytes of dynamic shared memory, by what the kernel works on."""
    kernel, width = kernel_of(instance.symbol)
    if kernel == "chain_few_rows":
        return {"1024 rows": (1024, 0)}
    if "ByBlock" in instance.symbol:
        return {"5,000 classes": (128, 0), "32,000 classes": (256, 0), "128,256 classes": (512, 0)}
    if kernel in ("record_temporal", "soft_stats"):
        return {"1,000 classes": (128, 4 * 1000 * element_bytes(instance.symbol))}
    if kernel in ("record_gradients", "merge_moments"):
        sizes = {"1,024 pixels": 1024, "50,176 pixels": 50176}
        held = 4 if kernel == "record_gradients" else 0
        return {name: (min(512, -(-n // width // WARP) * WARP), held * n) for name, n in sizes.items()}
    if kernel == "gradient_variance":
        return {"any": (256, 0)}
    return {"any": (128, 0)}


def occupancy(instance: Instance, threads: int, dynamic: int) -> float:
    """The fraction of a multiprocessor's threads that blocks of so many can take. Shared memory beyond what a block
    may have is read again instead, so that one block always fits."""
    limits = LIMITS[instance.architecture]
    warps = -(-threads // WARP)
    per_warp = -(-instance.registers * WARP // REGISTER_UNIT) * REGISTER_UNIT
    shared = -(-(instance.shared + dynamic + limits.reserved) // SHARED_UNIT) * SHARED_UNIT
    blocks = min(
        limits.threads // (warps * WARP),
        limits.blocks,
        limits.registers // (per_warp * warps),
        max(1, limits.shared // shared) if shared else limits.blocks,
    )
    return blocks * warps * WARP / limits.threads


def find_cuobjdump() -> str | None:
    """Of a CUDA toolkit, or of triton."""
    triton = importlib.util.find_spec("triton")
    folders = list(triton.submodule_search_locations or ()) if triton else []
    candidates = [Path("/usr/local/cuda/bin/cuobjdump"), *(Path(f, "backends/nvidia/bin/cuobjdump") for f in folders)]
    return shutil.which("cuobjdump") or next((str(path) for path in candidates if path.is_file()), None)


def instances_of(resource_usage: str) -> list[Instance]:
    """From what `cuobjdump -res-usage` prints of a library."""
    found = []
    for part in resource_usage.split("\narch = ")[1:]:  # one for each .cu file and architecture
        functions = re.findall(r"Function (\w+):\s+REG:(\d+) STACK:(\d+) SHARED:(\d+) LOCAL:(\d+)", part)
        for symbol, registers, stack, shared, local in functions:
            on_stack = int(stack) + int(local)
            found.append(Instance(part.split()[0], symbol, int(registers), int(shared), on_stack))
    return found


def read_instances(library: Path, cuobjdump: str) -> list[Instance]:
    done = subprocess.run([cuobjdump, "-res-usage", library], capture_output=True, text=True, check=True)
    return instances_of(done.stdout)


def rows_of(instances: list[Instance]) -> list[dict[str, Any]]:
    """By kernel, work and architecture: the lowest occupancy of its instances, and the registers of that one."""
    worst: dict[tuple[str, str, str], tuple[float, int, int]] = {}
    for instance in instances:
        for work, (threads, dynamic) in launches(instance).items():
            key = instance.name, work, instance.architecture
            got = occupancy(instance, threads, dynamic), instance.registers, threads
            worst[key] = min(worst.get(key, got), got)
    return [
        {
            **dict(zip(("kernel", "work", "architecture"), key, strict=True)),
            **dict(zip(("occupancy", "registers", "threads"), value, strict=True)),
        }
        for key, value in sorted(worst.items())
    ]


def show(rows: list[dict[str, Any]]) -> None:
    architectures = sorted({row["architecture"] for row in rows}, key=lambda name: int(name[3:]))
    by_work: dict[tuple[str, str], dict[str, dict[str, Any]]] = {}
    for row in rows:
        by_work.setdefault((row["kernel"], row["work"]), {})[row["architecture"]] = row
    label = {what: f"{what[0]} ({what[1]})" if what[1] != "any" else what[0] for what in by_work}
    width = max(map(len, label.values()))
    print(" " * width, *(f"{name:>9}" for name in architectures))
    for what, row in by_work.items():
        cells = (f"{row[name]['occupancy']:.0%} {row[name]['registers']:>3}r" for name in architectures)
        print(f"{label[what]:<{width}}", *(f"{cell:>9}" for cell in cells))
    print("occupancy, and registers per thread, of the instance that has the lowest")


def main() -> None:
    if len(sys.argv) == 2:
        show(json.loads(Path(sys.argv[1]).read_text())["rows"])
        return
    import difficulty_prune

    cuobjdump = find_cuobjdump()
    if cuobjdump is None:
        raise SystemExit("benchmarks/occupancy.py needs cuobjdump, of a CUDA toolkit or of triton, and found none")
    library = next(Path(difficulty_prune.__file__).parent.glob("_C*.so"), None)
    instances = read_instances(library, cuobjdump) if library else []
    if not instances:
        raise SystemExit(
            "benchmarks/occupancy.py reads the CUDA kernels, and they are not built: see difficulty-prune doctor"
        )
    rows = rows_of(instances)
    lines = ",\n  ".join(json.dumps(row) for row in rows)
    RESULT.write_text(f'{{\n "lowest_allowed": {LOWEST},\n "rows": [\n  {lines}\n ]\n}}\n')
    show(rows)


if __name__ == "__main__":
    main()
