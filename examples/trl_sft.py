"""Supervised fine-tuning with TRL, packed: garbage among the rows of a data set is found while the model trains.

    python examples/trl_sft.py

The rows are lines of Python's own documentation, one token per character; a tenth of them are shuffled or random
characters. A small Llama with random weights learns them, several rows to a pack. The scores are the rows', not the
packs'. At the end the hardest rows are dropped before the next packing, because a sampler cannot drop a row out of a
pack.
"""

from __future__ import annotations

import pydoc_data.topics
import random
import tempfile
import warnings

import torch
from datasets import Dataset, disable_progress_bars
from sklearn.metrics import roc_auc_score
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, PrinterCallback, set_seed
from trl import SFTConfig

import difficulty_prune as dp
from difficulty_prune.integrations.trl import DifficultySFTTrainer

ROWS, GARBAGE = 300, 30
SCORES = ("loss", "recent_loss", "entropy", "accuracy", "confidence")


def text_with_garbage() -> tuple[list[str], list[bool]]:
    """The rows, and which of them are garbage."""
    draw = random.Random(0)
    lines = {line.strip() for text in pydoc_data.topics.topics.values() for line in text.splitlines()}
    prose = sorted(line for line in lines if sum(map(str.isalpha, line)) > max(40, 0.75 * len(line)))
    rows = draw.sample(prose, ROWS)
    alphabet = sorted(set("".join(rows)))
    garbage = [True] * GARBAGE + [False] * (ROWS - GARBAGE)
    draw.shuffle(garbage)
    for i in range(ROWS):
        if garbage[i]:
            characters = rows[i] if i % 2 else alphabet
            rows[i] = "".join(draw.sample(characters, len(rows[i])) if i % 2 else draw.choices(characters, k=60))
    return rows, garbage


def tokenizer_of(rows: list[str]) -> PreTrainedTokenizerFast:
    """A token for each character, without a file."""
    vocabulary = ["<pad>", "<eos>", *sorted(set("".join(rows)))]
    tokenizer = Tokenizer(models.WordLevel({token: i for i, token in enumerate(vocabulary)}, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>")


def main() -> None:
    disable_progress_bars()
    warnings.filterwarnings("ignore", "`gradient_checkpointing` is deprecated")  # TRL sets it
    rows, garbage = text_with_garbage()
    dataset, tokenizer = Dataset.from_dict({"text": rows}), tokenizer_of(rows)
    set_seed(0)
    size = {"hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4}
    special = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id, "bos_token_id": None}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), max_position_embeddings=512, **size, **special))

    def trainer_of(dataset: Dataset, tracker: dp.DifficultyTracker, **options) -> DifficultySFTTrainer:
        settings = {"packing": True, "max_length": 256, "per_device_train_batch_size": 2, "learning_rate": 3e-3}
        quiet = {"report_to": "none", "disable_tqdm": True, "save_strategy": "no", "logging_strategy": "no"}
        settings |= {"use_cpu": True, "bf16": False, "gradient_checkpointing": False, **quiet, **options}
        arguments = SFTConfig(folder, **settings)
        trainer = DifficultySFTTrainer(
            model, arguments, train_dataset=dataset, processing_class=tokenizer, tracker=tracker
        )
        trainer.remove_callback(PrinterCallback)
        return trainer

    with tempfile.TemporaryDirectory() as folder:
        tracker = dp.DifficultyTracker(len(dataset), scores=SCORES)
        trainer = trainer_of(dataset, tracker, num_train_epochs=4)
        trainer.train()
        scores = tracker.compute()
        print(f"packs {len(trainer.train_dataset)} of {ROWS} rows")
        print(f"auroc_loss {roc_auc_score(garbage, scores['recent_loss']):.3f}")
        print(f"auroc_fall {roc_auc_score(garbage, -trainer.loss_fall()):.3f}")
        tokens, loss = trainer.tokens(), scores["loss"].double()
        print(f"mean_over_rows {loss.mean():.3f}")
        print(f"mean_over_tokens {(loss * tokens).sum() / tokens.sum():.3f}")

        # With the same weights, a row's loss is the same in a pack and alone.
        alone = {}
        for packing in (True, False):
            frozen = dp.DifficultyTracker(len(dataset), scores=("loss",))
            trainer_of(dataset, frozen, num_train_epochs=1, learning_rate=0.0, packing=packing).train()
            alone[packing] = frozen.compute()["loss"]
        print(f"packed_differs_by {float((alone[True] - alone[False]).abs().max()):.7f}")

        plan = dp.policies.Easiest(keep=0.9)(tracker.source("recent_loss")())
        kept = dp.select_rows(dataset, plan)
        left = torch.tensor(garbage)[plan.index].sum()
        print(f"kept {len(kept)} rows, {left} of them garbage")
        trainer_of(kept, tracker, num_train_epochs=1).train()  # packed anew; rows keep their numbers


if __name__ == "__main__":
    main()
