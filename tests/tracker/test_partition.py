"""Real processes that each own a part plan what one process plans that owns all, and train in step."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import partition_process
import pytest
import torch
from partition_process import (
    DIFFICULTY,
    EPOCHS,
    ESTIMATES,
    GRADIENTS,
    LABELS,
    NAMES,
    POLICIES,
    SCORES,
    SIZE,
    SOFT,
    WORLD,
    learner,
    show,
)

import difficulty_prune as dp
from difficulty_prune.policies.plan import Plan
from difficulty_prune.policies.uniform import Hardest, Random
from difficulty_prune.policies.weighted import SoftPrune

pytest.importorskip("xxhash", reason="xxhash is not installed")  # for ids that are texts

pytestmark = pytest.mark.usefixtures("one_thread")

ALL = torch.arange(SIZE)
REFUSED = "RuntimeError: process 2 of the group refused"


def start(folder: Path, world: int, scenario: str) -> list[subprocess.Popen]:
    script = Path(partition_process.__file__)
    pipes = {"stdin": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    command = [sys.executable, "-W", "error::UserWarning", script]
    return [subprocess.Popen([*command, str(r), str(world), folder, scenario], **pipes) for r in range(world)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What four processes leave that planned, trained, were refused, and sharded a model."""
    folder = tmp_path_factory.mktemp("partition")
    for rank, process in enumerate(start(folder, WORLD, "planning+training+estimating+uneven+refusing+sharding")):
        _, errors = process.communicate(timeout=400)
        assert (folder / f"done-{rank}").exists(), errors
    return folder


def left(folder, name, world=WORLD):
    return [torch.load(folder / f"{name}-{rank}.pt", weights_only=True) for rank in range(world)]


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("shares", ["split four", "split two", "named"])
def test_plans_are_those_of_one_process_bit_for_bit(folder, shares, policy):
    parts = [plans[policy] for plans in left(folder, shares, 2 if shares == "split two" else WORLD)]
    one = dp.Partition(NAMES) if shares == "named" else dp.Partition.split(SIZE)
    alone = one.plan(POLICIES[policy], DIFFICULTY, LABELS, seed=(3, 1))
    index = torch.cat([part["index"] for part in parts])
    order = index.argsort()
    assert torch.equal(index[order], alone.index)
    assert torch.cat([part["weight"] for part in parts])[order].numpy().tobytes() == alone.weight.numpy().tobytes()
    assert all(part["summary"] == dict(alone.summary()) for part in parts)
    assert alone.summary()["kept"] == len(alone) == len(POLICIES[policy](DIFFICULTY, LABELS))
    assert alone.summary()["classes"] is not None


def test_two_pairs_of_processes_plan_alike(folder):
    first, second, *others = left(folder, "split two")
    for own, other in zip((first, second), others, strict=True):
        assert all(torch.equal(own[name]["index"], other[name]["index"]) for name in POLICIES)


def test_the_seed_and_the_ids_decide_and_nothing_else():
    one = dp.Partition.split(SIZE)
    plan, again = (one.plan(Random(0.3), DIFFICULTY, seed=5) for _ in range(2))
    assert plan.digest == again.digest
    assert plan.digest != one.plan(Random(0.3), DIFFICULTY, seed=6).digest
    turned = dp.Partition(ALL.flip(0)).plan(Random(0.3), DIFFICULTY.flip(0), seed=5)
    assert torch.equal((SIZE - 1 - turned.index).sort().values, plan.index)


def test_unseen_examples_are_all_kept_beside_the_policys_part_of_the_others(folder):
    unseen = DIFFICULTY.clone()
    unseen[::7] = torch.nan
    parts = left(folder, "unseen", 2)
    alone = dp.Partition.split(SIZE).plan(SoftPrune(0.5), unseen, seed=1)
    index, order = torch.cat([part["index"] for part in parts]).sort()
    assert torch.equal(index, alone.index)
    assert torch.equal(torch.cat([part["weight"] for part in parts])[order], alone.weight)
    assert torch.isin(ALL[::7], index).all()
    assert alone.weight[torch.isin(index, ALL[::7])].eq(1).all()


