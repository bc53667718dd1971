"""The CUDA half. Compiling and linking is tested on every machine that has an nvcc; running needs a device."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import torch

import difficulty_prune as dp
from difficulty_prune import ops
from difficulty_prune.ops import reference

_host = pytest.importorskip("difficulty_prune._host", reason="no compiled module")
FACTS = _host.build_facts()
needs_cuda_build = pytest.mark.skipif(not FACTS["cuda"], reason="built without CUDA: no nvcc")
needs_device = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
OPERATORS = ("softmax_stats", "record_stats_", "record_gradients_", "gradient_variance")


@needs_cuda_build
@pytest.mark.parametrize("operator", OPERATORS)
def test_every_operator_has_a_linked_cuda_kernel(operator: str) -> None:
    assert torch._C._dispatch_has_kernel_for_dispatch_key(f"difficulty_prune::{operator}", "CUDA")


@needs_cuda_build
def test_the_shared_object_holds_code_for_every_listed_architecture() -> None:
    cuobjdump = shutil.which("cuobjdump") or next(_triton_tools(), None)
    if cuobjdump is None:
        pytest.skip("no cuobjdump")
    library = next(Path(dp.__file__).parent.glob("_C*.so"))
    found = {}
    for kind in ("elf", "ptx"):
        listing = subprocess.run([cuobjdump, f"--list-{kind}", library], capture_output=True, text=True, check=True)
        found[kind] = listing.stdout
    for architecture in FACTS["cuda_architectures"].split():
        kind, name = (
            ("ptx", architecture.replace("compute", "sm")) if "compute" in architecture else ("elf", architecture)
        )
        assert f".{name}." in found[kind], f"{architecture} is missing"


def _triton_tools():
    triton = pytest.importorskip("triton", reason="no triton, so no cuobjdump")
    return (str(path) for path in Path(triton.__file__).parent.rglob("cuobjdump"))


@needs_device
@pytest.mark.cuda
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("classes", [2, 10, 33, 1000, 1025])
def test_stats_and_records_equal_the_reference(dtype: torch.dtype, classes: int) -> None:
    generator = torch.Generator().manual_seed(classes)
    logits = (torch.randn(257, classes, generator=generator) * 4).to(dtype)
    logits[3, 0] = torch.nan
    labels = torch.randint(classes, (257,), generator=generator)
    index = torch.randint(100, (257,), generator=generator)
    stats = ops.softmax_stats(logits.cuda(), labels.cuda()).cpu()
    torch.testing.assert_close(stats, reference.softmax_stats(logits, labels), rtol=2e-5, atol=2e-6, equal_nan=True)

    table, expected = ops.new_table(100, "cuda"), ops.new_table(100)
    skipped, expected_skipped = ops.new_skipped("cuda"), ops.new_skipped()
    ops.record_stats_(table, index.cuda(), logits.cuda(), labels.cuda(), skipped)
    reference.record_stats_(expected, index, logits, labels, expected_skipped)
    torch.testing.assert_close(table.cpu(), expected, rtol=2e-5, atol=1e-5)
    assert skipped.tolist() == expected_skipped.tolist() == [0, 0, 1]


@needs_device
@pytest.mark.cuda
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_gradient_moments_equal_the_reference(dtype: torch.dtype, layout: torch.memory_format) -> None:
    generator = torch.Generator().manual_seed(0)
    gradients = torch.randn(64, 3, 9, 7, generator=generator).to(dtype).to(memory_format=layout)
    index = torch.randint(40, (64,), generator=generator)
    scale = torch.rand(64, generator=generator)
    scale[5] = 0
    states = []
    for device, record in (("cuda", ops.record_gradients_), ("cpu", reference.record_gradients_)):
        count = torch.zeros(40, dtype=torch.int32, device=device)
        mean, m2 = torch.zeros(40, 63, device=device), torch.zeros(40, 63, device=device)
        arguments = (t.to(device) for t in (index, gradients, scale))
        record(count, mean, m2, *arguments, ops.new_skipped(device))
        states.append((count.cpu(), mean.cpu(), m2.cpu()))
    for got, expected in zip(*states, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


@needs_device
@pytest.mark.cuda
def test_gradient_variance_equals_the_definition() -> None:
    gradients = torch.randn(7, 33, 3, 16, 16, dtype=torch.float64)
    expected = gradients.mean(2).var(0, correction=0).sqrt().flatten(1).mean(1)
    torch.testing.assert_close(ops.gradient_variance(gradients.cuda()).cpu().double(), expected, rtol=1e-6, atol=0)


@needs_device
@pytest.mark.cuda
def test_bad_rows_on_the_device_are_left_out_and_reported_at_compute() -> None:
    tracker = dp.DifficultyTracker(4, scores=("el2n",))
    logits, labels = torch.randn(3, 5).cuda(), torch.tensor([0, 1, 2]).cuda()
    tracker.update(torch.tensor([0, 99, 2]).cuda(), logits, labels)
    with pytest.raises(ValueError, match="1 x bad index"):
        tracker.compute()
    assert tracker.compute(allow_skipped=True)["el2n"].isnan().tolist() == [False, True, False, True]


@needs_device
@pytest.mark.cuda
def test_kernels_run_on_the_current_stream() -> None:
    stream = torch.cuda.Stream()
    logits, labels = torch.randn(4096, 1000).cuda(), torch.zeros(4096, dtype=torch.int64).cuda()
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(50_000_000)
        logits.zero_()
        stats = ops.softmax_stats(logits, labels)
    stream.synchronize()
    torch.testing.assert_close(stats[:, ops.STAT["p_label"]].cpu(), torch.full((4096,), 1e-3))


@needs_device
@pytest.mark.cuda
def test_update_does_not_wait_for_the_device() -> None:
    tracker = dp.DifficultyTracker(64, scores=("el2n", "vog_loss"))
    index, labels = torch.arange(64).cuda(), torch.zeros(64, dtype=torch.int64).cuda()
    inputs, weight = torch.randn(64, 3, 8, 8).cuda(), torch.ones(64).cuda()
    torch.cuda.set_sync_debug_mode("error")
    try:
        x = tracker.watch(inputs, index, weight=weight)
        logits = x.flatten(1)[:, :10]
        tracker.update(index, logits, labels)
        (torch.nn.functional.cross_entropy(logits, labels, reduction="none") * weight).mean().backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert not tracker.compute()["vog_loss"].isnan().any()
