"""Prune while training with Hugging Face accelerate, in one process or several, and resume from its checkpoint.

    python examples/accelerate_training.py
    accelerate launch --num_processes 2 examples/accelerate_training.py             # on GPUs
    ACCELERATE_USE_CPU=true torchrun --nproc-per-node 2 examples/accelerate_training.py

`prepare` distributes the sampler's batches over the processes, so the sampler itself must have no rank and world size.
With drop_last=True each process gets the same number of full batches; by default accelerate fills up the last batches
with examples from the beginning of the epoch.
"""

from __future__ import annotations

import tempfile
from typing import Any

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import difficulty_prune as dp

EPOCHS = 5
BATCH = 32  # in each process
STOP = (3, 4)  # an epoch, and batches of it


class Position:
    """The sampler's state for `register_for_checkpointing`. It counts examples: accelerate fetches a batch ahead."""

    def __init__(self, sampler: dp.PruneSampler) -> None:
        self.sampler = sampler
        self.consumed = 0

    def state_dict(self) -> dict[str, Any]:
        return self.sampler.state_dict(consumed=self.consumed)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.sampler.load_state_dict(state)
        self.consumed = self.sampler.start


class Training:
    def __init__(self) -> None:
        self.accelerator = Accelerator()
        pixels, digits = load_digits(return_X_y=True)
        train = dp.IndexedDataset(TensorDataset(torch.from_numpy(pixels).float() / 16, torch.from_numpy(digits)))
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        group = torch.distributed.group.WORLD if self.accelerator.num_processes > 1 else None
        self.tracker = dp.DifficultyTracker(len(train), scores=("loss",), process_group=group)
        self.sampler = dp.PruneSampler(dp.policies.SoftPrune(keep=0.7), self.tracker.source("loss"), seed=0)
        loader = DataLoader(train, batch_size=BATCH, sampler=self.sampler, drop_last=True)
        self.model, self.optimizer, self.loader = self.accelerator.prepare(model, optimizer, loader)
        self.position = Position(self.sampler)
        self.accelerator.register_for_checkpointing(self.tracker, self.position)

    def run(self, stop: tuple[int, int] | None = None) -> dict[int, list[int]]:
        """Trains to the end or to `stop`, and returns what this process visited, by epoch."""
        visited = {}
        for epoch in range(self.sampler.epoch, EPOCHS):
            self.loader.set_epoch(epoch)  # the loader passes it on to the sampler
            visited[epoch] = []
            for batches, (x, y, index) in enumerate(self.loader, start=1):
                loss = F.cross_entropy(self.model(x), y, reduction="none")
                self.tracker.update(index, loss=loss)
                self.optimizer.zero_grad()
                self.accelerator.backward((loss * self.sampler.weight(index)).mean())
                self.optimizer.step()
                visited[epoch] += index.tolist()
                self.position.consumed += len(index) * self.accelerator.num_processes
                if (epoch, batches) == stop:
                    return visited
            self.position.consumed = 0
        return visited


def main() -> None:
    whole = Training()
    expected = whole.run()

    with tempfile.TemporaryDirectory() as folder:
        (folder,) = broadcast_object_list([folder])  # every process uses the same folder
        first = Training()
        first.run(stop=STOP)
        first.accelerator.save_state(folder)
        first.accelerator.wait_for_everyone()  # the main process writes

        rest = Training()
        rest.accelerator.load_state(folder)
        visited = rest.run()
        whole.accelerator.wait_for_everyone()

    whole.accelerator.print(f"processes {whole.accelerator.num_processes}")
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