def test_epochs_are_equally_long_everywhere_and_nobody_is_visited_twice(folder):
    visits = [part["visits"] for part in left(folder, "resumed 4")]
    for epoch in range(2, EPOCHS):
        of_epoch = [visit[epoch - 2] for visit in visits]
        assert len({int(visit["length"]) for visit in of_epoch}) == 1
        seen = torch.cat([visit["index"] for visit in of_epoch])
        assert len(seen.unique()) == len(seen)
        assert all(torch.isin(visit["index"], visit["plan"]).all() for visit in of_epoch)
        kept = [len(visit["plan"]) for visit in of_epoch]
        assert int(of_epoch[-1]["length"]) == min(kept)
        if epoch == EPOCHS - 1:  # the last sees all, of which there is one more in the first process
            assert kept == [76, 75, 75, 75]
            assert [float(visit["weight"][0]) for visit in of_epoch] == pytest.approx([k * 4 / SIZE for k in kept])


def test_a_training_that_is_resumed_by_as_many_visits_what_was_left(folder):
    for first, second in zip(left(folder, "visited"), left(folder, "resumed 4"), strict=True):
        before, after = first[2]["index"], second["visits"][0]["index"]
        assert len(before) == 20
        assert len(torch.cat([before, after]).unique()) == int(first[2]["length"]) == int(second["visits"][0]["length"])


def replay(visits) -> dp.DifficultyTracker:
    """One process that sees what all have seen, epoch by epoch; `visits` by epoch and process."""
    tracker = learner(None, SIZE)
    for epoch, of_epoch in visits:
        for part in of_epoch:
            for index in part["index"].split(10):
                show(tracker, index, index, epoch)
    return tracker


def assert_same(facts, tracker, kind):
    expected = tracker.compute()
    for part in facts:
        for name in SCORES:
            assert part[kind][name].numpy().tobytes() == expected[name][part["own"]].numpy().tobytes(), name


def test_nothing_is_exchanged_in_a_step(folder):
    """Each process makes another number of updates and backward passes, so none could wait for another."""
    assert [path.read_text() for path in folder.glob("waited-*")] == []
    for rank in range(1, WORLD):
        facts = torch.load(folder / f"uneven-{rank}.pt", weights_only=True)
        seen = {"index": facts["own"]}
        assert_same([facts], replay([(epoch, [seen]) for epoch in range(rank)]), "scores")


