"""Prune with Hugging Face accelerate where each process has the records of its own examples alone, and resume.

    accelerate launch --num_processes 2 examples/accelerate_partition.py            # on GPUs
    ACCELERATE_USE_CPU=true torchrun --nproc-per-node 2 examples/accelerate_partition.py

`prepare` gets the model and the optimizer but not the loader, whose batches it would share out over the processes once
more. Of what is registered for checkpointing it saves that of one process, so each saves a part of its own beside.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, Subset, TensorDataset

import difficulty_prune as dp

EPOCHS = 5
BATCH = 32  # in each process
STOP = (3, 4)  # an epoch, and batches of it


class Training:
    def __init__(self) -> None:
        self.accelerator = Accelerator()
        pixels, digits = load_digits(return_X_y=True)
        whole = TensorDataset(torch.from_numpy(pixels).float() / 16, torch.from_numpy(digits))
        group = torch.distributed.group.WORLD if self.accelerator.num_processes > 1 else None
        self.partition = dp.Partition.split(len(whole), group)
        train = dp.IndexedDataset(Subset(whole, self.partition.ids.tolist()))
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        self.tracker = dp.DifficultyTracker(len(train), scores=("loss",), partition=self.partition)
        self.sampler = dp.PruneSampler(dp.policies.SoftPrune(keep=0.7), self.tracker.source("loss"), seed=0)
        self.loader = DataLoader(train, batch_size=BATCH, sampler=self.sampler)
        self.model, self.optimizer = self.accelerator.prepare(model, optimizer)
        self.consumed = 0

    def run(self, stop: tuple[int, int] | None = None) -> dict[int, list[int]]:
        """Trains to the end or to `stop`, and returns the ids that this process visited, by epoch."""
        visited: dict[int, list[int]] = {}
        for epoch in range(self.sampler.epoch, EPOCHS):
            self.sampler.set_epoch(epoch)  # in every process: they plan together
            visited[epoch] = []
            for batches, (x, y, index) in enumerate(self.loader, start=1):
                x, y = x.to(self.accelerator.device), y.to(self.accelerator.device)  # which `prepare` would do
                loss = F.cross_entropy(self.model(x), y, reduction="none")
                self.tracker.update(index, loss=loss)
                self.optimizer.zero_grad()
                self.accelerator.backward((loss * self.sampler.weight(index, device=loss.device)).mean())
                self.optimizer.step()
                visited[epoch] += self.partition.ids[index].tolist()
                self.consumed += len(index)
                if (epoch, batches) == stop:
                    return visited
            self.consumed = 0
        return visited

    def save(self, folder: Path) -> None:
        """The model and the optimizer, and beside them a part of each process."""
        self.accelerator.save_state(str(folder))
        state = {"tracker": self.tracker.state_dict(), "sampler": self.sampler.state_dict(consumed=self.consumed)}
        torch.save(state, folder / f"part-{self.partition.rank}.pt")
        self.accelerator.wait_for_everyone()

    def load(self, folder: Path) -> None:
        """For as many processes; another number gives the parts of all to `load_parts` of tracker and sampler."""
        self.accelerator.load_state(str(folder))
        state = torch.load(folder / f"part-{self.partition.rank}.pt")
        self.tracker.load_state_dict(state["tracker"])
        self.sampler.load_state_dict(state["sampler"])
        self.consumed = self.sampler.start


def main() -> None:
    whole = Training()
    expected = whole.run()

    with tempfile.TemporaryDirectory() as folder:
        (folder,) = broadcast_object_list([folder])  # every process uses the same folder
        first = Training()
        first.run(stop=STOP)
        first.save(Path(folder))
        rest = Training()
        rest.load(Path(folder))
        visited = rest.run()
        whole.accelerator.wait_for_everyone()

    records = gather_object([len(whole.partition)])
    whole.accelerator.print(f"records in each process {records}")
    for epoch, mine in expected.items():
        together = gather_object(mine)
        twice = len(together) - len(set(together))
        whole.accelerator.print(f"epoch {epoch}: visited {len(together)}, twice {twice}")
    left = expected[STOP[0]][STOP[1] * BATCH :]
    same_order = visited == {STOP[0]: left} | {epoch: expected[epoch] for epoch in range(STOP[0] + 1, EPOCHS)}
    same_scores = torch.equal(rest.tracker.compute()["loss"], whole.tracker.compute()["loss"])
    whole.accelerator.print(f"cut off after {STOP[1]} batches of epoch {STOP[0]}")
    whole.accelerator.print(f"same order {all(gather_object([same_order]))}")
    whole.accelerator.print(f"same scores {all(gather_object([same_scores]))}")
    whole.accelerator.end_training()


if __name__ == "__main__":
    main()
