"""Variance of Gradients of text, read from the training step's own backward pass: which lines are garbled?

    python examples/text_vog.py

Tokens have no gradient, but their embeddings have. A small Llama of characters learns the descriptions of
scikit-learn's datasets; in a tenth of the lines the characters have been shuffled. It needs `transformers`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_iris, load_linnerud, load_wine
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader
from transformers import LlamaConfig, LlamaForCausalLM

import difficulty_prune as dp

EPOCHS = 8
LONGEST = 48  # characters of a line
IGNORED = -100  # the label of padding


def collate(samples: list[tuple[Tensor, int]]) -> tuple[Tensor, Tensor, Tensor]:
    """Lines of different lengths -> tokens [B, T] and labels [B, T], T that of the longest line here; index [B]."""
    labels = pad_sequence([line for line, _ in samples], batch_first=True, padding_value=IGNORED)
    return labels.clamp(min=0), labels, torch.tensor([index for _, index in samples])


def main() -> None:
    datasets = (load_breast_cancer, load_diabetes, load_digits, load_iris, load_linnerud, load_wine)
    lines = [line.strip()[:LONGEST] for load in datasets for line in load().DESCR.splitlines()]
    lines = [line for line in lines if len(line) > 20]
    code = {character: i for i, character in enumerate(sorted(set("".join(lines))))}
    data = [torch.tensor([code[character] for character in line]) for line in lines]
    generator = torch.Generator().manual_seed(0)
    garbled = torch.rand(len(data), generator=generator) < 0.1
    for i in garbled.nonzero()[:, 0].tolist():
        data[i] = data[i][torch.randperm(len(data[i]), generator=generator)]

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(code),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=LONGEST,
    )
    model = LlamaForCausalLM(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    # A position is to a text what a pixel is to an image, and the width of the embedding is what its colours are.
    options = dp.GradientOptions(channel_dim=2)
    tracker = dp.DifficultyTracker(len(data), scores=("vog_loss", "loss"), gradient=options)
    loader = DataLoader(dp.IndexedDataset(data), batch_size=8, shuffle=True, collate_fn=collate)
    for _ in range(EPOCHS):
        for tokens, labels, index in loader:
            embedded = model.get_input_embeddings()(tokens)
            length = embedded.shape[1]
            # The state has one size: pad to it, watch, and cut again, so that the model works on short lines only.
            full = F.pad(embedded, (0, 0, 0, LONGEST - length))
            counted = (labels[:, 1:] != IGNORED).sum(1)
            watched = tracker.watch(full, index, weight=counted, reduction="weighted_mean")[:, :length]
            output = model(inputs_embeds=watched, labels=labels)  # its loss is the mean over all tokens of the batch
            tracker.update(index, output.logits[:, :-1].transpose(1, 2), labels[:, 1:])
            optimizer.zero_grad()
            output.loss.backward()
            optimizer.step()

    print(f"{int(garbled.sum())} of {len(lines)} lines are garbled")
    for name, score in tracker.compute().items():
        print(f"{name} tells them with {dp.scores.ood(score[~garbled], score[garbled])}")


if __name__ == "__main__":
    main()