@pytest.mark.parametrize("world", [4, 3, 2])
def test_states_of_four_are_taken_over_by_any_number_bit_for_bit(folder, world):
    visited, facts = left(folder, "visited"), left(folder, f"resumed {world}", world)
    epochs = [(epoch, [part[epoch] for part in visited]) for epoch in range(3)]
    tracker = replay(epochs)
    assert_same(facts, tracker, "loaded")
    assert {len(part["own"]) for part in facts} <= {SIZE // world, SIZE // world + 1}
    means = tracker.mean_probabilities()
    for part in facts:
        assert part["means"].numpy().tobytes() == means[part["own"]].numpy().tobytes()
    # Each of the four made as many steps: what was presented in its last one has the age 0.
    latest = torch.cat([part[2]["index"][10:20] for part in visited])
    for part in facts:
        assert part["age"][torch.isin(part["own"], latest)].eq(0).all()
        assert part["age"][~torch.isin(part["own"], latest)].min() > 0
    on = [(epoch, [part["visits"][epoch - 2] for part in facts]) for epoch in range(2, EPOCHS)]
    assert_same(facts, replay(epochs + on), "scores")


@pytest.mark.parametrize("world", [3, 2])
def test_another_number_of_processes_visits_what_was_left_of_the_epoch(folder, world):
    visited, facts = left(folder, "visited"), left(folder, f"resumed {world}", world)
    whole = dp.Partition.split(SIZE).plan(SOFT, *remembered(visited), seed=(2, 0, 2)).index
    before = torch.cat([part[2]["index"] for part in visited])
    rest = [part["visits"][0] for part in facts]
    after = torch.cat([visit["index"] for visit in rest])
    assert len(torch.cat([before, after]).unique()) == len(before) + len(after)
    assert torch.isin(after, whole).all()
    assert len({int(visit["length"]) for visit in rest}) == 1
    assert len(after) > 0.8 * (WORLD * int(visited[0][2]["length"]) - len(before))  # the others are left over
    assert all("expected" not in text and "load_parts" in text for text in texts(folder, f"other state {world}", world))
    assert len({int(part["visits"][1]["length"]) for part in facts}) == 1
    assert int(facts[0]["visits"][1]["length"]) == SIZE // world


def remembered(visited):
    tracker = replay([(epoch, [part[epoch] for part in visited]) for epoch in range(2)])
    return tracker.source("loss")(), LABELS


def texts(folder, name, world=WORLD):
    return [(folder / f"{name}-{rank}.txt").read_text() for rank in range(world)]


def test_the_weighted_gradient_of_uneven_shares_is_unbiased(folder):
    first, second = left(folder, "estimates", 2)
    assert torch.equal(first, second)
    error = first.std(0) / ESTIMATES**0.5
    assert ((first.mean(0) - GRADIENTS.mean(0)).abs() < 4.5 * error).all()
    assert (error < 0.1).all()  # of gradients with a deviation of 1


@pytest.mark.parametrize(
    ("what", "message", "elsewhere"),
    [
        ("size", "ValueError: the partitions of the process group differ", None),
        ("shared", "ValueError: ids: 1 of 8 examples that were looked at are in two processes", None),
        ("kinds", "ValueError: the partitions of the process group differ", None),
        ("none", "ValueError: ids: got none", REFUSED),
        ("policy", "ValueError: the plans of the process group differ", None),
        ("seed", "ValueError: the plans of the process group differ", None),
        ("labels", "ValueError: the plans of the process group differ", None),
        (
            "length",
            "ValueError: difficulty: got 9 examples, expected 10",
            REFUSED,
        ),
        ("unseen", "ValueError: difficulty: 1 of 40 examples of all processes are NaN, 1 of 10 here", None),
        ("nobody", "keeps 20 of 40 examples, but none of process 2", None),
        ("class", "would drop class 0 entirely (20 examples)", None),
        ("tracker", "ValueError: the trackers of the process group differ", None),
        ("sampler", "ValueError: the samplers of the process group differ", None),
        ("share", "ValueError: num_examples: got 11, expected None or 10", REFUSED),
        ("dataset", "ValueError: difficulty: got 10 examples, but the dataset has 11", REFUSED),
        ("own error", "KeyError: 'no such part'", REFUSED),
        ("epoch", "ValueError: the samplers of the process group differ in epoch; that of process", None),
        ("epoch left", "ValueError: the samplers of the process group differ in epoch; that of process", None),
        ("off plan", "ValueError: weight: 3 examples are not in the plan", REFUSED),
        ("unseen option", "ValueError: the plans of the process group differ", None),
        ("position", "ValueError: the states of the process group differ", None),
        ("own policy", "TypeError: policy: got <function refusing", None),
    ],
)
def test_what_one_process_gets_wrong_is_an_error_in_all(folder, what, message, elsewhere):
    for rank, text in enumerate(texts(folder, f"refused {what}")):
        expected = elsewhere if elsewhere is not None and rank != 2 else message
        assert expected.replace("1 of 10", "0 of 10" if rank != 2 else "1 of 10") in text


@pytest.mark.parametrize(("name", "groups"), [("fsdp", [[0, 1, 2, 3]]), ("mesh", [[0, 2], [1, 3]])])
def test_a_sharded_model_trains_with_parts_of_the_group_of_data_parallelism(folder, name, groups):
    parts = left(folder, name)
    assert all(part["losses"][-1] < part["losses"][0] for part in parts)
    for epoch in range(3):
        plans = [torch.cat([parts[rank]["visits"][epoch] for rank in group]).sort().values for group in groups]
        assert all(torch.equal(plans[0], other) for other in plans)  # whoever shares the model sees the same
        assert len(plans[0].unique()) == len(plans[0]) == (SIZE if epoch == 0 else round(0.6 * SIZE))
    for group in zip(*groups, strict=True):  # who shares the model: the same batches, the same losses
        assert len({tuple(parts[rank]["losses"]) for rank in group}) == 1
    assert {part["records"] for part in parts} <= {SIZE // len(groups[0]), SIZE // len(groups[0]) + 1}


def test_a_sharded_model_trains_with_whole_tables_too(folder):
    parts = left(folder, "replicated")
    assert all(part["losses"][-1] < part["losses"][0] and part["records"] == SIZE for part in parts)
    for epoch in range(3):
        assert all(torch.equal(parts[0]["visits"][epoch], part["visits"][epoch]) for part in parts)


@pytest.mark.parametrize("scenario", ["dying", "silent"])
def test_a_process_that_is_lost_is_an_error_in_the_other_and_no_hang(tmp_path, scenario):
    first, second = start(tmp_path, 2, scenario)
    first.communicate(timeout=120)  # mostly to start; the time-out of the group is 4 s
    second.communicate(timeout=120)
    assert first.returncode == 3
    text = (tmp_path / "error.txt").read_text()
    assert "could not exchange with the others" in text
    assert "call set_epoch for every epoch" in text


# One process


def test_a_fixed_length_and_the_steps_of_a_training_are_those_of_the_whole():
    partition, difficulty = dp.Partition.split(40), torch.arange(40.0)
    assert len(dp.PruneSampler(Hardest(0.5), difficulty, partition=partition, fixed_length=12)) == 12
    policy = SoftPrune(0.5, anneal=0.5, epochs=4)
    parts, whole = (dp.PruneSampler(policy, difficulty, partition=which) for which in (partition, None))
    assert parts.total_steps(8, epochs=4) == whole.total_steps(8, epochs=4) == 3 + 3 + 5 + 5
    with pytest.raises(ValueError, match="fixed_length: got 0, expected at least 1"):
        dp.PruneSampler(Hardest(0.5), difficulty, partition=partition, fixed_length=0)


def test_a_tracker_has_just_the_records_of_its_part():
    partition = dp.Partition([30, 10, 20])
    tracker = dp.DifficultyTracker(None, ("loss",), partition=partition)
    tracker.update(torch.tensor([1]), loss=torch.tensor([2.0]))
    assert tracker.num_examples == 3
    assert tracker.finish(architecture="mlp", seed=0, allow_skipped=True).ids.tolist() == [30, 10, 20]
    assert repr(partition) == "Partition(3 of 3 examples, process 0 of 1)"


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: dp.Partition([1, 2, 1]), ValueError, "1 of 3 examples have an id that another one"),
        (lambda: dp.Partition(["a", "a"]), ValueError, "1 of 2 examples have an id that another one"),
        (lambda: dp.Partition([0.5]), TypeError, "expected text such as paths, or whole numbers"),
        (lambda: dp.Partition([1], "world"), TypeError, "process_group: got 'world'"),
        (lambda: dp.Partition.split(0), ValueError, "num_examples: got 0"),
        (lambda: dp.DifficultyTracker(4, partition=dp.Partition.split(3)), ValueError, "got 4, expected None or 3"),
        (lambda: dp.DifficultyTracker(4, partition="half"), TypeError, "partition: got str, expected dp.Partition"),
        (lambda: dp.PruneSampler(Random(0.5), [1.0], partition="half"), TypeError, "partition: got str"),
        (
            lambda: dp.PruneSampler(Random(0.5), [1.0, 2.0], partition=dp.Partition.split(2), rank=0, world_size=2),
            ValueError,
            "partition: got rank beside it",
        ),
        (
            lambda: dp.PruneSampler(
                Random(0.5), dp.DifficultyTracker(2).source("el2n"), partition=dp.Partition.split(2)
            ),
            ValueError,
            "its tracker has another partition",
        ),
        (
            lambda: dp.Partition.split(2).plan(Plan(torch.tensor([0]), torch.ones(1)), [0.0, 1.0]),
            TypeError,
            "cannot be planned by the processes of a partition",
        ),
        (lambda: dp.DifficultyTracker(2).load_parts([]), ValueError, "this tracker has no partition"),
        (lambda: dp.PruneSampler(Random(0.5), [1.0, 2.0]).load_parts([]), ValueError, "this sampler has no partition"),
    ],
)
def test_what_does_not_fit_is_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()


