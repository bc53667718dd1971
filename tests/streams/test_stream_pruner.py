"""What is kept of a stream: the same by every way, in every worker and process, and unbiased."""

from __future__ import annotations

import copy
import pickle
from collections import namedtuple

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from streamed import DIFFICULTY, NAMES, SIZE, Stream, expected, sample_id, table_of
from torch.utils.data import DataLoader, IterableDataset

import difficulty_prune as dp
from difficulty_prune.policies.compose import PerClass
from difficulty_prune.policies.easy_to_hard import EasyToHard
from difficulty_prune.policies.uniform import Hardest, Random
from difficulty_prune.policies.weighted import Importance, SoftPrune
from difficulty_prune.support.hashing import pack_signed, pack_unsigned, seed_of

xxhash = pytest.importorskip("xxhash", reason="xxhash is not installed")
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def pruner(tmp_path):
    return dp.StreamPruner(table_of(tmp_path / "table"), "id")


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    p=st.lists(st.floats(2**-6, 1, width=32), min_size=1, max_size=20),
    seed=st.integers(0, 2**64),
    epoch=st.integers(0, 2**40),
    weighted=st.booleans(),
)
def test_every_way_decides_as_the_definition_says(tmp_path, p, seed, epoch, weighted):
    """The reference: a sample is kept where the hash of the hash, with the epoch's seed, lies below p."""
    table = dp.InclusionTable.write(tmp_path / "table", [(range(len(p)), p)], weighted=weighted)
    pruner = dp.StreamPruner(table, key=0, seed=seed)
    samples = [(i, f"x{i}") for i in range(len(p) + 1)]  # the last is unknown
    kept = []
    for i, name in samples:
        known = float(np.float32(p[i])) if i < len(p) else 1.0
        hashed = xxhash.xxh3_64_intdigest(pack_signed(i))
        if (xxhash.xxh3_64_intdigest(pack_unsigned(hashed), seed_of(seed, epoch)) >> 11) / 2**53 < known:
            kept.append(((i, name), 1 / known if weighted else 1.0))
    assert list(pruner(samples, epoch)) == kept
    pruner.set_epoch(epoch)
    assert [(sample, pruner.weight(sample)) for sample in samples if pruner.keeps(sample)] == kept
    with_weight = [(*sample, weight) for sample, weight in kept]
    assert list(pruner.pipe(samples)) == pruner.prune(samples) == with_weight
    assert [pruner.attach(sample) for sample in samples if pruner.keeps(sample)] == with_weight
    assert pruner.counts == (5 * len(samples), 5 * len(kept), 5)
    for ahead in (2, 7, 100):
        early = dp.StreamPruner(table, key=0, seed=seed, ahead=ahead)
        assert list(early(iter(samples), epoch)) == kept
        assert early.counts == (len(samples), len(kept), 1)
    pruner.reset_counts()
    assert pruner.counts == (0, 0, 0)


@pytest.mark.parametrize(
    ("known", "given", "message"),
    [
        (7, 2**64 - 1, f"got {2**64 - 1}.*, expected .* that int64 holds"),
        ("a", "", "empty text"),
    ],
)
def test_what_is_no_id_is_refused_in_every_way(tmp_path, known, given, message):
    table = dp.InclusionTable.write(tmp_path / "table", [([known], [0.5])], weighted=True)
    pruner = dp.StreamPruner(table, key="id")
    pruner.set_epoch(0)
    sample = {"id": given}
    for decide in (
        pruner.keeps,
        pruner.weight,
        lambda sample: list(pruner([sample])),
        lambda _: pruner.decide([given]),
    ):
        with pytest.raises(ValueError, match=message):
            decide(sample)


def test_workers_of_a_pickled_copy_see_its_epochs(pruner):
    copied = pickle.loads(pickle.dumps(pruner))  # noqa: S301
    stream = dp.PrunedStream(Stream(), copied)
    loader = DataLoader(stream, batch_size=None, num_workers=1, persistent_workers=True, generator=torch.Generator())
    for epoch in range(2):
        copied.set_epoch(epoch)
        kept = [sample["id"] for sample in loader]
        assert kept == [sample["id"] for sample, _ in copied(Stream(), epoch)]
    assert copied.counts.seen == 4 * SIZE
    assert pruner.counts.seen == 0


def kept_of(stream, **options):
    loader = DataLoader(stream, batch_size=None, generator=torch.Generator(), **options)
    return {sample["id"]: sample["weight"] for sample in loader}


