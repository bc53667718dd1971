"""Does it pay to train on the hardest digits only? An answer for a training by Lightning.

python examples/lightning_compare.py
"""

from __future__ import annotations

import logging
import warnings

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import difficulty_prune as dp

EPOCHS = 4
pixels, digits = load_digits(return_X_y=True)
images, digits = torch.from_numpy(pixels).float() / 16, torch.from_numpy(digits).long()
train_set = dp.IndexedDataset(TensorDataset(images[:1200], digits[:1200]))
test_set = TensorDataset(images[1200:], digits[1200:])


class Classifier(pl.LightningModule):
    def __init__(self, sampler: dp.PruneSampler, tracker: dp.DifficultyTracker | None = None) -> None:
        super().__init__()
        self.network = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
        self.sampler, self.tracker = sampler, tracker

    def on_train_epoch_start(self) -> None:
        self.sampler.set_epoch(self.current_epoch)

    def training_step(self, batch: list[torch.Tensor]) -> torch.Tensor:
        x, y, index = batch
        logits = self.network(x)
        if self.tracker is not None:
            self.tracker.update(index, logits, y)
        return (F.cross_entropy(logits, y, reduction="none") * self.sampler.weight(index)).mean()

    def test_step(self, batch: list[torch.Tensor]) -> None:
        x, y = batch
        self.log("accuracy", (self.network(x).argmax(1) == y).float().mean())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=0.01)


def train(sampler: dp.PruneSampler, seed: int, tracker: dp.DifficultyTracker | None = None) -> float:
    """A new model with this seed, on what the sampler yields."""
    pl.seed_everything(seed, verbose=False)
    model = Classifier(sampler, tracker)
    trainer = pl.Trainer(
        max_epochs=EPOCHS,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    trainer.fit(model, DataLoader(train_set, batch_size=50, sampler=sampler))
    return trainer.test(model, DataLoader(test_set, batch_size=len(test_set)), verbose=False)[0]["accuracy"]


def main() -> None:
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    tracker = dp.DifficultyTracker(len(train_set), scores=("el2n",))
    everything = dp.PruneSampler(dp.policies.Random(keep=1.0), torch.zeros(len(train_set)))
    train(everything, seed=100, tracker=tracker)
    print(dp.compare(train, dp.policies.Hardest(keep=0.5), tracker.compute()["el2n"], seeds=3, by="el2n"))


if __name__ == "__main__":
    main()