def states(names):
    """States of parts of one example each, by name."""
    found = {}
    for name in names:
        tracker = dp.DifficultyTracker(None, ("loss",), partition=dp.Partition([name]))
        tracker.update(torch.tensor([0]), loss=torch.ones(1))
        found[name] = tracker.state_dict()
    return found


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("a", "of 2 examples of this process 1 are in no state, 0 in several"),
        ("abb", "of 2 examples of this process 0 are in no state, 1 in several"),
        ("ab?", "does not say which examples it is of"),
    ],
)
def test_parts_that_do_not_make_a_whole_are_refused_and_nothing_changes(given, message):
    saved = states("ab") | {"?": dp.DifficultyTracker(1, ("loss",)).state_dict()}
    tracker = dp.DifficultyTracker(None, ("loss",), partition=dp.Partition(["a", "b"]))
    tracker.update(torch.tensor([0]), loss=torch.full((1,), 5.0))
    with pytest.raises(ValueError, match=message):
        tracker.load_parts(saved[name] for name in given)
    assert tracker.compute()["loss"].nan_to_num(0).tolist() == [5.0, 0.0]
    with pytest.raises(ValueError, match="of 1 examples that were another process's"):
        tracker.load_state_dict(saved["a"])
    with pytest.raises(ValueError, match="of a part of the examples"):
        dp.DifficultyTracker(1, ("loss",)).load_state_dict(saved["a"])


