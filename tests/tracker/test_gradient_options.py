"""Gradient state that is smaller, elsewhere, or both: the laws it keeps, and what each option costs in accuracy."""

from __future__ import annotations

import os
import resource
import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr
from torch import Tensor, nn
from torch.nn import functional as F

import difficulty_prune as dp
from difficulty_prune.tracker.mapped import mapped_zeros
from difficulty_prune.tracker.moments import GradientMoments
from difficulty_prune.tracker.options import GradientOptions

CPU = torch.device("cpu")
SHAPE = (3, 4, 5)  # channels and pixels of the examples below
EXAMPLES = 6

close = {"rtol": 1e-4, "atol": 1e-5}


def moments(options: GradientOptions, examples: int = EXAMPLES) -> GradientMoments:
    return GradientMoments(examples, 20, CPU, options)


@st.composite
def presentations(draw) -> tuple[Tensor, Tensor]:
    """An index [B], with duplicates, and a gradient for each row."""
    rows = draw(st.integers(1, 24))
    index = torch.tensor(draw(st.lists(st.integers(0, EXAMPLES - 1), min_size=rows, max_size=rows)))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    offset = draw(st.sampled_from([0.0, 3.0]))
    return index, offset + torch.randn(rows, *SHAPE, generator=generator)


anything = st.builds(
    GradientOptions,
    pixels=st.sampled_from([None, 1, 7, 20, 100]),
    m2_dtype=st.sampled_from(["float32", "bfloat16"]),
)


def assert_same_vog(a: GradientMoments, b: GradientMoments, options: GradientOptions) -> None:
    # Rounding of M2 depends on the count at which each value came, so bfloat16 differs by its precision.
    tolerance = close if options.m2_dtype == "float32" else {"rtol": 0.05, "atol": 1e-3}
    torch.testing.assert_close(a.vog(), b.vog(), equal_nan=True, **tolerance)
    torch.testing.assert_close(a.mean, b.mean, **close)
    assert a.count.tolist() == b.count.tolist()


@given(anything, presentations(), st.data())
def test_splitting_batches_changes_nothing(options: GradientOptions, shown, data: st.DataObject) -> None:
    index, gradients = shown
    whole, parts = moments(options).record(index, gradients), moments(options)
    cut = data.draw(st.integers(0, len(index)))
    for part in (slice(None, cut), slice(cut, None)):
        parts.record(index[part], gradients[part])
    for name in ("count", "mean", "m2"):
        assert torch.equal(getattr(whole, name), getattr(parts, name)), name  # bit for bit


@given(anything, presentations(), st.randoms(use_true_random=False))
def test_the_order_of_presentations_does_not_matter(options: GradientOptions, shown, random) -> None:
    index, gradients = shown
    order = random.sample(range(len(index)), len(index))
    a, b = moments(options).record(index, gradients), moments(options).record(index[order], gradients[order])
    assert_same_vog(a, b, options)


@given(anything, presentations(), st.randoms(use_true_random=False))
def test_permuting_the_dataset_permutes_the_scores(options: GradientOptions, shown, random) -> None:
    index, gradients = shown
    permutation = torch.tensor(random.sample(range(EXAMPLES), EXAMPLES))
    a, b = moments(options).record(index, gradients), moments(options).record(permutation[index], gradients)
    torch.testing.assert_close(a.mean, b.mean[permutation], rtol=0, atol=0)
    tolerance = {"rtol": 0, "atol": 0} if options.m2_dtype == "float32" else {"rtol": 0.05, "atol": 1e-3}
    torch.testing.assert_close(a.vog(), b.vog()[permutation], equal_nan=True, **tolerance)


@given(anything, presentations())
def test_equal_gradients_have_no_variance(options: GradientOptions, shown) -> None:
    index, gradients = shown
    frozen = gradients[:1].expand_as(gradients)
    vog = moments(options).record(index, frozen).vog()
    seen = torch.zeros(EXAMPLES, dtype=torch.bool)
    seen[index] = True
    assert (vog[seen].abs() <= 1e-5).all()
    assert vog[~seen].isnan().all()


