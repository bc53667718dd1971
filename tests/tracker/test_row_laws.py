"""The laws that every score obeys, for rows of every form."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from row_batches import FORMS, OF_LOGITS, SCORES, Batch, N, make_batch, scores_of, target_of
from torch import Tensor

import difficulty_prune as dp

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore:labels. the targets of:UserWarning"),
]
EVERY_FORM = pytest.mark.parametrize("form", FORMS)
close = partial(torch.testing.assert_close, rtol=2e-6, atol=2e-6, equal_nan=True)
identical = partial(torch.testing.assert_close, rtol=0, atol=0, equal_nan=True)
seeds = st.integers(0, 10_000)


def tracker_for(form: str, **options: object) -> dp.DifficultyTracker:
    return dp.DifficultyTracker(N, scores_of(form), target=target_of(form), right_from=0.5, **options)


def some_batches(form: str, seed: int, steps: int = 4, **options: object) -> list[Batch]:
    options = {"weighted": bool(seed % 2), "odd": True, "repeated": False, **options}
    return [make_batch(form, 50 * seed + step, 4 - step % 2, **options) for step in range(steps)]


def scores_after(form: str, batches: list[Batch], **options: object) -> dict[str, Tensor]:
    tracker = tracker_for(form, **options)
    for batch in batches:
        batch.update(tracker)
    return tracker.compute(allow_skipped=True)


@EVERY_FORM
@settings(max_examples=12)
@given(seed=seeds)
def test_splitting_and_reordering_batches_changes_nothing_beyond_rounding(form, seed) -> None:
    batches = some_batches(form, seed)
    expected = scores_after(form, batches)
    singly = [batch.part(torch.tensor([i])) for batch in batches for i in range(len(batch.index))]
    close(scores_after(form, singly), expected)
    g = torch.Generator().manual_seed(seed)
    mixed = [batch.part(torch.randperm(len(batch.index), generator=g), seed) for batch in batches]
    close(scores_after(form, mixed), expected)
    identical(scores_after(form, [batch.part(torch.arange(len(batch.index))) for batch in batches]), expected)


@EVERY_FORM
@settings(max_examples=6)
@given(seed=seeds)
def test_permuting_the_dataset_permutes_the_scores(form, seed) -> None:
    batches = some_batches(form, seed)
    expected = scores_after(form, batches)
    place = torch.randperm(N, generator=torch.Generator().manual_seed(seed))  # of each example from now on
    got = scores_after(form, [Batch(form, place[batch.index], batch.given) for batch in batches])
    identical({name: score[place] for name, score in got.items()}, expected)


@EVERY_FORM
@settings(max_examples=6)
@given(seed=seeds)
def test_a_state_saved_half_way_and_merged_trackers_go_on_as_one(form, seed) -> None:
    batches = some_batches(form, seed, faults=False)  # trackers with different labels of an example do not merge
    whole, first, second = (tracker_for(form) for _ in range(3))
    for batch in batches:
        batch.update(whole)
    for batch in batches[:2]:
        batch.update(first)
    saved = io.BytesIO()
    torch.save(first.state_dict(), saved)
    saved.seek(0)
    resumed = tracker_for(form)
    resumed.load_state_dict(torch.load(saved, weights_only=True))
    for batch in batches[2:]:
        batch.update(resumed)
        batch.update(second)
    first.merge(second)
    for tracker, compare in ((resumed, identical), (first, close)):
        compare(tracker.compute(allow_skipped=True), whole.compute(allow_skipped=True))
        identical(tracker.age(), whole.age())
        assert tracker.skipped == whole.skipped
        assert tracker.presentations == whole.presentations


@pytest.mark.parametrize("form", OF_LOGITS)
@pytest.mark.parametrize(("dtype", "eps"), [(torch.bfloat16, 2.0**-8), (torch.float16, 2.0**-11)])
def test_half_precision_gives_the_float32_result_within_its_rounding(form, dtype, eps) -> None:
    """A logit of up to 10 is off by 10 eps at most, so losses and logit margins by 20 eps, and others by less."""
    batches = some_batches(form, 3, odd=False)
    exact = scores_after(form, batches)
    rounded = []
    for batch in batches:
        logits = batch.logits.clamp(-10, 10)
        rounded.append(Batch(form, batch.index, {**batch.given, "logits": logits.to(dtype)}))
        batch.given["logits"] = logits
    exact, got = scores_after(form, batches), scores_after(form, rounded)
    for name in SCORES:
        if name not in ("accuracy", "forgetting", "learning_time", "consistently_learned"):  # of which ties decide
            torch.testing.assert_close(got[name], exact[name], rtol=0, atol=20 * eps, equal_nan=True)


@EVERY_FORM
def test_a_frozen_model_does_not_vary_and_forgets_nothing(form) -> None:
    batch = make_batch(form, 4, repeated=False)
    scores = scores_after(form, [batch] * 5)
    shown = ~scores["loss"].isnan()
    assert shown.any()
    assert not shown.all()
    for name, score in scores.items():
        assert torch.equal(score.isnan(), ~shown), name
    assert (scores["variability"][shown] < 1e-6).all()
    right = scores["learning_time"][shown] == 0
    assert scores["forgetting"][shown].tolist() == torch.where(right, 0.0, 5.0).tolist()
    assert scores["consistently_learned"][shown].tolist() == torch.where(right, 0.0, 5.0).tolist()
    close(scores["recent_loss"], scores["loss"])


# Different ways to say the same


def text(seed: int, length: int = 6, classes: int = 5) -> tuple[Tensor, Tensor, Tensor]:
    """Index [3], logits [3, T, V] and labels [3, T] of texts of different lengths, filled up with -100."""
    g = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (3, length), generator=g)
    labels[torch.arange(length) >= torch.tensor([6, 2, 4])[:, None]] = -100
    return torch.randperm(N, generator=g)[:3], 2 * torch.randn(3, length, classes, generator=g), labels


def after(calls: list[Callable[[dp.DifficultyTracker], None]], **options: object) -> dict[str, Tensor]:
    tracker = dp.DifficultyTracker(N, SCORES, right_from=0.3, **options)
    for call in calls:
        call(tracker)
    assert tracker.presentations > 0
    return tracker.compute()


def padded(index: Tensor, logits: Tensor, labels: Tensor, **more: object):
    return lambda tracker: tracker.update(index, logits.transpose(1, 2), labels, **more)


@pytest.mark.parametrize("more", [0, 9])
def test_padding_and_packing_do_not_matter(more) -> None:
    texts = [text(seed) for seed in range(3)]
    expected = after([padded(*t) for t in texts])

    def longer(index: Tensor, logits: Tensor, labels: Tensor):
        tail = torch.full((3, more, 5), torch.nan)  # nobody looks at it
        return padded(index, torch.cat([logits, tail], 1), torch.nn.functional.pad(labels, (0, more), value=-100))

    def packed(index: Tensor, logits: Tensor, labels: Tensor):
        owner = torch.arange(3)[:, None].expand(3, 6)[labels >= 0]
        rows, own = logits[labels >= 0], labels[labels >= 0]
        tail = torch.zeros(more, dtype=torch.int64)
        return lambda tracker: tracker.update(
            index,
            torch.cat([rows, torch.full((more, 5), torch.nan)]),
            torch.cat([own, tail]),
            owner=torch.cat([owner, tail - 1]),
        )

    def of_a_longer_index(index: Tensor, logits: Tensor, labels: Tensor):
        """Of which the batch shows only a part."""
        owner = torch.arange(3)[:, None].expand(3, 6)
        others = torch.tensor([i for i in range(N) if i not in index.tolist()])
        return lambda tracker: tracker.update(
            torch.cat([others, index]),
            logits.reshape(18, 5),
            labels.reshape(18),
            owner=owner.reshape(18) + len(others),
        )

    for way in (longer, packed, of_a_longer_index):
        identical(after([way(*t) for t in texts]), expected)


def test_weights_leave_out_what_labels_would_and_count_what_occurs_twice() -> None:
    index, logits, labels = text(0)
    expected = after([padded(index, logits, labels)])
    weight = (labels >= 0).float()
    close(after([padded(index, logits, labels.clamp(min=0), row_weight=weight)]), expected)
    close(after([padded(index, logits, labels, row_weight=weight.double() * 7)]), expected)

    twice = torch.where(torch.rand(3, 6, generator=torch.Generator().manual_seed(0)) < 0.5, 2.0, 1.0)
    rows = torch.arange(18).repeat_interleave(twice.reshape(-1).long())
    owner = torch.arange(3).repeat_interleave(6)[rows]
    close(
        after([lambda t: t.update(index, logits.view(18, 5)[rows], labels.view(18)[rows], owner=owner)]),
        after([padded(index, logits, labels, row_weight=twice)]),
    )


def test_one_row_each_is_the_plain_form_however_it_is_said() -> None:
    g = torch.Generator().manual_seed(0)
    index, labels = torch.tensor([3, 1, 3, 0]), torch.tensor([2, 0, 2, 1])
    batches = [2 * torch.randn(4, 3, generator=g) for _ in range(4)]
    ones, own = torch.ones(4), torch.arange(4)
    one_hot = torch.nn.functional.one_hot(labels, 3)
    ways = {
        "plain": lambda t, z: t.update(index, z, labels),
        "owner": lambda t, z: t.update(index, z, labels, owner=own),
        "owner in another order": lambda t, z: t.update(index, z.flip(0), labels.flip(0), owner=own.flip(0)),
        "weight": lambda t, z: t.update(index, z, labels, row_weight=ones),
        "position": lambda t, z: t.update(index, z[:, :, None, None], labels[:, None, None]),
        "not contiguous": lambda t, z: t.update(index, z.t().contiguous().t(), labels),
        "ignored": lambda t, z: t.update(
            index, torch.stack([z, z], 2), torch.stack([labels, labels * 0 + 9], 1), ignore_index=9
        ),
        "probabilities": lambda t, z: t.update(index, z, one_hot.float()),
        "probabilities in half precision": lambda t, z: t.update(index, z, one_hot.half()),
    }
    expected = after([partial(ways["plain"], z=z) for z in batches])
    for name, way in ways.items():
        got = after([partial(way, z=z) for z in batches])
        for score in SCORES:
            torch.testing.assert_close(got[score], expected[score], rtol=1e-5, atol=1e-6, equal_nan=True, msg=name)


def test_one_logit_is_two_columns() -> None:
    g = torch.Generator().manual_seed(0)
    index, labels = torch.tensor([3, 1, 0]), torch.tensor([1, 0, 1])
    batches = [2 * torch.randn(3, generator=g) for _ in range(4)]
    two = [lambda t, z=z: t.update(index, torch.stack([0 * z, z], 1), labels) for z in batches]
    one = [lambda t, z=z: t.update(index, z, labels) for z in batches]
    column = [lambda t, z=z: t.update(index, z[:, None], labels[:, None].bool()) for z in batches]
    for way in (one, column):
        close(after(way, target="binary"), after(two))


def test_what_is_not_finite_in_one_row_leaves_the_example_out_and_no_other() -> None:
    index, logits, labels = text(0)
    logits[1, 0, 2] = torch.nan
    tracker = dp.DifficultyTracker(N, SCORES)
    tracker.update(index, logits.transpose(1, 2), labels)
    assert tracker.skipped == {"bad index": 0, "bad label": 0, "not finite": 1, "changed label": 0}
    others = torch.tensor([0, 2])
    expected = dp.DifficultyTracker(N, SCORES)
    expected.update(index[others], logits[others].transpose(1, 2), labels[others])
    identical(tracker.compute(allow_skipped=True), expected.compute())


def test_a_changed_label_is_a_fault_where_an_example_has_one_row_and_only_there() -> None:
    z = torch.zeros(3, 4)

    def skipped_after(*steps: tuple[list[int], list[int]]) -> int:
        tracker = dp.DifficultyTracker(2, ("loss",))
        for labels, owner in steps:
            tracker.update(torch.arange(2), z, torch.tensor(labels), owner=torch.tensor(owner))
        return tracker.skipped["changed label"]

    assert skipped_after(([0, 1, 2], [0, 1, -1]), ([1, 2, 3], [1, -1, 0])) == 1  # example 0 from 0 to 3
    assert skipped_after(([0, 1, -100], [0, 1, 1]), ([0, 2, -100], [0, 1, 1])) == 1  # whatever is ignored
    assert skipped_after(([0, 1, 2], [0, 1, 1]), ([0, 3, 2], [0, 1, 1])) == 0
    assert skipped_after(([0, 1, 2], [0, 1, 1]), ([0, 3, 2], [0, 1, -1]), ([0, 1, 2], [0, 1, -1])) == 0
    masks = dp.DifficultyTracker(2, ("loss",), target="binary")
    for labels in ([[0, 1], [1, 1]], [[1, 0], [0, 0]], [[1, torch.nan], [1, torch.nan]], [[0, torch.nan]] * 2):
        masks.update(torch.arange(2), z[:2, :2], torch.tensor(labels))
    assert masks.presentations == 8


def test_gradients_of_the_same_step_are_recorded_beside_rows() -> None:
    """A model of tokens, whose embeddings are watched."""
    tracker = dp.DifficultyTracker(N, ("el2n", "vog_loss"))
    for seed in range(3):
        index, embedded, labels = text(seed)
        x = tracker.watch(embedded, index)
        logits = (x * 2).transpose(1, 2)
        tracker.update(index, logits, labels)
        torch.nn.functional.cross_entropy(logits, labels).backward()
    scores = tracker.compute()
    assert torch.equal(scores["el2n"].isnan(), scores["vog_loss"].isnan())
    assert (scores["vog_loss"].nan_to_num(0) > 0).any()
