"""One of two processes that train together; `test_process_group.py` starts it and checks what it leaves.

python group_process.py RANK FOLDER SCENARIO
"""

from __future__ import annotations

import os
import sys
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

import difficulty_prune as dp
from difficulty_prune.policies.compose import PerClass
from difficulty_prune.policies.weighted import Importance, SoftPrune

SIZE, CLASSES, STEPS, WORLD = 24, 5, 9, 2
LOGIT_SCORES = dp.score_names("loss", "logits")
TEMPORAL = dp.TemporalOptions(window=3)
LABELS = torch.arange(SIZE) % CLASSES
EPOCHS = 300
GRADIENTS = torch.randn(SIZE, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
DIFFICULTY = GRADIENTS.norm(dim=1)


def batch(step: int, rank: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(index, labels, logits, images) of a process in a step: uneven in the last one, with examples that come twice."""
    generator = torch.Generator().manual_seed(100 * step + rank)
    size = 4 if step < STEPS - 1 else 3 - 2 * rank
    index = torch.randint(SIZE, (size,), generator=generator)
    logits = torch.randn(size, CLASSES, generator=generator) * 3
    return index, LABELS[index], logits, torch.randn(size, 2, 3, 3, generator=generator)


def everyones_batch(step: int) -> list[Tensor]:
    """The batches of all processes as one, in the order of their ranks."""
    return [torch.cat(parts) for parts in zip(*(batch(step, rank) for rank in range(WORLD)), strict=True)]


def model() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(18, 8), nn.Tanh(), nn.Linear(8, CLASSES))


def record_logits(tracker: dp.DifficultyTracker, step: int, parts: list[Tensor]) -> None:
    index, labels, logits, _ = parts
    logits = logits.clone()
    logits[(index % 4 == 3) & (step % 4 == 2)] = torch.nan
    tracker.update(index, logits, labels)


def record_gradients(tracker: dp.DifficultyTracker, net: nn.Module, parts: list[Tensor]) -> None:
    index, labels, _, images = parts
    x = tracker.watch(images.requires_grad_(), index)
    logits = net(x)
    tracker.update(index, logits, labels, inputs=x)
    F.cross_entropy(logits, labels).backward()


def record_losses(tracker: dp.DifficultyTracker, parts: list[Tensor]) -> None:
    index, labels, logits, _ = parts
    tracker.update(index, loss=F.cross_entropy(logits, labels, reduction="none").double())


def trackers(process_group: object = None) -> dict[str, dp.DifficultyTracker]:
    return {
        "logits": dp.DifficultyTracker(SIZE, LOGIT_SCORES, temporal=TEMPORAL, process_group=process_group),
        "gradients": dp.DifficultyTracker(
            SIZE, ("el2n", *dp.score_names("input gradients")), process_group=process_group
        ),
        "losses": dp.DifficultyTracker(SIZE, ("loss",), process_group=process_group),
        "grand": dp.DifficultyTracker(SIZE, ("grand",), process_group=process_group),
    }


def record_all(recorders: dict[str, dp.DifficultyTracker], step: int, parts: list[Tensor]) -> None:
    net = model()
    record_logits(recorders["logits"], step, parts)
    record_gradients(recorders["gradients"], net, parts)
    record_losses(recorders["losses"], parts)
    index, labels, _, images = parts
    recorders["grand"].record(index, norms=dp.scores.grand(net.eval(), images.detach(), labels))


def facts(recorders: dict[str, dp.DifficultyTracker]) -> dict[str, object]:
    result: dict[str, object] = {}
    for name, tracker in recorders.items():
        result[name] = tracker.compute(allow_skipped=True)
        result[f"{name} skipped"] = tracker.skipped
        result[f"{name} presentations"] = tracker.presentations
        run = tracker.finish(architecture="mlp", seed=0, allow_skipped=True)
        result[f"{name} run"] = {score: torch.from_numpy(values.copy()) for score, values in run.scores.items()}
        result[f"{name} seen"] = run.seen is None or torch.from_numpy(run.seen.copy())
    return result


def recording(rank: int, folder: Path) -> None:
    """Every kind of score, stopped half-way and resumed from one saved state."""
    recorders = trackers(dist.group.WORLD)
    for step in range(STEPS // 2):
        record_all(recorders, step, list(batch(step, rank)))
    states = {name: tracker.state_dict() for name, tracker in recorders.items()}
    if rank == 0:
        torch.save(states, folder / "states.pt")
    dist.barrier()
    recorders = trackers(dist.group.WORLD)
    for name, state in torch.load(folder / "states.pt", weights_only=True).items():
        recorders[name].load_state_dict(state)
    for step in range(STEPS // 2, STEPS):
        record_all(recorders, step, list(batch(step, rank)))
    torch.save(facts(recorders), folder / f"facts-{rank}.pt")


def planning(rank: int, folder: Path) -> None:
    """Both processes plan the same epochs, from losses of which each has computed a part."""
    tracker = dp.DifficultyTracker(SIZE, ("loss",), process_group=dist.group.WORLD)
    policy = PerClass(SoftPrune(keep=0.6, anneal=0.25, epochs=5))
    sampler = dp.PruneSampler(policy, tracker.source("loss"), labels=LABELS, rank=rank, world_size=WORLD)
    visited = []
    for epoch in range(5):
        sampler.set_epoch(epoch)
        share = torch.tensor(list(sampler))
        visited.append({"share": share, "digest": sampler.plan.digest, "weight": sampler.weight(share)})
        for index in share.split(4):
            tracker.update(index, loss=(index * 7 % 11 + epoch).float())
    torch.save(visited, folder / f"visited-{rank}.pt")
    try:
        dp.PruneSampler(policy, dp.DifficultyTracker(SIZE, ("loss",)).source("loss"), rank=rank, world_size=WORLD)
    except ValueError as error:
        (folder / f"refused-{rank}.txt").write_text(str(error))


def estimating(rank: int, folder: Path) -> None:
    """The full gradient, estimated from the shares of both processes in many epochs, each with an example left over."""
    estimates = {}
    for name, policy in (("soft", SoftPrune(keep=15 / SIZE)), ("importance", Importance(keep=15 / SIZE))):
        sampler = dp.PruneSampler(policy, DIFFICULTY, rank=rank, world_size=WORLD)
        means = []
        for epoch in range(EPOCHS):
            sampler.set_epoch(epoch)
            share = torch.tensor(list(sampler))
            mean = (sampler.weight(share)[:, None] * GRADIENTS[share]).mean(0)
            dist.all_reduce(mean)  # as DistributedDataParallel does
            means.append(len(sampler.plan) / SIZE * mean / WORLD)
        estimates[name] = torch.stack(means)
    torch.save(estimates, folder / f"estimates-{rank}.pt")


def suggesting_trackers(process_group: object = None) -> dict[str, dp.DifficultyTracker]:
    options = {"mean_probabilities": True, "half_life": 0.7, "process_group": process_group}
    return {
        "labels": dp.DifficultyTracker(SIZE, ("recent_loss", "dyn_unc", "dual"), temporal=TEMPORAL, **options),
        "views": dp.DifficultyTracker(SIZE, ("recent_loss",), **options),
        "gradients": dp.DifficultyTracker(SIZE, ("vog_loss",), **options),
    }


def record_suggestions(recorders: dict[str, dp.DifficultyTracker], step: int, parts: list[Tensor]) -> None:
    index, labels, logits, _ = parts
    logits = logits.clone()
    logits[(index % 4 == 3) & (step % 4 == 2)] = torch.nan
    labels = torch.where((index % 5 == 0) & (step % 3 == 1), (labels + 1) % CLASSES, labels)
    for name in ("labels", "gradients"):
        recorders[name].update(index, logits, labels)
    views, owner = torch.cat([logits, logits.flip(1)]), torch.arange(len(index)).repeat(2)
    recorders["views"].update(index, views, labels.repeat(2), owner=owner)


def suggestions(recorders: dict[str, dp.DifficultyTracker]) -> dict[str, object]:
    result: dict[str, object] = {}
    for name, tracker in recorders.items():
        result[f"{name} means"] = tracker.mean_probabilities(allow_skipped=True)
        result[f"{name} suggested"] = tracker.suggested(allow_skipped=True)
        result[f"{name} age"] = tracker.age()
        if "recent_loss" in tracker.scores:
            result[f"{name} recent_loss"] = tracker.compute(scores=("recent_loss",), allow_skipped=True)["recent_loss"]
    return result


def suggesting(rank: int, folder: Path) -> None:
    """Mean probabilities, recent losses and ages, stopped half-way and resumed from one saved state."""
    recorders = suggesting_trackers(dist.group.WORLD)
    for step in range(STEPS // 2):
        record_suggestions(recorders, step, list(batch(step, rank)))
    if rank == 1:  # nothing is exchanged to save a state, unless gradients are scored
        torch.save({n: t.state_dict() for n, t in recorders.items() if n != "gradients"}, folder / "suggesting.pt")
    dist.barrier()
    for name, state in torch.load(folder / "suggesting.pt", weights_only=True).items():
        recorders[name].load_state_dict(state)
    for step in range(STEPS // 2, STEPS):
        record_suggestions(recorders, step, list(batch(step, rank)))
    torch.save(suggestions(recorders), folder / f"suggestions-{rank}.pt")


def impatient_group() -> object:
    """A group with a short time-out, made when both processes are there, however long they took to start."""
    dist.barrier()
    return dist.new_group(timeout=timedelta(seconds=4))


def dying(rank: int, folder: Path) -> None:
    """The second process ends without a word."""
    tracker = dp.DifficultyTracker(SIZE, ("el2n",), process_group=impatient_group())
    for step in range(STEPS):
        if (rank, step) == (1, 2):
            os._exit(1)
        try:
            record_logits(tracker, 0, list(batch(step, rank)))
        except RuntimeError as error:
            (folder / "error.txt").write_text(f"step {step}: {error}")
            os._exit(3)  # the group cannot be left in order


def silent(rank: int, folder: Path) -> None:
    """The second process goes on to live, but does not take part: it ends only when the first one has."""
    tracker = dp.DifficultyTracker(SIZE, ("el2n",), process_group=impatient_group())
    record_logits(tracker, 0, list(batch(0, rank)))
    if rank == 1:
        sys.stdin.read()  # until the test closes it
        os._exit(0)
    try:
        record_logits(tracker, 0, list(batch(1, rank)))
    except RuntimeError as error:
        (folder / "error.txt").write_text(f"step 1: {error}")
    os._exit(3)


def growing(rank: int, folder: Path) -> None:
    """A batch that is larger than the first ones."""
    tracker = dp.DifficultyTracker(SIZE, ("loss",), process_group=dist.group.WORLD)
    tracker.update(torch.arange(3 + rank), loss=torch.ones(3 + rank))
    tracker.update(torch.arange(4), loss=torch.ones(4))
    try:
        tracker.update(torch.arange(5), loss=torch.ones(5))
    except ValueError as error:
        (folder / f"error-{rank}.txt").write_text(str(error))
    resumed = dp.DifficultyTracker(SIZE, ("loss",), process_group=dist.group.WORLD)
    resumed.load_state_dict(tracker.state_dict())
    for size in (1, 4):  # the short last batch of an epoch, then a full one
        resumed.update(torch.arange(size), loss=torch.ones(size))
    (folder / f"presentations-{rank}.txt").write_text(str(resumed.presentations))


def main() -> None:
    rank, folder, scenario = int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    torch.set_num_threads(1)
    options = {"rank": rank, "world_size": WORLD, "timeout": timedelta(seconds=120)}
    dist.init_process_group("gloo", f"file://{folder}/store", **options)
    for name in scenario.split("+"):
        {f.__name__: f for f in (recording, planning, growing, estimating, suggesting, dying, silent)}[name](
            rank, folder
        )
    (folder / f"done-{rank}").touch()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