@given(anything, presentations(), st.data())
def test_merging_equals_one_state(options: GradientOptions, shown, data: st.DataObject) -> None:
    index, gradients = shown
    cut = data.draw(st.integers(0, len(index)))
    first = moments(options).record(index[:cut], gradients[:cut])
    first.merge(moments(options).record(index[cut:], gradients[cut:]))
    assert_same_vog(first, moments(options).record(index, gradients), options)


@given(presentations(), st.sampled_from([torch.bfloat16, torch.float16]))
def test_half_precision_gradients_give_the_float32_result_on_the_rounded_values(shown, dtype: torch.dtype) -> None:
    index, gradients = shown
    narrow = gradients.to(dtype)
    a = moments(GradientOptions()).record(index, narrow)
    b = moments(GradientOptions()).record(index, narrow.float())
    assert torch.equal(a.m2, b.m2)


@given(anything, presentations())
def test_a_state_goes_on_from_where_it_was_saved(options: GradientOptions, shown) -> None:
    index, gradients = shown
    a = moments(options).record(index, gradients)
    b = GradientMoments.from_state_dict(a.state_dict(), options)
    for state in (a, b):
        state.record(index, 2 * gradients)
    assert torch.equal(a.m2, b.m2)
    assert torch.equal(a.mean, b.mean)


def test_a_subset_is_the_same_in_every_run_sorted_and_without_repeats() -> None:
    chosen = GradientOptions(pixels=64).selected(1024)
    assert chosen is not None
    assert torch.equal(chosen, GradientOptions(pixels=64, every=3).selected(1024))
    assert len(chosen.unique()) == 64
    assert torch.equal(chosen, chosen.sort().values)
    assert GradientOptions(pixels=1024).selected(1024) is None  # all of them: nothing to choose


def train(
    gradient: GradientOptions, scores: tuple[str, ...] = ("vog_loss", "vog"), epochs: int = 4
) -> dict[str, Tensor]:
    """Scores of a small network on random images, the same run for every option."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(60, 3, 16, 16, generator=generator) * torch.rand(60, 1, 1, 1, generator=generator)
    labels = torch.randint(4, (60,), generator=generator)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Tanh(), nn.Flatten(), nn.Linear(8 * 14 * 14, 4))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    tracker = dp.DifficultyTracker(60, ("vog_loss", "vog"), gradient=gradient)
    for _ in range(4):
        for index in torch.randperm(60, generator=generator).split(20):
            x = tracker.watch(images[index], index)
            logits = model(x)
            tracker.update(index, logits, labels[index], inputs=x)
            optimizer.zero_grad()
            F.cross_entropy(logits, labels[index]).backward()
            optimizer.step()
    return tracker.compute()


@pytest.mark.parametrize(
    ("options", "agreement"),
    [
        (GradientOptions(pixels=128), 0.95),
        (GradientOptions(m2_dtype="bfloat16"), 0.995),
        (GradientOptions(pixels=128, m2_dtype="bfloat16"), 0.95),
    ],
    ids=["subset", "bfloat16", "both"],
)
def test_smaller_state_ranks_examples_nearly_alike(options: GradientOptions, agreement: float) -> None:
    exact, approximate = train(GradientOptions()), train(options)
    for name, scores in exact.items():
        assert spearmanr(scores, approximate[name]).statistic > agreement, name
        assert not torch.equal(scores, approximate[name])


@pytest.mark.parametrize("m2_dtype", ["float32", "bfloat16"])
def test_mapped_state_gives_the_same_bits_and_leaves_no_file(tmp_path, m2_dtype: str) -> None:
    folder = tmp_path / "state" / "here"
    plain = train(GradientOptions(pixels=100, m2_dtype=m2_dtype))
    mapped = train(GradientOptions(pixels=100, m2_dtype=m2_dtype, mmap=folder))
    for name, scores in plain.items():
        assert torch.equal(scores, mapped[name])
    assert folder.is_dir()
    assert list(folder.iterdir()) == []


def test_mapped_state_is_in_a_file_and_not_in_memory(tmp_path) -> None:
    """A map of a file is listed with its path; 1 GiB is far more than the process may otherwise grow by."""
    state = mapped_zeros((1024, 2**18), torch.float32, tmp_path)
    with open("/proc/self/maps") as file:
        lines = [line for line in file if str(tmp_path) in line]
    assert len(lines) == 1
    begin, end = (int(x, 16) for x in lines[0].split()[0].split("-"))
    assert begin <= state.data_ptr() < end
    assert end - begin >= 2**30
    state[5, 7] = 3.0
    assert state.sum(1)[5].item() == 3


def test_no_room_for_mapped_state_is_an_error_and_no_crash(tmp_path) -> None:
    """The kernel refuses files beyond the limit as it refuses them on a full disk."""
    code = f"""
