"""One of several processes that each own a part; `test_partition.py` starts them and checks what they leave.

python partition_process.py RANK WORLD FOLDER SCENARIO
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

import difficulty_prune as dp
from difficulty_prune.policies.compose import PerClass
from difficulty_prune.policies.stratified import Stratified
from difficulty_prune.policies.uniform import Easiest, Hardest, Random, Window
from difficulty_prune.policies.weighted import Importance, SoftPrune
from difficulty_prune.policies.without_wrong import WithoutWrong

SIZE, CLASSES, WORLD, EPOCHS = 301, 5, 4, 4
POLICIES = {
    "hardest": Hardest(0.3),
    "easiest": Easiest(0.5),
    "window": Window(0.1, 0.4),
    "random": Random(0.3),
    "stratified": Stratified(0.4, drop_hardest=0.2, strata=7),
    "soft": SoftPrune(0.6),
    "importance": Importance(1.5, keep=0.3),
    "per class": PerClass(Window(0.2, 0.5)),
    "per class, soft": PerClass(SoftPrune(0.5), "equal"),
    "per class, importance": PerClass(Importance(1.0, keep=0.5)),
    "without wrong": WithoutWrong(PerClass(Hardest(0.4)), wrong=0.1),
}
SCORES = ("loss", "el2n", "forgetting", "dyn_unc", "recent_loss", "vog_loss")
SOFT = PerClass(SoftPrune(keep=0.6, anneal=0.25, epochs=EPOCHS))
ESTIMATES = 150

_random = torch.Generator().manual_seed(0)
DIFFICULTY = torch.randn(SIZE, generator=_random, dtype=torch.float64).round(decimals=1)
LABELS = torch.randint(CLASSES, (SIZE,), generator=_random)
OWNER = (
    torch.randint(WORLD, (SIZE,), generator=_random).clamp(min=1).sub(1)
)  # the first has twice as many, the last none
OWNER[:8] = 3
NAMES = [f"sample {i}" for i in range(SIZE)]
GRADIENTS = torch.randn(24, 3, generator=_random, dtype=torch.float64)


def part_of(shard: Any) -> Tensor:
    return torch.as_tensor(shard, dtype=torch.int64)


def plans(partition: dp.Partition, own: Tensor, difficulty: Tensor = DIFFICULTY) -> dict[str, Any]:
    """Of each policy what this process keeps: positions in the whole dataset, weights and the summary."""
    found = {}
    for name, policy in POLICIES.items():
        plan = partition.plan(policy, difficulty[own], LABELS[own], seed=(3, 1))
        found[name] = {"index": own[plan.index], "weight": plan.weight, "summary": dict(plan.summary())}
    return found


def planning(rank: int, folder: Path) -> None:
    """Every policy, by four processes and by two, with even shares and uneven ones, of numbers and of texts."""
    pairs = [dist.new_group([0, 1]), dist.new_group([2, 3])]
    unseen = DIFFICULTY.clone()
    unseen[::7] = torch.nan
    for name, group in (("four", dist.group.WORLD), ("two", pairs[rank // 2])):
        split = dp.Partition.split(SIZE, group)
        torch.save(plans(split, part_of(split.ids)), folder / f"split {name}-{rank}.pt")
    own = (rank == OWNER).nonzero()[:, 0]
    own = own[torch.randperm(len(own))]  # which no plan depends on
    named = dp.Partition([NAMES[i] for i in own.tolist()], dist.group.WORLD)
    torch.save(plans(named, own), folder / f"named-{rank}.pt")
    plan = split.plan(SoftPrune(0.5), unseen[part_of(split.ids)], seed=1)
    torch.save({"index": part_of(split.ids)[plan.index], "weight": plan.weight}, folder / f"unseen-{rank}.pt")


def example(index: Tensor, epoch: int) -> tuple[Tensor, Tensor]:
    """(logits, images) of examples of the whole dataset in an epoch, whoever shows them."""
    place = index[:, None].double()
    logits = torch.sin(place * torch.arange(1, CLASSES + 1) * (1 + epoch)).float() * 3
    images = torch.cos(place[:, :, None, None] * torch.arange(1, 13).view(1, 1, 3, 4) + epoch).float()
    return logits, images


def show(tracker: dp.DifficultyTracker, index: Tensor, places: Tensor, epoch: int) -> None:
    """A step: examples `index` of the whole dataset, at their places in this process."""
    logits, images = example(index, epoch)
    tracker.update(places, logits, LABELS[index])
    x = tracker.watch(images, places)
    (x.square().sum((1, 2, 3)) * (1 + index)).mean().backward()


def learner(partition: dp.Partition | None, size: int | None = None) -> dp.DifficultyTracker:
    options = {"temporal": dp.TemporalOptions(window=3), "mean_probabilities": True}
    return dp.DifficultyTracker(size, SCORES, partition=partition, **options)


def trained(partition: dp.Partition, folder: Path | None = None) -> list[dict[str, Tensor]]:
    """Epochs of a training; stops in the middle of the third where there is a folder to leave the state in."""
    own = part_of(partition.ids)
    tracker = learner(partition)
    sampler = dp.PruneSampler(SOFT, tracker.source("loss"), labels=LABELS[own], seed=2)
    return go_on(partition, tracker, sampler, 0, folder)


def go_on(
    partition: dp.Partition, tracker: dp.DifficultyTracker, sampler: dp.PruneSampler, first: int, folder: Path | None
) -> list[dict[str, Tensor]]:
    own, visits = part_of(partition.ids), []
    for epoch in range(first, EPOCHS):
        sampler.set_epoch(epoch)
        consumed, seen = sampler.start, []
        for places in torch.tensor(list(sampler)).split(10):
            if folder is not None and epoch == 2 and consumed == 20:
                states = {"tracker": tracker.state_dict(), "sampler": sampler.state_dict(consumed=consumed)}
                torch.save(states, folder / f"state-{dist.get_rank()}.pt")
                visits.append({"index": torch.cat(seen), "length": torch.tensor(len(sampler))})
                return visits
            show(tracker, own[places], places, epoch)
            seen.append(own[places])
            consumed += len(places)
        index = torch.cat(seen)
        places = torch.searchsorted(own, index)
        visits.append({
            "index": index, "length": torch.tensor(len(sampler)), "weight": sampler.weight(places),
            "plan": own[sampler.plan.index], "plan weight": sampler.plan.weight,
        })  # fmt: skip
    return visits


def training(rank: int, folder: Path) -> None:
    """Cut off in mid-epoch; resumed by the same four, by three and by two."""
    torch.save(trained(dp.Partition.split(SIZE, dist.group.WORLD), folder), folder / f"visited-{rank}.pt")
    dist.barrier()
    for world in (4, 3, 2):
        group = dist.new_group(list(range(world)))
        if rank < world:
            torch.save(resumed(dp.Partition.split(SIZE, group), folder, world), folder / f"resumed {world}-{rank}.pt")
        dist.barrier()


def resumed(partition: dp.Partition, folder: Path, world: int) -> dict[str, Any]:
    own = part_of(partition.ids)
    tracker = learner(partition)
    sampler = dp.PruneSampler(SOFT, tracker.source("loss"), labels=LABELS[own], seed=2)
    states = [torch.load(folder / f"state-{r}.pt", weights_only=True, mmap=True) for r in range(WORLD)]
    if world == WORLD:
        tracker.load_state_dict(states[partition.rank]["tracker"])
        sampler.load_state_dict(states[partition.rank]["sampler"])
    else:
        try:
            tracker.load_state_dict(states[partition.rank]["tracker"])
        except ValueError as error:
            (folder / f"other state {world}-{partition.rank}.txt").write_text(str(error))
        tracker.load_parts(state["tracker"] for state in states)
        sampler.load_parts(state["sampler"] for state in states)
    loaded = {name: values.clone() for name, values in tracker.compute().items()}
    facts = {"own": own, "loaded": loaded, "skipped": tracker.skipped, "age": tracker.age()}
    facts["means"] = tracker.mean_probabilities()
    facts["visits"] = go_on(partition, tracker, sampler, 2, None)
    facts["scores"] = tracker.compute()
    return facts


def estimating(rank: int, folder: Path) -> None:
    """The full gradient, from shares of which one keeps three times as many as the other."""
    group = dist.new_group([0, 1])
    if rank < 2:
        own = torch.arange(18) if rank == 0 else torch.arange(18, 24)
        partition = dp.Partition(own, group)
        sampler = dp.PruneSampler(SoftPrune(0.5), GRADIENTS[own].norm(dim=1), partition=partition)
        means = []
        for epoch in range(ESTIMATES):
            sampler.set_epoch(epoch)
            share = torch.tensor(list(sampler))
            mean = (sampler.weight(share)[:, None] * GRADIENTS[own][share]).mean(0)
            dist.all_reduce(mean, group=group)
            means.append(sampler.plan.summary()["kept_share"] * mean / 2)
        torch.save(torch.stack(means), folder / f"estimates-{rank}.pt")


def refusing(rank: int, folder: Path) -> None:
    """What one process gets wrong is an error in all of them, before any work."""
    world = dist.group.WORLD
    partition = dp.Partition.split(40, world)
    own, odd = part_of(partition.ids), rank == 2

    def plan(policy: Any, difficulty: Tensor, **options: Any) -> Callable[[], object]:
        return lambda: partition.plan(policy, difficulty, **options)

    def off_plan() -> None:
        if odd:  # as an accelerator counts them
            static._off_plan_on[torch.device("cpu")] = torch.tensor(3)
        static.set_epoch(1)

    values = torch.arange(40.0)[own]
    static = dp.PruneSampler(Hardest(0.9), values, partition=partition)
    attempts: dict[str, Callable[[], object]] = {
        "size": lambda: dp.Partition.split(40 + odd, world),
        "shared": lambda: dp.Partition([rank, 10, 11 + rank] if rank in (1, 2) else [50 + rank], world),
        "kinds": lambda: dp.Partition(["a"] if odd else [rank], world),
        "none": lambda: dp.Partition([] if odd else [rank], world),
        "policy": plan(Hardest(0.5 + odd / 10), values),
        "seed": plan(Hardest(0.5), values, seed=int(odd)),
        "labels": plan(Hardest(0.5), values, labels=None if odd else own % 3),
        "length": plan(Hardest(0.5), values[: 9 if odd else 10]),
        "unseen": plan(Hardest(0.5), values.masked_fill(own == 6, torch.nan)),
        "nobody": plan(Hardest(0.5), values - 100 * odd),
        "class": plan(Hardest(0.5), values, labels=own // 20),
        "tracker": lambda: dp.DifficultyTracker(None, ("loss", "el2n") if odd else ("loss",), partition=partition),
        "sampler": lambda: dp.PruneSampler(Random(0.5), values, partition=partition, shuffle=not odd),
        "share": lambda: dp.DifficultyTracker(10 + odd, ("loss",), partition=partition),
        "dataset": lambda: dp.PruneSampler(Random(0.5), values, partition=partition, dataset=range(10 + odd)),
        "own error": lambda: partition.together(lambda: {"part": 1}["no such part" if odd else "part"]),
        "epoch": lambda: static.set_epoch(1 + odd),
        "epoch left": lambda: static.set_epoch(int(odd)),  # the others stay in the present one
        "off plan": off_plan,
        "unseen option": plan(Hardest(0.5, unseen="keep" if odd else "refuse"), values),
        "position": lambda: static.load_state_dict(static.state_dict(consumed=4 + odd)),
        "own policy": lambda: dp.PruneSampler(refusing, values, partition=partition),
    }
    for name, attempt in attempts.items():
        try:
            attempt()
        except (TypeError, ValueError, KeyError, RuntimeError) as error:
            (folder / f"refused {name}-{rank}.txt").write_text(f"{type(error).__name__}: {error}")


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(8, 16), nn.Linear(16, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.up(x).relu()).clone()  # of a view FSDP warns


def sharding(rank: int, folder: Path) -> None:
    """`fully_shard` alone, and over a 2 x 2 mesh of data and tensor parallelism; whole tables, too."""
    x = torch.randn(SIZE, 8, generator=torch.Generator().manual_seed(1)) + 2 * F.one_hot(LABELS, 8)
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("data", "tensor"))
    for name in ("fsdp", "mesh", "replicated"):
        torch.manual_seed(0)
        model: nn.Module = Block()
        group = dist.group.WORLD if name == "fsdp" else mesh.get_group("data")
        if name == "fsdp":
            fully_shard(model, mesh=init_device_mesh("cpu", (WORLD,)))
        else:
            plan = {"up": ColwiseParallel(), "down": RowwiseParallel()}
            parallelize_module(model, mesh["tensor"], plan)
            fully_shard(model, mesh=mesh["data"])
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        if name == "replicated":
            shard = torch.arange(SIZE)
            tracker = dp.DifficultyTracker(SIZE, ("loss",), process_group=group)
            options = {"rank": dist.get_rank(group), "world_size": 2}
        else:
            partition = dp.Partition.split(SIZE, group)
            shard, options = part_of(partition.ids), {}
            tracker = dp.DifficultyTracker(None, ("loss",), partition=partition)
        sampler = dp.PruneSampler(SoftPrune(0.6), tracker.source("loss"), **options)
        losses, visits = [], []
        for epoch in range(3):
            sampler.set_epoch(epoch)
            of_epoch = []
            for places in torch.tensor(list(sampler)).split(16):
                logits = model(x[shard[places]])
                labels = LABELS[shard[places]]
                tracker.update(places, logits.detach(), labels)
                loss = (F.cross_entropy(logits, labels, reduction="none") * sampler.weight(places)).mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                of_epoch.append(float(loss.detach()))
            losses.append(sampler.plan.summary()["kept_share"] * sum(of_epoch) / len(of_epoch))
            visits.append(shard[sampler.plan.index])
        torch.save({"losses": losses, "visits": visits, "records": tracker.num_examples}, folder / f"{name}-{rank}.pt")


def impatient(seconds: int = 4) -> Any:
    """A group with a short time-out, made when all processes are there."""
    dist.barrier()
    return dist.new_group(timeout=timedelta(seconds=seconds))


def uneven(rank: int, folder: Path) -> None:
    """The first process makes no step, the others 8, 16 and 24: a step that waits for all of them times out."""
    partition = dp.Partition.split(SIZE, impatient(10))
    own = part_of(partition.ids)
    tracker = learner(partition)
    if rank == 0:
        return
    try:
        for epoch in range(rank):
            for places in torch.arange(len(own)).split(10):
                show(tracker, own[places], places, epoch)
        torch.save({"own": own, "scores": tracker.compute()}, folder / f"uneven-{rank}.pt")
    except RuntimeError as error:
        (folder / f"waited-{rank}.txt").write_text(str(error))


def ending(rank: int, folder: Path, last: Callable[[], None]) -> None:
    partition = dp.Partition.split(20, impatient())
    tracker = dp.DifficultyTracker(None, ("loss",), partition=partition)
    sampler = dp.PruneSampler(SoftPrune(0.5), tracker.source("loss"))
    tracker.update(torch.arange(10), loss=torch.arange(10.0))
    if rank == 1:
        last()
    try:
        sampler.set_epoch(1)
    except RuntimeError as error:
        (folder / "error.txt").write_text(str(error))
    os._exit(3)  # the group cannot be left in order


def dying(rank: int, folder: Path) -> None:
    """The second process ends without a word."""
    ending(rank, folder, lambda: os._exit(1))


def silent(rank: int, folder: Path) -> None:
    """The second process lives on, but does not plan: it ends when the test closes its input."""

    def last() -> None:
        sys.stdin.read()
        os._exit(0)

    ending(rank, folder, last)


def main() -> None:
    rank, world, folder, scenario = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), sys.argv[4]
    torch.set_num_threads(1)
    options = {"rank": rank, "world_size": world, "timeout": timedelta(seconds=120)}
    dist.init_process_group("gloo", f"file://{folder}/store", **options)
    scenarios = (planning, training, estimating, uneven, refusing, sharding, dying, silent)
    for name in scenario.split("+"):
        {function.__name__: function for function in scenarios}[name](rank, folder)
        dist.barrier()
    (folder / f"done-{rank}").touch()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
