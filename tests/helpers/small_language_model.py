"""A causal language model so small that a test can train it, and rows of text for it; nothing is downloaded."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from datasets import Dataset, disable_progress_bars
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

disable_progress_bars()

CHARACTERS = "abcdefgh 0123456789"
TEXTS = [("abc " * (i % 5 + 1) + str(i) * (i % 3))[: 4 + i] for i in range(16)]
"""Rows of 4 to 20 characters, and an end of each."""

SILENT = {
    "use_cpu": True,
    "report_to": "none",
    "disable_tqdm": True,
    "save_strategy": "no",
    "logging_strategy": "no",
    "optim": "sgd",
}


def make_tokenizer() -> PreTrainedTokenizerFast:
    """A token for each character."""
    vocabulary = {token: i for i, token in enumerate(["<pad>", "<eos>", *CHARACTERS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>")


def make_model(seed: int = 0) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=2 + len(CHARACTERS),
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            max_position_embeddings=64,
            initializer_range=0.3,  # so that losses differ from row to row
            pad_token_id=0,
            bos_token_id=None,
            eos_token_id=1,
        )
    )


def rows_of_text() -> Dataset:
    return Dataset.from_dict({"text": TEXTS})


def rows_of_tokens() -> Dataset:
    """The same as TRL tokenises them."""
    tokenizer = make_tokenizer()
    return Dataset.from_dict({"input_ids": [[*tokenizer(text)["input_ids"], 1] for text in TEXTS]})


def of_a_row(model: Any, tokens: list[int], first: int = 1) -> dict[str, Tensor]:
    """Loss, entropy and accuracy of a row alone, as means over its tokens from `first` on; float64."""
    line = torch.tensor(tokens)
    with torch.no_grad():
        logits = model(line[None]).logits[0, first - 1 : -1].double()
    log_p = logits.log_softmax(1)
    return {
        "loss": F.nll_loss(log_p, line[first:]),
        "entropy": -(log_p.exp() * log_p).sum(1).mean(),
        "accuracy": (logits.argmax(1) == line[first:]).double().mean(),
        "confidence": log_p.exp().gather(1, line[first:, None]).mean(),
    }


def of_rows(model: Any, rows: list[list[int]], first: int = 1) -> dict[str, Tensor]:
    """[N] each, one row after the other."""
    found = [of_a_row(model.eval(), row, first) for row in rows]
    return {name: torch.stack([row[name] for row in found]) for name in found[0]}
