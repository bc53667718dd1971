"""What `doctor` finds slow: one thing wrong at a time, on machines that are described here."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from difficulty_prune.cli.doctor import collect, surroundings
from difficulty_prune.cli.main import main
from difficulty_prune.cli.slow import Surroundings, kernel_level, what_is_slow
from difficulty_prune.support.processor import Processor

CPU = Processor("Fast 3000", cores=8, allowed=8, quota=None, load=0.5, level="x86-64-v4")
BUILD = {
    "torch": "2.14.0",
    "torch_target": "2.10",
    "cuda": "13.0",
    "cuda_architectures": "sm_80 sm_90 sm_100 compute_120",
    "compiler": "12.2.0",
}
GOOD = Surroundings(
    CPU, threads=8, capability="AVX512", build=BUILD, gpu=("H100", "sm_90"), driver=True, torch_cuda="13.0"
)


def test_nothing_is_slow_where_all_is_well() -> None:
    assert what_is_slow(GOOD) == []
    assert what_is_slow(replace(GOOD, gpu=None, driver=False)) == []
    assert what_is_slow(replace(GOOD, threads=4)) == [], "of hyperthreads PyTorch uses half, of its own accord"
    assert what_is_slow(replace(GOOD, gpu=("L4", "sm_89"))) == [], "runs the code of sm_80"


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        (
            {"processor": replace(CPU, quota=2.0)},
            "8 threads wait for each other: this container is granted 2 CPUs' worth of time; set OMP_NUM_THREADS=2",
        ),
        (
            {"processor": replace(CPU, allowed=3)},
            "8 threads wait for each other: this process may run on 3 cores; set OMP_NUM_THREADS=3",
        ),
        (
            {"threads": 1, "variables": {"OMP_NUM_THREADS": "1"}},
            "1 thread computes where 8 could: OMP_NUM_THREADS=1; unset it, or call torch.set_num_threads, "
            "unless several "
            "processes share the cores",
        ),
        (
            {"processor": replace(CPU, load=12.5)},
            "everything waits for a core: 12.5 processes want to run on 8; wait for the others, or start "
            "fewer at a time",
        ),
        (
            {"missing": "no such file", "compiler": False},
            "operators run in plain PyTorch, many times slower: no such file; install a C++ compiler (g++), "
            "then reinstall "
            "difficulty-prune",
        ),
        (
            {"build": {**BUILD, "compiler": "Clang 17.0.6"}},
            "kernels use vectors of 128 bits: Clang 17.0.6 made no versions for x86-64-v4; reinstall with CXX=g++",
        ),
        (
            {"processor": replace(CPU, level="x86-64"), "capability": "DEFAULT"},
            "kernels use vectors of 128 bits: the processor has no AVX2; take a newer machine, if you can",
        ),
        (
            {"capability": "AVX2", "variables": {"ATEN_CPU_CAPABILITY": "avx2"}},
            "PyTorch uses AVX2 where AVX512 is there: ATEN_CPU_CAPABILITY=avx2; unset it",
        ),
        (
            {"gpu": None, "torch_cuda": None},
            "nothing runs on the GPU: there is an NVIDIA driver, but this PyTorch was built without CUDA; "
            "install a PyTorch "
            "with CUDA, then reinstall difficulty-prune",
        ),
        (
            {"gpu": None},
            "nothing runs on the GPU: there is an NVIDIA driver, but PyTorch for CUDA 13.0 sees no GPU; see "
            "nvidia-smi, "
            "CUDA_VISIBLE_DEVICES, and whether the driver is new enough",
        ),
        (
            {"build": {**BUILD, "cuda": "", "cuda_architectures": ""}},
            "operators on the H100 run in plain PyTorch: the package was built without CUDA kernels; "
            "reinstall with an nvcc "
            "present and DIFFICULTY_PRUNE_CUDA=1",
        ),
        (
            {"gpu": ("T4", "sm_75")},
            "kernels for the T4 are compiled at their first call, or fail: they were built for sm_80 sm_90 sm_100 "
            "compute_120, not for sm_75; reinstall on this machine",
        ),
    ],
)
def test_each_finding_is_a_line_of_what_why_and_what_to_do(changed: dict[str, Any], line: str) -> None:
    assert [str(found) for found in what_is_slow(replace(GOOD, **changed))] == [line]


def test_without_any_compiled_module_both_are_named() -> None:
    nothing = replace(GOOD, build={}, missing="no module _C", gpu=None, driver=False)
    first, second = what_is_slow(nothing)
    assert first.do == "reinstall difficulty-prune"
    assert second.what == "ranks and permutation tests run in SciPy"
    assert kernel_level(nothing) == "none"
    assert collect(nothing)["operators"] == "plain PyTorch: no module _C"


def test_missing_cuda_kernels_are_laid_to_either_of_two_causes() -> None:
    bare = replace(GOOD, build={**BUILD, "cuda": "", "cuda_architectures": ""})
    expected = "none: built where no nvcc was found, or with DIFFICULTY_PRUNE_CUDA=0"
    assert collect(bare)["cuda kernels"] == expected


def test_the_version_of_the_kernels_that_runs() -> None:
    assert kernel_level(GOOD) == "x86-64-v4"
    assert kernel_level(replace(GOOD, processor=replace(CPU, level="x86-64-v3"))) == "x86-64-v3"
    assert kernel_level(replace(GOOD, processor=replace(CPU, level="aarch64"))) == "aarch64"
    assert kernel_level(replace(GOOD, build={**BUILD, "compiler": "Apple Clang 15"})) == "x86-64"


def test_facts_are_those_of_the_machine() -> None:
    facts = collect(replace(GOOD, processor=replace(CPU, quota=2.5)))
    assert facts["threads"] == "8 of PyTorch; 8 of 8 cores allowed, time for 2.5, load 0.5"
    assert facts["instructions"] == "kernels x86-64-v4, PyTorch AVX512, processor x86-64-v4"
    assert facts["cuda device"] == "H100"


def test_the_command_says_the_same_in_words_and_in_json(capsys: pytest.CaptureFixture[str]) -> None:
    status = main(["doctor", "--json"])
    facts = json.loads(capsys.readouterr().out)
    assert main(["doctor"]) == status == (0 if facts["operators"] == "compiled" else 1)
    text = capsys.readouterr().out
    assert facts["processor"] in text
    assert facts["threads"].startswith(f"{surroundings().threads} of PyTorch; ")
    for found in facts["slow"]:
        if "processes want to run" not in found["why"]:  # which changes from one moment to the next
            assert f"- {found['what']}: {found['why']}; {found['do']}\n" in text
    assert ("Nothing is known to be slow here." in text) == ("slow here:" not in text)
