"""The Hugging Face Trainer with a causal language model: rows are scored, whether padded, flattened, packed or cut."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

transformers = pytest.importorskip("transformers", reason="transformers is not installed: pip install transformers")
pytest.importorskip("accelerate", reason="accelerate is not installed: pip install accelerate")
pytest.importorskip("datasets", reason="datasets is not installed: pip install datasets")

from datasets import Dataset  # noqa: E402
from small_language_model import SILENT, make_model, make_tokenizer, of_rows, rows_of_tokens  # noqa: E402

import difficulty_prune as dp  # noqa: E402
from difficulty_prune.integrations.transformers import DifficultyCausalLMTrainer  # noqa: E402

TOKENS = rows_of_tokens()["input_ids"][:]
SIZE = len(TOKENS)
NAMES = [f"text {i}" for i in range(SIZE)]
SCORES = ("loss", "entropy", "accuracy", "confidence", "el2n", "recent_loss")
CLOSE = {"rtol": 1e-5, "atol": 1e-5}
PADDING = transformers.DataCollatorForLanguageModeling(make_tokenizer(), mlm=False)
FLATTENING = transformers.DataCollatorWithFlattening()
FOR_FLASH_ATTENTION = transformers.DataCollatorWithFlattening(return_flash_attn_kwargs=True, return_seq_idx=True)

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore:'pin_memory' argument is set as true:UserWarning:torch"),
]


def make_trainer(folder, dataset, collator=FLATTENING, *, tracker=None, model=None, options=None, **arguments):
    settings = {"per_device_train_batch_size": 3, "num_train_epochs": 1, "learning_rate": 0.0, "max_grad_norm": 0.0}
    args = transformers.TrainingArguments(str(folder), **{**SILENT, **settings, **arguments})
    tracker = tracker or dp.DifficultyTracker(SIZE, scores=SCORES)
    model = model or make_model()
    kind = DifficultyCausalLMTrainer
    return kind(model, args, train_dataset=dataset, data_collator=collator, tracker=tracker, **(options or {}))


def assert_scores(trainer, rows=TOKENS):
    found = trainer.tracker.compute()
    for name, score in of_rows(make_model(), rows).items():
        torch.testing.assert_close(found[name].double(), score, **CLOSE, msg=lambda text, name=name: f"{name}: {text}")
    assert trainer.tokens().tolist() == [len(row) - 1 for row in rows]
    assert trainer.tracker.presentations == SIZE


# What is recorded


@pytest.mark.parametrize("collator", [PADDING, FLATTENING, FOR_FLASH_ATTENTION], ids=["padded", "flat", "flash"])
@pytest.mark.parametrize("rows", ["indexed", "index", "owner"])
def test_scores_of_a_row_are_those_of_the_row_alone(tmp_path, collator, rows):
    dataset = {
        "indexed": lambda: dp.IndexedDataset([{"input_ids": row} for row in TOKENS], ids=NAMES),
        "index": lambda: rows_of_tokens().add_column("index", list(range(SIZE))),
        "owner": lambda: dp.index_rows(rows_of_tokens()),
    }[rows]()
    trainer = make_trainer(tmp_path, dataset, collator)
    trainer.train()
    assert_scores(trainer)
    ids = trainer.finish(architecture="lm", seed=0).ids
    assert ids is None if rows != "indexed" else ids.tolist() == NAMES  # tables of tokens do not know the rows' names


def cut(size):
    """Rows cut into parts of at most so many tokens, and those of a line put together, without the library's help."""
    parts = [(i, row[k : k + size]) for i, row in enumerate(TOKENS) for k in range(0, len(row), size)]
    return Dataset.from_dict(
        {"input_ids": [part for _, part in parts], "owner": [[i] * len(part) for i, part in parts]}
    )


def test_a_row_in_parts_is_one_example_in_one_step(tmp_path):
    trainer = make_trainer(tmp_path, cut(8), per_device_train_batch_size=99)
    trainer.train()
    expected = []
    for row in TOKENS:
        parts = [row[k : k + 8] for k in range(0, len(row), 8)]
        weights = torch.tensor([len(part) - 1.0 for part in parts]).double()
        losses = torch.stack([of_rows(make_model(), [p])["loss"][0] if len(p) > 1 else weights[0] * 0 for p in parts])
        expected.append((losses * weights).sum() / weights.sum())
    torch.testing.assert_close(trainer.tracker.compute()["loss"].double(), torch.stack(expected), **CLOSE)
    assert trainer.tracker.presentations == SIZE


