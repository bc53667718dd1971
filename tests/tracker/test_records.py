"""The records of a tracker: labels, and merging."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from difficulty_prune import ops
from difficulty_prune.tracker.records import Records

N = 6


def recorded(index: list[int], labels: list[int], seed: int = 0) -> Records:
    records = Records(N)
    logits = torch.randn(len(index), 4, generator=torch.Generator().manual_seed(seed))
    records.record(torch.tensor(index, dtype=torch.int64), logits, torch.tensor(labels, dtype=torch.int64))
    return records


def assert_records(got: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)


rows = st.lists(st.tuples(st.integers(0, N - 1), st.integers(0, 3)), min_size=1, max_size=30)


@given(rows, rows)
def test_merging_takes_what_agrees_and_refuses_what_does_not(a, b) -> None:
    first, second = (recorded([i for i, _ in rows], [y for _, y in rows], seed) for seed, rows in enumerate((a, b)))
    known = [{i: y for i, y in reversed(rows)} for rows in (a, b)]  # the first label stays
    differing = [i for i in sorted(known[0].keys() & known[1].keys()) if known[0][i] != known[1][i]]
    before = first.table.clone()
    if differing:
        message = (
            f"merge: {len(differing)} of {N} examples were presented with other labels .* of example {differing[0]}"
        )
        with pytest.raises(ValueError, match=message):
            first.check_merge(second)
        with pytest.raises(ValueError, match=message):
            first.merge(second)
        assert torch.equal(first.table, before)
        return
    first.check_merge(second)
    first.merge(second)
    together = [known[0].get(i, known[1].get(i, -1)) for i in range(N)]
    assert first.labels().tolist() == together
    assert torch.equal(first.count, before[:, 0] + second.count)


def test_merging_is_recording_one_after_the_other() -> None:
    generator = torch.Generator().manual_seed(0)
    index = torch.randint(N, (40,), generator=generator)
    logits, labels = 3 * torch.randn(40, 4, generator=generator), index % 4
    logits[::5, 1] = -torch.inf
    logits[::7] = logits[::7].where(torch.nn.functional.one_hot(labels[::7], 4) > 0, -torch.inf)
    whole, first, second = Records(N), Records(N), Records(N)
    whole.record(index, logits, labels)
    first.record(index[:25], logits[:25], labels[:25])
    second.record(index[25:], logits[25:], labels[25:])
    first.merge(second)
    assert_records(first.table, whole.table)
    assert whole.table[:, ops.FIELD["unrivalled"]].sum() == 6


def test_records_without_labels_agree_with_all_and_stay_without() -> None:
    first, second = recorded([0, 1, 1], [1, 2, 2]), Records(N)
    second.forget_labels()
    second.record(torch.tensor([0, 0, 2]), torch.zeros(3, 4), torch.tensor([3, 0, 3]))
    assert second.labels().tolist() == [-1] * N
    assert second.count.tolist() == [2, 0, 1, 0, 0, 0]
    for one, other in ((first, second), (second, first)):
        one.check_merge(other)
    first.merge(second)
    assert first.labels().tolist() == [-1] * N
    assert first.count.tolist() == [3, 2, 1, 0, 0, 0]


def test_labels_of_some_examples_are_forgotten() -> None:
    records = recorded([0, 1, 2, 3], [1, 2, 3, 0])
    records.forget_labels(torch.tensor([2, 0, 2, -1, N, 2**40]))
    assert records.labels().tolist() == [-1, 2, -1, 0, -1, -1]
    skipped = ops.new_skipped()
    records.record(torch.arange(4), torch.zeros(4, 4), torch.tensor([2, 3, 0, 1]), skipped)
    assert skipped.tolist() == [0, 0, 0, 2]
    assert records.labels().tolist() == [-1, 2, -1, 0, -1, -1]


def test_rows_agree_where_they_were_recorded_or_had_no_label_to_change() -> None:
    records = Records(N)
    index, labels = torch.tensor([3, 3, 3, 4, 5, 5]), torch.tensor([1, 2, 1, 0, 0, 3])
    logits = torch.zeros(6, 4)
    logits[3] = torch.nan  # gives no label
    logits[4] = torch.nan
    records.record(index, logits, labels)
    assert records.agree(index, labels).tolist() == [True, False, True, True, False, True]
    assert records.agree(torch.tensor([-1, N, 2**40]), torch.zeros(3).long()).all()
    records.forget_labels()
    assert records.agree(index, labels).all()


def test_losses_alone_know_no_label() -> None:
    records, skipped = recorded([0, 1], [2, 3]), ops.new_skipped()
    stats, nothing = ops.given_stats(loss=torch.tensor([0.5, 0.5])), torch.zeros(2).long()
    records.record_given(torch.tensor([1, 2]), stats, nothing, 1, skipped)
    assert records.labels().tolist() == [2, 3, -1, -1, -1, -1]
    other = recorded([2], [1])
    records.check_merge(other)
    records.merge(other)
    assert records.labels().tolist() == [2, 3, 1, -1, -1, -1]
    assert not skipped.any()


def test_an_example_of_several_rows_has_no_label_from_then_on() -> None:
    records, skipped = recorded([0, 1], [2, 3]), ops.new_skipped()
    stats = ops.softmax_stats(torch.zeros(2, 4), torch.tensor([1, 1]))
    means, labels = ops.reduce_rows(stats, 1, torch.tensor([0, 0]), labels=torch.tensor([1, 1]))
    records.record_given(torch.tensor([1]), means, labels, 4, skipped)
    records.record_given(torch.tensor([4]), means, labels, 4, skipped)
    assert records.labels().tolist() == [2, -1, -1, -1, -1, -1]
    records.record(torch.tensor([1, 4]), torch.zeros(2, 4), torch.tensor([0, 2]), skipped)
    assert records.labels().tolist() == [2, -1, -1, -1, -1, -1]
    assert not skipped.any()
