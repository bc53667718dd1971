"""Prune text: tokens make a score per sequence, and sequences that are already learned are visited less.

    python examples/text_token_losses.py

A character-level language model of the descriptions of scikit-learn's datasets; each line is a sequence.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_iris, load_linnerud, load_wine
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader

import difficulty_prune as dp

EPOCHS = 8
IGNORED = -100  # the target of padding


class LanguageModel(nn.Module):
    def __init__(self, characters: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(characters, 32)
        self.memory = nn.GRU(32, 64, batch_first=True)
        self.output = nn.Linear(64, characters)

    def forward(self, tokens: Tensor) -> Tensor:
        """[B, T] -> [B, T, characters]"""
        return self.output(self.memory(self.embedding(tokens))[0])


def collate(samples: list[tuple[Tensor, int]]) -> tuple[Tensor, Tensor, Tensor]:
    """Sequences of different lengths -> tokens [B, T], the token after each [B, T], index [B]."""
    tokens = pad_sequence([sequence[:-1] for sequence, _ in samples], batch_first=True)
    targets = pad_sequence([sequence[1:] for sequence, _ in samples], batch_first=True, padding_value=IGNORED)
    return tokens, targets, torch.tensor([index for _, index in samples])


def main() -> None:
    datasets = (load_breast_cancer, load_diabetes, load_digits, load_iris, load_linnerud, load_wine)
    lines = [line.strip() for load in datasets for line in load().DESCR.splitlines()]
    lines = [line for line in lines if len(line) > 20]
    code = {character: i for i, character in enumerate(sorted(set("".join(lines))))}
    train = dp.IndexedDataset([torch.tensor([code[character] for character in line]) for line in lines])

    torch.manual_seed(0)
    model = LanguageModel(len(code))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    tracker = dp.DifficultyTracker(len(train), scores=("loss",))
    sampler = dp.PruneSampler(dp.policies.SoftPrune(keep=0.7), tracker.source("loss"), seed=0)
    loader = DataLoader(train, batch_size=32, sampler=sampler, collate_fn=collate)
    for epoch in range(EPOCHS):
        sampler.set_epoch(epoch)
        total = 0.0
        for tokens, targets, index in loader:
            logits = model(tokens).transpose(1, 2)  # [B, characters, T], as the loss takes them
            tracker.update(index, logits, targets)
            token_loss = F.cross_entropy(logits, targets, ignore_index=IGNORED, reduction="none")  # 0 for padding
            loss = token_loss.sum(1) / (targets != IGNORED).sum(1)
            weighted = loss * sampler.weight(index)
            optimizer.zero_grad()
            weighted.mean().backward()
            optimizer.step()
            total += float(weighted.detach().sum())
        print(f"epoch {epoch}: {len(sampler)} of {len(lines)} sequences, mean loss per token {total / len(lines):.3f}")

    difficulty = tracker.source("loss")()
    easiest_first = difficulty.argsort().tolist()
    for name, positions in (("easiest", easiest_first[:3]), ("hardest", easiest_first[:-4:-1])):
        for position in positions:
            print(f"{name} {difficulty[position]:.3f} {lines[position]}")


if __name__ == "__main__":
    main()