import resource, signal, torch
import difficulty_prune as dp
tracker = dp.DifficultyTracker(1024, ("vog_loss",), gradient=dp.GradientOptions(mmap={str(tmp_path)!r}))
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, {resource.RLIM_INFINITY}))
try:
    tracker.watch(torch.ones(1, 1, 32, 32, requires_grad=True), torch.tensor([0])).sum().backward()
except OSError as error:
    print(error)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "mmap: 4,194,304 bytes of state cannot be held in" in result.stdout
    assert "has room for them" in result.stdout
    assert str(tmp_path) in result.stdout
    assert os.listdir(tmp_path) == []


def test_a_tracker_with_mapped_state_is_saved_and_resumed_with_or_without_a_map(tmp_path) -> None:
    def tracker(mmap) -> dp.DifficultyTracker:
        return dp.DifficultyTracker(4, ("vog_loss",), gradient=GradientOptions(pixels=8, mmap=mmap))

    def step(tracker: dp.DifficultyTracker, seed: int) -> None:
        images = torch.randn(4, *SHAPE, generator=torch.Generator().manual_seed(seed))
        (tracker.watch(images, torch.arange(4)) ** 3).mean().backward()

    first = tracker(tmp_path)
    step(first, 0)
    torch.save(first.state_dict(), tmp_path / "checkpoint.pt")
    step(first, 1)
    for mmap in (None, tmp_path):
        resumed = tracker(mmap)
        resumed.load_state_dict(torch.load(tmp_path / "checkpoint.pt", weights_only=True))
        step(resumed, 1)
        assert torch.equal(resumed.compute()["vog_loss"], first.compute()["vog_loss"])


def test_states_of_other_pixels_or_precision_do_not_mix() -> None:
    def tracker(**options) -> dp.DifficultyTracker:
        tracker = dp.DifficultyTracker(4, ("vog_loss",), gradient=GradientOptions(**options))
        (tracker.watch(torch.randn(4, *SHAPE), torch.arange(4)) ** 2).mean().backward()
        return tracker

    exact = tracker()
    for other in (tracker(pixels=8), tracker(m2_dtype="bfloat16"), tracker(every=2)):
        with pytest.raises(ValueError, match="gradient"):
            exact.merge(other)
        with pytest.raises(ValueError, match="gradient"):
            exact.load_state_dict(other.state_dict())


@pytest.mark.parametrize("pixels", [None, 4])
def test_images_of_another_size_are_refused(pixels: int | None) -> None:
    tracker = dp.DifficultyTracker(4, ("vog_loss",), gradient=GradientOptions(pixels=pixels))
    tracker.watch(torch.randn(2, *SHAPE), torch.tensor([0, 1]))
    with pytest.raises(ValueError, match=r"vog_loss: got inputs of shape \(2, 3, 6, 6\), 36 pixels, expected 20"):
        tracker.watch(torch.randn(2, 3, 6, 6), torch.tensor([0, 1]))


def test_where_the_state_is_kept_is_no_part_of_the_run(tmp_path) -> None:
    tracker = dp.DifficultyTracker(4, ("vog_loss",), gradient=GradientOptions(pixels=8, mmap=tmp_path))
    for _ in range(2):
        (tracker.watch(torch.randn(4, *SHAPE), torch.arange(4)) ** 2).mean().backward()
    options = tracker.finish(architecture="none", seed=0).metadata["options"]["gradient"]
    assert options == {"channel_dim": 1, "every": 1, "pixels": 8, "m2_dtype": "float32"}