@pytest.mark.filterwarnings("ignore:This DataLoader will create 8 worker processes")
@pytest.mark.parametrize("workers", [0, 1, 8])
def test_any_number_of_workers_keeps_the_same(pruner, workers):
    for epoch in (0, 3):
        pruner.set_epoch(epoch)
        pruner.reset_counts()
        found = kept_of(Stream(pruner, step=7), num_workers=workers)
        assert found == expected(dp.StreamPruner(pruner.table, "id"), epoch)
        assert 0.35 * SIZE < len(found) < 0.65 * SIZE
        assert pruner.counts == (SIZE, len(found), 0)


@pytest.mark.parametrize("world", [1, 4])
def test_any_number_of_processes_keeps_the_same(pruner, world):
    """Each process opens the table itself, as after a start on another machine."""
    found = {}
    for rank in range(world):
        own = pickle.loads(pickle.dumps(pruner))  # noqa: S301 (made here)
        own.set_epoch(2)
        share = kept_of(Stream(own, rank=rank, world=world, step=11))
        assert not share.keys() & found.keys()
        found |= share
    assert found == expected(pruner, 2)


def test_persistent_workers_see_the_epoch_that_is_set(pruner):
    loader = DataLoader(Stream(pruner), batch_size=None, num_workers=2, persistent_workers=True)
    kept = []
    for epoch in (0, 1, 0):
        pruner.set_epoch(epoch)
        kept.append({sample["id"] for sample in loader})
        assert kept[-1] == set(expected(dp.StreamPruner(pruner.table, "id"), epoch))
    assert kept[0] == kept[2] != kept[1]


def test_spawned_workers_too(pruner):
    pruner.set_epoch(1)
    stream = dp.PrunedStream(Stream(), pruner)
    found = kept_of(stream, num_workers=1, multiprocessing_context="spawn")
    assert found == expected(dp.StreamPruner(pruner.table, "id"), 1)
    assert pruner.counts[0] == SIZE


def test_a_restart_needs_the_epoch_alone(pruner, tmp_path):
    whole = [list(pruner(Stream().read(), epoch)) for epoch in range(5)]
    later = dp.StreamPruner(tmp_path / "table", sample_id)
    assert list(later(Stream().read(), 3)) == whole[3]
    assert len({len(kept) for kept in whole}) > 1  # the number varies


class Filtered(IterableDataset):
    def __init__(self, pruner: dp.StreamPruner) -> None:
        self.pruner = pruner

    def __iter__(self):
        return (number for number in range(30_000) if self.pruner.keeps(number))


def test_workers_of_two_loaders_at_once_are_all_counted(tmp_path):
    table = dp.InclusionTable.write(tmp_path / "table", [([0], [1.0])], weighted=True)
    pruner = dp.StreamPruner(table, key=int)
    pruner.set_epoch(0)
    loaders = [DataLoader(Filtered(pruner), batch_size=500, num_workers=1, prefetch_factor=20) for _ in range(2)]
    for _ in zip(*loaders, strict=True):
        pass
    assert pruner.counts == (60_000, 60_000, 59_998)


def test_seeds_draw_differently(pruner):
    other = dp.StreamPruner(pruner.table, "id", seed=1)
    assert expected(other, 0).keys() != expected(pruner, 0).keys()


@pytest.mark.parametrize(
    "policy",
    [SoftPrune(0.5), Importance(1.0, keep=0.5), PerClass(SoftPrune(0.5)), PerClass(Importance(2.0, 0.5), "equal")],
    ids=repr,
)
def test_the_mean_weighted_gradient_is_the_full_one(tmp_path, policy):
    """Of a logistic regression in float64: over 1,500 epochs its mean lies within 4.5 of its standard errors."""
    generator = torch.Generator().manual_seed(5)
    inputs = torch.randn(SIZE, 3, dtype=torch.float64, generator=generator)
    labels = (inputs[:, 0] + torch.randn(SIZE, dtype=torch.float64, generator=generator) > 0).long()
    at = torch.tensor([0.3, -0.2, 0.1], dtype=torch.float64)
    logits = inputs @ at
    difficulty = torch.nn.functional.softplus(torch.where(labels == 1, -logits, logits))
    gradients = ((logits.sigmoid() - labels)[:, None] * inputs).numpy()  # of each example
    table = dp.InclusionTable.build(tmp_path / "table", range(SIZE), policy, difficulty, labels)
    pruner = dp.StreamPruner(table, key=0)
    decided = [pruner.decide(np.arange(SIZE), epoch) for epoch in range(1_500)]
    estimates = np.stack([(keep * weight) @ gradients / SIZE for keep, weight in decided])
    full, error = gradients.mean(0), estimates.std(0) / len(estimates) ** 0.5
    assert (np.abs(estimates.mean(0) - full) < 4.5 * error).all()
    assert (error < 0.2 * np.abs(full).max()).all()
    unweighted = np.stack([keep @ gradients / keep.sum() for keep, _ in decided])
    assert (np.abs(unweighted.mean(0) - full) > 10 * unweighted.std(0) / len(decided) ** 0.5).any()


