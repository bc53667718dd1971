"""Several trainings of one Hugging Face Trainer: with new weights, with the same, and tried again with less memory."""

from __future__ import annotations

from itertools import chain

import numpy as np
import pytest
import torch
from torch import nn

transformers = pytest.importorskip("transformers", reason="transformers is not installed: pip install transformers")
pytest.importorskip("accelerate", reason="accelerate is not installed: pip install accelerate")

import difficulty_prune as dp  # noqa: E402
from difficulty_prune.integrations.transformers import DifficultyTrainer  # noqa: E402

SIZE, KEPT = 40, 20
X = torch.randn(SIZE, 6, generator=torch.Generator().manual_seed(0))
Y = (X[:, 0] + 0.5 * X[:, 1] > 0).long().tolist()
TRAIN = dp.IndexedDataset([{"x": x, "labels": y} for x, y in zip(X, Y, strict=True)])

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore:'pin_memory' argument is set as true:UserWarning:torch"),
]


class Linear(nn.Module):
    """What a model of transformers looks like from the outside."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 2)

    def forward(self, x, labels=None):
        logits = self.layer(x)
        return {"logits": logits} if labels is None else {"loss": nn.functional.cross_entropy(logits, labels)}


class Failing(DifficultyTrainer):
    """Writes down which examples each batch has, and fails at those steps of its life that it is told, once each."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.visited, self.steps, self.fail_at, self.error = [], 0, (), RuntimeError("CUDA out of memory.")

    def training_step(self, model, inputs, *args):
        self.visited.append(inputs["index"].tolist())
        loss = super().training_step(model, inputs, *args)
        self.steps += 1
        if self.steps in self.fail_at:
            raise self.error
        return loss

    def epochs(self):
        """The examples visited since the last call, by epoch."""
        visited, self.visited = list(chain(*self.visited)), []
        size = SIZE if self.sampler is None else KEPT
        return [visited[start : start + size] for start in range(0, len(visited), size)]


def make_trainer(folder, *, new=False, pruned=True, policy=None, options=None, **arguments):
    """A trainer whose weights are new in each training, or not."""
    tracker = dp.DifficultyTracker(SIZE, scores=("loss", "el2n", "aum"))
    policy = policy or dp.policies.SoftPrune(keep=0.5)
    sampler = dp.PruneSampler(policy, tracker.source("loss"), seed=0, fixed_length=KEPT) if pruned else None
    settings = {
        "per_device_train_batch_size": 5,
        "num_train_epochs": 2,
        "learning_rate": 0.5,
        "save_strategy": "no",
        "logging_strategy": "no",
        "use_cpu": True,
        "report_to": "none",
        "disable_tqdm": True,
    }
    args = transformers.TrainingArguments(str(folder), **{**settings, **arguments})
    torch.manual_seed(0)
    model = {"model_init": Linear} if new else {"model": Linear()}
    return Failing(**model, args=args, train_dataset=TRAIN, tracker=tracker, sampler=sampler, **(options or {}))


def assert_scores(trainer, expected):
    for name, score in expected.items():
        torch.testing.assert_close(trainer.tracker.compute()[name], score, rtol=0, atol=0, equal_nan=True, msg=name)


HARDEST = dp.policies.Hardest(keep=0.5, unseen="keep")


def hardest(trainer):
    """What `HARDEST` keeps by the scores that there are."""
    return set(trainer.tracker.compute()["loss"].topk(KEPT).indices.tolist())


# New weights


@pytest.mark.parametrize("epochs", [1, 3])
@pytest.mark.parametrize("pruned", [True, False])
def test_each_training_of_new_weights_is_a_run_of_its_own(tmp_path, epochs, pruned):
    trainer = make_trainer(tmp_path, new=True, pruned=pruned, num_train_epochs=epochs)
    trainer.train()
    first, scores = trainer.epochs(), trainer.tracker.compute()
    for _ in range(2):
        trainer.train()
        assert trainer.tracker.presentations == epochs * (KEPT if pruned else SIZE)
        assert trainer.epochs() == first
        assert_scores(trainer, scores)


