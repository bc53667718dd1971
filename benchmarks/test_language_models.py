"""How much scoring adds to a step of TRL's SFTTrainer and of the Hugging Face Trainer, on packed rows."""

from __future__ import annotations

from collections.abc import Callable
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import pytest
import torch
from comparison import Compare, Target

trl = pytest.importorskip("trl", reason="trl is not installed: pip install trl")

from datasets import Dataset, disable_progress_bars  # noqa: E402
from tokenizers import Tokenizer, models  # noqa: E402
from transformers import (  # noqa: E402
    DataCollatorWithFlattening,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Trainer,
    TrainingArguments,
)

import difficulty_prune as dp  # noqa: E402
from difficulty_prune.integrations.transformers import DifficultyCausalLMTrainer  # noqa: E402
from difficulty_prune.integrations.trl import DifficultySFTTrainer  # noqa: E402

ROWS, LENGTH, PACK, PACKS, VOCABULARY = 2_000, 96, 512, 2, 8_192
SCORES = ("loss", "recent_loss", "entropy", "accuracy", "confidence")

pytestmark = pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.* is deprecated:FutureWarning")


def rows() -> Dataset:
    """Random tokens in rows of random lengths."""
    disable_progress_bars()
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(LENGTH // 2, LENGTH * 3 // 2, (ROWS,), generator=generator).tolist()
    tokens = torch.randint(2, VOCABULARY, (sum(lengths),), generator=generator)
    return Dataset.from_dict({"input_ids": [part.tolist() for part in tokens.split(lengths)]})


def make_model() -> LlamaForCausalLM:
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=256,
            intermediate_size=688,
            num_hidden_layers=4,
            num_attention_heads=4,
            max_position_embeddings=PACK,
            pad_token_id=0,
            bos_token_id=None,
            eos_token_id=1,
        )
    )


def arguments(folder: Path) -> dict[str, Any]:
    return {
        "output_dir": str(folder),
        "use_cpu": True,
        "report_to": "none",
        "bf16": False,
        "gradient_checkpointing": False,
        "per_device_train_batch_size": PACKS,
    }


def step_of(trainer: Any) -> Callable[[], None]:
    """Loss and backward pass of one step, scored or not, and the optimiser's; loading is done before."""
    trainer.create_optimizer()
    trainer.model.train()
    trainer.current_gradient_accumulation_steps = 1  # which `train` sets
    batches = cycle(list(islice(trainer.get_train_dataloader(), 4)))

    def step() -> None:
        trainer.training_step(trainer.model, dict(next(batches)))
        trainer.optimizer.step()
        trainer.model.zero_grad()

    return step


def work(what: str) -> str:
    return f"{what}, Llama of 4 layers, {PACKS} packs of {PACK} tokens, vocabulary {VOCABULARY:,}"


def test_sft_trainer(compare: Compare, tmp_path: Path) -> None:
    vocabulary = {"<pad>": 0, "<eos>": 1, **{str(i): i for i in range(2, VOCABULARY)}}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="<pad>"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="<eos>")

    def make(kind: Any, **options: Any) -> Any:
        config = trl.SFTConfig(**arguments(tmp_path), packing=True, max_length=PACK)
        return kind(make_model(), config, train_dataset=rows(), processing_class=tokenizer, **options)

    ours = step_of(make(DifficultySFTTrainer, tracker=dp.DifficultyTracker(ROWS, SCORES)))
    compare(work("SFTTrainer's step"), "off", ours, step_of(make(trl.SFTTrainer)), Target(slower=1.02), rounds=15)


def test_trainer_of_a_causal_model(compare: Compare, tmp_path: Path) -> None:
    def make(kind: Any, **options: Any) -> Any:
        packed = trl.pack_dataset(dp.index_rows(rows()), PACK)
        return kind(
            make_model(),
            TrainingArguments(**arguments(tmp_path)),
            train_dataset=packed,
            data_collator=DataCollatorWithFlattening(),
            **options,
        )

    ours = step_of(make(DifficultyCausalLMTrainer, tracker=dp.DifficultyTracker(ROWS, SCORES)))
    compare(work("Trainer's step"), "off", ours, step_of(make(Trainer)), Target(slower=1.02), rounds=15)
