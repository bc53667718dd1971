"""Lightning calls `setup` for every stage: no stage loses what a fit recorded, and a second fit goes on."""

from __future__ import annotations

import signal
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

pl = pytest.importorskip("lightning.pytorch", reason="lightning is not installed: pip install lightning")
from lightning.pytorch.callbacks import LearningRateFinder, ModelCheckpoint, OnExceptionCheckpoint  # noqa: E402
from lightning.pytorch.tuner import Tuner  # noqa: E402

import difficulty_prune as dp  # noqa: E402
from difficulty_prune.integrations.lightning import DifficultyCallback  # noqa: E402

SIZE, KEPT, BATCH = 30, 15, 5
X = torch.randn(SIZE, 6, generator=torch.Generator().manual_seed(0))
Y = (X[:, 0] > 0).long()
TRAIN = dp.IndexedDataset(TensorDataset(X, Y))
EVALUATIONS = ["validate", "test", "predict"]

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore:GPU available but not used"),
    pytest.mark.filterwarnings("ignore:`isinstance.treespec, LeafSpec.` is deprecated"),
    pytest.mark.filterwarnings("ignore:The '.*dataloader' does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*checkpoint that ended before the epoch ended and your dataloader is not res"),
    pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty"),
    pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`, callbacks used to create"),
    pytest.mark.filterwarnings("ignore:.*The last model of the previous `fit` call will be used"),
    pytest.mark.filterwarnings("ignore:.*there is no last checkpoint available"),
]


class Stop(Exception):
    """As when the machine is taken away."""


class Classifier(pl.LightningModule):
    """Writes down every batch that it shows to its tracker."""

    def __init__(self, setup="always", *, workers=0, asks_for_steps=False, scores=("loss", "el2n"), keep=0.5):
        super().__init__()
        self.layer = nn.Linear(6, 2)
        nn.init.zeros_(self.layer.weight)
        nn.init.zeros_(self.layer.bias)
        self.style, self.workers, self.asks_for_steps = setup, workers, asks_for_steps
        self.data, self.scores, self.keep = TRAIN, scores, keep
        self.lr = 0.5
        self.shown, self.lengths = [], []
        self.break_in, self.error = None, Stop
        if setup == "in __init__":
            self.make()

    def make(self):
        self.tracker = dp.DifficultyTracker(len(self.data), scores=self.scores)
        self.sampler = dp.PruneSampler(dp.policies.SoftPrune(keep=self.keep), self.tracker.source("loss"), seed=0)

    def setup(self, stage):
        wanted = {"always": True, "for fit": stage == "fit", "once": not hasattr(self, "tracker"), "in __init__": False}
        if wanted[self.style]:
            self.make()

    def train_dataloader(self):
        return DataLoader(self.data, batch_size=BATCH, sampler=self.sampler, num_workers=self.workers)

    def val_dataloader(self):
        return DataLoader(TensorDataset(X, Y), batch_size=SIZE)

    test_dataloader = predict_dataloader = val_dataloader

    def training_step(self, batch):
        if self.break_in is not None:
            self.break_in -= 1
            if self.break_in < 0:
                self.break_in = None
                raise self.error
        x, y, index = batch
        logits = self.layer(x)
        self.tracker.update(index, logits, y)
        self.shown.append((index, logits.detach().clone(), y))
        return (F.cross_entropy(logits, y, reduction="none") * self.sampler.weight(index)).mean()

    def validation_step(self, batch):
        pass

    def test_step(self, batch):
        pass

    def predict_step(self, batch):
        return self.layer(batch[0])

    def on_train_epoch_end(self):
        self.lengths.append(self.trainer.num_training_batches)

    def configure_optimizers(self):
        if self.asks_for_steps:
            assert self.trainer.estimated_stepping_batches > 0  # for which Lightning makes the loader already now
        return torch.optim.SGD(self.parameters(), self.lr)

    @property
    def visited(self):
        return list(chain(*(index.tolist() for index, _, _ in self.shown)))


def make_trainer(folder, *callbacks, epochs=2, **options):
    return pl.Trainer(
        max_epochs=epochs,
        callbacks=list(callbacks),
        default_root_dir=folder,
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        reload_dataloaders_every_n_epochs=1,
        **{"enable_checkpointing": False, **options},
    )


def writer(folder):
    return DifficultyCallback(Path(folder) / "run.safetensors", architecture="linear", seed=0)


def evaluate(trainer, model, stage, **options):
    silent = {} if stage == "predict" else {"verbose": False}
    getattr(trainer, stage)(model, **silent, **options)


def go_on(trainer, model, epochs=1, **options):
    trainer.fit_loop.max_epochs = trainer.current_epoch + epochs
    trainer.fit(model, **options)


def scores_of(steps, scores=("loss", "el2n")):
    """What a tracker says that has seen these batches and nothing else."""
    tracker = dp.DifficultyTracker(SIZE, scores=scores)
    for step in steps:
        tracker.update(*step)
    return tracker.compute()


def check_scores(found, steps):
    expected = scores_of(steps)
    assert set(found) == set(expected)
    for name, score in expected.items():
        np.testing.assert_array_equal(found[name], score, err_msg=name)


# Any order of stages


@settings(max_examples=20)
@given(
    style=st.sampled_from(["always", "for fit", "once", "in __init__"]),
    stages=st.lists(st.sampled_from(["fit", "fit", "broken fit", "new trainer", *EVALUATIONS]), min_size=2, max_size=7),
    asks_for_steps=st.booleans(),
    after=st.integers(0, 2),
)
def test_scores_are_of_all_steps_whatever_the_order_of_stages(style, stages, asks_for_steps, after):
    with TemporaryDirectory() as folder:
        model, callback = Classifier(style, asks_for_steps=asks_for_steps), writer(folder)
        trainer, written = make_trainer(folder, callback, epochs=0), None
        for stage in stages:
            begun, complete = len(model.shown), len(set(model.visited)) == SIZE
            before = getattr(model, "tracker", None), getattr(model, "sampler", None)
            if stage == "new trainer":
                trainer = make_trainer(folder, callback, epochs=0)
            elif stage == "broken fit":
                model.break_in = after
                with pytest.raises(Stop):
                    go_on(trainer, model)
            elif stage == "fit":
                go_on(trainer, model)
                written = len(model.shown)
                epoch = list(chain(*(index.tolist() for index, _, _ in model.shown[begun:])))
                assert len(set(epoch)) == len(epoch)
                assert len(epoch) == KEPT if complete else KEPT <= len(epoch) <= SIZE
            else:
                evaluate(trainer, model, stage)
                assert len(model.shown) == begun
                if begun:
                    assert (model.tracker, model.sampler) == before
            if model.shown:
                check_scores(model.tracker.compute(), model.shown)
            assert Path(callback.path).exists() == (written is not None)
            if written is not None:
                run = dp.Run.load(callback.path)
                check_scores(run.scores, model.shown[:written])
                assert run.metadata["presentations"] == sum(len(index) for index, _, _ in model.shown[:written])


@pytest.mark.parametrize("stage", EVALUATIONS)
def test_an_evaluation_leaves_the_same_tracker_and_sampler(tmp_path, stage):
    model, trainer = Classifier(), make_trainer(tmp_path, writer(tmp_path))
    trainer.fit(model)
    before, plan = (model.tracker, model.sampler), model.sampler.plan
    written = (tmp_path / "run.safetensors").read_bytes()
    evaluate(trainer, model, stage)
    assert (model.tracker, model.sampler) == before
    assert (model.sampler.epoch, model.sampler.plan) == (2, plan)
    check_scores(model.tracker.compute(), model.shown)
    assert (tmp_path / "run.safetensors").read_bytes() == written


@pytest.mark.parametrize("stage", EVALUATIONS)
def test_an_evaluation_without_batches_leaves_them_too(tmp_path, stage):
    model, callback = Classifier(), writer(tmp_path)
    make_trainer(tmp_path, callback).fit(model)
    before = model.tracker, model.sampler
    nothing = {"limit_val_batches": 0, "limit_test_batches": 0, "limit_predict_batches": 0}
    evaluate(make_trainer(tmp_path, callback, **nothing), model, stage)
    assert (model.tracker, model.sampler) == before


# A second fit


@pytest.mark.parametrize("asks_for_steps", [False, True], ids=["plain", "asks for steps"])
@pytest.mark.parametrize(("style", "workers"), [("always", 0), ("always", 1), ("once", 0), ("for fit", 0)])
def test_two_fits_are_one(tmp_path, style, workers, asks_for_steps):
    whole = Classifier(style)
    make_trainer(tmp_path, DifficultyCallback(), epochs=4).fit(whole)
    model = Classifier(style, workers=workers, asks_for_steps=asks_for_steps)
    trainer = make_trainer(tmp_path, writer(tmp_path))
    evaluate(trainer, model, "validate")
    trainer.fit(model)
    evaluate(trainer, model, "test")
    go_on(trainer, model, epochs=2)
    assert model.visited == whole.visited
    assert model.lengths == whole.lengths == [6, 3, 3, 3]
    assert torch.equal(model.layer.weight, whole.layer.weight)
    assert dp.Run.load(tmp_path / "run.safetensors").metadata["presentations"] == SIZE + 3 * KEPT


def test_another_trainer_goes_on_with_the_same_module(tmp_path):
    """Its first epoch is number 0 again, and planned with what is known, though no sampler has left that epoch."""
    model, callback = Classifier(), writer(tmp_path)
    make_trainer(tmp_path, callback, epochs=1).fit(model)
    make_trainer(tmp_path, callback, epochs=1).fit(model)
    assert len(model.visited) == SIZE + KEPT
    check_scores(dp.Run.load(callback.path).scores, model.shown)


def test_another_policy_in_a_second_fit_is_followed(tmp_path):
    model, trainer = Classifier(), make_trainer(tmp_path, DifficultyCallback())
    trainer.fit(model)
    model.keep = 0.2
    go_on(trainer, model)
    assert len(model.visited) == SIZE + KEPT + 6
    check_scores(model.tracker.compute(), model.shown)


def test_a_fit_that_has_nothing_left_to_do_keeps_the_scores(tmp_path):
    model, trainer = Classifier(), make_trainer(tmp_path, writer(tmp_path))
    trainer.fit(model)
    trainer.fit(model)
    check_scores(model.tracker.compute(), model.shown)
    assert dp.Run.load(tmp_path / "run.safetensors").metadata["presentations"] == SIZE + KEPT


def test_a_new_module_is_a_new_run(tmp_path):
    callback = writer(tmp_path)
    first, second = Classifier(), Classifier()
    for model in first, second:
        make_trainer(tmp_path, callback).fit(model)
        assert len(model.visited) == SIZE + KEPT
        check_scores(model.tracker.compute(), model.shown)
    assert first.tracker is not second.tracker
    check_scores(dp.Run.load(callback.path).scores, second.shown)


class Growing(Classifier):
    def make(self):
        self.tracker = dp.DifficultyTracker(None, scores=self.scores)
        self.sampler = dp.PruneSampler(dp.policies.Random(keep=1.0), torch.zeros(SIZE))


def test_a_second_fit_with_a_tracker_that_grows_goes_on(tmp_path):
    model, trainer = Growing(), make_trainer(tmp_path, writer(tmp_path), epochs=1)
    trainer.fit(model)
    go_on(trainer, model)
    assert model.tracker.presentations == 2 * SIZE
    check_scores(dp.Run.load(tmp_path / "run.safetensors").scores, model.shown)


def test_other_data_are_a_new_run(tmp_path):
    model, trainer = Classifier(), make_trainer(tmp_path, DifficultyCallback())
    trainer.fit(model)
    model.data = dp.IndexedDataset(TensorDataset(X[:20], Y[:20]))
    go_on(trainer, model)
    assert model.tracker.num_examples == model.tracker.presentations == 20


def test_a_tracker_that_cannot_go_on_is_refused_and_nothing_is_lost(tmp_path):
    model, trainer = Classifier(), make_trainer(tmp_path, writer(tmp_path))
    trainer.fit(model)
    before = model.tracker
    model.scores = ("loss", "aum")
    with pytest.raises(ValueError, match=r"a second fit of a module goes on.*aum.*new run, make a new module"):
        go_on(trainer, model)
    assert model.tracker is before
    assert dp.Run.load(tmp_path / "run.safetensors").metadata["presentations"] == SIZE + KEPT
    del model.tracker
    go_on(trainer, model)
    assert "aum" in dp.Run.load(tmp_path / "run.safetensors").scores


# Fits that break off


@pytest.mark.parametrize("break_in", [2, 7], ids=["first epoch", "second epoch"])
@pytest.mark.parametrize("style", ["always", "once"])
def test_a_fit_after_ctrl_c_goes_on(tmp_path, style, break_in):
    model, trainer = Classifier(style), make_trainer(tmp_path, writer(tmp_path))
    model.break_in, model.error = break_in, KeyboardInterrupt
    handler = signal.getsignal(signal.SIGINT)
    try:
        with pytest.raises(SystemExit):
            trainer.fit(model)
    finally:
        signal.signal(signal.SIGINT, handler)  # which Lightning has switched off
    check_scores(model.tracker.compute(), model.shown)
    assert not (tmp_path / "run.safetensors").exists()
    trainer.fit(model)
    check_scores(dp.Run.load(tmp_path / "run.safetensors").scores, model.shown)


def test_a_second_fit_that_breaks_off_leaves_the_run_file_of_the_first(tmp_path):
    model, trainer = Classifier(), make_trainer(tmp_path, writer(tmp_path))
    trainer.fit(model)
    written = (tmp_path / "run.safetensors").read_bytes()
    model.break_in = 1
    with pytest.raises(Stop):
        go_on(trainer, model)
    assert (tmp_path / "run.safetensors").read_bytes() == written
    check_scores(model.tracker.compute(), model.shown)


@pytest.mark.parametrize("hook", ["setup", "configure_optimizers", "test_dataloader"])
def test_a_stage_that_fails_before_it_begins_loses_nothing(tmp_path, hook):
    model, trainer = Classifier(), make_trainer(tmp_path, DifficultyCallback())
    trainer.fit(model)
    before = model.tracker, model.sampler

    def fail(**_):
        model.make()
        raise Stop

    setattr(model, hook, fail)
    with pytest.raises(Stop):
        evaluate(trainer, model, "test") if hook == "test_dataloader" else go_on(trainer, model)
    assert (model.tracker, model.sampler) == before


def test_the_checkpoint_of_an_epoch_begun_again_knows_its_position(tmp_path):
    """What the broken epoch had consumed must not be skipped."""
    model = Classifier("once")
    model.break_in = 4
    trainer = make_trainer(tmp_path, DifficultyCallback(), epochs=1)
    with pytest.raises(Stop):
        trainer.fit(model)
    saving = ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=1, save_top_k=-1)
    trainer.callbacks.append(saving)
    trainer.fit(model)
    state = torch.load(tmp_path / f"step={trainer.global_step - 2}.ckpt", weights_only=False)
    sampler = state["callbacks"]["DifficultyCallback"]["sampler"]
    assert sampler["yielded"] == sampler["length"] - 2 * BATCH


# Checkpoints


def checkpoints(folder):
    return ModelCheckpoint(folder, "{step}", every_n_train_steps=1, save_top_k=-1)


@pytest.mark.parametrize("style", ["always", "once"])
@pytest.mark.parametrize("step", [4, 6, 8])
def test_a_checkpoint_replaces_what_a_second_fit_would_go_on_with(tmp_path, style, step):
    model = Classifier(style)
    trainer = make_trainer(tmp_path, writer(tmp_path), checkpoints(tmp_path), enable_checkpointing=True)
    trainer.fit(model)
    steps = model.shown[:step]
    trainer.fit(model, ckpt_path=tmp_path / f"step={step}.ckpt")
    again = [*steps, *model.shown[9:]]
    assert [index.tolist() for index, _, _ in again] == [index.tolist() for index, _, _ in model.shown[:9]]
    check_scores(dp.Run.load(tmp_path / "run.safetensors").scores, again)


@pytest.mark.parametrize("style", ["always", "for fit", "once"])
@pytest.mark.parametrize("stage", EVALUATIONS)
def test_an_earlier_checkpoint_can_be_evaluated_without_going_back(tmp_path, stage, style):
    model = Classifier(style)
    trainer = make_trainer(tmp_path, DifficultyCallback(), checkpoints(tmp_path), enable_checkpointing=True)
    trainer.fit(model)
    before = model.tracker, model.sampler
    evaluate(trainer, model, stage, ckpt_path=tmp_path / "step=3.ckpt")
    assert (model.tracker, model.sampler) == before
    check_scores(model.tracker.compute(), model.shown)


@pytest.mark.parametrize("style", ["always", "for fit"])
def test_a_new_module_can_evaluate_a_checkpoint(tmp_path, style):
    model = Classifier(style)
    trainer = make_trainer(tmp_path, DifficultyCallback(), checkpoints(tmp_path), enable_checkpointing=True)
    trainer.fit(model)
    new = Classifier(style)
    evaluate(make_trainer(tmp_path, DifficultyCallback()), new, "test", ckpt_path=tmp_path / "step=3.ckpt")
    assert torch.equal(new.layer.weight, torch.load(tmp_path / "step=3.ckpt")["state_dict"]["layer.weight"])
    if style == "always":
        check_scores(new.tracker.compute(), model.shown[:3])


def test_a_checkpoint_without_scores_is_told(tmp_path):
    model = Classifier()
    make_trainer(tmp_path, checkpoints(tmp_path), enable_checkpointing=True).fit(model)
    with pytest.warns(UserWarning, match=r"saved without a DifficultyCallback.*goes on with the 0 presentations"):
        make_trainer(tmp_path, DifficultyCallback()).fit(Classifier(), ckpt_path=tmp_path / "step=6.ckpt")


def test_a_checkpoint_saved_by_an_exception_resumes_where_it_broke(tmp_path):
    whole = Classifier()
    make_trainer(tmp_path, DifficultyCallback(), epochs=3).fit(whole)
    model = Classifier()
    model.break_in = 7
    trainer = make_trainer(
        tmp_path, DifficultyCallback(), OnExceptionCheckpoint(tmp_path), epochs=3, enable_checkpointing=True
    )
    with pytest.raises(Stop):
        trainer.fit(model)
    trainer.fit(model)
    assert model.visited == whole.visited
    check_scores(model.tracker.compute(), model.shown)


def test_an_exception_before_there_is_anything_to_save_is_not_masked(tmp_path):
    model = Classifier()

    def fail():
        raise Stop

    model.prepare_data = fail
    trainer = make_trainer(tmp_path, DifficultyCallback(), OnExceptionCheckpoint(tmp_path), enable_checkpointing=True)
    with pytest.raises(Stop):
        trainer.fit(model)


# What is no training


def test_a_search_for_a_learning_rate_leaves_no_scores(tmp_path):
    model, trainer = Classifier(), make_trainer(tmp_path, writer(tmp_path))
    Tuner(trainer).lr_find(model, num_training=20)
    assert model.shown
    assert model.tracker.presentations == 0
    model.shown, model.lr = [], 0.5
    trainer.fit(model)
    check_scores(dp.Run.load(tmp_path / "run.safetensors").scores, model.shown)
    assert len(model.visited) == SIZE + KEPT


@pytest.mark.parametrize("first", [True, False], ids=["before", "after"])
def test_a_search_within_a_second_fit_keeps_the_scores_of_the_first(tmp_path, first):
    model, callback = Classifier(), writer(tmp_path)
    trainer = make_trainer(tmp_path, callback)
    trainer.fit(model)
    finder = LearningRateFinder(num_training_steps=20)
    trainer.callbacks = [finder, callback] if first else [callback, finder]
    go_on(trainer, model)
    assert dp.Run.load(tmp_path / "run.safetensors").metadata["presentations"] == SIZE + 2 * KEPT


def test_a_trial_run_writes_no_file(tmp_path):
    model, callback = Classifier(), writer(tmp_path)
    make_trainer(tmp_path, callback).fit(model)
    written = (tmp_path / "run.safetensors").read_bytes()
    make_trainer(tmp_path, callback, fast_dev_run=True).fit(Classifier())
    assert (tmp_path / "run.safetensors").read_bytes() == written
