"""Builds the two compiled modules: `_C` (PyTorch operators, stable ABI) and `_host` (NumPy, pybind11).

Where they cannot be built, for want of a C++ compiler say, the install goes on without them, with a warning: the
library then runs on plain PyTorch and SciPy, more slowly, and `difficulty-prune doctor` says so.

DIFFICULTY_PRUNE_CUDA=auto|0|1   auto (default) compiles the CUDA kernels when an nvcc is found; with 1 the install
                                 fails where they cannot be built
TORCH_CUDA_ARCH_LIST="8.0;9.0+PTX"   architectures; default: what the found nvcc knows, plus PTX
MAX_JOBS=N   compilations at a time
"""

import glob
import os
import re
import shutil
import subprocess
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pybind11
import torch
from setuptools import Extension, setup
from setuptools.errors import BaseError
from torch.utils.cpp_extension import BuildExtension, CppExtension

TORCH_TARGET = "2.10"
TORCH_TARGET_VERSION = "0x020a000000000000"  # TORCH_VERSION_2_10_0 as torch/headeronly/version.h encodes it
HEADERS = sorted(glob.glob("csrc/**/*.h", recursive=True) + glob.glob("csrc/**/*.cuh", recursive=True))
# A square root that sets errno does not vectorise. Vectors are arguments of inlined functions alone, so that how
# a compiler would pass them to others does not matter.
SIMD = ["-fno-math-errno", "-Wno-psabi"]
WARNINGS = ["-Wall", "-Wextra", "-Wno-unused-parameter", "-Wno-missing-field-initializers"]


def find_nvcc() -> Path | None:
    """The CUDA compiler from CUDA_HOME, PATH or the toolkit's default folder, in that order."""
    homes = [os.environ[name] for name in ("CUDA_HOME", "CUDA_PATH") if os.environ.get(name)]
    candidates = [Path(home) / "bin" / "nvcc" for home in homes]
    if on_path := shutil.which("nvcc"):
        candidates.append(Path(on_path))
    candidates.append(Path("/usr/local/cuda/bin/nvcc"))
    return next((path for path in candidates if path.is_file()), None)


def wanted_nvcc() -> Path | None:
    """The nvcc to use, as DIFFICULTY_PRUNE_CUDA says."""
    choice = os.environ.get("DIFFICULTY_PRUNE_CUDA", "auto")
    if choice not in ("auto", "0", "1"):
        raise SystemExit(f"DIFFICULTY_PRUNE_CUDA={choice!r}: expected auto, 0 or 1")
    nvcc = None if choice == "0" else find_nvcc()
    if choice == "1" and nvcc is None:
        raise SystemExit(
            "DIFFICULTY_PRUNE_CUDA=1, but no nvcc was found in $CUDA_HOME/bin, on PATH or in /usr/local/cuda/bin: "
            "install the CUDA toolkit, point CUDA_HOME at it, or build with DIFFICULTY_PRUNE_CUDA=0"
        )
    return nvcc


