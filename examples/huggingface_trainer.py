"""The Hugging Face Trainer with a tiny vision transformer; each epoch visits half of scikit-learn's digits.

    python examples/huggingface_trainer.py

Unbiased dynamic pruning: random easy digits are left out, and the other easy ones weigh more. The Trainer reads the
number of steps per epoch only once, so the sampler has a fixed length. The first epoch, in which no digit has a score
yet, is cut to that length at random.
"""

from __future__ import annotations

import tempfile
from collections import defaultdict

import torch
from sklearn.datasets import load_digits
from transformers import TrainingArguments, ViTConfig, ViTForImageClassification, set_seed

import difficulty_prune as dp
from difficulty_prune.integrations.transformers import DifficultyTrainer

EPOCHS = 6
pixels, digits = load_digits(return_X_y=True)
images, digits = torch.from_numpy(pixels).float().view(-1, 1, 8, 8) / 16, torch.from_numpy(digits)
samples = [{"pixel_values": image, "labels": digit} for image, digit in zip(images, digits.tolist(), strict=True)]
train, test = dp.IndexedDataset(samples[:1400]), samples[1400:]
config = ViTConfig(
    image_size=8,
    patch_size=4,
    num_channels=1,
    hidden_size=64,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=128,
    num_labels=10,
)


class CountingTrainer(DifficultyTrainer):
    """Records what each epoch visits."""

    def __init__(self, *args, **options) -> None:
        super().__init__(*args, **options)
        self.visited = defaultdict(list)

    def training_step(self, model, inputs, *args):
        self.visited[int(self.state.epoch)] += inputs["index"].tolist()
        return super().training_step(model, inputs, *args)


def main() -> None:
    set_seed(0)
    tracker = dp.DifficultyTracker(len(train), scores=("loss", "el2n"))
    sampler = dp.PruneSampler(
        dp.policies.SoftPrune(keep=0.5), tracker.source("loss"), seed=0, fixed_length=len(train) // 2
    )
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder,
            num_train_epochs=EPOCHS,
            per_device_train_batch_size=25,
            learning_rate=0.003,
            use_cpu=True,
            report_to="none",
            disable_tqdm=True,
            save_strategy="no",
        )
        trainer = CountingTrainer(
            ViTForImageClassification(config),
            arguments,
            train_dataset=train,
            eval_dataset=test,
            compute_metrics=lambda p: {"accuracy": (p.predictions.argmax(1) == p.label_ids).mean()},
            tracker=tracker,
            sampler=sampler,
        )
        trainer.train()
        accuracy = trainer.evaluate()["eval_accuracy"]

    steps = trainer.state.max_steps // EPOCHS
    for epoch, visited in trainer.visited.items():
        twice = len(visited) - len(set(visited))
        print(f"epoch {epoch}: {len(visited)} examples in {steps} steps, {twice} seen twice")
    scores = tracker.finish(architecture="vit", seed=0).scores
    print(f"scores: {sum(int(torch.tensor(score).isfinite().sum()) for score in scores.values())} finite")
    print(f"accuracy: {accuracy:.3f} of digits not trained on")


if __name__ == "__main__":
    main()
