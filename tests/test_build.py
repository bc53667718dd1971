"""The build, and what happens where a part of it is missing. Each case is a fresh process."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fresh_python import read_setup, run_python
from places import ROOT

WITHOUT_NVCC = "pathlib.Path.is_file = lambda self: False"


def test_asking_for_cuda_without_an_nvcc_names_the_three_places() -> None:
    result = read_setup("SUMMARY", WITHOUT_NVCC, DIFFICULTY_PRUNE_CUDA="1", PATH="")
    assert result.returncode != 0
    for place in ("CUDA_HOME", "PATH", "/usr/local/cuda"):
        assert place in result.stderr


def test_auto_without_an_nvcc_and_0_build_without_cuda() -> None:
    assert "without CUDA" in read_setup("SUMMARY", WITHOUT_NVCC, DIFFICULTY_PRUNE_CUDA="auto", PATH="").stdout
    assert "without CUDA" in read_setup("SUMMARY", DIFFICULTY_PRUNE_CUDA="0").stdout


def test_an_unknown_choice_is_refused() -> None:
    result = read_setup("SUMMARY", DIFFICULTY_PRUNE_CUDA="yes")
    assert result.returncode != 0
    assert "'yes': expected auto, 0 or 1" in result.stderr


def test_the_architecture_list_is_honoured_and_checked() -> None:
    if "without CUDA" in read_setup("SUMMARY").stdout:
        pytest.skip("no nvcc")
    assert read_setup("ARCHITECTURES", TORCH_CUDA_ARCH_LIST="8.0;9.0a+PTX").stdout == "sm_80 sm_90a compute_90a\n"
    assert "120" in read_setup("ARCHITECTURES", TORCH_CUDA_ARCH_LIST="12.0").stdout
    wrong = read_setup("ARCHITECTURES", TORCH_CUDA_ARCH_LIST="Hopper")
    assert wrong.returncode != 0
    assert "'Hopper'" in wrong.stderr


def test_the_cuda_runtime_is_looked_for_where_nvcc_looks() -> None:
    if "without CUDA" in read_setup("SUMMARY").stdout:
        pytest.skip("no nvcc")
    folders = json.loads(read_setup("CUDA_LIBRARIES").stdout.replace("'", '"'))
    assert any((Path(folder) / "libcudart_static.a").exists() for folder in folders), folders


@pytest.mark.parametrize("choice", ["auto", "1"])
def test_a_build_that_fails_is_an_error_only_where_the_kernels_were_asked_for(tmp_path, choice) -> None:
    nvcc = tmp_path / "bin" / "nvcc"  # compiles nothing
    nvcc.parent.mkdir()
    nvcc.write_text("#!/bin/sh\necho release 13.0\n")
    nvcc.chmod(0o755)
    code = f"""
import runpy, sys, torch.utils.cpp_extension
def fails(self, ext): raise RuntimeError("no compiler")
torch.utils.cpp_extension.BuildExtension.build_extension = fails
sys.argv = ["setup.py", "build_ext", "--build-lib", {str(tmp_path)!r}, "--build-temp", {str(tmp_path)!r}]
runpy.run_path("setup.py", run_name="__main__")
"""
    settings = {"DIFFICULTY_PRUNE_CUDA": choice, "TORCH_CUDA_ARCH_LIST": "9.0", "CUDA_HOME": str(tmp_path)}
    result = run_python(code, **settings)
    assert "no compiler" in result.stderr
    assert (result.returncode == 0) == (choice == "auto"), result.stderr
    assert ("will run on plain PyTorch" in result.stderr) == (choice == "auto")


def test_without_the_compiled_operators_the_reference_serves_with_one_warning() -> None:
    code = """
import sys, warnings
sys.modules["difficulty_prune._C"] = None
import torch, difficulty_prune as dp
assert dp.ops.missing_kernels() is not None
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    tracker = dp.DifficultyTracker(3, scores=("el2n", "vog_loss"))
    for _ in range(2):
        x = tracker.watch(torch.ones(2, 1, 2, 2), torch.tensor([0, 2]))
        logits = x.flatten(1)[:, :2]
        tracker.update(torch.tensor([0, 2]), logits, torch.tensor([0, 1]))
        torch.nn.functional.cross_entropy(logits, torch.tensor([0, 1])).backward()
    scores = tracker.compute()
assert abs(scores["el2n"][0].item() - 0.5 ** 0.5) < 1e-6
assert scores["vog_loss"][0].item() == 0
messages = [str(w.message) for w in caught if issubclass(w.category, RuntimeWarning)]
assert len(messages) == 1, messages
assert "reinstall" in messages[0] and "could not be loaded" in messages[0], messages
"""
    result = run_python(code)
    assert result.returncode == 0, result.stderr


def test_without_any_compiled_module_ranks_come_from_scipy() -> None:
    code = """
import sys
sys.modules["difficulty_prune._host"] = None
import numpy as np
from difficulty_prune.support.ranks import rank_rows, spearman_matrix
assert rank_rows(np.array([[2.0, 1.0, 2.0]])).tolist() == [[2.5, 1.0, 2.5]]
assert spearman_matrix(np.array([[1.0, 2.0], [2.0, 1.0]])).round(6).tolist() == [[1, -1], [-1, 1]]
"""
    result = run_python(code)
    assert result.returncode == 0, result.stderr


def test_import_is_light() -> None:
    code = """
import sys, torch
before = set(sys.modules)
from difficulty_prune import *
heavy = {"torchvision", "matplotlib", "sklearn", "scipy", "rich"} & (set(sys.modules) - before)
assert not heavy, heavy
"""
    result = run_python(code)
    assert result.returncode == 0, result.stderr


def test_import_leaves_the_global_random_state_alone() -> None:
    code = """
import random, numpy, torch
a = (random.getstate(), numpy.random.get_state()[1].tolist(), torch.get_rng_state().tolist())
from difficulty_prune import *
b = (random.getstate(), numpy.random.get_state()[1].tolist(), torch.get_rng_state().tolist())
assert a == b
"""
    result = run_python(code)
    assert result.returncode == 0, result.stderr


def test_the_shared_headers_of_the_kernels_include_no_torch() -> None:
    """`csrc/core`, `csrc/cpu`, `csrc/cuda` and `csrc/host` compile without PyTorch's headers."""
    for folder in ("core", "cpu", "cuda", "host"):
        for path in (ROOT / "csrc" / folder).iterdir():
            assert "#include <torch" not in path.read_text(), path
