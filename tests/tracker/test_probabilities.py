"""Mean probabilities of a tracker: those of a slow loop, whatever the batches hold and wherever the state lives."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch._dynamo as dynamo
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from oracle import log_softmax
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch.utils.data import DataLoader

import difficulty_prune as dp
from difficulty_prune.ops import reference
from difficulty_prune.tracker.probabilities import MeanProbabilities

N, CLASSES, IGNORED = 5, 4, -100
close = partial(torch.testing.assert_close, rtol=1e-5, atol=2e-6, equal_nan=True, check_dtype=False)
pytestmark = pytest.mark.usefixtures("one_thread")


def new_tracker(scores: tuple[str, ...] = ("loss",), **options: Any) -> dp.DifficultyTracker:
    return dp.DifficultyTracker(N, scores, **{"mean_probabilities": True, **options})


def softmax(z: Tensor) -> np.ndarray:
    return np.exp(log_softmax(z.double().numpy()))


def means_of(presentations: list[tuple[int, np.ndarray]], examples: int = N) -> np.ndarray:
    """Straight from the definition: [examples, C] float64, of presentations (example, probabilities) in any order."""
    result = np.full((examples, CLASSES), np.nan)
    for example in range(examples):
        of_example = [p for i, p in presentations if i == example]
        if of_example:
            result[example] = sum(of_example) / len(of_example)
    return result


def test_the_mean_counts_each_presentation_once() -> None:
    tracker = new_tracker()
    logits = torch.randn(3, CLASSES, generator=torch.Generator().manual_seed(0))
    tracker.update(torch.tensor([1, 3, 1]), logits, torch.tensor([0, 1, 0]))
    tracker.update(torch.tensor([1]), logits[1:2], torch.tensor([0]))
    p = logits.double().softmax(1)
    means = tracker.mean_probabilities()
    assert means.dtype == torch.float32
    close(means[1], (p[0] + p[2] + p[1]) / 3)
    close(means[3], p[1])
    assert means[[0, 2, 4]].isnan().all()
    assert tracker.suggested().tolist() == [-1, int(means[1].argmax()), -1, int(p[1].argmax()), -1]


# With labels

kinds = st.sampled_from(["good", "good", "nan", "infinite", "ignored", "other label", "masked label"])
batches = st.lists(st.lists(st.tuples(st.integers(0, N - 1), kinds), min_size=1, max_size=7), min_size=1, max_size=4)


@given(batches, st.integers(0, 2**31), st.sampled_from([torch.float32, torch.bfloat16]), st.booleans())
def test_with_labels(shown, seed: int, dtype: torch.dtype, windowed: bool) -> None:
    """Rows that are ignored, not finite, or of another label than before count nowhere."""
    generator = torch.Generator().manual_seed(seed)
    scores = ("loss", "dyn_unc") if windowed else ("loss",)
    tracker = new_tracker(scores, temporal=dp.TemporalOptions(window=3))
    known: dict[int, int] = {}
    presentations = []
    for batch in shown:
        logits = (3 * torch.randn(len(batch), CLASSES, generator=generator)).to(dtype)
        labels = torch.tensor([i % CLASSES for i, _ in batch])
        for row, (i, kind) in enumerate(batch):
            if kind == "nan":
                logits[row, 1] = torch.nan
            elif kind == "infinite":
                logits[row, 2] = torch.inf
            elif kind == "ignored":
                labels[row] = IGNORED
            elif kind == "other label":
                labels[row] = (i + 1) % CLASSES
            elif kind == "masked label":
                logits[row, labels[row]] = -torch.inf
            if kind in ("good", "other label") and known.setdefault(i, int(labels[row])) == labels[row]:
                presentations.append((i, softmax(logits[row])))
        tracker.update(torch.tensor([i for i, _ in batch]), logits, labels, ignore_index=IGNORED)
    close(tracker.mean_probabilities(allow_skipped=True), torch.from_numpy(means_of(presentations)))
    assert tracker.presentations == len(presentations)


@given(batches, st.integers(0, 2**31))
def test_soft_targets_have_no_label_to_change(shown, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    tracker, presentations = new_tracker(), []
    for batch in shown:
        logits = 3 * torch.randn(len(batch), CLASSES, generator=generator)
        for row, (i, kind) in enumerate(batch):
            if kind == "nan":
                logits[row] = torch.nan
            else:
                presentations.append((i, softmax(logits[row])))
        targets = torch.rand(len(batch), CLASSES, generator=generator).softmax(1)
        tracker.update(torch.tensor([i for i, _ in batch]), logits, targets)
    close(tracker.mean_probabilities(allow_skipped=True), torch.from_numpy(means_of(presentations)))


# Several rows of an example

rows_of = st.lists(
    st.tuples(
        st.integers(-1, 3), st.sampled_from([0.0, 0.5, 3.0]), st.sampled_from(["good", "good", "ignored", "nan"])
    ),
    min_size=1,
    max_size=12,
)


@given(st.lists(rows_of, min_size=1, max_size=3), st.booleans(), st.booleans(), st.integers(0, 2**31))
def test_an_example_with_several_rows_is_presented_once(shown, weighted: bool, soft: bool, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    tracker, presentations = new_tracker(), []
    for rows in shown:
        index = torch.randperm(N, generator=generator)[:4]
        logits = 3 * torch.randn(len(rows), CLASSES, generator=generator)
        labels = torch.full((len(rows),), 1)
        for row, (_, _, kind) in enumerate(rows):
            if kind == "nan":
                logits[row, 0] = torch.nan
            elif kind == "ignored":
                labels[row] = IGNORED
        targets = F.one_hot(labels.clamp(min=0), CLASSES).float() if soft else labels
        owner = torch.tensor([o for o, _, _ in rows])
        weight = torch.tensor([w for _, w, _ in rows]) if weighted else None
        tracker.update(index, logits, targets, owner=owner, row_weight=weight)
        for place, example in enumerate(index.tolist()):
            mean, total = np.zeros(CLASSES), 0.0
            for row, (o, w, kind) in enumerate(rows):
                w = w if weighted else 1.0
                if o == place and w > 0 and (soft or kind != "ignored"):
                    mean, total = mean + w * softmax(logits[row]), total + w
            if total > 0 and np.isfinite(mean).all():
                presentations.append((example, mean / total))
    close(tracker.mean_probabilities(allow_skipped=True), torch.from_numpy(means_of(presentations)))


def test_labels_compared_where_views_are_single_leave_out_the_same_presentations() -> None:
    tracker, owner = new_tracker(), torch.tensor([1, 0])
    logits = torch.randn(2, CLASSES, generator=torch.Generator().manual_seed(1))
    tracker.update(torch.tensor([4, 2]), logits, torch.tensor([3, 0]), owner=owner)
    tracker.update(torch.tensor([4, 2]), logits.flip(0), torch.tensor([3, 1]), owner=owner)  # another label of 4
    assert tracker.skipped["changed label"] == 1
    means = tracker.mean_probabilities(allow_skipped=True)
    close(means[4], logits[1].softmax(0))
    close(means[2], logits.softmax(1).mean(0))
    with pytest.raises(ValueError, match="presentations were left out: 1 x changed label"):
        tracker.mean_probabilities()
    with pytest.raises(ValueError, match="presentations were left out: 1 x changed label"):
        tracker.suggested()


# Laws


@given(
    st.lists(st.integers(0, N - 1), min_size=1, max_size=20),
    st.integers(0, 20),
    st.sampled_from(["float32", "bfloat16"]),
)
def test_splitting_and_merging_change_nothing(index: list[int], cut: int, dtype: str) -> None:
    logits = 3 * torch.randn(len(index), CLASSES, generator=torch.Generator().manual_seed(len(index)))
    shown, labels = torch.tensor(index), torch.tensor(index) % CLASSES
    whole, parts, first, second = (new_tracker(mean_probabilities=dp.ProbabilityOptions(dtype)) for _ in range(4))
    whole.update(shown, logits, labels)
    for part in (slice(None, cut), slice(cut, None)):
        parts.update(shown[part], logits[part], labels[part])
    first.update(shown[:cut], logits[:cut], labels[:cut])
    second.update(shown[cut:], logits[cut:], labels[cut:])
    first.merge(second)
    tolerance = {} if dtype == "float32" else {"rtol": 0.03, "atol": 0.03}
    close(parts.mean_probabilities(), whole.mean_probabilities(), **tolerance)
    close(first.mean_probabilities(), whole.mean_probabilities(), **tolerance)
    exact = torch.from_numpy(means_of([(i, softmax(z)) for i, z in zip(index, logits, strict=True)]))
    close(whole.mean_probabilities(), exact, **tolerance)


def test_permuting_the_dataset_permutes_the_means() -> None:
    index, order = torch.tensor([0, 1, 2, 1, 4]), torch.tensor([3, 0, 4, 1, 2])
    logits = torch.randn(5, CLASSES, generator=torch.Generator().manual_seed(2))
    one, other = new_tracker(), new_tracker()
    one.update(index, logits, index % CLASSES)
    other.update(order[index], logits, index % CLASSES)
    close(other.mean_probabilities()[order], one.mean_probabilities(), rtol=0, atol=0)


def test_the_lowest_class_wins_a_tie() -> None:
    tracker = new_tracker()
    tracker.update(
        torch.tensor([0, 1, 1]), torch.tensor([[0.0, 1, 1, 0], [9, 0, 0, 0], [0, 0, 0, 9]]), torch.zeros(3).long()
    )
    assert tracker.suggested().tolist() == [1, 0, -1, -1, -1]


def test_a_mean_of_many_presentations_in_bfloat16_is_right_on_average_and_its_noise_as_documented() -> None:
    examples, steps = 1000, 400
    means = MeanProbabilities(examples, 2, torch.device("cpu"), dp.ProbabilityOptions(dtype="bfloat16"))
    nearest = torch.zeros(2, dtype=torch.bfloat16)
    index, used = torch.arange(examples), torch.ones(examples, dtype=torch.bool)
    for step in range(steps):
        p = torch.tensor([0.6, 0.4] if step < 200 else [0.4, 0.6])
        means.record(index, p.expand(examples, 2), used)
        nearest = (nearest.float() + (p - nearest.float()) / (step + 1)).to(torch.bfloat16)
    relative = means.mean.float() / 0.5 - 1
    assert (relative.mean(0).abs() < 4 * relative.std(0) / examples**0.5).all()  # unbiased
    limit = 0.003 * (steps / 3) ** 0.5
    assert (relative.std(0) < limit).all()
    assert (relative.std(0) > limit / 3).all()
    assert ((nearest.float() / 0.5 - 1).abs() > 0.15).all()  # what rounding to the nearest would lose


# Where the state lives


def test_mapped_state_is_the_same_bits(tmp_path: Path) -> None:
    options = [
        dp.ProbabilityOptions(),
        dp.ProbabilityOptions(device="cpu"),
        dp.ProbabilityOptions(mmap=tmp_path / "new"),
    ]
    trackers = [new_tracker(mean_probabilities=each) for each in options]
    for seed in range(3):
        index = torch.randint(N, (6,), generator=torch.Generator().manual_seed(seed))
        logits = torch.randn(6, CLASSES, generator=torch.Generator().manual_seed(seed))
        for tracker in trackers:
            tracker.update(index, logits, index % CLASSES)
    for tracker in trackers[1:]:
        close(tracker.mean_probabilities(), trackers[0].mean_probabilities(), rtol=0, atol=0)
    assert not list((tmp_path / "new").iterdir())  # the file has no name


def test_the_state_takes_what_is_documented() -> None:
    for dtype, size in (("float32", 4), ("bfloat16", 2)):
        options = dp.ProbabilityOptions(dtype=dtype)
        means = MeanProbabilities(7, 10, torch.device("cpu"), options)
        held = sum(t.numel() * t.element_size() for t in (means.count, means.mean))
        assert held == 7 * options.bytes_per_example(10) == 7 * (10 * size + 4)


def shown_tracker(**options: Any) -> dp.DifficultyTracker:
    tracker = new_tracker(**options)
    logits = torch.randn(3, CLASSES, generator=torch.Generator().manual_seed(0))
    tracker.update(torch.tensor([0, 2, 2]), logits, torch.tensor([1, 3, 3]))
    return tracker


def through_a_file(value: Any) -> Any:
    file = io.BytesIO()
    torch.save(value, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize("options", [dp.ProbabilityOptions(), dp.ProbabilityOptions(dtype="bfloat16")], ids=str)
def test_a_state_goes_on_from_where_it_was_saved(options: dp.ProbabilityOptions, tmp_path: Path) -> None:
    tracker = shown_tracker(mean_probabilities=options)
    mapped = dp.ProbabilityOptions(dtype=options.dtype, mmap=tmp_path)
    copies = [new_tracker(mean_probabilities=options), new_tracker(mean_probabilities=mapped)]
    for each in copies:
        each.load_state_dict(through_a_file(tracker.state_dict()))
    copies += [pickle.loads(pickle.dumps(tracker)), copy.deepcopy(tracker)]  # noqa: S301
    for each in (tracker, *copies):
        each.update(torch.tensor([2, 1]), torch.tensor([[1.0, 2, 3, 4], [4, 3, 2, 1]]), torch.tensor([3, 0]))
    for each in copies:
        close(each.mean_probabilities(), tracker.mean_probabilities(), rtol=0, atol=0)
    tracker.reset()
    with pytest.raises(RuntimeError, match="nothing was recorded"):
        tracker.mean_probabilities()
    assert not copies[0].mean_probabilities()[2].isnan().any()


def test_a_state_of_something_else_is_refused_and_changes_nothing() -> None:
    tracker = shown_tracker()
    before = tracker.mean_probabilities()
    without = dp.DifficultyTracker(N, ("loss",))
    with pytest.raises(ValueError, match="mean_probabilities None, this tracker 'float32'"):
        tracker.load_state_dict(without.state_dict())
    with pytest.raises(ValueError, match="mean_probabilities 'float32', this tracker None"):
        without.load_state_dict(tracker.state_dict())
    with pytest.raises(ValueError, match="mean_probabilities 'float32', this tracker 'bfloat16'"):
        new_tracker(mean_probabilities=dp.ProbabilityOptions("bfloat16")).load_state_dict(tracker.state_dict())
    for damage, message in (
        (
            {"mean": torch.zeros(N, 3)},
            r"probabilities.mean: got torch.float32 \(5, 3\), expected torch.float32 \[5, 4\]",
        ),
        ({"count": -torch.ones(N, dtype=torch.int32)}, "probabilities.count: got counts below 0"),
        ({"count": None}, "probabilities.count: got NoneType"),
    ):
        state = tracker.state_dict()
        with pytest.raises(ValueError, match=message):
            tracker.load_state_dict({**state, "probabilities": {**state["probabilities"], **damage}})
    with pytest.raises(ValueError, match="the state is damaged"):
        without.load_state_dict({**without.state_dict(), "probabilities": tracker.state_dict()["probabilities"]})
    close(tracker.mean_probabilities(), before, rtol=0, atol=0)


def test_a_state_from_before_there_were_means_loads_without() -> None:
    tracker = dp.DifficultyTracker(N, ("loss",))
    tracker.update(torch.tensor([0]), torch.zeros(1, 2), torch.tensor([0]))
    state = tracker.state_dict()
    del state["probabilities"], state["mean_probabilities"]
    other = dp.DifficultyTracker(N, ("loss",))
    other.load_state_dict(state)
    assert other.presentations == 1


def test_merging_takes_over_what_only_the_other_has_seen_and_refuses_other_options() -> None:
    tracker, other = new_tracker(), shown_tracker()
    tracker.merge(other)
    close(tracker.mean_probabilities(), other.mean_probabilities(), rtol=0, atol=0)
    with pytest.raises(ValueError, match="mean_probabilities float32, expected bfloat16"):
        new_tracker(mean_probabilities=dp.ProbabilityOptions("bfloat16")).merge(other)
    with pytest.raises(ValueError, match="mean_probabilities float32, expected None"):
        dp.DifficultyTracker(N, ("loss",)).merge(other)


# How it is recorded


@pytest.fixture
def fresh_compiler() -> Iterator[None]:
    dynamo.reset()
    yield
    dynamo.reset()


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
@pytest.mark.filterwarnings(r"ignore::DeprecationWarning:torch\..*")
@pytest.mark.usefixtures("fresh_compiler")
@pytest.mark.parametrize("form", ["labels", "soft", "owner"])
def test_a_compiled_step_is_one_graph_with_the_means_of_eager(form: str) -> None:
    model = nn.Linear(3, CLASSES)
    trackers = new_tracker(), new_tracker()

    def step(tracker: dp.DifficultyTracker, x: Tensor, index: Tensor, owner: Tensor) -> Tensor:
        logits = model(x)
        labels = index % CLASSES
        if form == "owner":
            tracker.update(index, logits, labels[owner], owner=owner)
        else:
            tracker.update(index, logits, F.one_hot(labels, CLASSES).float() if form == "soft" else labels)
        return logits.sum()

    counter = CompileCounterWithBackend("aot_eager")
    fast = torch.compile(step, fullgraph=True, backend=counter)
    for seed in range(3):
        generator = torch.Generator().manual_seed(seed)
        batch = torch.randn(4, 3, generator=generator), torch.randint(N, (4,), generator=generator)
        owner = torch.randint(4, (4,), generator=generator)
        fast(trackers[0], *batch, owner).backward()
        step(trackers[1], *batch, owner).backward()
        if seed == 0:
            address = trackers[0].state_dict()["probabilities"]["mean"].data_ptr()
    assert counter.frame_count == 1
    assert trackers[0].state_dict()["probabilities"]["mean"].data_ptr() == address
    close(trackers[0].mean_probabilities(), trackers[1].mean_probabilities(), rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_nothing_waits_for_an_accelerator(dtype: torch.dtype) -> None:
    """Tensors of the device "meta" have no values: whatever would read one raises."""
    with torch.device("meta"):
        try:
            torch.segment_reduce(torch.zeros(2, 3), "sum", lengths=torch.zeros(2).long(), axis=0, unsafe=True)
        except NotImplementedError:
            pytest.skip("needs a PyTorch whose segment_reduce takes tensors without values")
        count, mean = torch.zeros(N, dtype=torch.int32), torch.zeros(N, CLASSES, dtype=dtype)
        index, logits, weight = torch.zeros(6).long(), torch.zeros(6, CLASSES), torch.zeros(6)
        p = reference.reduce_probabilities(logits, 3, index, weight)
        assert p.shape == (3, CLASSES)
        reference.record_means_(count, mean, index[:3], p, torch.zeros(3) > 0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_batch_of_different_examples_takes_a_shorter_way_to_the_same_bits(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    states = [(torch.zeros(9, dtype=torch.int32), torch.zeros(9, CLASSES, dtype=dtype)) for _ in range(2)]
    for _ in range(20):
        index, used = torch.randperm(8, generator=generator)[:5], torch.rand(5, generator=generator) < 0.7
        values = torch.randn(5, CLASSES, generator=generator).softmax(1)
        reference.record_means_(*states[0], index, values, used)
        # Beside them an example that comes twice and counts for nothing, for which the long way is taken.
        more = (
            torch.cat([index, torch.tensor([8, 8])]),
            torch.cat([values, values[:2]]),
            torch.cat([used, used[:2] & False]),
        )
        reference.record_means_(*states[1], *more)
    for one, other in zip(*states, strict=True):
        assert torch.equal(one, other)
    assert states[0][0].sum() > 50


def test_checkpoints_are_averaged() -> None:
    x = torch.randn(N, 3, generator=torch.Generator().manual_seed(0))
    data = dp.IndexedDataset([(row, i % CLASSES) for i, row in enumerate(x)])
    models = [nn.Linear(3, CLASSES) for _ in range(3)]
    tracker = new_tracker(("el2n",))
    for model in models:
        dp.score_checkpoint(model, DataLoader(data, batch_size=2), tracker)
    close(tracker.mean_probabilities(), torch.stack([model(x).softmax(1) for model in models]).mean(0))
    tracker.reset()
    dp.score_checkpoint(models[0], DataLoader(data, batch_size=2), tracker, scores=("el2n",))
    close(tracker.mean_probabilities(), models[0](x).softmax(1))


def test_gradient_scores_beside_it() -> None:
    tracker = new_tracker(("vog", "vog_loss"))
    x = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    watched = tracker.watch(x, torch.arange(4)).requires_grad_()
    logits = watched @ torch.ones(3, CLASSES)
    tracker.update(torch.arange(4), logits, torch.arange(4), inputs=watched)
    logits.sum().backward()
    assert torch.equal(tracker.suggested(), torch.tensor([0, 0, 0, 0, -1]))


def test_a_corrected_label_is_suggested_by_all_presentations_whatever_their_label() -> None:
    tracker = new_tracker()
    logits = torch.tensor([[0.0, 0.0, 5.0, 0.0]])
    tracker.update(torch.tensor([2]), logits, torch.tensor([0]))
    tracker.relabel(torch.tensor([2]), tracker.suggested()[2:3])
    tracker.update(torch.tensor([2]), logits, torch.tensor([2]))
    close(tracker.mean_probabilities()[2:3], logits.softmax(1))
    assert tracker.presentations == 2


# What is refused

INDEX = torch.tensor([0, 1])


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda t: t.update(INDEX, torch.zeros(2, 4, 3), torch.zeros(2, 3).long()), ValueError, r"logits \[2, 4, 3\]"),
        (lambda t: t.update(INDEX, torch.zeros(2, 4, 3), torch.zeros(2, 4, 3)), ValueError, r"logits \[2, 4, 3\]"),
        (lambda t: t.update(INDEX, loss=torch.zeros(2)), ValueError, "needs logits and labels, but got only loss="),
        (lambda _: new_tracker(target="binary"), ValueError, "got it with target='binary'"),
        (lambda _: new_tracker(mean_probabilities="bfloat16"), TypeError, r"got str, expected True, False or dp\.Prob"),
        (lambda _: new_tracker(mean_probabilities=None), TypeError, "got NoneType"),
        (lambda _: dp.ProbabilityOptions(dtype="float16"), ValueError, "dtype: got 'float16', expected 'float32' or"),
        (lambda _: dp.ProbabilityOptions(device="nowhere"), ValueError, "device: got 'nowhere'"),
        (lambda _: dp.ProbabilityOptions(mmap=""), ValueError, "mmap: got ''"),
        (lambda _: dp.ProbabilityOptions(mmap="x", device="cuda"), ValueError, "mmap: mapped state lives on the CPU"),
        (lambda t: t.mean_probabilities(), RuntimeError, "nothing was recorded"),
        (lambda t: t.suggested(), RuntimeError, "nothing was recorded"),
        (lambda _: dp.DifficultyTracker(N).mean_probabilities(), ValueError, "mean_probabilities=True"),
    ],
)
def test_what_cannot_be_is_refused_and_leaves_nothing_behind(call, error, message: str) -> None:
    tracker = new_tracker()
    with pytest.raises(error, match=message):
        call(tracker)
    assert tracker.state_dict()["table"] is None
    assert tracker.state_dict()["probabilities"] is None


# Runs


def test_a_run_keeps_what_is_suggested_and_on_request_the_means(tmp_path: Path) -> None:
    tracker = shown_tracker()
    run = tracker.finish(architecture="mlp", seed=0)
    assert run.suggested.tolist() == tracker.suggested().tolist()
    assert run.suggested_probability[[0, 2]].tolist() == tracker.mean_probabilities().amax(1)[[0, 2]].tolist()
    assert run.mean_probabilities is None
    whole = tracker.finish(architecture="mlp", seed=0, mean_probabilities=True)
    np.testing.assert_array_equal(whole.mean_probabilities, tracker.mean_probabilities().numpy())
    np.testing.assert_array_equal(whole.suggested, run.suggested)
    plain = dp.DifficultyTracker(N, ("loss",))
    plain.update(INDEX, torch.zeros(2, 4), INDEX)
    assert plain.finish(architecture="mlp", seed=0).suggested is None
    with pytest.raises(ValueError, match="mean_probabilities: none were recorded"):
        plain.finish(architecture="mlp", seed=0, mean_probabilities=True)
