"""Prune while training in several processes, with DistributedDataParallel.

    torchrun --nproc-per-node 2 examples/ddp.py

Each process trains on its share of every epoch. The tracker exchanges the scores of each step, so every process knows
all of them and plans the same epoch, without further communication.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, TensorDataset

import difficulty_prune as dp

EPOCHS = 5


def main() -> None:
    rank, world_size = dist.get_rank(), dist.get_world_size()
    pixels, digits = load_digits(return_X_y=True)
    train = dp.IndexedDataset(TensorDataset(torch.from_numpy(pixels).float() / 16, torch.from_numpy(digits)))

    torch.manual_seed(0)
    model = DistributedDataParallel(nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    tracker = dp.DifficultyTracker(len(train), scores=("loss", "aum"), process_group=dist.group.WORLD)
    policy = dp.policies.SoftPrune(keep=0.7, anneal=0.2, epochs=EPOCHS)
    sampler = dp.PruneSampler(policy, tracker.source("loss"), seed=0, rank=rank, world_size=world_size)
    loader = DataLoader(train, batch_size=32, sampler=sampler)

    for epoch in range(EPOCHS):
        sampler.set_epoch(epoch)
        visited = []
        for x, y, index in loader:
            logits = model(x)
            tracker.update(index, logits, y)
            loss = F.cross_entropy(logits, y, reduction="none")
            optimizer.zero_grad()
            (loss * sampler.weight(index)).mean().backward()
            optimizer.step()
            visited += index.tolist()
        report(epoch, len(train), visited, sampler)

    run = tracker.finish(architecture="mlp", seed=0)  # in every process; save it in one
    if rank == 0:
        print(f"presentations {run.metadata['presentations']}, first loss {run.scores['loss'][0]:.4f}")
    dist.destroy_process_group()


def report(epoch: int, size: int, visited: list[int], sampler: dp.PruneSampler) -> None:
    """What all processes together did in an epoch."""
    ranks: list[tuple[list[int], str]] = [([], "")] * dist.get_world_size()
    dist.all_gather_object(ranks, (visited, sampler.plan.digest))
    together = [i for share, _ in ranks for i in share]
    if dist.get_rank() == 0:
        plans = len({plan for _, plan in ranks})
        shares = " + ".join(str(len(share)) for share, _ in ranks)
        twice = len(together) - len(set(together))
        print(f"epoch {epoch}: plans {plans}, visited {shares} of {size}, twice {twice}")


if __name__ == "__main__":
    dist.init_process_group("gloo")  # "nccl" on GPUs
    main()