def test_scaled_steps_are_as_large_as_those_of_all_samples(tmp_path):
    """The mean weight of what is kept, times the scale, is 1 in the mean over epochs."""
    for policy in (SoftPrune(0.5), Importance(1.0, keep=0.3), Hardest(0.5)):
        pruner = dp.StreamPruner(table_of(tmp_path / "table", policy), "id")
        pruner.set_epoch(0)
        assert pruner.scale == (pruner.table.share if pruner.table.weighted else 1)
        decided = [pruner.decide(NAMES, epoch) for epoch in range(400)]
        means = np.array([weight[keep].mean() * pruner.scale for keep, weight in decided])
        assert abs(means.mean() - 1) < 4.5 * means.std() / 20 + 0.01  # a ratio of means is a little biased
    late = dp.StreamPruner(table_of(tmp_path / "late", SoftPrune(0.5, anneal=0.5, epochs=2)), "id")
    with pytest.raises(RuntimeError, match=r"call pruner\.set_epoch\(epoch\) first"):
        _ = late.scale
    for epoch, scale in ((0, late.table.share), (1, 1)):
        late.set_epoch(epoch)
        assert late.scale == scale


def test_samples_are_kept_as_often_as_the_table_says(pruner):
    kept = np.stack([pruner.decide(NAMES, epoch)[0] for epoch in range(400)])
    p = pruner.table.inclusion(NAMES).astype(float)
    spread = np.sqrt(p * (1 - p) / len(kept))
    assert (np.abs(kept.mean(0) - p) <= 4.5 * spread).all()
    numbers = kept.sum(1)
    assert abs(numbers.mean() - p.sum()) < 4.5 * numbers.std() / len(kept) ** 0.5
    assert 0.7 < numbers.var() / (p * (1 - p)).sum() < 1.4  # as of independent draws


def test_what_difficulty_decides_has_weight_1_and_ties_come_in_their_share(tmp_path):
    ids, difficulty = range(400), [1.0] * 100 + [0.5] * 200 + [0.0] * 100
    table = dp.InclusionTable.build(tmp_path / "table", ids, Hardest(0.5), difficulty)
    pruner = dp.StreamPruner(table, key=lambda sample: sample)
    kept = dict(pruner(ids))
    assert set(kept.values()) == {1.0}
    assert set(range(100)) < kept.keys() < set(range(300))
    assert 65 < len(kept) - 100 < 135
    assert dict(pruner(ids, epoch=9)) == kept  # as a sampler has the same plan in every epoch
    assert pruner.weight(0) == pruner.weight(150) == 1
    assert pruner.weight(399) == 0
    half = dp.InclusionTable.build(tmp_path / "half", ids, Random(0.5), difficulty)
    assert not half.redrawn


def test_late_epochs_see_all(tmp_path):
    table = table_of(tmp_path / "table", SoftPrune(0.5, anneal=0.25, epochs=8))
    pruner = dp.StreamPruner(table, "id")
    assert len(list(pruner(Stream(), 5))) < SIZE
    assert [weight for _, weight in pruner(Stream(), 6)] == [1.0] * SIZE
    pruner.set_epoch(7)
    assert {sample["weight"] for sample in pruner.prune(list(Stream().read()))} == {1.0}
    assert all(pruner.keeps(sample) and pruner.weight(sample) == 1 for sample in Stream().read())


