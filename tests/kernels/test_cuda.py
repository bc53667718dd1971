"""The CUDA half. Compiling and linking is tested on every machine that has an nvcc; running needs a device."""

from __future__ import annotations

import shutil
import subprocess
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest
import torch
from torch import Tensor

import difficulty_prune as dp
from difficulty_prune import ops
from difficulty_prune.ops import reference

_host = pytest.importorskip("difficulty_prune._host", reason="no compiled module")
FACTS = _host.build_facts()
needs_cuda_build = pytest.mark.skipif(not FACTS["cuda"], reason="built without CUDA: no nvcc")
needs_device = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
needs_two_devices = pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
OPERATORS = (
    "softmax_stats",
    "soft_stats",
    "sigmoid_stats",
    "reduce_rows",
    "try_record_stats_",
    "record_stats_",
    "record_given_stats_",
    "try_record_temporal_",
    "record_temporal_",
    "try_record_gradients_",
    "record_gradients_",
    "merge_moments_",
    "gradient_variance",
)


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


@contextmanager
def refused_synchronisation() -> Iterator[None]:
    """Within it, PyTorch raises where the host would wait for the device."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Synchronization debug mode is a prototype")
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def mask(logits: Tensor, labels: Tensor) -> None:
    """Classes at -inf: in some rows one, in some all but the label, in some the label."""
    rows = torch.arange(len(logits), device=logits.device)
    own = labels[:, None] == torch.arange(logits.shape[1], device=logits.device)
    logits[:, -1].masked_fill_(~own[:, -1] & (rows % 3 == 0), -torch.inf)
    logits.masked_fill_(~own & (rows % 7 == 0)[:, None] | own & (rows % 50 == 9)[:, None], -torch.inf)


@needs_device
@pytest.mark.cuda
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("classes", [2, 10, 33, 1000, 1025])
def test_stats_and_records_equal_the_reference(dtype: torch.dtype, classes: int) -> None:
    generator = torch.Generator().manual_seed(classes)
    logits = (torch.randn(257, classes, generator=generator) * 4).to(dtype)
    index = torch.randint(100, (257,), generator=generator)
    labels = index.remainder(classes)
    mask(logits, labels)
    logits[3, 0] = torch.nan
    labels[200] = (labels[200] + 1) % classes
    stats = ops.softmax_stats(logits.cuda(), labels.cuda()).cpu()
    torch.testing.assert_close(stats, reference.softmax_stats(logits, labels), rtol=2e-5, atol=2e-6, equal_nan=True)

    table, expected = ops.new_table(100, "cuda"), ops.new_table(100)
    skipped, expected_skipped = ops.new_skipped("cuda"), ops.new_skipped()
    ops.record_stats_(table, index.cuda(), logits.cuda(), labels.cuda(), skipped)
    reference.record_stats_(expected, index, logits, labels, expected_skipped)
    torch.testing.assert_close(table.cpu(), expected, rtol=2e-5, atol=1e-5)
    assert skipped.tolist() == expected_skipped.tolist()
    assert skipped[2:].all()


@needs_device
@pytest.mark.cuda
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("classes", [1, 2, 10, 33, 1000, 1025])
def test_statistics_recorded_later_are_record_stats_bit_for_bit(dtype: torch.dtype, classes: int) -> None:
    generator = torch.Generator().manual_seed(classes)
    logits = (torch.randn(257, classes, generator=generator) * 4).to(dtype).cuda()
    index = torch.randint(100, (257,), generator=generator).cuda()
    labels = index.remainder(classes)
    mask(logits, labels)
    logits[3, 0] = torch.nan
    labels[200] = (labels[200] + 1) % classes
    labels[7], labels[11], index[13], index[17:20] = -1, classes, 100, ops.PADDING
    table, expected = ops.new_table(100, "cuda"), ops.new_table(100, "cuda")
    skipped, expected_skipped = ops.new_skipped("cuda"), ops.new_skipped("cuda")
    ops.record_given_stats_(table, index, ops.softmax_stats(logits, labels), labels, classes, skipped)
    present = index != ops.PADDING
    ops.record_stats_(expected, index[present], logits[present], labels[present], expected_skipped)
    assert torch.equal(table, expected)
    assert skipped.tolist() == expected_skipped.tolist()
    assert skipped[:2].tolist() == [1, 2]
    assert skipped[2] > 0


@needs_device
@pytest.mark.cuda
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("classes", [2, 10, 33, 1000, 1025])
@pytest.mark.parametrize("changes", [False, True])
def test_windows_of_presentations_equal_the_reference(dtype: torch.dtype, classes: int, changes: bool) -> None:
    generator = torch.Generator().manual_seed(classes)
    logits = (torch.randn(257, classes, generator=generator) * 4).to(dtype)
    index = torch.randint(30, (257,), generator=generator)
    labels = index.remainder(classes)
    mask(logits, labels)
    logits[3, 0] = torch.nan
    labels[200] = (labels[200] + 1) % classes
    records = ops.new_table(30)
    reference.record_stats_(records, index, logits, labels)
    kept = classes if changes else None
    table, expected = ops.new_temporal_table(30, 4, kept, "cuda"), ops.new_temporal_table(30, 4, kept)
    skipped, expected_skipped = ops.new_skipped("cuda"), ops.new_skipped()
    ops.record_temporal_(table, index.cuda(), logits.cuda(), labels.cuda(), 4, 0.9, skipped, records.cuda())
    reference.record_temporal_(expected, index, logits, labels, 4, 0.9, expected_skipped, records)
    torch.testing.assert_close(table.cpu(), expected, rtol=2e-5, atol=3e-5)
    assert skipped.tolist() == expected_skipped.tolist()
    assert skipped[2:].all()


@needs_device
@pytest.mark.cuda
@pytest.mark.parametrize("rows", [1024, 1025, 3000])  # sorted by one block, and by PyTorch
@pytest.mark.parametrize("examples", [40, 5000])
def test_large_batches_are_recorded_in_batch_order_without_waiting(rows: int, examples: int) -> None:
    generator = torch.Generator().manual_seed(rows)
    logits, index = torch.randn(rows, 7, generator=generator), torch.randint(examples, (rows,), generator=generator)
    labels = index.remainder(7)
    index[5::200], labels[9::300], labels[11::70] = torch.tensor(examples), -1, -100
    expected = [ops.new_table(examples), ops.new_skipped(), ops.new_steps(examples)]
    got = [t.cuda() for t in expected]
    options = {"ignore_index": -100, "decay": 0.5}
    batch = index.cuda(), logits.cuda(), labels.cuda()
    with refused_synchronisation():
        for _ in range(2):
            ops.record_stats_(got[0], *batch, got[1], steps=got[2], **options)
    for _ in range(2):
        reference.record_stats_(expected[0], index, logits, labels, expected[1], steps=expected[2], **options)
    torch.testing.assert_close(got[0].cpu(), expected[0], rtol=2e-5, atol=1e-5)
    assert got[1].tolist() == expected[1].tolist()
    assert got[2][: examples + 1].tolist() == expected[2][: examples + 1].tolist()


@needs_device
@pytest.mark.cuda
def test_a_captured_large_batch_finds_the_duplicates_of_each_replay() -> None:
    table, expected, skipped = ops.new_table(2000, "cuda"), ops.new_table(2000, "cuda"), ops.new_skipped("cuda")
    index, logits = torch.zeros(5000, dtype=torch.int64, device="cuda"), torch.randn(5000, 10, device="cuda")
    labels = torch.zeros_like(index)
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        torch.ops.difficulty_prune.record_stats_(ops.new_table(2000, "cuda"), index, logits, labels, skipped)
    side.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        torch.ops.difficulty_prune.record_stats_(table, index, logits, labels, skipped)
    for seed in range(3):
        new = torch.randint(2000, (5000,), generator=torch.Generator().manual_seed(seed)).cuda()
        index.copy_(new)
        labels.copy_(new % 10)
        graph.replay()
        ops.record_stats_(expected, new, logits, new % 10)
    assert torch.equal(table, expected)
    assert skipped.tolist() == [0, 0, 0, 0]


def lay_out(values: Tensor, layout: str) -> Tensor:
    """[B, C, H, W] in different places of memory."""
    if layout == "channels last":
        return values.contiguous(memory_format=torch.channels_last)
    if layout == "transposed":
        return values.transpose(2, 3).contiguous().transpose(2, 3)
    if layout == "cropped":
        return torch.nn.functional.pad(values, (0, 8, 0, 1))[:, :, :-1, :-8]
    return values


@needs_device
@pytest.mark.cuda
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("classes", [1, 5, 21, 40, 300, 1040])
@pytest.mark.parametrize("layout", ["contiguous", "channels last", "transposed", "cropped"])
def test_rows_in_any_layout_equal_the_reference(dtype: torch.dtype, classes: int, layout: str) -> None:
    generator = torch.Generator().manual_seed(classes)
    values = (torch.randn(2, classes, 6, 8, generator=generator) * 4).to(dtype)
    labels = torch.randint(classes, (2, 6, 8), generator=generator)
    values[1, 0, 2, 3], labels[0, 0, :3] = torch.nan, -100
    targets = torch.randn(2, classes, 6, 8, generator=generator).softmax(1)
    logits = lay_out(values.cuda(), layout)
    got = ops.softmax_stats(logits, labels.cuda(), ignore_index=-100).cpu()
    expected = reference.softmax_stats(values, labels, -100)
    torch.testing.assert_close(got, expected, rtol=2e-5, atol=2e-6, equal_nan=True)
    got = ops.soft_stats(logits, lay_out(targets.cuda(), layout)).cpu()
    torch.testing.assert_close(got, reference.soft_stats(values, targets), rtol=2e-5, atol=3e-6, equal_nan=True)


@needs_device
@pytest.mark.cuda
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("classes", [1025, 32000, 128256])
def test_long_rows_equal_the_reference(dtype: torch.dtype, classes: int) -> None:
    generator = torch.Generator().manual_seed(classes)
    logits = (torch.randn(9, classes, generator=generator) * 4).to(dtype)
    labels = torch.randint(classes, (9,), generator=generator)
    mask(logits, labels)
    got = ops.softmax_stats(logits.cuda(), labels.cuda()).cpu()
    torch.testing.assert_close(got, reference.softmax_stats(logits, labels), rtol=2e-5, atol=2e-6, equal_nan=True)
    targets = torch.randn(9, classes, generator=generator).softmax(1)
    got = ops.soft_stats(logits.cuda(), targets.cuda()).cpu()
    torch.testing.assert_close(got, reference.soft_stats(logits, targets), rtol=2e-5, atol=3e-6, equal_nan=True)


@needs_device
@pytest.mark.cuda
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("label_dtype", [torch.bool, torch.int64, torch.float32, torch.float16])
def test_labels_of_two_classes_equal_the_reference(dtype: torch.dtype, label_dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = (torch.randn(32, 80, generator=generator) * 4).to(dtype)
    labels = torch.randint(2, (32, 80), generator=generator).to(label_dtype)
    if label_dtype != torch.bool:
        labels[3, :4] = -100
    got = ops.sigmoid_stats(logits.cuda(), labels.cuda(), ignore_index=-100).cpu()
    expected = reference.sigmoid_stats(logits, labels, -100)
    torch.testing.assert_close(got, expected, rtol=2e-5, atol=2e-6, equal_nan=True)


@needs_device
@pytest.mark.cuda
@pytest.mark.parametrize(("rows", "examples"), [(320, 32), (6000, 3), (70000, 1)])
@pytest.mark.parametrize("owned", [False, True])
def test_means_over_rows_equal_the_reference_and_do_not_vary(rows: int, examples: int, owned: bool) -> None:
    generator = torch.Generator().manual_seed(rows)
    stats, weight = torch.rand(rows, 8, generator=generator), torch.rand(rows, generator=generator)
    stats[::5, 0], weight[::7] = -torch.inf, 0
    owner = torch.randint(-1, examples, (rows,), generator=generator) if owned else None
    labels = torch.arange(rows)
    arguments = (examples, owner, weight, labels)
    on_device = [t.cuda() if isinstance(t, Tensor) else t for t in arguments]
    near = stats.cuda()
    with refused_synchronisation():
        got = torch.ops.difficulty_prune.reduce_rows(near, *on_device)
        again = torch.ops.difficulty_prune.reduce_rows(near, *on_device)
    expected = reference.reduce_rows(stats, *arguments)
    torch.testing.assert_close(got[0].cpu(), expected[0], rtol=1e-6, atol=1e-6)
    assert got[1].tolist() == expected[1].tolist()
    assert torch.equal(got[0], again[0])


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
        record(count, mean, m2, *arguments, None, ops.new_skipped(device))
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
    with refused_synchronisation():
        x = tracker.watch(inputs, index, weight=weight)
        logits = x.flatten(1)[:, :10]
        tracker.update(index, logits, labels)
        (torch.nn.functional.cross_entropy(logits, labels, reduction="none") * weight).mean().backward()
    assert not tracker.compute()["vog_loss"].isnan().any()


class Training:
    """A small model, its tracker, and a step that reads its batch from the same tensors every time."""

    def __init__(
        self,
        device: str = "cuda",
        scores: tuple[str, ...] = ("el2n", "aum", "vog_loss"),
        gradient: dp.GradientOptions | None = None,
    ) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            layers = [torch.nn.Flatten(), torch.nn.Linear(48, 16), torch.nn.Tanh(), torch.nn.Linear(16, 10)]
        self.model = torch.nn.Sequential(*layers).to(device)
        self.tracker = dp.DifficultyTracker(64, scores, gradient=gradient)
        self.batch = tuple(t.to(device) for t in new_batch(0))

    def step(self) -> None:
        self.loss(*self.batch).backward()

    def loss(self, inputs: Tensor, index: Tensor, labels: Tensor, weight: Tensor) -> Tensor:
        x = self.tracker.watch(inputs, index, weight=weight)
        logits = self.model(x)
        self.tracker.update(index, logits, labels)
        return (torch.nn.functional.cross_entropy(logits, labels, reduction="none") * weight).mean()

    def load(self, seed: int) -> None:
        for own, new in zip(self.batch, new_batch(seed), strict=True):
            own.copy_(new)

    def state_addresses(self) -> list[int]:
        state = self.tracker.state_dict()
        moments = state["moments"]["vog_loss"]
        return [t.data_ptr() for t in (state["table"], *(moments[name] for name in ("count", "mean", "m2")))]


def new_batch(seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    index = torch.randint(64, (32,), generator=generator)
    inputs = torch.randn(32, 3, 4, 4, generator=generator)
    return inputs, index, index % 10, torch.rand(32, generator=generator) + 0.5


def assert_same_scores(got: Training, expected: Training, rtol: float = 0, atol: float = 0) -> None:
    scores, wanted = got.tracker.compute(), expected.tracker.compute()
    assert got.tracker.presentations == expected.tracker.presentations
    for name, score in wanted.items():
        torch.testing.assert_close(scores[name].cpu(), score.cpu(), rtol=rtol, atol=atol, equal_nan=True, msg=name)


@needs_device
@pytest.mark.cuda
@pytest.mark.parametrize("where", ["cpu", "mmap"])
@pytest.mark.parametrize("pixels", [None, 5])
def test_state_on_the_cpu_gets_the_gradients_of_the_device_without_waiting_for_it(tmp_path, where, pixels) -> None:
    home = {"device": "cpu"} if where == "cpu" else {"mmap": tmp_path}
    near, far = (Training(gradient=dp.GradientOptions(pixels=pixels, **options)) for options in ({}, home))
    for seed in range(5):
        for training in (near, far):
            training.load(seed)
            with refused_synchronisation() if seed else nullcontext():  # the first step makes the state
                training.step()
    assert far.tracker.state_dict()["moments"]["vog_loss"]["mean"].device.type == "cpu"
    assert_same_scores(far, near, rtol=1e-4, atol=1e-6)
    assert near.tracker.skipped == far.tracker.skipped


@needs_device
@pytest.mark.cuda
@pytest.mark.parametrize("options", [{}, {"dtype": "bfloat16"}, {"device": "cpu"}, {"mmap": "."}], ids=str)
def test_mean_probabilities_on_a_device_are_those_of_the_cpu_without_waiting(tmp_path, monkeypatch, options) -> None:
    monkeypatch.chdir(tmp_path)
    tracker, on_cpu = (
        dp.DifficultyTracker(64, ("loss",), mean_probabilities=kept)
        for kept in (dp.ProbabilityOptions(**options), True)
    )
    for seed in range(5):
        generator = torch.Generator().manual_seed(seed)
        index, logits = torch.randint(64, (40,), generator=generator), torch.randn(40, 7, generator=generator)
        labels, owner = index % 7, torch.randint(40, (40,), generator=generator)
        batch = index.cuda(), logits.cuda(), labels.cuda(), owner.cuda()
        with refused_synchronisation() if seed else nullcontext():  # the first step makes the state
            tracker.update(*batch[:3])
            tracker.update(batch[0], batch[1], batch[2][batch[3]], owner=batch[3])
        on_cpu.update(index, logits, labels)
        on_cpu.update(index, logits, labels[owner], owner=owner)
    found, expected = tracker.mean_probabilities().cpu(), on_cpu.mean_probabilities()
    tolerance = 0.05 if options.get("dtype") == "bfloat16" else 1e-5
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance / 10, equal_nan=True)


@needs_device
@pytest.mark.cuda
def test_a_step_captured_in_a_cuda_graph_replays_as_it_runs() -> None:
    captured, eager = Training(), Training()
    warm_up = torch.cuda.Stream()
    warm_up.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(warm_up):  # makes the state
        captured.step()
    torch.cuda.current_stream().wait_stream(warm_up)
    eager.step()
    addresses = captured.state_addresses()
    captured.model.zero_grad()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):  # records, and runs nothing
        captured.step()

    for seed in range(1, 6):
        captured.load(seed)
        graph.replay()
        eager.load(seed)
        eager.step()
    assert captured.state_addresses() == addresses
    assert_same_scores(captured, eager)


@needs_device
@pytest.mark.cuda
@pytest.mark.parametrize("mode", ["default", "reduce-overhead"])
@pytest.mark.filterwarnings("ignore:TensorFloat32 tensor cores", "ignore:.*torch.jit:DeprecationWarning")
def test_a_compiled_step_changes_the_state_where_it_is(mode: str) -> None:
    """ "reduce-overhead" replays CUDA graphs of its own; they must not work on copies of the state."""
    compiled, eager = Training(), Training()
    loss = torch.compile(compiled.loss, fullgraph=True, mode=mode)
    addresses = []
    for seed in range(6):  # among them those in which the graphs are recorded
        compiled.load(seed)
        torch.compiler.cudagraph_mark_step_begin()
        loss(*compiled.batch).backward()
        compiled.model.zero_grad()
        eager.load(seed)
        eager.step()
        addresses.append(compiled.state_addresses())
    assert addresses == addresses[:1] * 6
    assert_same_scores(compiled, eager, rtol=1e-4, atol=1e-5)


@needs_device
@pytest.mark.cuda
def test_a_step_on_a_side_stream_is_recorded_there_from_forward_to_backward() -> None:
    late, eager = Training(), Training()
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for seed in range(3):
            torch.cuda._sleep(20_000_000)  # what ran on another stream would see the batch before
            late.load(seed)
            late.step()
    stream.synchronize()
    for seed in range(3):
        eager.load(seed)
        eager.step()
    assert_same_scores(late, eager)


@needs_two_devices
@pytest.mark.cuda
def test_a_tracker_lives_on_the_device_of_its_batches_and_not_on_the_current_one() -> None:
    first, second = Training("cuda:0"), Training("cuda:1")
    for seed in range(3):
        first.load(seed)
        first.step()
        second.load(seed)
        inputs, _, labels, weight = second.batch
        second.loss(inputs, new_batch(seed)[1], labels, weight).backward()  # an index on the CPU comes along
    assert torch.cuda.current_device() == 0
    assert second.tracker.compute()["vog_loss"].device == torch.device("cuda:1")
    assert_same_scores(second, first)
    with pytest.raises(ValueError, match="on cuda:1: move the batch there"):
        second.loss(*first.batch)


@needs_device
def test_weights_come_from_any_device_without_waiting_for_it() -> None:
    policy = dp.policies.SoftPrune(keep=0.5)
    sampler = dp.PruneSampler(policy, torch.arange(64.0))
    cpu, gpu = torch.arange(64), torch.arange(64, device="cuda")
    for epoch in range(2):
        sampler.set_epoch(epoch)
        with refused_synchronisation():
            got = [sampler.weight(cpu, device="cuda"), sampler.weight(gpu), sampler.weight(gpu, device="cuda")]
        expected = sampler.weight(cpu)
        for weight in got:
            assert weight.device.type == "cuda"
            assert torch.equal(weight.cpu(), expected)