def test_new_weights_after_a_training_that_was_broken_off(tmp_path):
    trainer = make_trainer(tmp_path, new=True)
    trainer.train()
    whole, scores = trainer.epochs(), trainer.tracker.compute()
    trainer.fail_at, trainer.error = (trainer.steps + 6,), KeyError("a trial that is pruned")
    with pytest.raises(KeyError, match="pruned"):
        trainer.train()
    trainer.epochs()
    trainer.train()
    assert trainer.epochs() == whole
    assert_scores(trainer, scores)


def test_scores_that_were_there_before_the_first_training_of_new_weights_do_not_mix_with_it(tmp_path):
    fresh = make_trainer(tmp_path, new=True)
    fresh.train()
    trainer = make_trainer(tmp_path, new=True)
    trainer.tracker.update(torch.arange(SIZE), 5 * X[:, :2], torch.tensor(Y))
    trainer.sampler.set_epoch(1)
    trainer.sampler.set_epoch(0)
    trainer.train()
    assert trainer.epochs() == fresh.epochs()
    assert_scores(trainer, fresh.tracker.compute())


def test_a_checkpoint_brings_its_scores_to_a_trainer_that_makes_models(tmp_path):
    whole = make_trainer(tmp_path, new=True, save_strategy="epoch")
    whole.train()
    second = whole.epochs()[1:]
    resumed = make_trainer(tmp_path, new=True)
    for _ in range(2):
        resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))
        assert resumed.epochs() == second
        assert_scores(resumed, whole.tracker.compute())


def test_a_hyperparameter_search_leaves_the_scores_of_its_last_trial(tmp_path):
    pytest.importorskip("optuna", reason="optuna is not installed: pip install optuna")
    counts = []

    class Counting(transformers.TrainerCallback):
        def on_train_end(self, *args, **kwargs):
            counts.append(trainer.tracker.presentations)

    trainer = make_trainer(tmp_path, new=True, options={"eval_dataset": TRAIN, "callbacks": [Counting]})
    trainer.hyperparameter_search(
        hp_space=lambda trial: {"learning_rate": trial.suggest_float("learning_rate", 0.1, 1.0)},
        backend="optuna",
        n_trials=3,
    )
    assert counts == [2 * KEPT] * 3
    assert trainer.tracker.presentations == 2 * KEPT


# The same weights


@pytest.mark.parametrize("epochs", [1, 2])
def test_a_second_training_of_the_same_weights_goes_on_and_plans_by_the_scores(tmp_path, epochs):
    trainer = make_trainer(tmp_path, policy=HARDEST, num_train_epochs=epochs)
    trainer.tracker.update(torch.arange(SIZE), X[:, :2], torch.tensor(Y))  # so that there is something to plan by
    for training in range(3):
        expected = hardest(trainer)
        trainer.train()
        assert set(trainer.epochs()[0]) == expected
        assert trainer.tracker.presentations == SIZE + (training + 1) * epochs * KEPT
    assert trainer.sampler.epoch == epochs - 1


def test_a_training_after_an_error_goes_on(tmp_path):
    trainer = make_trainer(tmp_path, pruned=False)
    trainer.fail_at, trainer.error = (3,), KeyError("broken off")
    with pytest.raises(KeyError, match="broken off"):
        trainer.train()
    trainer.train()
    assert trainer.tracker.presentations == 3 * 5 + 2 * SIZE


# Tried again