def test_late_epochs_see_all_by_every_way_where_earlier_ones_leave_some_out(tmp_path):
    table = table_of(tmp_path / "table", EasyToHard(0.5, anneal=0.5, epochs=2))
    pruner = dp.StreamPruner(table, "id")
    samples = list(Stream().read())
    for epoch, number in ((0, SIZE // 2), (1, SIZE)):
        pruner.set_epoch(epoch)
        kept = list(pruner.pipe(samples))
        assert len(kept) == number
        assert {sample["weight"] for sample in kept} == {1.0}
        assert [pruner.attach(sample) for sample in samples if pruner.keeps(sample)] == kept
        assert pruner.prune(samples) == kept


@pytest.mark.parametrize("ahead", [1, 32])
def test_a_pass_that_has_begun_stays_in_its_epoch(pruner, tmp_path, ahead):
    pruner = dp.StreamPruner(pruner.table, "id", ahead=ahead)
    pruner.set_epoch(0)
    found = pruner.pipe(Stream().read())
    first = next(found)
    pruner.set_epoch(1)
    assert {sample["id"]: sample["weight"] for sample in [first, *found]} == expected(pruner, 0)


def test_unknown_samples_pass_and_are_counted(tmp_path):
    pruner = dp.StreamPruner(table_of(tmp_path / "table", known=200), "id")
    kept = {sample["id"]: weight for sample, weight in pruner(Stream(), 0)}
    assert {kept[name] for name in NAMES[200:]} == {1.0}
    assert pruner.counts.unknown == 40


def test_without_an_epoch_it_refuses_where_it_matters(pruner, tmp_path):
    for ask in (lambda: list(pruner(Stream())), lambda: pruner.keeps({"id": "a"}), lambda: pruner.decide(["a"])):
        with pytest.raises(RuntimeError, match=r"call pruner\.set_epoch\(epoch\) first"):
            ask()
    static = dp.StreamPruner(table_of(tmp_path / "static", Hardest(0.5)), "id")
    assert len(list(static(Stream()))) == SIZE // 2
    for bad, error in [(-1, ValueError), (0.5, TypeError), (True, TypeError)]:
        with pytest.raises(error, match="epoch: got"):
            pruner.set_epoch(bad)


def test_samples_of_any_form_carry_their_weight(tmp_path):
    table = dp.InclusionTable.write(tmp_path / "table", [([1], [0.5])], weighted=True)
    pair = namedtuple("pair", ["id", "x"])
    for sample, key, carried in [
        ((1, "x"), 0, (1, "x", 2.0)),
        (["x", 1], -1, ["x", 1, 2.0]),
        ({"id": torch.tensor(1)}, "id", {"id": torch.tensor(1), "weight": 2.0}),
        (pair(1, "x"), "id", (pair(1, "x"), 2.0)),
        (1, int, (1, 2.0)),
    ]:
        pruner = dp.StreamPruner(table, key)
        pruner.set_epoch(0)
        assert pruner.attach(sample) == carried
    named = dp.StreamPruner(table, "id", weight_key="w")
    named.set_epoch(0)
    assert named.attach({"id": 1, "weight": 9}) == {"id": 1, "weight": 9, "w": 2.0}


def test_bad_samples_and_keys_are_refused(pruner):
    pruner.set_epoch(0)
    for sample, error, message in [
        ({"name": "a"}, ValueError, r"key: got 'id', but a sample is a mapping with 'name'"),
        ((1, 2), ValueError, "key: got 'id', but a sample is a tuple of 2"),
        ({"id": 7}, TypeError, "ids: got 7, expected a text"),
        ({"id": 0.5}, TypeError, r"key 'id': got 0.5 for a sample"),
        ({"id": NAMES[0], "weight": 1}, ValueError, "the sample has a key 'weight' already"),
    ]:
        with pytest.raises(error, match=message):
            pruner.attach(sample)
    for key in (None, True, 1.5):
        with pytest.raises(TypeError, match="key: got"):
            dp.StreamPruner(pruner.table, key)
    with pytest.raises(ValueError, match="ahead: got 0, expected 1 or more"):
        dp.StreamPruner(pruner.table, "id", ahead=0)
    with pytest.raises(ValueError, match="seed: got -1"):
        dp.StreamPruner(pruner.table, "id", seed=-1)


def test_copies_see_the_same_epoch_and_pickles_start_alone(pruner):
    pruner.set_epoch(4)
    assert copy.deepcopy(pruner) is pruner
    twin = pickle.loads(pickle.dumps(pruner))  # noqa: S301 (made here)
    assert expected(twin, 4) == expected(pruner, 4)
    assert twin.keeps({"id": NAMES[0]}) == pruner.keeps({"id": NAMES[0]})
    assert repr(pruner).startswith("StreamPruner(InclusionTable(240 text ids, SoftPrune(keep=0.5")


def test_difficulty_of_another_run_is_what_the_table_holds(pruner):
    assert pruner.table.inclusion(NAMES).sum() == pytest.approx(SIZE / 2)
    assert bool((pruner.table.inclusion(NAMES)[DIFFICULTY.argmax()] == 1).all())
