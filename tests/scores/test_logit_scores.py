"""The logit scores against the float64 oracle, and the laws that every score obeys."""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import numpy as np
import oracle
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from oracle import LOGIT_SCORES, ORDER_DEPENDENT

import difficulty_prune as dp

# Everything is summed in float32: a relative error per operation, and an absolute one of probabilities near 1.
close = partial(torch.testing.assert_close, rtol=3e-5, atol=3e-6, equal_nan=True, check_dtype=False)
identical = partial(torch.testing.assert_close, rtol=0, atol=0, equal_nan=True)


@dataclass
class Trajectory:
    """Presentations in the order of training, and where one batch ends and the next begins."""

    num_examples: int
    index: torch.Tensor
    logits: torch.Tensor
    labels: torch.Tensor
    cuts: list[int]

    def batches(self, cuts: list[int] | None = None):
        ends = [*(self.cuts if cuts is None else cuts), len(self.index)]
        for begin, end in zip([0, *ends], ends, strict=False):
            yield self.index[begin:end], self.logits[begin:end], self.labels[begin:end]

    def reordered(self, order: torch.Tensor) -> Trajectory:
        return Trajectory(self.num_examples, self.index[order], self.logits[order], self.labels[order], self.cuts)


@st.composite
def trajectories(draw) -> Trajectory:
    """Unequal numbers of presentations, duplicates within batches, ties, and examples that are never learned."""
    num_examples = draw(st.integers(1, 6))
    classes = draw(st.sampled_from((2, 3, 10, 17, 40)))  # around and beyond the 16 lanes of the kernel
    rows = draw(st.integers(0, 24))
    index = draw(hnp.arrays(np.int64, rows, elements=st.integers(0, num_examples - 1)))
    # A small set of round values makes ties common; hypothesis's fill value makes whole rows constant.
    values = st.one_of(st.sampled_from((-1.0, 0.0, 0.5, 1.0)), st.floats(-40, 40, width=32))
    logits = draw(hnp.arrays(np.float32, (rows, classes), elements=values))
    labels = draw(hnp.arrays(np.int64, num_examples, elements=st.integers(0, classes - 1)))[index]
    correct = draw(hnp.arrays(np.bool_, rows))  # else hardly any example would be learned, let alone forgotten
    never_learned = draw(st.sets(st.integers(0, num_examples - 1)))
    for row, (label, top) in enumerate(zip(labels, logits.argmax(1), strict=True)):
        if index[row] in never_learned:
            logits[row, (label + 1) % classes] = logits[row].max() + 1
        elif correct[row]:
            logits[row, [label, top]] = logits[row, [top, label]]
    cuts = sorted(draw(st.lists(st.integers(0, rows), max_size=4)))
    return Trajectory(num_examples, *(torch.from_numpy(a) for a in (index, logits, labels)), cuts)


def tracked(batches, num_examples: int, scores=LOGIT_SCORES) -> dp.DifficultyTracker:
    tracker = dp.DifficultyTracker(num_examples, scores)
    for index, logits, labels in batches:
        tracker.update(index, logits, labels)
    return tracker


def scores_of(t: Trajectory, cuts: list[int] | None = None) -> dict[str, torch.Tensor]:
    return tracked(t.batches(cuts), t.num_examples).compute()


def expected_scores(t: Trajectory) -> dict[str, torch.Tensor]:
    rows = zip(t.index.tolist(), t.logits.double().numpy(), t.labels.tolist(), strict=True)
    return {name: torch.from_numpy(score) for name, score in oracle.logit_scores(t.num_examples, rows).items()}


def assert_scores(got: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], compare=close) -> None:
    assert got.keys() == expected.keys()
    for name in got:
        compare(got[name], expected[name], msg=lambda text, name=name: f"{name}: {text}")


def random_trajectory(seed: int, num_examples: int = 12, classes: int = 5, rows: int = 90) -> Trajectory:
    """Every example is presented; logits drift towards the label, so that examples are learned and forgotten."""
    generator = torch.Generator().manual_seed(seed)
    index = torch.cat([torch.arange(num_examples), torch.randint(num_examples, (rows,), generator=generator)])
    label_of = torch.arange(num_examples) % classes
    logits = torch.randn(len(index), classes, generator=generator)
    logits[torch.arange(len(index)), label_of[index]] += 0.8
    return Trajectory(num_examples, index, logits, label_of[index], [num_examples, 40, 71])


