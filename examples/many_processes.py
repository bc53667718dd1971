"""Prune in many processes, each with the records of its own examples alone, and a model that is sharded over them.

    torchrun --nproc-per-node 4 examples/many_processes.py --save checkpoint --until 3
    torchrun --nproc-per-node 2 examples/many_processes.py --resume checkpoint

Each process reads its own part of the data, in every epoch the same, and nothing is exchanged in a step but what the
model needs. `set_epoch` plans with all others: what is kept is what one process would keep. The second command goes on
with half as many processes.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.utils.data import DataLoader, Subset, TensorDataset

import difficulty_prune as dp

EPOCHS = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--save", type=Path, help="a folder for the state of all processes")
    parser.add_argument("--resume", type=Path, help="such a folder; the number of processes may be another")
    parser.add_argument("--until", type=int, default=EPOCHS, help="(default %(default)s)")
    options = parser.parse_args()

    # With tensor parallelism: a mesh (data, tensor), of which mesh.get_group("data") and mesh["data"] are given below.
    mesh = init_device_mesh("cpu", (dist.get_world_size(),), mesh_dim_names=("data",))  # "cuda" on GPUs
    pixels, digits = load_digits(return_X_y=True)
    whole = TensorDataset(torch.from_numpy(pixels).float() / 16, torch.from_numpy(digits))
    partition = dp.Partition.split(len(whole), mesh.get_group("data"))
    train = dp.IndexedDataset(Subset(whole, partition.ids.tolist()))

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    fully_shard(model, mesh=mesh)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    tracker = dp.DifficultyTracker(len(train), scores=("loss", "aum"), partition=partition)
    policy = dp.policies.SoftPrune(keep=0.7, anneal=0.2, epochs=EPOCHS)
    sampler = dp.PruneSampler(policy, tracker.source("loss"), seed=0)
    loader = DataLoader(train, batch_size=32, sampler=sampler)

    first = 0
    if options.resume:
        first = load(options.resume, model, optimizer, tracker)
    for epoch in range(first, options.until):
        sampler.set_epoch(epoch)
        steps = 0
        for x, y, index in loader:
            logits = model(x)
            tracker.update(index, logits, y)
            loss = F.cross_entropy(logits, y, reduction="none")
            optimizer.zero_grad()
            (loss * sampler.weight(index)).mean().backward()
            optimizer.step()
            steps += 1
        report(epoch, steps, sampler, partition)
    if options.save:
        save(options.save, options.until, model, optimizer, tracker)
    dist.destroy_process_group()


def save(
    folder: Path, epochs: int, model: nn.Module, optimizer: torch.optim.Optimizer, tracker: dp.DifficultyTracker
) -> None:
    """The model as it is sharded, and beside it a file of each process."""
    weights, moments = get_state_dict(model, optimizer)
    dcp.save({"model": weights, "optimizer": moments}, checkpoint_id=folder / "model")
    torch.save({"epochs": epochs, "tracker": tracker.state_dict()}, folder / f"part-{dist.get_rank()}.pt")


def load(
    folder: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    tracker: dp.DifficultyTracker,
) -> int:
    """Takes over what is this process's own now; returns the next epoch."""
    weights, moments = get_state_dict(model, optimizer)
    dcp.load({"model": weights, "optimizer": moments}, checkpoint_id=folder / "model")
    set_state_dict(model, optimizer, model_state_dict=weights, optim_state_dict=moments)
    paths = sorted(folder.glob("part-*.pt"))
    states = [torch.load(path, weights_only=True, mmap=True) for path in paths]
    tracker.load_parts(state["tracker"] for state in states)
    return int(states[0]["epochs"])


def report(epoch: int, steps: int, sampler: dp.PruneSampler, partition: dp.Partition) -> None:
    """What all processes together did in an epoch."""
    made = partition.counts(steps)
    if partition.rank == 0:
        kept = sampler.plan.summary()["kept"]
        print(f"epoch {epoch}: keeps {kept} of {partition.size}, records here {len(partition)}, steps {made}")


if __name__ == "__main__":
    dist.init_process_group("gloo")  # "nccl" on GPUs
    main()