@pytest.mark.parametrize(
    ("options", "size"),
    [({}, 8 * 1024 + 4), ({"pixels": 256}, 8 * 256 + 4), ({"pixels": 4096, "m2_dtype": "bfloat16"}, 6 * 1024 + 4)],
)
def test_bytes_per_example_are_those_of_the_state(options, size: int) -> None:
    chosen = GradientOptions(**options)
    state = GradientMoments(10, 1024, CPU, chosen)
    used = sum(t.numel() * t.element_size() for t in (state.count, state.mean, state.m2))
    assert chosen.bytes_per_example(1024) == used / 10 == size


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pixels": 0}, r"pixels: got 0, expected None or a number of pixels"),
        ({"pixels": 0.5}, r"pixels: got 0\.5"),
        ({"m2_dtype": torch.bfloat16}, r"m2_dtype: got torch\.bfloat16, expected 'float32' or 'bfloat16'"),
        ({"m2_dtype": "float16"}, r"m2_dtype: got 'float16'"),
        ({"pixels": True}, r"pixels: got True"),
        ({"device": "gpu"}, r"device: got 'gpu', expected a device such as 'cpu'"),
        ({"mmap": 5}, r"mmap: got 5, expected the path of a folder"),
        ({"mmap": ""}, r"mmap: got ''"),
        ({"mmap": "x", "device": "cuda"}, r"mmap: .* device is 'cuda'"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GradientOptions(**options)


def test_a_folder_that_is_a_file_is_named(tmp_path) -> None:
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(OSError, match=r"mmap: .*file' .*name a folder that can be written"):
        mapped_zeros((2,), torch.float32, file)


def test_options_are_not_a_dict() -> None:
    with pytest.raises(TypeError, match=r"gradient: got dict, expected dp\.GradientOptions"):
        dp.DifficultyTracker(4, ("vog_loss",), gradient={"pixels": 4})  # type: ignore[arg-type]


def test_merging_a_state_that_saw_nothing_changes_nothing_whatever_it_holds() -> None:
    for merge in (dp.ops.merge_moments_, dp.reference.merge_moments_):
        count, mean, m2 = torch.tensor([2], dtype=torch.int32), torch.ones(1, 3), torch.ones(1, 3)
        merge(count, mean, m2, torch.zeros(1, dtype=torch.int32), torch.full((1, 3), 5.0), torch.full((1, 3), 9.0))
        assert (count.item(), mean.tolist(), m2.tolist()) == (2, [[1.0] * 3], [[1.0] * 3])


def test_bad_pixels_and_states_are_refused_by_the_operator() -> None:
    count, mean, m2 = torch.zeros(4, dtype=torch.int32), torch.zeros(4, 2), torch.zeros(4, 2)
    index, gradients = torch.tensor([0]), torch.zeros(1, *SHAPE)
    with pytest.raises(IndexError, match=r"pixels: got 20, expected 0\.\.19"):
        dp.ops.record_gradients_(count, mean, m2, index, gradients, pixels=torch.tensor([0, 20]))
    with pytest.raises(ValueError, match=r"pixels: got torch\.int32"):
        dp.ops.record_gradients_(count, mean, m2, index, gradients, pixels=torch.tensor([0, 1], dtype=torch.int32))
    with pytest.raises(ValueError, match=r"gradients: \(1, 3, 4, 5\) .* have 1 pixels to keep, but mean is \(4, 2\)"):
        dp.ops.record_gradients_(count, mean, m2, index, gradients, pixels=torch.tensor([3]))
    with pytest.raises(ValueError, match=r"m2: got torch\.float16"):
        dp.ops.record_gradients_(count, mean, m2.half(), index, gradients, pixels=torch.tensor([3, 4]))
    with pytest.raises(ValueError, match=r"other_mean: .*\[4, 2\]"):
        dp.ops.merge_moments_(count, mean, m2, count, mean[:, :1].contiguous(), m2)