def test_the_oracle_itself_on_a_trajectory_worked_out_by_hand() -> None:
    right, wrong, tie = [1.0, 0.0], [0.0, 1.0], [0.0, 0.0]  # of label 0, which wins the tie
    rows = [(0, z, 0) for z in (wrong, right, right, wrong, tie)] + [(1, wrong, 0), (1, wrong, 0), (3, tie, 1)]
    got = oracle.logit_scores(4, rows)
    nan = np.nan
    np.testing.assert_equal(got["accuracy"], [0.6, 0, nan, 0])
    np.testing.assert_equal(got["forgetting"], [1, 2, nan, 1])
    np.testing.assert_equal(got["learning_time"], [1, 2, nan, 1])
    np.testing.assert_equal(got["consistently_learned"], [4, 2, nan, 1])
    np.testing.assert_allclose(got["aum"], [0, -1, nan, 0])
    np.testing.assert_allclose(got["el2n"][3], 0.5 * np.sqrt(2))
    np.testing.assert_allclose(got["entropy"][3], np.log(2))
    np.testing.assert_allclose(got["variability"][1], 0, atol=1e-15)


@settings(max_examples=150)
@given(trajectories())
def test_every_score_equals_the_oracle(t: Trajectory) -> None:
    assert_scores(scores_of(t), expected_scores(t))


@pytest.mark.parametrize("name", LOGIT_SCORES)
def test_a_score_does_not_depend_on_which_others_are_tracked(name: str) -> None:
    t = random_trajectory(0)
    alone = tracked(t.batches(), t.num_examples, scores=(name,)).compute()
    assert list(alone) == [name]
    identical(alone[name], scores_of(t)[name])
    close(alone[name], expected_scores(t)[name])


@settings(max_examples=60)
@given(trajectories(), st.data())
def test_splitting_batches_changes_nothing(t: Trajectory, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(t.index)), max_size=8)))
    one_by_one = list(range(1, len(t.index)))
    assert_scores(scores_of(t, cuts), scores_of(t), identical)
    assert_scores(scores_of(t, one_by_one), scores_of(t), identical)


@settings(max_examples=60)
@given(trajectories(), st.randoms(use_true_random=False))
def test_reordering_that_keeps_each_examples_order_changes_nothing(t: Trajectory, random) -> None:
    slots = t.index.tolist()
    random.shuffle(slots)  # which example is next; its own presentations still come first to last
    rows_of = {example: (t.index == example).nonzero()[:, 0].tolist() for example in slots}
    order = torch.tensor([rows_of[example].pop(0) for example in slots], dtype=torch.int64)
    assert_scores(scores_of(t.reordered(order)), scores_of(t), identical)


@settings(max_examples=60)
@given(trajectories(), st.randoms(use_true_random=False))
def test_any_reordering_changes_only_the_scores_of_order(t: Trajectory, random) -> None:
    order = list(range(len(t.index)))
    random.shuffle(order)
    shuffled = t.reordered(torch.tensor(order, dtype=torch.int64))
    before, after = scores_of(t), scores_of(shuffled)
    for name in set(LOGIT_SCORES) - set(ORDER_DEPENDENT):
        close(after[name], before[name])
    expected = expected_scores(shuffled)
    for name in ORDER_DEPENDENT:
        close(after[name], expected[name])


@settings(max_examples=60)
@given(trajectories(), st.randoms(use_true_random=False))
def test_permuting_the_dataset_permutes_the_scores(t: Trajectory, random) -> None:
    new_place = list(range(t.num_examples))
    random.shuffle(new_place)
    place = torch.tensor(new_place)
    moved = scores_of(Trajectory(t.num_examples, place[t.index], t.logits, t.labels, t.cuts))
    assert_scores({name: score[place] for name, score in moved.items()}, scores_of(t), identical)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@settings(max_examples=40)
@given(t=trajectories())
def test_half_precision_logits_give_the_float32_result_on_the_rounded_values(dtype, t: Trajectory) -> None:
    halves = [(index, logits.to(dtype), labels) for index, logits, labels in t.batches()]
    rounded = [(index, logits.float(), labels) for index, logits, labels in halves]
    got = tracked(halves, t.num_examples).compute()
    assert_scores(got, tracked(rounded, t.num_examples).compute(), identical)
    assert all(score.dtype == torch.float32 for score in got.values())


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 2e-2), (torch.float16, 2e-3)])
def test_half_precision_logits_stay_near_the_float32_scores(dtype, tolerance: float) -> None:
    t = random_trajectory(1)
    halves = [(index, logits.to(dtype), labels) for index, logits, labels in t.batches()]
    got, expected = tracked(halves, t.num_examples).compute(), scores_of(t)
    for name in set(LOGIT_SCORES) - set(ORDER_DEPENDENT) - {"accuracy"}:
        close(got[name], expected[name], rtol=tolerance, atol=tolerance)


