"""Two Lightning processes share each pruned epoch of scikit-learn's handwritten digits, and all scores.

    python examples/lightning_ddp.py

Unlike in a single process, the tracker gets the process group, the sampler gets rank and world size, and Lightning is
told to leave the sampler alone. For GPUs: accelerator="gpu", devices=2.
"""

from __future__ import annotations

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import difficulty_prune as dp
from difficulty_prune.integrations.lightning import DifficultyCallback

EPOCHS = 5
pixels, digits = load_digits(return_X_y=True)
images, digits = torch.from_numpy(pixels).float() / 16, torch.from_numpy(digits).long()
train = dp.IndexedDataset(TensorDataset(images[:1400], digits[:1400]))


class Classifier(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.network = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))

    def setup(self, stage: str) -> None:
        # The first method in which the processes know each other.
        group = torch.distributed.group.WORLD
        self.tracker = dp.DifficultyTracker(len(train), scores=("loss", "el2n"), process_group=group)
        policy = dp.policies.SoftPrune(keep=0.5, anneal=0.2, epochs=EPOCHS)
        share = {"rank": self.global_rank, "world_size": self.trainer.world_size}
        self.sampler = dp.PruneSampler(policy, self.tracker.source("loss"), seed=0, **share)

    def train_dataloader(self) -> DataLoader:
        return DataLoader(train, batch_size=25, sampler=self.sampler)

    def on_train_epoch_start(self) -> None:
        self.visited = []

    def training_step(self, batch: list[torch.Tensor]) -> torch.Tensor:
        x, y, index = batch
        logits = self.network(x)
        self.tracker.update(index, logits, y)
        self.visited += index.tolist()
        return (F.cross_entropy(logits, y, reduction="none") * self.sampler.weight(index)).mean()

    def on_train_epoch_end(self) -> None:
        visited = self.all_gather(torch.tensor(self.visited)).flatten()  # of both processes
        twice = len(visited) - len(visited.unique())
        steps = self.trainer.num_training_batches
        self.print(f"epoch {self.current_epoch}: {len(visited)} examples in {steps} steps, {twice} seen twice")

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=0.01)


def main() -> None:
    pl.seed_everything(0, verbose=False)
    model = Classifier()
    trainer = pl.Trainer(
        max_epochs=EPOCHS,
        callbacks=[DifficultyCallback("runs/lightning-ddp-0.safetensors", architecture="mlp", seed=0)],
        reload_dataloaders_every_n_epochs=1,  # otherwise Lightning keeps the first epoch's number of steps
        use_distributed_sampler=False,  # the sampler distributes the epoch itself
        strategy="ddp",
        devices=2,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(model)
    torch.distributed.destroy_process_group()  # which Lightning leaves to the end of the process
    if not trainer.is_global_zero:
        return

    scores = dp.Run.load("runs/lightning-ddp-0.safetensors").scores
    print(f"scores: {sum(int(torch.tensor(score).isfinite().sum()) for score in scores.values())} finite")
    with torch.no_grad():
        correct = model.network(images[1400:]).argmax(1) == digits[1400:]
    print(f"accuracy: {correct.float().mean():.3f} of digits not trained on")


if __name__ == "__main__":
    main()
