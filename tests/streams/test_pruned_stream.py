"""A stream that is read twice in one epoch: noticed where it is one, in workers too, and nowhere else."""

from __future__ import annotations

import copy
import multiprocessing
import pickle
from itertools import islice
from multiprocessing.reduction import ForkingPickler

import pytest
import torch
from streamed import SIZE, Stream, expected, table_of
from torch.utils.data import DataLoader

import difficulty_prune as dp
from difficulty_prune.policies.uniform import Hardest
from difficulty_prune.policies.weighted import SoftPrune

pytest.importorskip("xxhash", reason="xxhash is not installed")
pytestmark = pytest.mark.usefixtures("one_thread")

TWICE = r"epoch 3 is read once more, which keeps the same samples; call pruner\.set_epoch\(epoch\) before each pass"


@pytest.fixture
def pruner(tmp_path):
    return dp.StreamPruner(table_of(tmp_path / "table"), "id")


def loader_of(stream, **options):
    return DataLoader(stream, batch_size=None, generator=torch.Generator(), **options)


def test_the_epoch_is_known(pruner):
    assert (pruner.epoch, pruner.times_set) == (None, 0)
    pruner.set_epoch(0)
    pruner.set_epoch(3)
    assert (pruner.epoch, pruner.times_set) == (3, 2)


def test_a_second_pass_of_an_epoch_warns(pruner):
    stream = dp.PrunedStream(Stream(), pruner)
    pruner.set_epoch(3)
    kept = list(stream)
    with pytest.warns(UserWarning, match=TWICE):
        assert list(stream) == kept
    pruner.set_epoch(3)  # said once more, it is meant
    assert list(stream) == kept
    with pytest.warns(UserWarning, match=TWICE):
        list(loader_of(stream))


@pytest.mark.parametrize("persistent", [False, True])
def test_a_worker_notices_it(pruner, persistent):
    """Warnings are errors here, and the loader raises those of its workers."""
    stream = dp.PrunedStream(Stream(), pruner)
    loader = loader_of(stream, num_workers=2, persistent_workers=persistent)
    for epoch in (0, 1, 3):
        pruner.set_epoch(epoch)
        assert {sample["id"] for sample in loader} == set(expected(pruner, epoch))
    with pytest.raises(UserWarning, match=TWICE):
        list(loader)


def test_what_a_spawned_worker_gets_knows_it_too(pruner):
    stream = dp.PrunedStream(Stream(), pruner)
    pruner.set_epoch(3)
    list(stream)
    with pytest.warns(UserWarning, match=TWICE):
        list(pickle.loads(ForkingPickler.dumps(stream)))  # noqa: S301 (made here)


def test_passes_that_do_not_end_or_are_of_other_streams_do_not_warn(pruner):
    pruner.set_epoch(3)
    one, other = dp.PrunedStream(Stream(), pruner), dp.PrunedStream(Stream(), pruner)
    for _ in range(2):
        list(islice(one, 5))
    list(one)
    list(other)  # of one pruner, which may serve several streams
    for copied in (copy.deepcopy(one), pickle.loads(pickle.dumps(one))):  # noqa: S301 (made here)
        list(copied)
        with pytest.warns(UserWarning, match=TWICE):
            list(copied)


def test_an_epoch_that_is_set_while_the_last_is_read_is_another(pruner):
    stream = dp.PrunedStream(Stream(), pruner)
    pruner.set_epoch(2)
    first = iter(stream)
    next(first)
    pruner.set_epoch(3)
    list(first)
    assert {sample["id"] for sample in stream} == set(expected(pruner, 3))


def test_processes_that_were_forked_have_passes_of_their_own(pruner):
    stream = dp.PrunedStream(Stream(), pruner)
    pruner.set_epoch(3)
    list(stream)
    child = multiprocessing.get_context("fork").Process(target=list, args=(stream,))
    child.start()
    child.join()
    assert child.exitcode == 0  # a warning would be an error
    assert pruner.counts.seen == 2 * SIZE


def test_where_all_epochs_are_the_same_nothing_warns(tmp_path):
    static = dp.StreamPruner(table_of(tmp_path / "table", Hardest(0.5)), "id")
    stream = dp.PrunedStream(Stream(), static)
    assert [len(list(stream)) for _ in range(2)] == [SIZE // 2] * 2
    late = dp.StreamPruner(table_of(tmp_path / "late", SoftPrune(0.5, anneal=0.5, epochs=6)), "id")
    late.set_epoch(3)
    stream = dp.PrunedStream(Stream(), late)
    assert len(list(stream)) == SIZE
    with pytest.warns(UserWarning, match=TWICE):
        list(stream)


def test_batches_that_were_seen_can_be_passed_over(pruner):
    """What docs/streams.md says of a restart within an epoch, with the same number of workers."""
    stream = dp.PrunedStream(Stream(), pruner)
    loader = DataLoader(stream, batch_size=8, num_workers=2, generator=torch.Generator())
    pruner.set_epoch(3)
    whole = [batch["id"] for batch in loader]
    again = dp.StreamPruner(pruner.table.path, "id")
    again.set_epoch(3)
    later = DataLoader(dp.PrunedStream(Stream(), again), batch_size=8, num_workers=2, generator=torch.Generator())
    assert [batch["id"] for batch in islice(later, 5, None)] == whole[5:]
    assert len(whole) > 10