def test_tokens_that_the_loss_leaves_out_do_not_count(tmp_path):
    labels = [[-100, -100, *row[2:]] for row in TOKENS]
    dataset = dp.index_rows(rows_of_tokens().add_column("labels", labels))
    trainer = make_trainer(tmp_path, dataset)
    trainer.train()
    expected = of_rows(make_model(), TOKENS, first=2)["loss"]
    torch.testing.assert_close(trainer.tracker.compute()["loss"].double(), expected, **CLOSE)
    assert trainer.tokens().tolist() == [len(row) - 2 for row in TOKENS]


@pytest.mark.parametrize("options", [{}, {"gradient_accumulation_steps": 2}, {"label_smoothing_factor": 0.1}])
def test_training_is_that_of_the_trainer(tmp_path, options):
    options = {"learning_rate": 0.5, "num_train_epochs": 2, **options}
    dataset = dp.index_rows(rows_of_tokens())
    ours = make_trainer(tmp_path, dataset, **options)
    theirs = transformers.Trainer(make_model(), ours.args, train_dataset=rows_of_tokens(), data_collator=FLATTENING)
    for trainer in (ours, theirs):
        trainer.train()
    for own, other in zip(ours.model.parameters(), theirs.model.parameters(), strict=True):
        assert torch.equal(own, other)


@pytest.mark.parametrize("options", [{"per_device_train_batch_size": 16}, {"gradient_accumulation_steps": 6}])
@pytest.mark.parametrize("collator", [PADDING, FLATTENING], ids=["padded", "flat"])
def test_weights_multiply_the_losses_of_a_rows_tokens(tmp_path, options, collator):
    weight = torch.rand(SIZE, generator=torch.Generator().manual_seed(1)) * 2
    dataset = dp.index_rows(dp.select_rows(rows_of_tokens(), dp.Plan(torch.arange(SIZE), weight)))
    trainer = make_trainer(tmp_path, dataset, collator, learning_rate=0.5, lr_scheduler_type="constant", **options)
    trainer.train()
    assert trainer.state.global_step == 1
    assert_scores(trainer)
    model, loss = make_model(), torch.zeros(())
    for row, factor in zip(TOKENS, weight, strict=True):
        line = torch.tensor(row)
        loss = loss + factor * F.cross_entropy(model(line[None]).logits[0, :-1], line[1:], reduction="sum")
    (loss / sum(len(row) - 1 for row in TOKENS)).backward()
    for own, expected in zip(trainer.model.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(own, expected - 0.5 * expected.grad, **CLOSE)


# Trainings, checkpoints and evaluation


def test_resumed_training_ends_as_the_uninterrupted_one(tmp_path):
    dataset = dp.index_rows(rows_of_tokens())
    options = {"learning_rate": 0.5, "num_train_epochs": 2, "save_strategy": "steps", "save_steps": 8}
    whole = make_trainer(tmp_path, dataset, **options)
    whole.train()
    resumed = make_trainer(tmp_path, dataset, **options)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-8"))
    for name, score in whole.tracker.compute().items():
        assert torch.equal(resumed.tracker.compute()[name], score), name
    assert resumed.tokens().tolist() == whole.tokens().tolist()
    assert torch.equal(resumed.loss_fall(), whole.loss_fall())


def test_each_training_of_new_weights_is_a_run_of_its_own(tmp_path):
    args = make_trainer(tmp_path, dp.index_rows(rows_of_tokens()), learning_rate=0.5).args
    trainer = DifficultyCausalLMTrainer(
        model_init=lambda: make_model(),  # which looks at how many arguments there are
        args=args,
        train_dataset=dp.index_rows(rows_of_tokens()),
        data_collator=FLATTENING,
        tracker=dp.DifficultyTracker(SIZE, scores=SCORES),
    )
    trainer.train()
    first, tokens, fall = trainer.tracker.compute(), trainer.tokens(), trainer.loss_fall()
    trainer.train()
    assert torch.equal(trainer.tracker.compute()["loss"], first["loss"])
    assert torch.equal(trainer.tokens(), tokens)
    assert torch.equal(trainer.loss_fall(), fall)


def test_what_was_broken_off_and_begun_again_is_recorded_once(tmp_path):
    class Failing(DifficultyCausalLMTrainer):
        steps = 0

        def training_step(self, *args):
            self.steps += 1
            if self.steps == 3:
                raise RuntimeError("CUDA out of memory.")
            return super().training_step(*args)

    args = make_trainer(tmp_path, dp.index_rows(rows_of_tokens()), auto_find_batch_size=True).args
    tracker = dp.DifficultyTracker(SIZE, scores=SCORES)
    dataset = dp.index_rows(rows_of_tokens())
    trainer = Failing(make_model(), args, train_dataset=dataset, data_collator=FLATTENING, tracker=tracker)
    trainer.train()
    assert_scores(trainer)


@pytest.mark.parametrize("indexed", [True, False])
def test_evaluation_is_not_recorded(tmp_path, indexed):
    dataset = dp.index_rows(rows_of_tokens()) if indexed else rows_of_tokens()
    trainer = make_trainer(tmp_path, dp.index_rows(rows_of_tokens()), options={"eval_dataset": dataset})
    plain = transformers.Trainer(make_model(), trainer.args, eval_dataset=rows_of_tokens(), data_collator=FLATTENING)
    assert trainer.evaluate()["eval_loss"] == pytest.approx(plain.evaluate()["eval_loss"], abs=1e-6)
    assert trainer.predict(dataset).predictions.shape[-1] == make_model().config.vocab_size
    assert trainer.tracker.presentations == 0


# What is refused


def test_data_that_do_not_say_whose_their_tokens_are_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"got the columns input_ids, expected 'owner'.*dp\.index_rows"):
        make_trainer(tmp_path, rows_of_tokens()).train()
    with pytest.raises(ValueError, match=r"got samples with input_ids, expected 'owner' or 'index'"):
        make_trainer(tmp_path, [{"input_ids": row} for row in TOKENS]).train()