def run_nvcc(nvcc: Path, *arguments: str) -> str:
    result = subprocess.run([str(nvcc), *arguments], capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise SystemExit(f"nvcc {' '.join(arguments)} failed:\n{result.stdout}{result.stderr}")
    return result.stdout


def cuda_libraries(nvcc: Path) -> list[str]:
    """The folders in which nvcc itself looks for the CUDA runtime. Toolkits differ in where they keep it, and the nvcc
    on PATH is often a wrapper script or a link, so it is asked."""
    result = subprocess.run(
        [str(nvcc), "--dryrun", "-c", "-x", "cu", os.devnull], capture_output=True, text=True, check=False
    )
    listed = re.search(r"^#\$ LIBRARIES=(.*)$", result.stderr, flags=re.MULTILINE)
    found = [Path(folder) for folder in re.findall(r"-L([^\s\"]+)", listed[1] if listed else "")]
    home = nvcc.resolve().parent.parent
    return [str(folder.resolve()) for folder in [*found, home / "lib64", home / "lib"] if folder.is_dir()]


def architectures(nvcc: Path) -> list[str]:
    """nvcc's architecture flags: TORCH_CUDA_ARCH_LIST, else every major line the nvcc knows, plus PTX."""
    listed = os.environ.get("TORCH_CUDA_ARCH_LIST", "").replace(";", " ").split()
    if not listed:
        known = [int(n) for n in re.findall(r"compute_(\d+)", run_nvcc(nvcc, "--list-gpu-arch"))]
        wanted = [n for n in (75, 80, 86, 89, 90, 100, 120) if n in known]
        listed = [f"{n // 10}.{n % 10}" for n in wanted]
        listed[-1] += "+PTX"
    flags = []
    for item in listed:
        match = re.fullmatch(r"(\d+)\.(\d+[af]?)(\+PTX)?", item)
        if match is None:
            raise SystemExit(f"TORCH_CUDA_ARCH_LIST: {item!r} is not of the form 9.0, 9.0a or 9.0+PTX")
        number = match[1] + match[2]
        flags.append(f"-gencode=arch=compute_{number},code=sm_{number}")
        if match[3]:
            flags.append(f"-gencode=arch=compute_{number},code=compute_{number}")
    return flags


def usable_cores() -> int:
    """Cores that this process may run on, which may be fewer than there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Build(BuildExtension):
    """PyTorch's build command for the C++ files; nvcc, called directly, for the `.cu` files.

    The `.cu` files include no PyTorch header, so nvcc needs neither PyTorch's flags nor a toolkit whose
    version matches PyTorch's.
    """

    def build_extensions(self) -> None:
        if NVCC is not None:
            self.compile_cuda(NVCC)
        super().build_extensions()
        print(SUMMARY)

    def build_extension(self, ext: Extension) -> None:
        try:
            super().build_extension(ext)
        except (BaseError, OSError, RuntimeError, subprocess.SubprocessError) as error:  # of setuptools and of ninja
            if ext is OPERATORS and os.environ.get("DIFFICULTY_PRUNE_CUDA") == "1":
                raise  # who asks for the kernels by name wants no install without them
            warnings.warn(
                f"{ext.name} was not built ({error}): difficulty_prune will run on plain PyTorch and SciPy, more "
                "slowly. Install a C++ compiler and reinstall to get the kernels.",
                stacklevel=1,
            )

    def compile_cuda(self, nvcc: Path) -> None:
        objects = Path(self.build_temp).resolve() / "cuda"
        objects.mkdir(parents=True, exist_ok=True)

        def compile_file(source: str) -> str:
            target = str(objects / (Path(source).stem + ".o"))
            host = ["-Xcompiler", "-fPIC,-fvisibility=hidden"]
            run_nvcc(nvcc, "-c", source, "-o", target, "-std=c++17", "-O3", *host, *CUDA_FLAGS)
            return target

        with ThreadPoolExecutor(int(os.environ.get("MAX_JOBS") or usable_cores())) as pool:
            OPERATORS.extra_objects = list(pool.map(compile_file, sorted(glob.glob("csrc/cuda/*.cu"))))


NVCC = wanted_nvcc()
CUDA_FLAGS = architectures(NVCC) if NVCC else []
CUDA_LIBRARIES = cuda_libraries(NVCC) if NVCC else []
CUDA_VERSION = re.search(r"release ([\d.]+)", run_nvcc(NVCC, "--version"))[1] if NVCC else ""
ARCHITECTURES = " ".join(re.findall(r",code=(\w+)", " ".join(CUDA_FLAGS)))
SUMMARY = f"difficulty_prune: built with torch {torch.__version__} for torch >= {TORCH_TARGET}, " + (
    f"CUDA {CUDA_VERSION} ({ARCHITECTURES})" if NVCC else "without CUDA"
)

OPERATORS = CppExtension(
    "difficulty_prune._C",
    sorted(glob.glob("csrc/cpu/*.cpp"))
    + ["csrc/torch/cpu.cpp", "csrc/torch/module.cpp"]
    + (["csrc/torch/cuda.cpp"] if NVCC else []),
    py_limited_api=True,
    optional=True,
    depends=HEADERS,
    define_macros=[("TORCH_TARGET_VERSION", TORCH_TARGET_VERSION)],
    extra_compile_args=["-O3", "-g0", "-fvisibility=hidden", *SIMD, *WARNINGS],
)
if NVCC:
    OPERATORS.library_dirs += CUDA_LIBRARIES
    OPERATORS.libraries += ["cudart_static", "rt", "dl", "pthread"]

HOST = Extension(
    "difficulty_prune._host",
    ["csrc/host/module.cpp"],
    include_dirs=[pybind11.get_include()],
    optional=True,
    depends=HEADERS,
    define_macros=[
        ("DP_BUILD_TORCH", f'"{torch.__version__}"'),
        ("DP_TORCH_TARGET", f'"{TORCH_TARGET}"'),
        ("DP_BUILD_CUDA", f'"{CUDA_VERSION}"'),
        ("DP_BUILD_ARCHITECTURES", f'"{ARCHITECTURES}"'),
    ],
    extra_compile_args=["-O3", "-g0", "-fvisibility=hidden", *SIMD, *WARNINGS],
)

setup(ext_modules=[OPERATORS, HOST], cmdclass={"build_ext": Build})