@pytest.mark.parametrize(("new", "pruned"), [(True, True), (False, True), (False, False)])
@pytest.mark.parametrize("fail_at", [(1,), (6,), (3, 9)])  # in the first step, in the second epoch, and twice
def test_what_was_broken_off_and_begun_again_is_recorded_once(tmp_path, new, pruned, fail_at):
    trainer = make_trainer(tmp_path, new=new, pruned=pruned, auto_find_batch_size=True)
    trainer.fail_at = fail_at
    trainer.train()
    size = KEPT if pruned else SIZE
    assert trainer.tracker.presentations == 2 * size
    last = trainer.visited[fail_at[-1] :]
    assert len(last[0]) == 5 - len(fail_at)
    epochs = [list(chain(*part)) for part in (last[: len(last) // 2], last[len(last) // 2 :])]
    assert [len(set(epoch)) for epoch in epochs] == [size, size]
    seen = trainer.tracker.compute()["loss"].isfinite()
    assert set(seen.nonzero()[:, 0].tolist()) == set(chain(*epochs))


def test_a_second_training_that_is_tried_again_keeps_the_scores_of_the_first(tmp_path):
    trainer = make_trainer(tmp_path, policy=HARDEST, num_train_epochs=1, auto_find_batch_size=True)
    trainer.tracker.update(torch.arange(SIZE), X[:, :2], torch.tensor(Y))
    trainer.train()
    expected = hardest(trainer)
    trainer.epochs()
    trainer.fail_at = (trainer.steps + 3,)
    trainer.train()
    assert set(chain(*trainer.visited[3:])) == expected
    assert trainer.tracker.presentations == SIZE + 2 * KEPT


def test_a_resumed_training_that_is_tried_again_goes_by_the_checkpoint(tmp_path):
    make_trainer(tmp_path, save_strategy="epoch").train()
    trainer = make_trainer(tmp_path, auto_find_batch_size=True)
    trainer.fail_at = (2,)
    trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))
    recorded = sum(map(len, trainer.visited[2:]))
    assert trainer.tracker.presentations == KEPT + recorded


def test_a_batch_size_that_is_never_found_is_not_gone_back_to_later(tmp_path):
    trainer = make_trainer(tmp_path, pruned=False, num_train_epochs=1, auto_find_batch_size=True)
    trainer.train()
    trainer.fail_at = range(trainer.steps + 1, trainer.steps + 6)
    with pytest.raises(RuntimeError, match="No executable batch size found"):
        trainer.train()
    after = trainer.tracker.presentations
    trainer.args.auto_find_batch_size = False
    trainer.train()
    assert trainer.tracker.presentations == after + SIZE


# The second half


class Middle(transformers.TrainerCallback):
    """A snapshot of one's own, before the first step of the second half."""

    def __init__(self, tracker, step):
        self.tracker, self.step = tracker, step

    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            self.snapshot = self.tracker.snapshot()


def late_aum(trainer, **metadata):
    return trainer.finish(architecture="linear", seed=0, **metadata).scores["late_aum"]


@pytest.mark.parametrize("step", [3, 4, 6])  # of 8: before the middle, at it, and after it
def test_the_run_has_the_aum_of_the_second_half_also_where_it_was_resumed(tmp_path, step):
    whole = make_trainer(tmp_path, options={"late": True})
    middle = Middle(whole.tracker, 4)
    whole.add_callback(middle)
    whole.train()
    expected = whole.tracker.finish(architecture="linear", seed=0, late=middle.snapshot).scores["late_aum"]
    np.testing.assert_array_equal(late_aum(whole), expected)

    saving = {"options": {"late": True}, "save_strategy": "steps", "save_steps": step}
    make_trainer(tmp_path, **saving).train()
    resumed = make_trainer(tmp_path, options={"late": True})
    resumed.train(resume_from_checkpoint=str(tmp_path / f"checkpoint-{step}"))
    np.testing.assert_array_equal(late_aum(resumed), expected)


def test_each_training_has_a_second_half_of_its_own(tmp_path):
    once, twice = (make_trainer(tmp_path, new=True, options={"late": True}) for _ in range(2))
    once.train()
    twice.train()
    twice.train()
    np.testing.assert_array_equal(late_aum(twice), late_aum(once))


def test_a_second_half_that_never_came_is_warned_of_or_refused(tmp_path):
    trainer = make_trainer(tmp_path, save_strategy="steps", save_steps=6)
    trainer.train()
    resumed = make_trainer(tmp_path, options={"late": True})
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-6"))
    with pytest.warns(UserWarning, match="late: the training ended before its middle"):
        run = resumed.finish(architecture="linear", seed=0)
    assert "late_aum" not in run.scores
    tracker = dp.DifficultyTracker(SIZE, scores=("loss",))
    with pytest.raises(ValueError, match="late: this tracker records loss, expected aum"):
        DifficultyTrainer(Linear(), tracker=tracker, late=True)