def test_rows_that_lost_their_numbers_are_warned_of(tmp_path):
    kept = dp.select_rows(rows_of_tokens(), dp.Plan(torch.tensor([1, 3, 5]), torch.ones(3)))
    make_trainer(tmp_path, dp.index_rows(kept)).get_train_dataloader()
    renumbered = dp.index_rows(kept.remove_columns(["index"]))
    with pytest.warns(UserWarning, match=r"of the rows 0\.\.2 of 16, and of no other.*keep the column 'index'"):
        make_trainer(tmp_path, renumbered).get_train_dataloader()


def test_a_stream_is_refused(tmp_path):
    stream = dp.index_rows(rows_of_tokens()).to_iterable_dataset()
    with pytest.raises(TypeError, match="got IterableDataset, expected a map-style data set"):
        make_trainer(tmp_path, stream, max_steps=1).train()


def test_a_row_that_the_tracker_does_not_have_is_refused(tmp_path):
    tracker = dp.DifficultyTracker(SIZE - 1, scores=SCORES)
    with pytest.raises(IndexError, match=r"got row 15, expected 0\.\.14"):
        make_trainer(tmp_path, dp.index_rows(rows_of_tokens()), tracker=tracker).train()


def test_weights_of_another_loss_are_refused(tmp_path):
    dataset = dp.index_rows(dp.select_rows(rows_of_tokens(), dp.Plan(torch.arange(SIZE), torch.full((SIZE,), 2.0))))
    with pytest.raises(ValueError, match=r"rows with a 'weight', label_smoothing_factor=0\.1"):
        make_trainer(tmp_path, dataset, label_smoothing_factor=0.1).train()


def test_a_model_that_returns_no_logits_is_refused(tmp_path):
    class LossAlone(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = make_model()

        def forward(self, input_ids, labels=None, position_ids=None):
            return {"loss": self.inner(input_ids=input_ids, labels=labels, position_ids=position_ids).loss}

    with pytest.raises(ValueError, match=r"got logits none and labels \(1, \d+\).*use_liger_kernel"):
        make_trainer(tmp_path, dp.index_rows(rows_of_tokens()), model=LossAlone()).train()