@settings(max_examples=60)
@given(trajectories(), st.data())
def test_merging_two_trackers_equals_one(t: Trajectory, data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(t.index)))
    first = tracked([(t.index[:cut], t.logits[:cut], t.labels[:cut])], t.num_examples)
    second = tracked([(t.index[cut:], t.logits[cut:], t.labels[cut:])], t.num_examples)
    before = second.compute()
    first.merge(second)
    assert_scores(first.compute(), expected_scores(t))
    assert_scores(second.compute(), before, identical)
    assert first.presentations == len(t.index)


@pytest.mark.parametrize("first", [[], [0], [1], [0, 1], [1, 0], [1, 1, 0, 1]])
@pytest.mark.parametrize("second", [[], [0], [1], [0, 1], [1, 0], [0, 1, 0]])
def test_merging_counts_what_happens_at_the_seam(first: list[int], second: list[int]) -> None:
    """Correct (1) at the end of one tracker and wrong (0) at the start of the next is forgetting too."""

    def tracker_of(correct: list[int]) -> dp.DifficultyTracker:
        logits = torch.tensor([[float(c), float(1 - c)] for c in correct]).view(-1, 2)
        zeros = torch.zeros(len(correct), dtype=torch.int64)
        return tracked([(zeros, logits, zeros)], 1)

    merged, whole = tracker_of(first), tracker_of(first + second)
    merged.merge(tracker_of(second))
    assert_scores(merged.compute(), whole.compute())


@settings(max_examples=30)
@given(trajectories())
def test_merging_is_associative(t: Trajectory) -> None:
    parts = [tracked([batch], t.num_examples) for batch in t.batches()]
    left = dp.DifficultyTracker(t.num_examples, LOGIT_SCORES)
    for part in parts:
        left.merge(part)
    for part, following in reversed(list(pairwise(parts))):
        part.merge(following)
    assert_scores(left.compute(), parts[0].compute())


def test_merging_with_a_tracker_that_saw_nothing_changes_nothing() -> None:
    t = random_trajectory(2)
    full, empty = tracked(t.batches(), t.num_examples), dp.DifficultyTracker(t.num_examples, LOGIT_SCORES)
    full.merge(empty)
    empty.merge(full)
    assert_scores(full.compute(), scores_of(t), identical)
    assert_scores(empty.compute(), scores_of(t), identical)
    empty.update(t.index[:1], t.logits[:1], t.labels[:1])  # its own state, not the other tracker's
    assert_scores(full.compute(), scores_of(t), identical)


@settings(max_examples=20)
@given(trajectories(), st.data())
def test_a_tracker_goes_on_from_a_saved_state_as_if_never_stopped(t: Trajectory, data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(t.index)))
    stopped = tracked([(t.index[:cut], t.logits[:cut], t.labels[:cut])], t.num_examples)
    file = io.BytesIO()
    torch.save(stopped.state_dict(), file)
    file.seek(0)
    resumed = dp.DifficultyTracker(t.num_examples, LOGIT_SCORES)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    assert_scores(resumed.compute(), stopped.compute(), identical)
    resumed.update(t.index[cut:], t.logits[cut:], t.labels[cut:])
    assert_scores(resumed.compute(), scores_of(t), identical)


def test_a_loaded_state_is_a_copy() -> None:
    t = random_trajectory(3)
    source, copy = tracked(t.batches(), t.num_examples), dp.DifficultyTracker(t.num_examples, LOGIT_SCORES)
    copy.load_state_dict(source.state_dict())
    source.update(t.index, t.logits, t.labels)
    assert_scores(copy.compute(), scores_of(t), identical)


@pytest.mark.parametrize("scores", [("el2n",), ("aum", "el2n")])
def test_a_state_of_other_scores_or_size_is_refused(scores) -> None:
    state = dp.DifficultyTracker(4, ("el2n", "aum")).state_dict()
    with pytest.raises(ValueError, match="scores"):
        dp.DifficultyTracker(4, scores).load_state_dict(state)
    with pytest.raises(ValueError, match="num_examples 4"):
        dp.DifficultyTracker(5, ("el2n", "aum")).load_state_dict(state)