def test_a_state_of_a_sampler_says_whose_it_is():
    partition = dp.Partition.split(20)
    sampler = dp.PruneSampler(Hardest(0.5), torch.arange(20.0), partition=partition)
    state = sampler.state_dict(consumed=4)
    with pytest.raises(ValueError, match="of one process of a partition"):
        dp.PruneSampler(Hardest(0.5), torch.arange(20.0)).load_state_dict(state)
    other = dp.PruneSampler(Hardest(0.5), torch.arange(20.0), partition=dp.Partition(torch.arange(1, 21)))
    with pytest.raises(ValueError, match="of other examples than those of this process"):
        other.load_state_dict(state)
    sampler.load_state_dict(state)
    assert len(list(sampler)) == 6
    sampler.load_parts([state])
    assert len(list(sampler)) == len(sampler) == 6
    sampler.set_epoch(1)
    assert len(sampler) == 10
    sampler.load_parts([{**state, "yielded": 10}])  # an epoch that is over
    assert (list(sampler), sampler.epoch) == ([], 0)
    with pytest.raises(ValueError, match="expected all of one"):
        sampler.load_parts([])


@pytest.mark.parametrize("policy", [Hardest(0.5), SoftPrune(0.5)])
def test_the_epoch_after_one_that_was_cut_off_twice_has_a_plan_of_its_own(policy):
    partition, difficulty = dp.Partition.split(20), torch.arange(20.0)

    def make(policy=policy):
        return dp.PruneSampler(policy, difficulty, partition=partition)

    first, second, third = make(), make(), make()
    second.load_parts([first.state_dict(consumed=4)])
    assert len(second) == 6
    third.load_state_dict(second.state_dict(consumed=2))
    assert len(list(third)) == 4
    steps = third.total_steps(1, epochs=2) - len(third)
    first.set_epoch(1)
    third.set_epoch(1)
    assert third.plan.digest == first.plan.digest
    assert steps == len(third) == 10
    other = make(Hardest(0.2))
    other.load_state_dict(make(Hardest(0.5)).state_dict())
    other.set_epoch(1)
    assert len(other) == 4


def test_a_fixed_length_is_that_of_whole_epochs_and_of_the_rest_what_was_left():
    partition, difficulty = dp.Partition.split(20), torch.arange(20.0)

    def make():
        return dp.PruneSampler(Random(1.0), difficulty, partition=partition, fixed_length=16)

    first, second = make(), make()
    visited = list(first)[:10]
    second.load_parts([first.state_dict(consumed=10)])
    assert second.total_steps(1, epochs=3) == 6 + 16 + 16
    rest = list(second)
    assert len(second) == len(rest) == 6
    assert sorted(visited + rest) == sorted(set(first))
    assert second.weight(torch.tensor(rest)).eq(1).all()
    assert second.plan.summary()["kept_share"] == first.plan.summary()["kept_share"] == 1
    second.set_epoch(1)
    assert len(list(second)) == 16


def test_passes_over_the_plan_that_were_left_count_in_the_weights():
    def make():
        return dp.PruneSampler(Random(1.0), torch.arange(8.0), partition=dp.Partition.split(8), fixed_length=24)

    first, second = make(), make()
    left = torch.tensor(list(first)[10:]).bincount(minlength=8)
    second.load_parts([first.state_dict(consumed=10)])
    assert sorted(second) == left.nonzero()[:, 0].tolist()
    assert torch.equal(second.weight(torch.arange(8)), left.float())


