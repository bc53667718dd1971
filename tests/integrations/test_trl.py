"""TRL's SFTTrainer: rows are scored, not packs, with the numbers that each row has alone."""

from __future__ import annotations

import os
import re
import runpy
import subprocess
import sys
import warnings
from itertools import chain

import pytest
import torch
from places import EXAMPLES, ROOT

pytest.importorskip("trl", reason="trl is not installed: pip install trl")

import trl
from datasets import Dataset
from small_language_model import (
    SILENT,
    TEXTS,
    make_model,
    make_tokenizer,
    of_rows,
    rows_of_text,
    rows_of_tokens,
)
from transformers import TrainerCallback

import difficulty_prune as dp
from difficulty_prune.integrations.trl import DifficultySFTTrainer

SIZE = len(TEXTS)
SCORES = ("loss", "recent_loss", "entropy", "accuracy", "confidence")
CLOSE = {"rtol": 1e-5, "atol": 1e-5}

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.* is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:'pin_memory' argument is set as true:UserWarning:torch"),
]


def make_arguments(folder, **options):
    settings = {"max_length": 12, "per_device_train_batch_size": 3, "num_train_epochs": 1, "learning_rate": 0.0}
    return trl.SFTConfig(str(folder), bf16=False, gradient_checkpointing=False, **{**SILENT, **settings, **options})


def make_trainer(folder, *, dataset=None, tracker=None, kind=DifficultySFTTrainer, options=None, **arguments):
    dataset = rows_of_text() if dataset is None else dataset
    options = {"tracker": tracker or dp.DifficultyTracker(SIZE, scores=SCORES), **(options or {})}
    if kind is trl.SFTTrainer:
        del options["tracker"]
    return kind(
        make_model(),
        make_arguments(folder, **arguments),
        train_dataset=dataset,
        processing_class=make_tokenizer(),
        **options,
    )


def alone(rows, first=1):
    """The scores of each row by itself, with the weights of before the training."""
    return of_rows(make_model(), rows, first)


TOKENS = rows_of_tokens()["input_ids"][:]


def assert_scores(trainer, expected):
    found = trainer.tracker.compute()
    for name, score in expected.items():
        torch.testing.assert_close(found[name].double(), score, **CLOSE, msg=lambda text, name=name: f"{name}: {text}")


# What is recorded


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"padding_free": True, "max_length": None},
        {"packing": True, "max_length": 24},
        {"packing": True, "max_length": 24, "packing_strategy": "bfd_split"},
    ],
    ids=["padded", "padding-free", "bfd", "bfd_split"],
)
def test_scores_of_a_row_are_those_of_the_row_alone(tmp_path, options):
    trainer = make_trainer(tmp_path, **{"max_length": None, **options})
    trainer.train()
    assert_scores(trainer, alone(TOKENS))
    assert trainer.tokens().tolist() == [len(row) - 1 for row in TOKENS]
    torch.testing.assert_close(trainer.token_loss(), alone(TOKENS)["loss"], **CLOSE)
    assert trainer.tracker.presentations == SIZE


def test_rows_that_are_too_long_for_a_pack_are_recorded_without_what_is_cut_off(tmp_path):
    trainer = make_trainer(tmp_path, packing=True)
    trainer.train()
    assert_scores(trainer, alone([row[:12] for row in TOKENS]))


def test_a_row_that_is_cut_over_two_packs_is_one_example(tmp_path):
    """All in one step, so that each row is presented once: by the mean over both of its parts."""
    trainer = make_trainer(tmp_path, packing=True, packing_strategy="bfd_split", per_device_train_batch_size=99)
    trainer.train()
    parts = [[row[:12], row[12:]] if len(row) > 13 else [row[:12]] for row in TOKENS]
    sizes = torch.tensor([[len(part) - 1 for part in row] + [0] * (2 - len(row)) for row in parts])
    losses = torch.tensor(
        [[float(alone([part])["loss"]) for part in row] + [0.0] * (2 - len(row)) for row in parts], dtype=torch.float64
    )
    assert (sizes[:, 1] > 0).any()
    expected = (losses * sizes).sum(1) / sizes.sum(1)
    assert_scores(trainer, {"loss": expected})
    torch.testing.assert_close(trainer.token_loss(), expected, **CLOSE)
    assert trainer.tracker.presentations == SIZE


