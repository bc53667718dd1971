"""The Hugging Face Trainer: visits what the sampler keeps, weighs it, records it, and resumes."""

from __future__ import annotations

import re
import runpy
from itertools import chain

import pytest
import torch
import torch.nn.functional as F
from places import EXAMPLES
from torch import nn

transformers = pytest.importorskip("transformers", reason="transformers is not installed: pip install transformers")
pytest.importorskip("accelerate", reason="accelerate is not installed: pip install accelerate")

import difficulty_prune as dp  # noqa: E402
from difficulty_prune.integrations.transformers import DifficultyTrainer  # noqa: E402

SIZE = 60
X = torch.randn(SIZE, 6, generator=torch.Generator().manual_seed(0))
Y = (X[:, 0] + 0.5 * X[:, 1] > 0).long()
TRAIN = dp.IndexedDataset([{"x": x, "labels": y} for x, y in zip(X, Y.tolist(), strict=True)])

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore:'pin_memory' argument is set as true:UserWarning:torch"),
]


class Linear(nn.Module):
    """What a model of transformers looks like from the outside."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 2)
        nn.init.zeros_(self.layer.weight)
        nn.init.zeros_(self.layer.bias)

    def forward(self, x, labels=None):
        logits = self.layer(x)
        return {"logits": logits} if labels is None else {"loss": F.cross_entropy(logits, labels), "logits": logits}


class Visiting(DifficultyTrainer):
    """Writes down which examples each micro-batch has, and stops where told."""

    stop_after = None

    def training_step(self, model, inputs, *args):
        self.__dict__.setdefault("visited", []).append(inputs["index"].tolist())
        self.control.should_training_stop |= self.state.global_step + 1 == self.stop_after
        return super().training_step(model, inputs, *args)


def make_trainer(folder, *, policy=None, sampler=True, tracker=None, kind=Visiting, options=None, **arguments):
    tracker = tracker or dp.DifficultyTracker(SIZE, scores=("loss", "el2n"))
    if sampler is True:
        policy = policy or dp.policies.SoftPrune(keep=0.5)
        sampler = dp.PruneSampler(policy, tracker.source("loss"), seed=0, fixed_length=30)
    settings = {
        "per_device_train_batch_size": 7,
        "num_train_epochs": 4,
        "learning_rate": 0.5,
        "optim": "sgd",
        "max_grad_norm": 0.0,
        "save_strategy": "no",
        "logging_strategy": "no",
        "use_cpu": True,
        "report_to": "none",
        "disable_tqdm": True,
    }
    args = transformers.TrainingArguments(str(folder), **{**settings, **arguments})
    options = {"train_dataset": TRAIN, **(options or {})}
    return kind(Linear(), args, tracker=tracker, sampler=sampler or None, **options)


# Visits


def test_each_epoch_visits_its_own_plan_and_nothing_twice(tmp_path):
    trainer = make_trainer(tmp_path)
    trainer.train()
    epochs = [list(chain(*trainer.visited[start : start + 5])) for start in range(0, 20, 5)]
    assert [len(epoch) for epoch in epochs] == [30] * 4
    assert all(len(set(epoch)) == 30 for epoch in epochs)
    assert len({tuple(sorted(epoch)) for epoch in epochs}) == 4
    assert set(epochs[-1]) <= set(trainer.sampler.plan.index.tolist())
    assert trainer.sampler.epoch == 3
    assert trainer.tracker.presentations == 120


def test_without_a_sampler_it_scores_all_examples(tmp_path):
    trainer = make_trainer(tmp_path, sampler=None, num_train_epochs=2)
    trainer.train()
    assert trainer.tracker.presentations == 2 * SIZE
    assert all(score.isfinite().all() for score in trainer.tracker.compute().values())


def test_scores_are_those_of_the_logits_before_each_step(tmp_path):
    trainer = make_trainer(tmp_path, num_train_epochs=1)
    trainer.train()
    first = trainer.visited[0]
    assert trainer.tracker.compute()["loss"][first].tolist() == pytest.approx([0.6931472] * 7)


# What a run says of the training set


def test_a_run_names_the_examples_and_classes_of_the_training_set(tmp_path):
    datasets = pytest.importorskip("datasets", reason="datasets is not installed: pip install datasets")
    features = datasets.Features(
        x=datasets.List(datasets.Value("float32")),
        label=datasets.ClassLabel(names=["no", "yes"]),
        name=datasets.Value("string"),
    )
    names = [f"doc {i}" for i in range(SIZE)]
    rows = datasets.Dataset.from_dict({"x": X.tolist(), "label": Y.tolist(), "name": names}, features)
    train = dp.IndexedDataset(rows, key="name")
    trainer = make_trainer(tmp_path, options={"train_dataset": train}, num_train_epochs=1)
    trainer.train()
    run = trainer.finish(architecture="linear", seed=0)
    assert run.ids.tolist() == names
    assert run.class_names == ("no", "yes")
    assert run.labels.tolist() == Y.tolist()
    assert (~run.seen).sum() == 30, "of those that the sampler left out, too"
    whole = trainer.finish(architecture="linear", seed=0, dataset=train)
    assert whole.dataset_fingerprint == dp.dataset_fingerprint(train)
    assert whole.ids.tolist() == names


def test_a_run_of_a_training_set_that_knows_no_names_is_that_of_the_tracker(tmp_path):
    trainer = make_trainer(tmp_path, sampler=None, num_train_epochs=1)
    trainer.train()
    run, plain = trainer.finish(architecture="linear", seed=0), trainer.tracker.finish(architecture="linear", seed=0)
    assert (run.ids, run.class_names, run.labels.tolist()) == (None, None, plain.labels.tolist())
    assert all((run.scores[name] == plain.scores[name]).all() for name in plain.scores)


# Weights


def weighted_steps(sampler, batches, learning_rate):
    """Plain gradient descent on the weighted losses, averaged over all examples of a step."""
    model = Linear()
    for step in batches:
        losses = F.cross_entropy(model(X[step])["logits"], Y[step], reduction="none")
        (losses * sampler.weight(torch.tensor(step))).mean().backward()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter -= learning_rate * parameter.grad
                parameter.grad = None
    return model


@pytest.mark.parametrize(
    ("accumulate", "steps"), [(1, [[0], [1], [2], [3]]), (2, [[0, 1], [2, 3]]), (3, [[0, 1, 2], [3]])]
)
def test_steps_are_those_of_the_weighted_loss_under_gradient_accumulation(tmp_path, accumulate, steps):
    """24 examples in batches of 7: the last micro-batch has only 3 examples, each of which counts as much as others."""
    tracker = dp.DifficultyTracker(SIZE, scores=("loss",))
    policy = dp.policies.Importance(temperature=1.0, keep=0.4)
    sampler = dp.PruneSampler(policy, torch.rand(SIZE, generator=torch.Generator().manual_seed(1)), fixed_length=24)
    assert len(set(sampler.plan.weight.tolist())) > 10
    trainer = make_trainer(
        tmp_path,
        tracker=tracker,
        sampler=sampler,
        num_train_epochs=1,
        gradient_accumulation_steps=accumulate,
        lr_scheduler_type="constant",
    )
    trainer.train()
    batches = [list(chain(*(trainer.visited[i] for i in step))) for step in steps]
    assert trainer.state.global_step == len(steps)
    expected = weighted_steps(sampler, batches, learning_rate=0.5)
    torch.testing.assert_close(trainer.model.layer.weight, expected.layer.weight, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(trainer.model.layer.bias, expected.layer.bias, rtol=1e-5, atol=1e-6)


# Checkpoints


@pytest.mark.parametrize("stop", [3, 5, 8])  # in the first epoch, at its end, in the second
def test_resumed_training_ends_as_the_uninterrupted_one(tmp_path, stop):
    whole = make_trainer(tmp_path / "whole")
    whole.train()

    begun = make_trainer(tmp_path / "parts", save_strategy="steps", save_steps=stop)
    begun.stop_after = stop
    begun.train()
    resumed = make_trainer(tmp_path / "parts")
    resumed.train(resume_from_checkpoint=str(tmp_path / "parts" / f"checkpoint-{stop}"))

    assert begun.visited + resumed.visited == whole.visited
    for name, score in whole.tracker.compute().items():
        assert torch.equal(resumed.tracker.compute()[name], score), name
    assert torch.equal(resumed.model.layer.weight, whole.model.layer.weight)


def test_a_checkpoint_without_scores_is_named(tmp_path):
    plain = transformers.Trainer(
        Linear(), make_trainer(tmp_path, max_steps=1, save_strategy="steps").args, train_dataset=TRAIN
    )
    plain.train()
    with pytest.raises(FileNotFoundError, match=r"checkpoint-1.difficulty\.pt.*DifficultyTrainer"):
        make_trainer(tmp_path).train(resume_from_checkpoint=True)


# Evaluation and other tasks


@pytest.mark.parametrize("dataset", [TRAIN, TRAIN.dataset], ids=["indexed", "plain"])
def test_evaluation_is_not_recorded_and_not_weighted(tmp_path, dataset):
    trainer = make_trainer(tmp_path, options={"eval_dataset": dataset})
    assert trainer.evaluate()["eval_loss"] == pytest.approx(0.6931472)
    assert trainer.tracker.presentations == 0


def test_columns_that_the_model_does_not_know_are_removed_but_not_the_index(tmp_path):
    train = dp.IndexedDataset([{**sample, "text": "not a tensor"} for sample in TRAIN.dataset])
    trainer = make_trainer(tmp_path, num_train_epochs=1, options={"train_dataset": train})
    assert trainer.args.remove_unused_columns
    trainer.train()
    assert trainer.tracker.presentations == 30


class OfTokens(Visiting):
    """Each feature is a token with a logit of its own for either class; -100 is padding."""

    def example_loss(self, outputs, labels):
        losses = F.cross_entropy(outputs["logits"].flatten(0, 1), labels.flatten(), reduction="none")
        rows = torch.arange(len(labels)).repeat_interleave(labels.shape[1])
        real = labels.flatten() != -100
        return dp.reduce_loss(losses[real], rows[real], len(labels))


class Tokens(Linear):
    def forward(self, x, labels=None):
        return {"logits": torch.stack([x + self.layer.bias[0], -x], 2)}


def test_other_tasks_give_their_own_loss_per_example(tmp_path):
    labels = torch.where(torch.arange(6) < 4, Y[:, None], -100)
    train = dp.IndexedDataset([{"x": x, "labels": y} for x, y in zip(X, labels, strict=True)])
    tracker = dp.DifficultyTracker(SIZE, scores=("loss",))
    args = make_trainer(tmp_path, learning_rate=0.0, num_train_epochs=1).args
    OfTokens(Tokens(), args, tracker=tracker, train_dataset=train).train()
    sign = torch.where(Y == 0, 1.0, -1.0)[:, None]
    expected = F.softplus(-2 * sign * X[:, :4]).mean(1)  # -log sigmoid of the difference of the two logits
    torch.testing.assert_close(tracker.compute()["loss"], expected)


# Settings


def test_a_sampler_whose_epochs_may_differ_in_length_is_refused(tmp_path):
    tracker = dp.DifficultyTracker(SIZE, scores=("loss",))
    sampler = dp.PruneSampler(dp.policies.SoftPrune(keep=0.5), tracker.source("loss"))
    with pytest.raises(ValueError, match=r"fixed_length: got None.*fixed_length=round\(keep"):
        make_trainer(tmp_path, tracker=tracker, sampler=sampler)


def test_a_fixed_plan_needs_no_fixed_length(tmp_path):
    sampler = dp.PruneSampler(dp.policies.Hardest(keep=0.5), torch.rand(SIZE))
    trainer = make_trainer(tmp_path, sampler=sampler, num_train_epochs=1)
    trainer.train()
    assert sorted(chain(*trainer.visited)) == sampler.plan.index.tolist()


def test_settings_that_do_not_fit_are_refused(tmp_path):
    share = dp.PruneSampler(dp.policies.Random(keep=0.5), torch.rand(SIZE), rank=0, world_size=2)
    with pytest.raises(ValueError, match=r"world_size 2.*the Trainer shares out"):
        make_trainer(tmp_path, sampler=share)
    with pytest.raises(TypeError, match="sampler: got 3"):
        make_trainer(tmp_path, sampler=3)
    with pytest.raises(TypeError, match=r"tracker: got 'loss', expected dp\.DifficultyTracker"):
        make_trainer(tmp_path, tracker="loss", sampler=None)
    with pytest.raises(TypeError, match=r"override DifficultyTrainer\.example_loss"):
        make_trainer(tmp_path, options={"compute_loss_func": F.cross_entropy})


def test_batches_without_an_index_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"got batches with x, labels, expected 'index'.*IndexedDataset"):
        make_trainer(tmp_path, options={"train_dataset": TRAIN.dataset}).train()


def test_logits_of_another_task_are_refused(tmp_path):
    trainer = make_trainer(tmp_path)
    with pytest.raises(ValueError, match=r"got logits \(2, 3, 4\) and labels \(2, 3\).*override"):
        trainer.example_loss({"logits": torch.zeros(2, 3, 4)}, torch.zeros(2, 3, dtype=torch.int64))


# The example


def test_the_example_prints_what_it_claims(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(EXAMPLES / "huggingface_trainer.py"), run_name="__main__")
    printed = capsys.readouterr().out
    epochs = re.findall(r"^epoch (\d): 700 examples in 28 steps, 0 seen twice$", printed, re.MULTILINE)
    assert epochs == list("012345")
    assert "scores: 2800 finite" in printed
    accuracy = re.search(r"^accuracy: (\d\.\d+)", printed, re.MULTILINE)
    assert accuracy is not None
    assert float(accuracy[1]) > 0.75
