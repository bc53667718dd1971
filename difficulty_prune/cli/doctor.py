"""Show what was built, what is missing, and what to do about it."""

from __future__ import annotations

import argparse
import json
import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

import torch

from ..ops.operators import missing_kernels
from ..version import __version__

EXAMPLES: Final = """\
examples:
  what was built, and why kernels are missing if they are:
    difficulty-prune doctor
  the same for a report of a fault:
    difficulty-prune doctor --json
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """There are no options but --json."""


def run(options: argparse.Namespace) -> int:
    """Prints the facts; returns 0 if the compiled kernels are in use, else 1."""
    facts = collect()
    if options.json:
        print(json.dumps(facts, indent=1))
    else:
        width = max(map(len, facts))
        for name, value in facts.items():
            print(f"{name:<{width}}  {value}")
    return 0 if missing_kernels() is None else 1


def collect() -> dict[str, Any]:
    """Versions, how the package was built, and which kernels serve which device."""
    facts: dict[str, Any] = {
        "difficulty_prune": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": _installed("torchvision"),
        "operators": "compiled" if missing_kernels() is None else f"plain PyTorch: {missing_kernels()}",
    }
    facts.update(_build())
    facts["cuda device"] = torch.cuda.get_device_name() if torch.cuda.is_available() else "none visible to torch"
    return facts


def _build() -> dict[str, Any]:
    try:
        import difficulty_prune._host as host
    except ImportError as error:
        return {"build": f"no compiled modules ({error}); reinstall with a C++ compiler"}
    build = host.build_facts()
    cuda = f"CUDA {build['cuda']} for {build['cuda_architectures']}" if build["cuda"] else "none: no nvcc at build time"
    return {
        "built with torch": f"{build['torch']}, runs with torch >= {build['torch_target']}",
        "built with compiler": build["compiler"],
        "cuda kernels": cuda,
    }


def _installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