def test_parts_in_two_steps_are_two_presentations_and_the_mean_over_tokens_is_still_exact(tmp_path):
    trainer = make_trainer(tmp_path, packing=True, packing_strategy="bfd_split", per_device_train_batch_size=1)
    trainer.train()
    whole = make_trainer(tmp_path, packing=True, packing_strategy="bfd_split", per_device_train_batch_size=99)
    whole.train()
    assert trainer.tracker.presentations > SIZE
    assert trainer.tokens().tolist() == whole.tokens().tolist()
    torch.testing.assert_close(trainer.token_loss(), whole.token_loss(), **CLOSE)
    assert (trainer.tracker.compute()["loss"] - whole.tracker.compute()["loss"]).abs().max() > 1e-3


def test_wrapped_packs_record_every_predicted_token_for_its_own_row(tmp_path):
    """There a row's first token is predicted as well, from the row before it."""
    trainer = make_trainer(tmp_path, packing=True, packing_strategy="wrapped")
    trainer.train()
    packs = trainer.train_dataset
    predicted = list(chain.from_iterable(owner[1:] for owner in packs["owner"][:]))
    assert trainer.tokens().tolist() == [predicted.count(i) for i in range(SIZE)]
    assert trainer.tokens().sum() == sum(len(row) for row in TOKENS) - len(packs)


@pytest.mark.parametrize("packing", [False, True])
def test_tokens_that_the_loss_leaves_out_do_not_count(tmp_path, packing):
    """Of a prompt and its completion, the completion alone is scored."""
    rows = Dataset.from_dict({"prompt": ["abc", "ab cd"], "completion": [" 123", " 7"]})
    tracker = dp.DifficultyTracker(2, scores=SCORES)
    trainer = make_trainer(tmp_path, dataset=rows, tracker=tracker, packing=packing, max_length=20)
    trainer.train()
    tokenizer = make_tokenizer()
    tokens = [[*tokenizer(p + c)["input_ids"], 1] for p, c in zip(rows["prompt"], rows["completion"], strict=True)]
    for i, first in enumerate((3, 5)):
        for name, score in alone([tokens[i]], first).items():
            assert float(tracker.compute()[name][i]) == pytest.approx(float(score), abs=1e-5), name
    assert trainer.tokens().tolist() == [5, 3]


def test_packs_and_training_are_those_of_trl(tmp_path):
    options = {"packing": True, "learning_rate": 0.5, "num_train_epochs": 2, "gradient_accumulation_steps": 2}
    trainers = [make_trainer(tmp_path, kind=kind, **options) for kind in (DifficultySFTTrainer, trl.SFTTrainer)]
    for strategy in ("bfd_split", "wrapped"):
        pair = [
            make_trainer(tmp_path, kind=kind, packing=True, packing_strategy=strategy).train_dataset
            for kind in (DifficultySFTTrainer, trl.SFTTrainer)
        ]
        assert pair[0].remove_columns("owner")[:] == pair[1][:]
    ours, theirs = trainers
    assert ours.train_dataset.remove_columns("owner")[:] == theirs.train_dataset[:]
    for trainer in trainers:
        trainer.train()
    for own, other in zip(ours.model.parameters(), theirs.model.parameters(), strict=True):
        assert torch.equal(own, other)
    assert ours.state.log_history[-1]["train_loss"] == theirs.state.log_history[-1]["train_loss"]


