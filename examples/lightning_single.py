"""Lightning trains on half of scikit-learn's handwritten digits, a different half in each epoch.

    python examples/lightning_single.py

Unbiased dynamic pruning: random easy digits are left out, and the other easy ones weigh more. The last epoch sees all
digits.
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
        self.tracker = dp.DifficultyTracker(len(train), scores=("loss", "el2n"))
        policy = dp.policies.SoftPrune(keep=0.5, anneal=0.2, epochs=EPOCHS)
        self.sampler = dp.PruneSampler(policy, self.tracker.source("loss"), seed=0)

    def train_dataloader(self) -> DataLoader:
        return DataLoader(train, batch_size=50, sampler=self.sampler)

    def on_train_epoch_start(self) -> None:
        self.visited = []

    def training_step(self, batch: list[torch.Tensor]) -> torch.Tensor:
        x, y, index = batch
        logits = self.network(x)
        self.tracker.update(index, logits, y)
        self.visited += index.tolist()
        return (F.cross_entropy(logits, y, reduction="none") * self.sampler.weight(index)).mean()

    def on_train_epoch_end(self) -> None:
        twice = len(self.visited) - len(set(self.visited))
        steps = self.trainer.num_training_batches
        print(f"epoch {self.current_epoch}: {len(self.visited)} examples in {steps} steps, {twice} seen twice")

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=0.01)


def main() -> None:
    pl.seed_everything(0, verbose=False)
    model = Classifier()
    trainer = pl.Trainer(
        max_epochs=EPOCHS,
        callbacks=[DifficultyCallback("runs/lightning-0.safetensors", architecture="mlp", seed=0)],
        reload_dataloaders_every_n_epochs=1,  # otherwise Lightning keeps the first epoch's number of steps
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(model)

    scores = dp.Run.load("runs/lightning-0.safetensors").scores
    print(f"scores: {sum(int(torch.tensor(score).isfinite().sum()) for score in scores.values())} finite")
    with torch.no_grad():
        correct = model.network(images[1400:]).argmax(1) == digits[1400:]
    print(f"accuracy: {correct.float().mean():.3f} of digits not trained on")


if __name__ == "__main__":
    main()
