"""The sampler: the kept examples, each once, in an order that the seed and the epoch fix."""

from __future__ import annotations

import copy
import pickle
import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import BatchSampler, DataLoader, TensorDataset

import difficulty_prune as dp
from difficulty_prune.policies.compose import PerClass
from difficulty_prune.policies.uniform import Easiest, Hardest, Random, Window

SIZE = 40
DIFFICULTY = torch.rand(SIZE, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
KEPT = sorted(DIFFICULTY.argsort(descending=True)[:20].tolist())  # Hardest(keep=0.5)


def make(policy=None, *, seed=0, epoch=0, **options):
    options = {"outside": "zero", **options}  # weights of all examples are looked at after visits too
    sampler = dp.PruneSampler(policy or Hardest(keep=0.5), DIFFICULTY, seed=seed, **options)
    sampler.set_epoch(epoch)
    return sampler


def order(**options):
    return tuple(make(**options))


# Order


def test_yields_the_plan_of_the_policy():
    sampler = make()
    assert sorted(sampler) == KEPT
    assert all(type(position) is int for position in sampler)
    assert len(sampler) == 20
    assert sampler.plan.index.tolist() == KEPT


def test_first_epoch_is_shuffled():
    assert list(order()) != KEPT
    assert list(order()) != KEPT[::-1]


def test_epochs_differ():
    orders = {order(epoch=epoch) for epoch in range(30)}
    assert len(orders) == 30
    assert all(sorted(one) == KEPT for one in orders)


def test_seeds_differ():
    assert len({order(seed=seed) for seed in range(30)}) == 30


def test_no_two_pairs_of_seed_and_epoch_share_an_order():
    assert len({order(seed=seed, epoch=epoch) for seed in range(8) for epoch in range(8)}) == 64


def test_order_depends_on_seed_and_epoch_alone():
    walked = make(seed=3)
    for epoch in (5, 0, 2):
        walked.set_epoch(epoch)
        list(walked)
    walked.set_epoch(4)
    torch.manual_seed(99)
    assert tuple(walked) == order(seed=3, epoch=4)
    assert tuple(walked) == order(seed=3, epoch=4)


def test_orders_mix_well():
    """Every example is about equally often in the first half of the epoch."""
    counts = torch.zeros(SIZE)
    for epoch in range(400):
        counts[list(order(epoch=epoch))[:10]] += 1
    assert ((counts[KEPT] - 200).abs() < 50).all()  # 5 standard deviations


def test_without_shuffle_the_order_ascends_in_every_epoch():
    for epoch in range(3):
        assert list(order(shuffle=False, epoch=epoch)) == KEPT


def test_seed_decides_ties_and_draws():
    plans = {tuple(make(Random(keep=0.5), seed=seed).plan.index.tolist()) for seed in range(20)}
    assert len(plans) == 20
    again = make(Random(keep=0.5), seed=7), make(Random(keep=0.5), seed=7, epoch=3)
    assert torch.equal(again[0].plan.index, again[1].plan.index)


@pytest.mark.parametrize("seed", [0, 1, 2**31, 2**32 - 1, 2**32, 2**40, 2**63 - 1])
def test_any_seed_gives_an_order(seed):
    sampler = make(seed=seed, epoch=1)
    assert sorted(sampler) == KEPT
    assert list(sampler) != KEPT


@pytest.mark.parametrize(
    "policy", [Hardest(0.3), Easiest(0.3), Window(0.1, 0.3), Random(0.3), PerClass(Hardest(0.3), "equal")], ids=repr
)
def test_takes_every_policy_and_says_what_it_keeps(policy):
    labels = torch.arange(SIZE) % 4
    sampler = make(policy, labels=labels)
    assert sorted(sampler) == sampler.plan.index.tolist()
    assert len(sampler) == 12
    summary = sampler.plan.summary()
    assert (summary["kept"], summary["dropped"]) == (12, 28)
    assert sum(c["kept"] for c in summary["classes"].values()) == 12


def test_difficulty_is_taken_in_full_precision():
    difficulty = np.array([1.0, 1.0 + 1e-12, 0.0, 0.0])
    assert {tuple(dp.PruneSampler(Hardest(0.25), difficulty, seed=seed)) for seed in range(10)} == {(1,)}


# Iterators


def test_every_iterator_is_fresh():
    sampler = make()
    first, second = iter(sampler), iter(sampler)
    head = [next(first) for _ in range(5)]
    assert [next(second) for _ in range(20)] == head + list(first)
    with pytest.raises(StopIteration):
        next(first)
    assert len(list(sampler)) == 20


def test_a_running_epoch_is_not_disturbed_by_the_next():
    sampler = make()
    running = iter(sampler)
    head = [next(running) for _ in range(3)]
    sampler.set_epoch(1)
    assert tuple(head + list(running)) == order(epoch=0)
    assert tuple(sampler) == order(epoch=1)


def test_batch_sampler_gives_whole_epochs_again_and_again():
    sampler = make()
    batches = BatchSampler(sampler, batch_size=6, drop_last=False)
    assert len(batches) == 4
    for epoch in range(3):
        sampler.set_epoch(epoch)
        assert tuple(i for batch in batches for i in batch) == order(epoch=epoch)


@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")  # machines with one core
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")  # Python 3.12 and later
@pytest.mark.parametrize(("workers", "persistent"), [(0, False), (2, False), (2, True)])
def test_loader_visits_each_kept_example_once_per_epoch(workers, persistent):
    dataset = dp.IndexedDataset(TensorDataset(torch.arange(SIZE) * 10, torch.arange(SIZE) % 4))
    sampler = make()
    loader = DataLoader(dataset, batch_size=7, sampler=sampler, num_workers=workers, persistent_workers=persistent)
    assert len(loader) == 3
    for epoch in range(3):
        sampler.set_epoch(epoch)
        visited = []
        for x, y, index in loader:
            assert torch.equal(x, index * 10)
            assert torch.equal(y, index % 4)
            assert sampler.weight(index).tolist() == [1.0] * len(index)
            visited += index.tolist()
        assert tuple(visited) == order(epoch=epoch)


# Weights


def test_weight_is_one_for_kept_examples_and_zero_for_others():
    sampler = make()
    weight = sampler.weight(torch.arange(SIZE))
    assert weight.dtype == torch.float32
    assert weight.tolist() == [1.0 if i in KEPT else 0.0 for i in range(SIZE)]


def test_weight_follows_the_index():
    index = torch.tensor([KEPT[3], KEPT[3], next(i for i in range(SIZE) if i not in KEPT), KEPT[0]])
    assert make().weight(index).tolist() == [1.0, 1.0, 0.0, 1.0]
    assert make().weight(index, device="cpu").device.type == "cpu"
    assert make().weight(torch.empty(0, dtype=torch.int64)).shape == (0,)


def test_weight_is_that_of_the_plan():
    def weighted(difficulty, labels=None, generator=None):
        return dp.Plan(torch.tensor([3, 1]), torch.tensor([0.5, 4.0]), {"policy": "mine"})

    sampler = dp.PruneSampler(weighted, torch.zeros(5))
    assert sampler.weight(torch.arange(5)).tolist() == [0.0, 4.0, 0.0, 0.5, 0.0]


def test_weights_handed_out_are_copies():
    sampler = make()
    sampler.weight(torch.tensor(KEPT)).zero_()
    assert sampler.weight(torch.tensor(KEPT)).sum() == 20


# Copies


@pytest.mark.parametrize("duplicate", [lambda s: pickle.loads(pickle.dumps(s)), copy.deepcopy], ids=["pickle", "copy"])  # noqa: S301
def test_a_copy_goes_on_alike(duplicate):
    sampler = make(PerClass(Random(0.5)), labels=torch.arange(SIZE) % 2, seed=5, epoch=3)
    index = torch.arange(SIZE)
    weight = sampler.weight(index)
    twin = duplicate(sampler)
    assert tuple(twin) == tuple(sampler)
    assert torch.equal(twin.weight(index), weight)
    assert twin.plan.summary() == sampler.plan.summary()
    twin.set_epoch(4)
    assert tuple(twin) != tuple(sampler)


# Shares of several processes


@settings(deadline=None, max_examples=50)
@given(
    kept=st.integers(1, SIZE),
    world_size=st.integers(1, 9),
    epoch=st.integers(0, 5),
    shuffle=st.booleans(),
    data=st.data(),
)
def test_shares_are_disjoint_and_of_equal_length(kept, world_size, epoch, shuffle, data):
    world_size = min(world_size, kept)
    policy = data.draw(st.sampled_from([Hardest(kept / SIZE), Random(kept / SIZE)]))
    options = {"shuffle": shuffle, "epoch": epoch, "world_size": world_size}
    samplers = [make(policy, rank=rank, **options) for rank in range(world_size)]
    shares = [list(sampler) for sampler in samplers]
    everything = [i for share in shares for i in share]
    assert [len(share) for share in shares] == [kept // world_size] * world_size
    assert [len(sampler) for sampler in samplers] == [kept // world_size] * world_size
    assert len(set(everything)) == len(everything)
    assert set(everything) <= set(make(policy).plan.index.tolist())


def test_shares_together_are_the_epoch_of_one_process():
    whole = list(order(epoch=2))
    shares = [list(order(epoch=2, rank=rank, world_size=4)) for rank in range(4)]
    assert [i for turn in zip(*shares, strict=True) for i in turn] == whole


def test_left_over_examples_differ_between_epochs():
    left = []
    for epoch in range(20):
        visited = {i for rank in range(3) for i in order(epoch=epoch, rank=rank, world_size=3)}
        left.append(frozenset(KEPT) - visited)
    assert {len(one) for one in left} == {2}
    assert len(set(left)) > 10
    assert len(frozenset.union(*left)) > 10


def test_an_uneven_share_is_refused_when_nothing_would_be_left():
    with pytest.raises(ValueError, match=r"world_size: got 21.*only 20"):
        make(rank=0, world_size=21)
    assert len(make(rank=19, world_size=20)) == 1


# Global state


def test_no_global_generator_is_touched():
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002
    random.seed(1)

    def state():
        legacy = np.random.get_state()  # noqa: NPY002
        return (
            torch.get_rng_state().tolist(),
            [x.tolist() if hasattr(x, "tolist") else x for x in legacy],
            random.getstate(),
        )

    before = state()
    for policy in (Hardest(0.5), Random(0.5), PerClass(Random(0.5))):
        sampler = make(policy, labels=torch.arange(SIZE) % 2)
        for epoch in range(2):
            sampler.set_epoch(epoch)
            list(sampler)
        sampler.weight(torch.arange(3))
    assert state() == before


# Large datasets


def test_positions_beyond_single_precision_survive(tmp_path):
    """Whole numbers above 2 ** 24 are no longer exact in float32; the positions of examples must be."""
    size = 2**24 + 10
    hard = [0, 2**24 - 1, *range(2**24, size)]
    difficulty = torch.zeros(size)
    difficulty[hard] = torch.arange(1.0, len(hard) + 1)
    sampler = dp.PruneSampler(Hardest(keep=len(hard) / size), difficulty, outside="zero")
    del difficulty
    assert len(sampler) == 12
    assert sorted(sampler) == hard
    assert list(sampler) != hard
    assert sampler.weight(torch.tensor([2**24 + 1, 2**24 - 2, 2**24 + 9])).tolist() == [1.0, 0.0, 1.0]
    sampler.plan.save(tmp_path / "plan.safetensors")
    assert dp.Plan.load(tmp_path / "plan.safetensors").index.tolist() == hard