@pytest.mark.parametrize(
    "options", [{"loss_type": "dft"}, {"label_smoothing_factor": 0.1}, {"gradient_accumulation_steps": 3}]
)
@pytest.mark.filterwarnings("ignore:`label_smoothing_factor` is deprecated:FutureWarning")
def test_another_loss_and_micro_batches_leave_the_scores_what_they_are(tmp_path, options):
    trainer = make_trainer(tmp_path, max_length=None, **options)
    trainer.train()
    assert_scores(trainer, alone(TOKENS))


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")  # torch's own
def test_a_compiled_model_is_scored_too(tmp_path):
    trainer = make_trainer(tmp_path, max_length=None, torch_compile=True, torch_compile_backend="eager", max_steps=1)
    trainer.train()
    found = trainer.tracker.compute()["loss"].double()
    seen = found.isfinite()
    assert seen.sum() == 3
    torch.testing.assert_close(found[seen], alone(TOKENS)["loss"][seen], **CLOSE)


def test_the_fall_is_from_the_first_epoch_to_now(tmp_path):
    trainer = make_trainer(tmp_path, packing=True, learning_rate=0.5, num_train_epochs=3)
    with pytest.raises(ValueError, match="loss_fall: no epoch has ended"):
        trainer.loss_fall()
    first = make_trainer(tmp_path, packing=True, learning_rate=0.5, lr_scheduler_type="constant")
    trainer.args.lr_scheduler_type = first.args.lr_scheduler_type
    first.train()
    trainer.train()
    expected = first.tracker.compute()["loss"] - trainer.tracker.compute()["recent_loss"]
    torch.testing.assert_close(trainer.loss_fall(), expected, **CLOSE)
    assert trainer.loss_fall().mean() > 0.1
    with pytest.raises(ValueError, match="expected recent_loss too"):
        make_trainer(tmp_path, tracker=dp.DifficultyTracker(SIZE, scores=("loss",))).loss_fall()


# Rows that a plan keeps


@pytest.mark.parametrize("packing", [False, True])
def test_rows_that_a_plan_keeps_have_their_numbers_from_the_whole_data_set(tmp_path, packing):
    kept = [1, 4, 5, 11]
    plan = dp.Plan(torch.tensor(kept), torch.ones(4))
    trainer = make_trainer(tmp_path, dataset=dp.select_rows(rows_of_text(), plan), packing=packing, max_length=24)
    trainer.train()
    found = trainer.tracker.compute()["loss"].double()
    assert found.isfinite().nonzero()[:, 0].tolist() == kept
    torch.testing.assert_close(found[kept], alone([TOKENS[i] for i in kept])["loss"], **CLOSE)


