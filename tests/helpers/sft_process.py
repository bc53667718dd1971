"""One of the processes of a training that packs rows: python -m torch.distributed.run ... sft_process.py FOLDER."""

from __future__ import annotations

import sys

import torch
import torch.distributed as dist
import trl
from small_language_model import SILENT, TEXTS, make_model, make_tokenizer, of_rows, rows_of_text, rows_of_tokens

import difficulty_prune as dp
from difficulty_prune.integrations.trl import DifficultySFTTrainer

EPOCHS = 2
ROWS = rows_of_tokens()["input_ids"][:]


def make_trainer() -> DifficultySFTTrainer:
    settings = {"packing": True, "max_length": 24, "per_device_train_batch_size": 2, "learning_rate": 0.0}
    settings |= {**SILENT, "num_train_epochs": EPOCHS, "save_strategy": "epoch"}
    args = trl.SFTConfig(sys.argv[1], bf16=False, gradient_checkpointing=False, **settings)
    tracker = dp.DifficultyTracker(len(TEXTS), scores=("loss", "recent_loss"), process_group=dist.group.WORLD)
    options = {"train_dataset": rows_of_text(), "processing_class": make_tokenizer(), "tracker": tracker}
    return DifficultySFTTrainer(make_model(), args, **options)


def main() -> None:
    for resume in (None, True):  # of which the second has nothing left to do but to read the checkpoint
        trainer = make_trainer()
        trainer.train(resume_from_checkpoint=resume)
        found = trainer.tracker.compute()["loss"].double()
        close = torch.allclose(found, of_rows(make_model(), ROWS)["loss"], rtol=1e-5, atol=1e-5)
        tokens = trainer.tokens().tolist() == [EPOCHS * (len(row) - 1) for row in ROWS]
        falls = torch.allclose(trainer.loss_fall(), torch.zeros(len(ROWS)), atol=1e-5)
        if dist.get_rank() == 0:
            print(dist.get_world_size(), trainer.tracker.presentations, close, tokens, falls, flush=True)


if __name__ == "__main__":
    main()
