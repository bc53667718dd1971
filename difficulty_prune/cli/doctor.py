"""Show what was built, what is missing, what is slow here and why, and what to do about it."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

import torch

from ..ops.operators import missing_kernels
from ..support.native import host
from ..support.processor import read_processor
from ..version import __version__
from .shown import shown
from .slow import Surroundings, kernel_level, what_is_slow

EXAMPLES: Final = """\
examples:
  what was built, why kernels are missing if they are, and what makes this machine slow:
    difficulty-prune doctor
  the same for a report of a fault:
    difficulty-prune doctor --json
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """There are no options but --json."""


def run(options: argparse.Namespace) -> int:
    """Prints the facts; returns 0 if the compiled kernels are in use, else 1."""
    here = surroundings()
    facts, slow = collect(here), what_is_slow(here)
    if options.json:
        print(json.dumps({**facts, "slow": [asdict(found) for found in slow]}, indent=1))
    else:
        width = max(map(len, facts))
        for name, value in facts.items():
            print(f"{name:<{width}}  {value}")
        print("slow here:" if slow else "Nothing is known to be slow here.")
        for found in slow:
            print(f"- {shown(found)}")
    return 0 if here.missing is None else 1


def collect(here: Surroundings) -> dict[str, Any]:
    """Versions, how the package was built, what computes, and which kernels serve which device."""
    return {
        "difficulty_prune": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": _installed("torchvision"),
        "operators": "compiled" if here.missing is None else f"plain PyTorch: {here.missing}",
        **_built(here.build),
        "cuda device": "none visible to torch" if here.gpu is None else here.gpu[0],
        "processor": here.processor.name,
        "threads": _threads(here),
        "instructions": f"kernels {kernel_level(here)}, PyTorch {here.capability}, processor {here.processor.level}",
    }


def surroundings() -> Surroundings:
    """What decides how fast the package runs, of this process on this machine."""
    gpu = None
    if torch.cuda.is_available():
        major, minor = torch.cuda.get_device_capability()
        gpu = (torch.cuda.get_device_name(), f"sm_{major}{minor}")
    return Surroundings(
        processor=read_processor(),
        threads=torch.get_num_threads(),
        capability=torch.backends.cpu.get_cpu_capability(),
        variables=dict(os.environ),
        build={} if host is None else host.build_facts(),
        missing=missing_kernels(),
        compiler=any(shutil.which(name) for name in (os.environ.get("CXX") or "c++", "g++", "clang++")),
        gpu=gpu,
        driver=Path("/proc/driver/nvidia/version").exists(),
        torch_cuda=torch.version.cuda,
    )


def _threads(here: Surroundings) -> str:
    cpu = here.processor
    quota = "no limit of time" if cpu.quota is None else f"time for {cpu.quota:g}"
    load = "" if cpu.load is None else f", load {cpu.load:g}"
    return f"{here.threads} of PyTorch; {cpu.allowed} of {cpu.cores} cores allowed, {quota}{load}"


def _built(build: Mapping[str, Any]) -> dict[str, str]:
    if not build:
        return {"build": "no compiled module for NumPy; reinstall with a C++ compiler"}
    without = "none: built where no nvcc was found, or with DIFFICULTY_PRUNE_CUDA=0"
    cuda = f"CUDA {build['cuda']} for {build['cuda_architectures']}" if build["cuda"] else without
    return {
        "built with torch": f"{build['torch']}, runs with torch >= {build['torch_target']}",
        "built with compiler": str(build["compiler"]),
        "cuda kernels": cuda,
    }


def _installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