@pytest.mark.parametrize(
    "options", [{}, {"packing": True}, {"gradient_accumulation_steps": 4, "per_device_train_batch_size": 4}]
)
def test_weights_multiply_the_losses_of_a_rows_tokens(tmp_path, options):
    weight = torch.rand(SIZE, generator=torch.Generator().manual_seed(1)) * 2
    dataset = dp.select_rows(rows_of_text(), dp.Plan(torch.arange(SIZE), weight))
    options = {"max_length": 24, "per_device_train_batch_size": 99, **options}
    trainer = make_trainer(
        tmp_path, dataset=dataset, learning_rate=0.5, lr_scheduler_type="constant", max_grad_norm=0.0, **options
    )
    trainer.train()
    assert trainer.state.global_step == 1
    assert_scores(trainer, alone(TOKENS))
    model = make_model()
    loss = torch.zeros(())
    for row, factor in zip(TOKENS, weight, strict=True):
        line = torch.tensor(row)
        losses = torch.nn.functional.cross_entropy(model(line[None]).logits[0, :-1], line[1:], reduction="sum")
        loss = loss + factor * losses
    (loss / sum(len(row) - 1 for row in TOKENS)).backward()
    for own, expected in zip(trainer.model.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(own, expected - 0.5 * expected.grad, **CLOSE)


# Trainings, checkpoints and evaluation


class Stop(TrainerCallback):
    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        control.should_training_stop |= state.global_step == self.step


@pytest.mark.parametrize("stop", [2, 5])  # in the first epoch, and after it
def test_resumed_training_ends_as_the_uninterrupted_one(tmp_path, stop):
    options = {"packing": True, "max_length": 24, "learning_rate": 0.5, "num_train_epochs": 2}
    whole = make_trainer(tmp_path / "whole", **options)
    whole.train()
    begun = make_trainer(tmp_path / "parts", **{**options, "save_strategy": "steps", "save_steps": stop})
    begun.add_callback(Stop(stop))
    begun.train()
    resumed = make_trainer(tmp_path / "parts", **options)
    resumed.train(resume_from_checkpoint=str(tmp_path / "parts" / f"checkpoint-{stop}"))
    assert whole.state.global_step > stop
    for name, score in whole.tracker.compute().items():
        assert torch.equal(resumed.tracker.compute()[name], score), name
    assert resumed.tokens().tolist() == whole.tokens().tolist()
    assert torch.equal(resumed.token_loss(), whole.token_loss())
    assert torch.equal(resumed.loss_fall(), whole.loss_fall())


def test_a_second_training_goes_on(tmp_path):
    trainer = make_trainer(tmp_path, packing=True, max_length=24)
    trainer.train()
    once = trainer.tokens()
    trainer.train()
    assert trainer.tracker.presentations == 2 * SIZE
    assert trainer.tokens().tolist() == (2 * once).tolist()


def test_a_checkpoint_of_another_data_set_is_refused(tmp_path):
    make_trainer(tmp_path, save_strategy="steps", save_steps=1, max_steps=1).train()
    tracker = dp.DifficultyTracker(SIZE + 1, scores=SCORES)
    dataset = Dataset.from_dict({"text": [*TEXTS, "abc"]})
    with pytest.raises(ValueError, match=r"difficulty\.pt: .*expected the state of a training with this data"):
        make_trainer(tmp_path, dataset=dataset, tracker=tracker).train(resume_from_checkpoint=True)


@pytest.mark.parametrize("packing", [False, True])
def test_evaluation_is_not_recorded(tmp_path, packing):
    """Of the same rows, of others in a dict, one of which has the name of the training's, and of tokens with owners."""
    rows = rows_of_text()
    more = {"train": rows.select(range(3)), "packed": dp.index_rows(rows_of_tokens())}
    trainer = make_trainer(tmp_path, options={"eval_dataset": more}, packing=packing, max_length=24)
    plain = make_trainer(tmp_path, kind=trl.SFTTrainer, options={"eval_dataset": more}, packing=packing, max_length=24)
    expected, found = plain.evaluate(), trainer.evaluate()
    for name in ("eval_train_loss", "eval_packed_loss"):
        assert found[name] == pytest.approx(expected[name], abs=1e-6)
    trainer.evaluate(trainer.train_dataset)
    assert trainer.tracker.presentations == 0
    assert trainer.tokens().sum() == 0
    trainer.train()
    assert trainer.tracker.presentations == SIZE


@pytest.mark.slow  # nearly all of it is each process importing TRL
def test_two_processes_record_what_one_does_and_resume(tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += [str(ROOT / "tests" / "helpers" / "sft_process.py"), str(tmp_path)]
    env = os.environ | {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true", "CUDA_VISIBLE_DEVICES": ""}
    result = subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=300)
    lines = [line for line in result.stdout.splitlines() if line.endswith(("True", "False"))]
    assert lines == [f"2 {2 * SIZE} True True True"] * 2, result.stderr


# What is refused


@pytest.mark.parametrize(
    ("dataset", "arguments", "error", "message"),
    [
        (rows_of_text().select(range(9)), {}, ValueError, "got 9 rows, expected 16, as many as the tracker"),
        (rows_of_text().to_iterable_dataset(), {}, TypeError, "got IterableDataset, expected a datasets.Dataset"),
        (rows_of_text().add_column("index", [str(i) for i in range(SIZE)]), {}, TypeError, "'index' of .*string"),
        (rows_of_text(), {"packing": True, "max_length": None}, ValueError, "max_length: got None"),
    ],
)
def test_data_that_do_not_fit_are_refused(tmp_path, dataset, arguments, error, message):
    with pytest.raises(error, match=message):
        make_trainer(tmp_path, dataset=dataset, **arguments)


PREPARED = {"dataset_kwargs": {"skip_prepare_dataset": True}, "padding_free": True, "max_length": None}


def test_packed_data_that_do_not_say_whose_their_tokens_are_are_refused(tmp_path):
    packed = trl.pack_dataset(rows_of_tokens(), 24)
    with pytest.raises(ValueError, match=r"got the columns input_ids, seq_lengths, expected 'owner'.*dp\.index_rows"):
        make_trainer(tmp_path, dataset=packed, **PREPARED)


def test_data_that_were_packed_with_owners_are_recorded(tmp_path):
    packed = trl.pack_dataset(dp.index_rows(rows_of_tokens()), 24)
    trainer = make_trainer(tmp_path, dataset=packed, **PREPARED)
    trainer.train()
    assert_scores(trainer, alone(TOKENS))


@pytest.mark.parametrize("packing", [False, True])
def test_a_row_that_the_tracker_does_not_have_is_refused(tmp_path, packing):
    numbers = [*range(SIZE - 1), SIZE]
    trainer = make_trainer(tmp_path, dataset=rows_of_text().add_column("index", numbers), packing=packing)
    with pytest.raises(IndexError, match=r"got row 16, expected 0\.\.15; make the tracker for all rows"):
        trainer.train()


def test_other_settings_that_do_not_fit_are_refused(tmp_path):
    with pytest.raises(TypeError, match=r"tracker: got 'loss', expected dp\.DifficultyTracker"):
        make_trainer(tmp_path, tracker="loss")
    weighted = dp.select_rows(rows_of_text(), dp.Plan(torch.arange(SIZE), torch.full((SIZE,), 2.0)))
    with pytest.raises(ValueError, match=r"a column 'weight' with loss_type='dft'.*expected 'nll'"):
        make_trainer(tmp_path, dataset=weighted, loss_type="dft")
    trainer = make_trainer(tmp_path, tracker=dp.DifficultyTracker(SIZE, scores=("el2n",)))
    with pytest.raises(ValueError, match="the score 'el2n' needs logits and labels"):
        trainer.train()


# The example and the page


def test_the_example_prints_what_it_claims(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with warnings.catch_warnings():
        runpy.run_path(str(EXAMPLES / "trl_sft.py"), run_name="__main__")
    printed = capsys.readouterr().out
    number = {name: float(value) for name, value in re.findall(r"^(\w+) (\d+\.?\d*)", printed, re.MULTILINE)}
    assert number["packs"] < 150
    assert number["auroc_loss"] >= 0.95
    assert number["packed_differs_by"] < 1e-5
    assert number["mean_over_rows"] != number["mean_over_tokens"]
    assert number["kept"] == 270


def test_the_code_of_the_page_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    section = (ROOT / "docs" / "frameworks.md").read_text().split("## TRL and language models")[1].split("\n## ")[0]
    blocks = re.findall(r"```python\n(.*?)```", section, flags=re.DOTALL)
    assert len(blocks) >= 2
    names = {
        "dp": dp,
        "dataset": rows_of_text(),
        "model": make_model(),
        "tokenizer": make_tokenizer(),
        "args": make_arguments("out", packing=True, max_length=24),
    }
    for block in blocks:
        exec(block, names)
    assert names["tracker"].presentations >= SIZE
