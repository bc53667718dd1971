"""Everything that needs a GPU: correctness, roofline, training step, GraNd, compute-sanitizer.

    python benchmarks/gpu.py                      all of it; writes benchmarks/results/<device>.json
    python benchmarks/gpu.py roofline sanitizer   these parts alone, put into the same file
    python benchmarks/gpu.py RESULT.json          prints a result again, without a GPU

The package must be installed with its CUDA kernels: DIFFICULTY_PRUNE_CUDA=1 make setup.

The times come from CUDA graphs of many calls, so they contain no launch overhead from Python. Each call works on
different examples and inputs, far more than the caches hold. "of copy" is the rate at which the necessary bytes moved,
as a fraction of the rate of a plain device-to-device copy in the same run.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn import functional as F

import difficulty_prune as dp
from difficulty_prune import ops
from difficulty_prune.study.models import build_model
from difficulty_prune.tracker.moments import GradientMoments

ROOT = Path(__file__).parent.parent
GPU = torch.device("cuda")
SANITIZERS = ("memcheck", "racecheck", "initcheck", "synccheck")
LONGEST = 270  # seconds that one of them may take
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def generator(seed: int) -> torch.Generator:
    return torch.Generator(GPU).manual_seed(seed)


def randn(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    return torch.randn(*shape, device=GPU, generator=generator(seed)).to(dtype)


def randint(limit: int, rows: int, seed: int = 0) -> Tensor:
    return torch.randint(limit, (rows,), device=GPU, generator=generator(seed))


def draw_examples(examples: int, rows: int, seed: int) -> Tensor:
    """Distinct examples, like those of a loader that samples without replacement."""
    return torch.randperm(examples, device=GPU, generator=generator(seed))[:rows]


# Correctness


def stats_in_float64(logits: Tensor, labels: Tensor) -> Tensor:
    """`softmax_stats` from its definition."""
    z = logits.double()
    own = F.one_hot(labels, z.shape[1]).bool()
    log_p = z.log_softmax(1)
    p = log_p.exp()
    columns = {
        "loss": -log_p[own],
        "el2n": (p - own.double()).norm(dim=1),
        "entropy": -(p * log_p).nan_to_num().sum(1),
        "p_label": p[own],
        "p_max": p.amax(1),
        "logit_margin": z[own] - z.masked_fill(own, -torch.inf).amax(1),
        "p_margin": p[own] - p.masked_fill(own, -torch.inf).amax(1),
        "correct": ((z == z.amax(1, keepdim=True)).int().argmax(1) == labels).double(),
    }
    return torch.stack([columns[name] for name in ops.STATS], 1)


def largest_error(got: Tensor, expected: Tensor) -> float:
    """The largest error, relative to the expected value where that exceeds 1; float32 is exact to about 1e-7."""
    scale = expected.double().abs().clamp(min=1)
    return float(((got.double() - expected.double()).abs() / scale).max())


def check_stats() -> Iterator[tuple[str, float]]:
    for dtype in DTYPES:
        for classes in (2, 10, 33, 100, 1000, 1025, 32000):
            logits, labels = 3 * randn(257, classes, dtype=dtype), randint(classes, 257)
            error = largest_error(ops.softmax_stats(logits, labels), stats_in_float64(logits, labels))
            yield f"softmax_stats {str(dtype)[6:]} C {classes}", error


def check_records() -> Iterator[tuple[str, float]]:
    for classes in (10, 1000, 1025):
        table, losses, counts = ops.new_table(100, GPU), torch.zeros(100).double(), torch.zeros(100)
        for step in range(4):  # with duplicates, which the sums do not mind
            logits, index = 3 * randn(256, classes, seed=step), randint(100, 256, step)
            labels = index % classes
            ops.record_stats_(table, index, logits, labels)
            losses.index_add_(0, index.cpu(), stats_in_float64(logits, labels)[:, ops.STAT["loss"]].cpu())
            counts.index_add_(0, index.cpu(), torch.ones(256))
        assert torch.equal(table[:, ops.FIELD["count"]].cpu(), counts)
        yield f"record_stats_ C {classes}", largest_error(table[:, ops.FIELD["loss"]].cpu(), losses)


def check_gradients() -> Iterator[tuple[str, float]]:
    for dtype in (*DTYPES, torch.float64):
        for shape in ((3, 32, 32), (1, 255), (3, 224, 224), (4, 7, 3)):
            for layout in (torch.contiguous_format, torch.channels_last)[: 2 if len(shape) == 3 else 1]:
                options = dp.GradientOptions()
                size = int(torch.tensor(shape[1:]).prod())
                moments = GradientMoments(40, size, GPU, options)
                stacked = torch.stack([randn(40, *shape, seed=k).to(dtype) for k in range(4)])
                for gradients in stacked:
                    order = draw_examples(40, 40, 7)
                    moments.record(order, gradients[order].contiguous(memory_format=layout))
                expected = stacked.double().mean(2).var(0, correction=0).sqrt().flatten(1).mean(1)
                name = f"{str(dtype)[6:]} {'x'.join(map(str, shape))}"
                yield f"record_gradients_ {name} {str(layout)[6:]}", largest_error(moments.vog(), expected)
            yield f"gradient_variance {name}", largest_error(ops.gradient_variance(stacked), expected)


def check_options() -> Iterator[tuple[str, float]]:
    """Subsets of pixels and merged states, with M2 in both dtypes."""
    index, stacked = torch.arange(40, device=GPU), torch.stack([randn(40, 3, 32, 32, seed=k) for k in range(6)])
    for m2_dtype in ("float32", "bfloat16"):
        for pixels in (None, 200):
            options = dp.GradientOptions(pixels=pixels, m2_dtype=m2_dtype)
            states = [GradientMoments(40, 1024, GPU, options) for _ in range(2)]
            for k, gradients in enumerate(stacked):
                states[k % 2].record(index, gradients)
            states[0].merge(states[1])
            signal = stacked.double().mean(2).flatten(2)
            kept = signal if states[0].pixels is None else signal[:, :, states[0].pixels]
            error = largest_error(states[0].vog(), kept.var(0, correction=0).sqrt().mean(1))
            yield f"merge_moments_ M2 {m2_dtype} pixels {pixels}", error


ROUNDING, NARROW = 2e-5, 1e-3
"""The largest errors allowed: of float32, and of an M2 with 8 bits of precision, averaged over pixels."""


def check() -> dict[str, float]:
    """The largest errors against float64; exits if one exceeds rounding."""
    parts = (check_stats, check_records, check_gradients, check_options)
    errors = {name: error for part in parts for name, error in part()}
    bounds = {name: NARROW if "M2 bfloat16" in name else ROUNDING for name in errors}
    wrong = {name: error for name, error in errors.items() if not error < bounds[name]}
    if wrong:
        raise SystemExit(f"kernels disagree with float64: {wrong}")
    return errors


def exercise() -> None:
    """Calls every kernel on shapes that take every path: narrow, wide, misaligned, with duplicates, with bad values.

    What they read is made on the CPU and copied, because initcheck looks at our kernels alone, and would not know what
    one of PyTorch's had written.
    """
    for dtype in DTYPES:
        for classes in (1, 2, 10, 32, 33, 1000, 1024, 1025, 5000):
            for offset in (0, 1):  # an odd offset rules out 16-byte reads
                exercise_logits(dtype, classes, offset)
        for channels, size in ((1, 1), (3, 3), (3, 255), (3, 1024), (4, 3072), (3, 50176), (1, 70000)):
            for m2_dtype in (torch.float32, torch.bfloat16):
                exercise_gradients(dtype, channels, size, m2_dtype)
    torch.cuda.synchronize()


def exercise_logits(dtype: torch.dtype, classes: int, offset: int) -> None:
    made = torch.Generator().manual_seed(classes)
    rows = torch.randn(65, classes + offset, generator=made).to(dtype)
    index = torch.randint(20, (65,), generator=made)
    labels = index % classes
    rows[::9, -1] = -torch.inf  # a masked class, now and then that of the label
    rows[3, offset], index[4:6], labels[7] = torch.nan, torch.tensor([-1, 2**40]), classes
    logits, index, labels = rows.to(GPU)[:, offset:], index.to(GPU), labels.to(GPU)
    table, skipped = ops.new_table(20).to(GPU), ops.new_skipped().to(GPU)
    stats = ops.softmax_stats(logits, labels)
    apart = rows[:, offset:].t().contiguous().t().to(GPU)  # classes that are not adjacent
    ops.softmax_stats(apart, labels)
    targets = torch.rand(65, classes, generator=made).softmax(1).to(GPU)
    ops.soft_stats(logits, targets)
    ops.soft_stats(apart, targets)
    ops.reduce_rows(ops.sigmoid_stats(logits, torch.randint(2, (65, classes), generator=made).to(GPU)), 65)
    ops.record_stats_(table, index, logits, labels, skipped)
    ops.record_given_stats_(table, index, stats, labels, classes, skipped)
    for kept in (None, classes):  # without and with the state that TDDS needs
        windows = ops.new_temporal_table(20, 3, kept).to(GPU)
        ops.record_temporal_(windows, index, logits, labels, 3, 0.9, skipped, table)


def exercise_all() -> None:
    """As well what PyTorch sorts first, of which initcheck does not know that it was written."""
    exercise()
    made = torch.Generator().manual_seed(0)
    index, logits = torch.randint(20, (1500,), generator=made), torch.randn(1500, 7, generator=made)
    index[3], index[1400] = -1, 20
    labels = index % 7
    table, skipped, steps = ops.new_table(20).to(GPU), ops.new_skipped().to(GPU), ops.new_steps(20).to(GPU)
    index, logits, labels = index.to(GPU), logits.to(GPU), labels.to(GPU)
    ops.record_stats_(table, index, logits, labels, skipped, steps=steps)
    stats = ops.softmax_stats(logits, labels)
    ops.record_given_stats_(table, index, stats, labels, 7, skipped, steps=steps)
    ops.record_temporal_(ops.new_temporal_table(20, 3, 7).to(GPU), index, logits, labels, 3, 0.9, skipped, table)
    for examples in (1, 20):
        ops.reduce_rows(stats, examples, index, None, labels, skipped)
    torch.cuda.synchronize()


def exercise_gradients(dtype: torch.dtype, channels: int, size: int, m2_dtype: torch.dtype) -> None:
    def state(pixels: int) -> tuple[Tensor, Tensor, Tensor]:
        mean, m2 = torch.zeros(9, pixels), torch.zeros(9, pixels, dtype=m2_dtype)
        return torch.zeros(9, dtype=torch.int32).to(GPU), mean.to(GPU), m2.to(GPU)

    made = torch.Generator().manual_seed(size)
    index, scale = torch.randint(9, (17,), generator=made), torch.rand(17, generator=made)
    scale[2], index[3] = 0, -1
    gradients = torch.randn(17, channels, size, generator=made).to(dtype)
    gradients[5, 0, size // 2] = torch.inf
    last = gradients.unsqueeze(3).to(memory_format=torch.channels_last).to(GPU)
    shifted = torch.randn(17 * channels * size + 1, generator=made).to(dtype).to(GPU)[1:].view(17, channels, size)
    both = torch.stack([gradients, gradients.flip(0)]).to(GPU)
    subset = torch.randperm(size, generator=made)[: (size + 1) // 2].to(GPU)
    index, scale, gradients, skipped = index.to(GPU), scale.to(GPU), gradients.to(GPU), ops.new_skipped().to(GPU)
    whole, other = state(size), state(size)
    for layout in (gradients, last, shifted):
        ops.record_gradients_(*whole, index, layout, scale, None, skipped)
        ops.record_gradients_(*other, index, layout, None, None, skipped)
    ops.merge_moments_(*whole, *other)
    ops.record_gradients_(*state(len(subset)), index, gradients, scale, subset, skipped)
    ops.gradient_variance(both)


def plant_fault() -> None:
    """Reads far beyond a tensor whose memory was taken away: memcheck must see this."""
    logits, labels = randn(65, 1000), randint(1000, 65)
    logits.untyped_storage().resize_(64)
    torch.ops.difficulty_prune.softmax_stats(logits, labels)
    torch.cuda.synchronize()


def sanitize() -> dict[str, str]:
    """The summary line of each compute-sanitizer tool over `exercise`, and of memcheck over a planted fault."""
    home = Path(os.environ.get("CUDA_HOME", "/usr/local/cuda"))
    tool = shutil.which("compute-sanitizer") or str(home / "bin" / "compute-sanitizer")
    if not Path(tool).is_file():
        return dict.fromkeys(SANITIZERS, "not run: compute-sanitizer was not found on PATH or in CUDA_HOME/bin")

    def run(name: str, work: str) -> str:
        # Without PyTorch's cache every tensor has memory of its own, so that a read beyond its end is seen.
        environment = {**os.environ, "PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
        log = ROOT / "build" / f"{name}-{work}.log"
        log.parent.mkdir(exist_ok=True)
        ours = ["--kernel-name", "kernel_substring=dp4cuda"]
        command = [tool, "--tool", name, *ours, "--log-file", str(log), sys.executable, __file__, work]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, check=False, cwd=ROOT, env=environment, timeout=LONGEST
            )
        except subprocess.TimeoutExpired:
            return f"not finished within {LONGEST} s"
        lines = log.read_text().splitlines() if log.exists() else []
        summary = [line.strip("= ") for line in lines if "SUMMARY" in line]
        if not summary:
            return f"failed: {(done.stdout + done.stderr)[-400:]}"
        return f"{summary[-1]}, {sum('dp::cuda' in line for line in lines)} lines that name our kernels"

    with ThreadPoolExecutor() as pool:
        planted = pool.submit(run, "memcheck", "plant_fault")
        works = ["exercise" if name == "initcheck" else "exercise_all" for name in SANITIZERS]
        results = dict(zip(SANITIZERS, pool.map(run, SANITIZERS, works), strict=True))
        return {**results, "memcheck of a planted fault": planted.result()}


# Time


def seconds_per_call(calls: list[Callable[[], object]], replays: int = 20) -> float:
    """Seconds per call: the median over replays of a CUDA graph of all calls."""
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for call in calls[:3]:
            call()
    stream.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for call in calls:
            call()
    times = []
    for _ in range(replays):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        graph.replay()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) / 1e3 / len(calls))
    return statistics.median(times)


def copy_rate() -> float:
    """Bytes per second that a plain copy of 1 GiB reads and writes."""
    a, b = torch.zeros(2**28, device=GPU), torch.empty(2**28, device=GPU)
    return 2 * a.nbytes / seconds_per_call([lambda: b.copy_(a)] * 4)


def launch_seconds() -> float:
    """Seconds of a kernel that does next to nothing: no call takes less."""
    one = torch.zeros(1, device=GPU)
    return seconds_per_call([lambda: one.add_(1)] * 100)


CALLS = 24  # different batches in one graph


def time_records(rows: int, classes: int, dtype: torch.dtype) -> dict[str, Any]:
    examples = 1_000_000  # 64 MB of records
    table, skipped = ops.new_table(examples, GPU), ops.new_skipped(GPU)
    batches = [(draw_examples(examples, rows, k), randn(rows, classes, dtype=dtype, seed=k)) for k in range(CALLS)]
    record = torch.ops.difficulty_prune.record_stats_
    calls = [lambda i=i, z=z, y=i % classes: record(table, i, z, y, skipped) for i, z in batches]
    moved = rows * (classes * dtype.itemsize + 2 * 64 + 2 * 8)
    return row(f"record_stats_ B {rows} C {classes} {str(dtype)[6:]}", seconds_per_call(calls), moved)


def time_stats(rows: int, classes: int, dtype: torch.dtype) -> dict[str, Any]:
    batches = [(randn(rows, classes, dtype=dtype, seed=k), randint(classes, rows, k)) for k in range(CALLS)]
    calls = [lambda z=z, y=y: torch.ops.difficulty_prune.softmax_stats(z, y) for z, y in batches]
    moved = rows * (classes * dtype.itemsize + 8 + 32)
    return row(f"softmax_stats B {rows} C {classes} {str(dtype)[6:]}", seconds_per_call(calls), moved)


def time_vocabulary(rows: int, classes: int, dtype: torch.dtype) -> dict[str, Any]:
    """Statistics of the logits of a language model, beside the loss alone of PyTorch."""
    count = max(2, min(CALLS, 8 * 2**30 // (rows * classes * dtype.itemsize)))
    batches = [(randn(rows, classes, dtype=dtype, seed=k), randint(classes, rows, k)) for k in range(count)]
    ours = seconds_per_call([lambda z=z, y=y: torch.ops.difficulty_prune.softmax_stats(z, y) for z, y in batches])
    theirs = seconds_per_call([lambda z=z, y=y: F.cross_entropy(z, y, reduction="none") for z, y in batches])
    work = f"softmax_stats B {rows} C {classes} {str(dtype)[6:]}, beside cross_entropy"
    return {**row(work, ours, rows * (classes * dtype.itemsize + 8 + 32)), "ratio_to_cross_entropy": ours / theirs}


def time_images(dtype: torch.dtype, layout: torch.memory_format) -> dict[str, Any]:
    """Statistics of every pixel of images to segment, beside the loss alone of PyTorch."""
    shape = (8, 21, 256, 256)
    batches = [
        (
            randn(*shape, dtype=dtype, seed=k).contiguous(memory_format=layout),
            randint(21, 8 * 256**2, k).view(8, 256, 256),
        )
        for k in range(8)
    ]
    ours = seconds_per_call([lambda z=z, y=y: torch.ops.difficulty_prune.softmax_stats(z, y) for z, y in batches])
    theirs = seconds_per_call([lambda z=z, y=y: F.cross_entropy(z, y, reduction="none") for z, y in batches])
    work = f"softmax_stats {'x'.join(map(str, shape))} {str(dtype)[6:]} {str(layout)[6:]}"
    moved = 8 * 256**2 * (21 * dtype.itemsize + 8 + 32)
    return {**row(work, ours, moved), "ratio_to_cross_entropy": ours / theirs}


def time_multi_label(rows: int, labels: int, dtype: torch.dtype) -> dict[str, Any]:
    """Statistics of every label, and their mean for each example."""
    made = [
        (randn(rows, labels, dtype=dtype, seed=k), randint(2, rows * labels, k).view(rows, labels).float())
        for k in range(CALLS)
    ]
    library = torch.ops.difficulty_prune
    calls = [lambda z=z, y=y: library.reduce_rows(library.sigmoid_stats(z, y), rows) for z, y in made]
    moved = rows * labels * (dtype.itemsize + 4 + 2 * 32) + rows * 40
    return row(f"sigmoid_stats and reduce_rows {rows}x{labels} {str(dtype)[6:]}", seconds_per_call(calls), moved)


def time_soft(rows: int, classes: int, dtype: torch.dtype) -> dict[str, Any]:
    made = [(randn(rows, classes, dtype=dtype, seed=k), randn(rows, classes, seed=k).softmax(1)) for k in range(CALLS)]
    ours = seconds_per_call([lambda z=z, q=q: torch.ops.difficulty_prune.soft_stats(z, q) for z, q in made])
    theirs = seconds_per_call([lambda z=z, q=q: F.cross_entropy(z.float(), q, reduction="none") for z, q in made])
    moved = rows * (classes * (dtype.itemsize + 4) + 32)
    work = f"soft_stats B {rows} C {classes} {str(dtype)[6:]}"
    return {**row(work, ours, moved), "ratio_to_cross_entropy": ours / theirs}


def time_owners(rows: int, examples: int) -> dict[str, Any]:
    """The mean over rows that come in any order; with the sort of their owners."""
    made = [(torch.rand(rows, 8, device=GPU), randint(examples, rows, k)) for k in range(CALLS)]
    calls = [lambda s=s, o=o: torch.ops.difficulty_prune.reduce_rows(s, examples, o) for s, o in made]
    return row(
        f"reduce_rows {rows} rows of {examples} examples, owned", seconds_per_call(calls), rows * 40 + examples * 40
    )


def time_gradients(
    rows: int, side: int, dtype: torch.dtype, layout: torch.memory_format, **options: Any
) -> dict[str, Any]:
    """Gradients of three channels, in as many different batches as fit into 8 GB."""
    chosen = dp.GradientOptions(**options)
    size = side * side
    examples = max(rows, min(200_000, 6 * 2**30 // chosen.bytes_per_example(size)))
    state = GradientMoments(examples, size, GPU, chosen)
    skipped = ops.new_skipped(GPU)
    gradient_bytes = rows * 3 * size * dtype.itemsize
    count = max(2, min(CALLS, 8 * 2**30 // gradient_bytes))
    batches = [
        (
            draw_examples(examples, rows, k),
            randn(rows, 3, side, side, dtype=dtype, seed=k).contiguous(memory_format=layout),
        )
        for k in range(count)
    ]
    record = torch.ops.difficulty_prune.record_gradients_
    calls = [
        lambda i=i, g=g: record(state.count, state.mean, state.m2, i, g, None, state.pixels, skipped)
        for i, g in batches
    ]
    kept = state.mean.shape[1]
    read = kept * 3 * dtype.itemsize if state.pixels is None else kept * 3 * 32  # a sector for each value
    moved = rows * (read + 2 * kept * (4 + state.m2.element_size()) + 16)
    words = " ".join([str(dtype)[6:], str(layout)[6:], *(f"{k}={v}" for k, v in options.items())])
    return row(f"record_gradients_ B {rows} 3x{side}x{side} {words}", seconds_per_call(calls), moved)


def time_merge(examples: int, size: int) -> dict[str, Any]:
    states = [GradientMoments(examples, size, GPU) for _ in range(2)]
    for state in states:
        state.count.fill_(3)
    tensors = [t for s in states for t in (s.count, s.mean, s.m2)]
    moved = examples * size * 4 * (2 * 2 + 2)
    seconds = seconds_per_call([lambda: torch.ops.difficulty_prune.merge_moments_(*tensors)] * 4)
    return row(f"merge_moments_ N {examples} P {size}", seconds, moved)


def time_variance(checkpoints: int, rows: int, side: int) -> dict[str, Any]:
    stacked = randn(checkpoints, rows, 3, side, side)
    seconds = seconds_per_call([lambda: torch.ops.difficulty_prune.gradient_variance(stacked, "std")] * 4)
    return row(f"gradient_variance K {checkpoints} B {rows} 3x{side}x{side}", seconds, stacked.nbytes + rows * 4)


def row(work: str, seconds: float, moved: int) -> dict[str, Any]:
    torch.cuda.empty_cache()
    return {"work": work, "seconds": seconds, "bytes": moved, "bytes_per_second": moved / seconds}


def roofline() -> list[dict[str, Any]]:
    rows = []
    for dtype in (torch.float32, torch.bfloat16):
        for batch, classes in (
            (256, 10),
            (1024, 100),
            (256, 1000),
            (4096, 1000),
            (2048, 32000),
            (16384, 10),
            (65536, 10),
        ):
            rows += [time_records(batch, classes, dtype), time_stats(batch, classes, dtype)]
        for batch, classes in ((2048, 32000), (512, 32000), (128, 32000), (512, 128_256), (128, 128_256)):
            rows += [time_vocabulary(batch, classes, dtype)]
        rows += [time_images(dtype, layout) for layout in (torch.contiguous_format, torch.channels_last)]
        rows += [time_multi_label(256, 80, dtype), time_soft(256, 1000, dtype)]
        for batch, side in ((256, 32), (512, 32), (4096, 32), (64, 224), (256, 224)):
            rows += [time_gradients(batch, side, dtype, torch.contiguous_format)]
        rows += [time_gradients(4096, 32, dtype, torch.channels_last)]
    rows += [time_gradients(4096, 32, torch.float32, torch.contiguous_format, m2_dtype="bfloat16")]
    rows += [time_gradients(256, 224, torch.float32, torch.contiguous_format, pixels=256)]
    rows += [time_owners(65536, 256), time_owners(4096, 2048)]
    rows += [time_merge(200_000, 1024), time_variance(8, 512, 32), time_variance(8, 16, 224)]
    return rows


# A training step


def training_step(batch: int = 512) -> dict[str, dict[str, float]]:
    """ResNet-18, bf16 autocast, channels_last, 32x32: seconds per step with scoring off and on, in turns."""
    from torchvision.models import resnet18

    model = resnet18(num_classes=10).to(GPU, memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    trackers = {
        "off": None,
        "logit scores": dp.DifficultyTracker(50_000, ("el2n", "aum", "forgetting")),
        "vog_loss by watch": dp.DifficultyTracker(50_000, ("vog_loss",)),
    }
    images = randn(batch, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    indices = [draw_examples(50_000, batch, k) for k in range(20)]

    def steps(tracker: dp.DifficultyTracker | None) -> float:
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        for index in indices:
            labels = index % 10
            x = tracker.watch(images, index) if tracker is not None and "vog_loss" in tracker.scores else images
            with torch.autocast("cuda", torch.bfloat16):
                logits = model(x)
            if tracker is not None and "vog_loss" not in tracker.scores:
                tracker.update(index, logits, labels)
            optimizer.zero_grad(set_to_none=True)
            F.cross_entropy(logits.float(), labels).backward()
            optimizer.step()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / 1e3 / len(indices)

    for tracker in trackers.values():
        steps(tracker)
    times: dict[str, list[float]] = {name: [] for name in trackers}
    for _ in range(15):
        for name, tracker in trackers.items():
            times[name].append(steps(tracker))
    ratios = {name: sorted(a / b for a, b in zip(t, times["off"], strict=True)) for name, t in times.items()}
    return {
        name: {
            "seconds": statistics.median(t),
            "ratio_to_off": statistics.median(ratios[name]),
            "lowest_ratio": ratios[name][0],
            "highest_ratio": ratios[name][-1],
        }
        for name, t in times.items()
    }


# GraNd


def time_grand(batch: int = 64) -> dict[str, float]:
    """ResNet-18 at 32x32: seconds of `grand` and of a backward pass per example, in turns."""
    torch.manual_seed(0)
    model = build_model("resnet18", (3, 32, 32), 10).eval().to(GPU)
    with torch.no_grad():
        model.fc.weight *= 10
        x = randn(batch, 3, 32, 32)
        y = model(x).argmax(1)

    def by_loop() -> None:
        for i in range(batch):
            loss = F.cross_entropy(model(x[i : i + 1]), y[i : i + 1])
            for g in torch.autograd.grad(loss, list(model.parameters())):
                g.square().sum()

    def seconds(work: Callable[[], object]) -> float:
        torch.cuda.synchronize()
        start = time.perf_counter()
        work()
        torch.cuda.synchronize()
        return time.perf_counter() - start

    pairs = [(seconds(lambda: dp.scores.grand(model, x, y)), seconds(by_loop)) for _ in range(6)][1:]
    ours, loop = (statistics.median(times) for times in zip(*pairs, strict=True))
    return {"seconds": ours, "loop_seconds": loop, "ratio": statistics.median(b / a for a, b in pairs)}


# The whole


def build() -> str:
    """What was built, as `difficulty-prune doctor` tells it."""
    command = [sys.executable, "-m", "difficulty_prune.cli", "doctor"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


FOR_SANITIZER = {"exercise": exercise, "exercise_all": exercise_all, "plant_fault": plant_fault}
PARTS: dict[str, Callable[[], Any]] = {
    "build": build,
    "errors": check,
    "copy_bytes_per_second": copy_rate,
    "launch_seconds": launch_seconds,
    "roofline": roofline,
    "training_step": training_step,
    "grand": time_grand,
    "sanitizer": sanitize,
}


def show(result: dict[str, Any]) -> None:
    console = Console()
    if "errors" in result:
        narrow = {name for name in result["errors"] if "M2 bfloat16" in name}
        for what, names in (("float32 state", result["errors"].keys() - narrow), ("M2 in bfloat16", narrow)):
            largest = max(result["errors"][name] for name in names)
            console.print(f"largest error against float64, {what}: {largest:.1e}")
    if "roofline" in result:
        grid = Table("work", "time", "MB", "GB/s", "of copy", "of cross_entropy", box=None)
        for r in result["roofline"]:
            cells = f"{r['seconds'] * 1e6:.1f} µs", f"{r['bytes'] / 1e6:.1f}", f"{r['bytes_per_second'] / 1e9:.0f}"
            of_copy = f"{r['bytes_per_second'] / result['copy_bytes_per_second']:.0%}"
            ratio = f"{r['ratio_to_cross_entropy']:.2f}" if "ratio_to_cross_entropy" in r else ""
            grid.add_row(r["work"], *cells, of_copy, ratio)
        console.print(grid)
        console.print(f"copy: {result['copy_bytes_per_second'] / 1e9:.0f} GB/s on {result['device']}")
        console.print(f"a kernel that does nothing: {result['launch_seconds'] * 1e6:.1f} µs")
    for name, step in result.get("training_step", {}).items():
        console.print(f"ResNet-18 step, {name}: {step['seconds'] * 1e3:.2f} ms, {step['ratio_to_off']:.3f}x")
    if "grand" in result:
        console.print(
            f"GraNd, ResNet-18, B 64: {result['grand']['ratio']:.1f}x faster than a backward pass per example"
        )
    for name, line in result.get("sanitizer", {}).items():
        console.print(f"{name}: {line}")


def main() -> None:
    if len(sys.argv) == 2 and sys.argv[1].endswith(".json"):
        show(json.loads(Path(sys.argv[1]).read_text()))
        return
    if not torch.cuda.is_available():
        raise SystemExit("benchmarks/gpu.py needs a CUDA device, and torch.cuda.is_available() is False")
    if not torch._C._dispatch_has_kernel_for_dispatch_key("difficulty_prune::softmax_stats", "CUDA"):
        raise SystemExit(
            "benchmarks/gpu.py measures the CUDA kernels, and they are not built: see difficulty-prune doctor"
        )
    chosen = sys.argv[1:] or list(PARTS)
    if len(chosen) == 1 and chosen[0] in FOR_SANITIZER:
        FOR_SANITIZER[chosen[0]]()
        return
    if unknown := set(chosen) - set(PARTS):
        raise SystemExit(f"benchmarks/gpu.py: no part is called {sorted(unknown)}; there are {list(PARTS)}")
    name = torch.cuda.get_device_name()
    target = ROOT / "benchmarks" / "results" / f"{name.lower().replace(' ', '-')}.json"
    result: dict[str, Any] = json.loads(target.read_text()) if target.exists() else {}
    result |= {"device": name, "torch": torch.__version__, "date": time.strftime("%Y-%m-%d")}
    for part in chosen:
        start = time.perf_counter()
        result[part] = PARTS[part]()
        print(f"{part}: {time.perf_counter() - start:.0f} s", flush=True)
        target.write_text(json.dumps(result, indent=1) + "\n")
    show(result)


if __name__ == "__main__":
    main()