def test_reset_forgets_everything() -> None:
    t = random_trajectory(4)
    tracker = tracked(t.batches(), t.num_examples)
    tracker.reset()
    assert all(score.isnan().all() for score in tracker.compute().values())
    tracker.update(t.index, torch.cat([t.logits, t.logits], 1), t.labels)  # another number of classes is fine now
    assert tracker.presentations == len(t.index)


def test_class_normalized_is_a_plain_z_score_within_the_class() -> None:
    t = random_trajectory(5, num_examples=20, classes=4)
    tracker = tracked(t.batches(), t.num_examples)
    label_of = np.arange(20) % 4
    plain, normalized = tracker.compute(), tracker.compute(class_normalized=True)
    for name in LOGIT_SCORES:
        score, expected = plain[name].double().numpy(), np.zeros(20)
        for label in range(4):
            of_class = score[label_of == label]
            if of_class.std() > 0:
                expected[label_of == label] = (of_class - of_class.mean()) / of_class.std()
        close(normalized[name], torch.from_numpy(expected))
        assert normalized[name].dtype == torch.float32


def test_class_normalized_needs_the_label_of_every_example() -> None:
    tracker = dp.DifficultyTracker(3)
    tracker.update(torch.tensor([0, 2]), torch.randn(2, 4), torch.tensor([1, 3]))
    with pytest.raises(ValueError, match="label"):
        tracker.compute(class_normalized=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("value", [0.1, 1e-3, 1 / 3])
def test_a_class_of_equal_scores_is_normalized_to_zero(dtype, value: float) -> None:
    """Rounding in the class mean must not be blown up to a whole standard deviation."""
    score = torch.tensor([value] * 7 + [1.0, 3.0], dtype=dtype)
    z = dp.class_normalize(score, torch.tensor([0] * 7 + [1, 1]))
    identical(z, torch.tensor([0.0] * 7 + [-1.0, 1.0], dtype=dtype))


def test_class_normalize_leaves_unknown_scores_out() -> None:
    z = dp.class_normalize(torch.tensor([1.0, torch.nan, 3.0, torch.nan]), torch.tensor([0, 0, 0, 1]))
    identical(z, torch.tensor([-1.0, torch.nan, 1.0, torch.nan]))


@pytest.mark.parametrize("peak", [1e4, 3e38])
@pytest.mark.parametrize("label", [0, 1, 2])
def test_extreme_logits_give_no_nan(peak: float, label: int) -> None:
    t = Trajectory(1, torch.zeros(2, dtype=torch.int64), torch.zeros(2, 3), torch.full((2,), label), [])
    t.logits[0] = torch.tensor([1e4, -1e4, peak])
    t.logits[1] = torch.tensor([-1e4, 1e4, -1e4])
    assert_scores(scores_of(t), expected_scores(t))


def test_opposite_extreme_logits_give_a_loss_or_are_not_finite() -> None:
    """The difference of two finite logits may overflow: as a loss it is not finite, as a margin it is left out."""
    tracker = dp.DifficultyTracker(2, LOGIT_SCORES)
    tracker.update(torch.tensor([0, 1]), torch.tensor([[3e38, -3e38]]).repeat(2, 1), torch.tensor([0, 1]))
    assert tracker.skipped["not finite"] == 1
    unknown = [name for name, score in tracker.compute(allow_skipped=True).items() if score[0].isnan()]
    assert unknown == ["aum"]


@pytest.mark.parametrize("gap", [20.0, 40.0, 80.0])
def test_small_losses_of_confident_examples_keep_their_precision(gap: float) -> None:
    """The easiest examples still have an order: 1 + exp(-gap) must not round to 1 on the way."""
    tracker = dp.DifficultyTracker(1, ("loss", "el2n"))
    tracker.update(torch.tensor([0]), torch.tensor([[gap, 0.0]]), torch.tensor([0]))
    others = np.exp(-np.float64(gap))
    scores = tracker.compute()
    np.testing.assert_allclose(scores["loss"].item(), np.log1p(others), rtol=1e-5)
    if gap <= 40:  # beyond, the squares that el2n is made of leave the range of float32
        np.testing.assert_allclose(scores["el2n"].item(), np.sqrt(2) * others / (1 + others), rtol=1e-5)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_losses_that_are_not_finite_are_left_out_counted_and_reported(bad: float) -> None:
    t = random_trajectory(6)
    logits = t.logits.clone()
    logits[[3, 50], t.labels[[3, 50]]] = bad
    tracker = tracked([(t.index, logits, t.labels)], t.num_examples)
    assert tracker.skipped == {"bad index": 0, "bad label": 0, "not finite": 2, "changed label": 0}
    with pytest.raises(ValueError, match="2 x not finite"):
        tracker.compute()
    kept = torch.tensor([row for row in range(len(t.index)) if row not in (3, 50)])
    assert_scores(tracker.compute(allow_skipped=True), expected_scores(t.reordered(kept)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_losses_alone_give_their_mean(dtype) -> None:
    tracker = dp.DifficultyTracker(5, ("loss",))
    generator = torch.Generator().manual_seed(7)
    seen: dict[int, list[float]] = {}
    for _ in range(6):
        index = torch.randint(4, (8,), generator=generator)  # with duplicates; example 4 is never presented
        loss = torch.rand(8, generator=generator).to(dtype).requires_grad_()
        tracker.update(index, loss=loss)
        for i, value in zip(index.tolist(), loss.tolist(), strict=True):
            seen.setdefault(i, []).append(value)
    got = tracker.compute()
    expected = [sum(seen[i]) / len(seen[i]) for i in range(4)] + [torch.nan]
    close(got["loss"], torch.tensor(expected))
    assert not got["loss"].requires_grad
    assert tracker.presentations == 48


def test_losses_alone_that_are_not_finite_are_left_out_counted_and_reported() -> None:
    tracker = dp.DifficultyTracker(3, ("loss",))
    tracker.update(torch.tensor([0, 1, 1]), loss=torch.tensor([1.0, torch.nan, 2.0]))
    with pytest.raises(ValueError, match="1 x not finite"):
        tracker.compute()
    identical(tracker.compute(allow_skipped=True)["loss"], torch.tensor([1.0, 2.0, torch.nan]))


def test_losses_of_two_trackers_merge() -> None:
    first, second = dp.DifficultyTracker(3, ("loss",)), dp.DifficultyTracker(3, ("loss",))
    first.update(torch.tensor([0, 1]), loss=torch.tensor([1.0, 2.0]))
    second.update(torch.tensor([1, 1]), loss=torch.tensor([3.0, 7.0]))
    first.merge(second)
    identical(first.compute()["loss"], torch.tensor([1.0, 4.0, torch.nan]))


def test_losses_from_reduce_loss_are_the_mean_over_an_examples_rows() -> None:
    tracker = dp.DifficultyTracker(9, ("loss",))
    per_token = torch.tensor([1.0, 3.0, 8.0, 0.5], requires_grad=True)
    per_example = dp.reduce_loss(per_token, torch.tensor([0, 0, 1, 2]))
    tracker.update(torch.tensor([8, 2, 5]), loss=per_example)
    got = tracker.compute()["loss"]
    identical(got[[8, 2, 5]], torch.tensor([2.0, 8.0, 0.5]))
    per_example.sum().backward()
    identical(per_token.grad, torch.tensor([0.5, 0.5, 1.0, 1.0]))


@pytest.mark.parametrize("scores", [("el2n",), ("loss", "el2n")])
def test_a_loss_alone_cannot_serve_scores_of_logits(scores) -> None:
    with pytest.raises(ValueError, match="loss="):
        dp.DifficultyTracker(2, scores).update(torch.tensor([0]), loss=torch.tensor([1.0]))


def test_what_was_recorded_under_inference_mode_can_be_used_outside() -> None:
    """An evaluation pass may be the first thing that a tracker sees, and makes its state."""
    t = random_trajectory(8)
    first, second = (dp.DifficultyTracker(t.num_examples, LOGIT_SCORES) for _ in range(2))
    for tracker in (first, second):
        with torch.inference_mode():
            tracker.update(t.index, t.logits, t.labels)
    first.merge(second)
    assert first.presentations == 2 * len(t.index)
    close(first.compute()["el2n"], scores_of(t)["el2n"])


def test_losses_recorded_under_inference_mode_can_be_followed_by_others() -> None:
    tracker = dp.DifficultyTracker(2, ("loss",))
    with torch.inference_mode():
        tracker.update(torch.tensor([0, 1]), loss=torch.tensor([1.0, 3.0]))
    tracker.update(torch.tensor([0, 1]), loss=torch.tensor([2.0, 6.0]))
    close(tracker.compute()["loss"], torch.tensor([1.5, 4.5]))
