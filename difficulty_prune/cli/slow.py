"""What makes this installation slow on this machine, why, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..support.counted import counted
from ..support.processor import LEVELS, Processor

BUSY = 1.5  # processes for each core, from which on the work of others is felt


@dataclass(frozen=True)
class Slow:
    """One finding."""

    what: str
    why: str
    do: str

    def __str__(self) -> str:
        return f"{self.what}: {self.why}; {self.do}"


@dataclass(frozen=True)
class Surroundings:
    """What decides how fast the package runs.

    Attributes:
        threads: of PyTorch.
        capability: the instructions that PyTorch uses: "AVX512", "AVX2", "DEFAULT" or another architecture's.
        variables: the environment's.
        build: what `_host.build_facts` says; empty where it is missing.
        missing: why the compiled operators are missing; None where they are there.
        compiler: a C++ compiler is found here and now.
        gpu: the name of the GPU that PyTorch sees, and its architecture, as "sm_90"; None where it sees none.
        driver: an NVIDIA driver is loaded.
        torch_cuda: the CUDA version that PyTorch was built with, or None.
    """

    processor: Processor
    threads: int
    capability: str
    variables: Mapping[str, str] = field(default_factory=dict)
    build: Mapping[str, Any] = field(default_factory=dict)
    missing: str | None = None
    compiler: bool = True
    gpu: tuple[str, str] | None = None
    driver: bool = False
    torch_cuda: str | None = None


def what_is_slow(here: Surroundings) -> list[Slow]:
    """All findings; none where nothing is known to be slow."""
    return [*_compiled(here), *_threads(here), *_instructions(here), *_gpu(here)]


def kernel_level(here: Surroundings) -> str:
    """Which of the versions that the compiler made of each kernel runs here."""
    level, compiler = here.processor.level, str(here.build.get("compiler", ""))
    if here.missing is not None:
        return "none"
    if level in LEVELS and not _has_versions(compiler):
        return "x86-64"
    return level


def _has_versions(compiler: str) -> bool:
    """Whether the compiler made a version for each level: GCC does, whose version is a number alone."""
    return "clang" not in compiler.lower()


def _compiled(here: Surroundings) -> Iterator[Slow]:
    compiler = "reinstall" if here.compiler else "install a C++ compiler (g++), then reinstall"
    if here.missing is not None:
        yield Slow("operators run in plain PyTorch, many times slower", here.missing, f"{compiler} difficulty-prune")
    if not here.build:
        yield Slow("ranks and permutation tests run in SciPy", "the module _host is missing", f"{compiler} it")


def _threads(here: Surroundings) -> Iterator[Slow]:
    cpu, usable = here.processor, here.processor.usable
    granted = f"{cpu.quota:g} CPUs' worth of time" if cpu.quota is not None and cpu.quota < cpu.allowed else None
    if here.threads > usable:
        why = f"this container is granted {granted}" if granted else f"this process may run on {cpu.allowed} cores"
        yield Slow(f"{here.threads} threads wait for each other", why, f"set OMP_NUM_THREADS={usable}")
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        if here.threads < usable and here.variables.get(name) == str(here.threads):
            said = counted(here.threads, "thread computes", "threads compute")
            yield Slow(
                f"{said} where {usable} could",
                f"{name}={here.threads}",
                "unset it, or call torch.set_num_threads, unless several processes share the cores",
            )
            break
    if cpu.load is not None and cpu.load > BUSY * usable:
        yield Slow(
            "everything waits for a core",
            f"{cpu.load:g} processes want to run on {usable}",
            "wait for the others, or start fewer at a time",
        )


def _instructions(here: Surroundings) -> Iterator[Slow]:
    level, used = here.processor.level, kernel_level(here)
    if level in LEVELS and used == "x86-64":
        yield Slow(
            "kernels use vectors of 128 bits",
            f"{here.build.get('compiler')} made no versions for {level}",
            "reinstall with CXX=g++",
        )
    elif level == "x86-64":
        yield Slow("kernels use vectors of 128 bits", "the processor has no AVX2", "take a newer machine, if you can")
    best = {"x86-64-v4": "AVX512", "x86-64-v3": "AVX2"}.get(level)
    asked = here.variables.get("ATEN_CPU_CAPABILITY")
    if asked is not None and best is not None and here.capability != best:
        yield Slow(f"PyTorch uses {here.capability} where {best} is there", f"ATEN_CPU_CAPABILITY={asked}", "unset it")


def _gpu(here: Surroundings) -> Iterator[Slow]:
    if here.gpu is None:
        if here.driver and here.torch_cuda is None:
            yield Slow(
                "nothing runs on the GPU",
                "there is an NVIDIA driver, but this PyTorch was built without CUDA",
                "install a PyTorch with CUDA, then reinstall difficulty-prune",
            )
        elif here.driver:
            yield Slow(
                "nothing runs on the GPU",
                f"there is an NVIDIA driver, but PyTorch for CUDA {here.torch_cuda} sees no GPU",
                "see nvidia-smi, CUDA_VISIBLE_DEVICES, and whether the driver is new enough",
            )
        return
    name, architecture = here.gpu
    if not here.build.get("cuda"):
        yield Slow(
            f"operators on the {name} run in plain PyTorch",
            "the package was built without CUDA kernels",
            "reinstall with an nvcc present and DIFFICULTY_PRUNE_CUDA=1",
        )
    elif not _runs_as_built(architecture, str(here.build.get("cuda_architectures")).split()):
        yield Slow(
            f"kernels for the {name} are compiled at their first call, or fail",
            f"they were built for {here.build.get('cuda_architectures')}, not for {architecture}",
            "reinstall on this machine",
        )


def _runs_as_built(architecture: str, built: list[str]) -> bool:
    """Whether machine code is there: that of the same major version, and of no later minor one."""
    own = int(architecture.removeprefix("sm_"))
    codes = [int(name[3:].rstrip("af")) for name in built if name.startswith("sm_")]
    return any(code // 10 == own // 10 and code <= own for code in codes)