@pytest.mark.parametrize("given", [[0], [1], [0, 0], [0, 1, 1]])
def test_a_sampler_wants_the_states_of_all_processes(given):
    states = []
    for process in range(2):
        own = dp.Partition([10 + process, 20 + process])
        state = dp.PruneSampler(Random(1.0), torch.arange(2.0), partition=own).state_dict()
        states.append({**state, "partition": {"process": process, "processes": 2, "examples": 4}})
    whole = dp.PruneSampler(Random(1.0), torch.arange(4.0), partition=dp.Partition([10, 11, 20, 21]))
    with pytest.raises(ValueError, match="expected those that all processes of one training saved at one time"):
        whole.load_parts(states[process] for process in given)
    whole.load_parts(states)
    assert len(whole) == 4


def test_every_score_is_taken_over_bit_for_bit():
    scores = dp.score_names("loss", "logits")
    logits = torch.randn(12, 6, 3, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(6) % 3

    def make(ids):
        options = {"temporal": dp.TemporalOptions(window=3), "mean_probabilities": True}
        return dp.DifficultyTracker(None, scores, partition=dp.Partition(ids), **options)

    parts = [make([5, 0, 3]), make([1, 2, 4])]
    alone, together = make(range(6)), make(range(6))
    for batch in logits:
        alone.update(torch.arange(6), batch, labels)
        for part in parts:
            own = torch.from_numpy(part.partition.ids)
            part.update(torch.arange(3), batch[own], labels[own])
    together.load_parts(part.state_dict() for part in parts)
    found, wanted = together.state_dict(), alone.state_dict()
    for name in ("table", "last_seen"):
        assert torch.equal(found[name], wanted[name])
    for part in ("temporal_records", "probabilities"):
        for name, values in wanted[part].items():
            if isinstance(values, torch.Tensor):
                assert torch.equal(found[part][name], values), name
    assert set(alone.compute()) == set(scores)


def test_positions_of_another_dataset_are_refused_and_names_are_not():
    def saved(partition):
        tracker = dp.DifficultyTracker(None, ("loss",), partition=partition)
        sampler = dp.PruneSampler(Hardest(0.5), torch.arange(float(len(partition))), partition=partition)
        return tracker, sampler

    longer, shorter = saved(dp.Partition.split(12)), saved(dp.Partition.split(10))
    for before, now in zip(longer, shorter, strict=True):
        with pytest.raises(ValueError, match="load_parts: the state is of a dataset of 12 examples, this one has 10"):
            now.load_parts([before.state_dict()])
    named = saved(dp.Partition(range(10)))
    for before, now in zip(longer, named, strict=True):
        now.load_parts([before.state_dict()])


def test_z_scores_within_the_class_need_the_whole_class(monkeypatch):
    partition = dp.Partition.split(2)
    tracker = dp.DifficultyTracker(None, ("loss",), partition=partition)
    monkeypatch.setattr(partition, "world_size", 2)
    with pytest.raises(ValueError, match="only its part of each class"):
        tracker.compute(class_normalized=True)


# How much is left over


class Shares(dp.Partition):
    """A process of several, of which the others are told what they keep."""

    @classmethod
    def of(cls, kept: list[int], size: int) -> Shares:
        partition = cls(range(size))
        partition.counts, partition.world_size = lambda own: kept, len(kept)
        return partition


@pytest.mark.parametrize("keep", [0.05, 0.5, 0.95])
@pytest.mark.parametrize("world", [2, 64])
def test_what_chance_leaves_over_is_no_warning(keep: float, world: int) -> None:
    generator = torch.Generator().manual_seed(0)
    for own in (1, 20, 400):
        for _ in range(20):
            kept = torch.rand(world * own, generator=generator).argsort() < max(world, round(keep * world * own))
            shares = kept.reshape(world, own).sum(1).tolist()
            visited, factor = Shares.of(shares, world * own).visits(shares[0])
            assert visited == min(shares)
            assert factor == shares[0] * world / sum(shares)


@pytest.mark.parametrize(("kept", "size"), [([188, 312], 1000), ([54, 496], 1100), ([400] * 7 + [300], 4000)])
def test_more_is_left_over_than_chance_explains(kept: list[int], size: int) -> None:
    message = f"of {sum(kept)} examples that are kept, only {min(kept) * len(kept)} are visited in each epoch"
    with pytest.warns(UserWarning, match=message):
        Shares.of(kept, size).visits(kept[0])
