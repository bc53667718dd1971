"""Lightning's Trainer: epochs shrink and grow, checkpoints hold scores and plan, two processes share an epoch."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
import warnings
from itertools import chain

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from places import EXAMPLES
from torch import nn
from torch.utils.data import DataLoader, Subset, TensorDataset

pl = pytest.importorskip("lightning.pytorch", reason="lightning is not installed: pip install lightning")

import difficulty_prune as dp  # noqa: E402
from difficulty_prune.integrations.lightning import DifficultyCallback  # noqa: E402

EPOCHS = 5
SIZE = 60
X = torch.randn(SIZE, 6, generator=torch.Generator().manual_seed(0))
Y = (X[:, 0] + 0.5 * X[:, 1] > 0).long()
TRAIN = dp.IndexedDataset(TensorDataset(X, Y))

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore:GPU available but not used"),
    pytest.mark.filterwarnings("ignore:`isinstance.treespec, LeafSpec.` is deprecated"),
    pytest.mark.filterwarnings("ignore:The '.*dataloader' does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*checkpoint that ended before the epoch ended and your dataloader is not res"),
    pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty"),
]


class Stop(Exception):
    """As when the machine is taken away."""


class Classifier(pl.LightningModule):
    def __init__(self, *, batch_size=7, stop_before=None, workers=0, share=None, **options):
        super().__init__()
        self.layer = nn.Linear(6, 2)
        nn.init.zeros_(self.layer.weight)
        nn.init.zeros_(self.layer.bias)
        self.loader_options = {"batch_size": batch_size, "num_workers": workers}
        self.sampler_options = options
        self.share = share or {}
        self.stop_before = stop_before
        self.visited = []  # lists of positions, one per step
        self.lengths = []
        self.validated = 0

    def setup(self, stage):
        self.tracker = dp.DifficultyTracker(SIZE, scores=("loss", "el2n"))
        policy = dp.policies.SoftPrune(keep=0.5, anneal=0.2, epochs=EPOCHS)
        self.sampler = dp.PruneSampler(policy, self.tracker.source("loss"), **self.sampler_options, **self.share)

    def train_dataloader(self):
        return DataLoader(TRAIN, sampler=self.sampler, **self.loader_options)

    def val_dataloader(self):
        return DataLoader(TensorDataset(X, Y), batch_size=SIZE)

    def training_step(self, batch):
        x, y, index = batch
        if self.global_step == self.stop_before:
            raise Stop
        self.visited.append(index.tolist())
        logits = self.layer(x)
        self.tracker.update(index, logits, y)
        return (F.cross_entropy(logits, y, reduction="none") * self.sampler.weight(index)).mean()

    def validation_step(self, batch):
        self.validated += 1

    def on_train_epoch_end(self):
        self.lengths.append(self.trainer.num_training_batches)

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), lr=0.5)
        self.schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.9)
        return [optimizer], [self.schedule]


def make_trainer(folder, *more, callback=None, **options):
    options = {
        **{"max_epochs": EPOCHS, "reload_dataloaders_every_n_epochs": 1, "enable_checkpointing": bool(more)},
        **options,
    }
    return pl.Trainer(
        callbacks=[*more, callback or DifficultyCallback()],
        default_root_dir=folder,
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        **options,
    )


def fit(folder, *more, callback=None, model=None, ckpt_path=None, **options):
    model = model or Classifier()
    make_trainer(folder, *more, callback=callback, **options).fit(model, ckpt_path=ckpt_path)
    return model


def by_epoch(steps, lengths):
    """The positions of each epoch, from those of each step."""
    rest = iter(steps)
    return [list(chain(*(next(rest) for _ in range(length)))) for length in lengths]


# Epochs


@pytest.mark.parametrize("workers", [0, 1])
def test_epochs_shrink_and_grow_with_the_plan_and_show_nothing_twice(tmp_path, workers):
    model = fit(tmp_path, model=Classifier(workers=workers))
    assert model.lengths == [9, 5, 5, 5, 9]
    epochs = by_epoch(model.visited, model.lengths)
    assert [len(epoch) for epoch in epochs] == [60, 30, 30, 30, 60]
    assert all(len(set(epoch)) == len(epoch) for epoch in epochs)
    assert len({tuple(sorted(epoch)) for epoch in epochs[1:4]}) == 3


def test_validation_and_schedules_follow_the_epochs(tmp_path):
    model = fit(tmp_path)
    assert model.validated == EPOCHS
    assert model.schedule.last_epoch == EPOCHS


def test_plans_follow_the_scores_of_the_epoch_before(tmp_path):
    """The plan of epoch 1 keeps all examples but some of the easiest of epoch 0."""
    model = Classifier()
    losses = []
    model.on_train_epoch_end = lambda: losses.append(model.tracker.compute()["loss"])
    fit(tmp_path, model=model)
    dropped = set(range(SIZE)) - set(chain(*model.visited[9:14]))
    easiest = set(losses[0].argsort()[:40].tolist())  # (1 - keep) / (1 - keep / 2) of 60
    assert len(dropped) == 30
    assert dropped <= easiest


def test_workers_that_fetch_a_whole_epoch_ahead_are_no_second_visit(tmp_path):
    model = fit(tmp_path, model=Classifier(batch_size=30, workers=2))
    assert model.lengths == [2, 1, 1, 1, 2]
    assert [len(set(epoch)) for epoch in by_epoch(model.visited, model.lengths)] == [60, 30, 30, 30, 60]


def test_scoring_alone_needs_no_sampler(tmp_path):
    class Plain(Classifier):
        def setup(self, stage):
            self.tracker = dp.DifficultyTracker(SIZE, scores=("loss",))

        def train_dataloader(self):
            return DataLoader(TRAIN, batch_size=20, shuffle=True)

        def training_step(self, batch):
            x, y, index = batch
            logits = self.layer(x)
            self.tracker.update(index, logits, y)
            return F.cross_entropy(logits, y)

    path = tmp_path / "run.safetensors"
    callback = DifficultyCallback(path, architecture="linear", seed=0, epochs=EPOCHS)
    fit(tmp_path, model=Plain(), callback=callback, reload_dataloaders_every_n_epochs=0)
    run = dp.Run.load(path)
    assert run.metadata["presentations"] == EPOCHS * SIZE
    assert (run.architecture, run.metadata["epochs"]) == ("linear", EPOCHS)
    assert run.labels.tolist() == Y.tolist()


# What the run file says of the training set


class Named(TensorDataset):
    """Examples of classes that have names, of which it knows all without reading any."""

    def __init__(self, x, y):
        super().__init__(x, y)
        self.targets, self.classes = y.tolist(), ["no", "yes"]


class Reads(Classifier):
    """Trains on what a loader gives, and on labels that may be others; of a part of the examples without a sampler."""

    def __init__(self, dataset, part=None, relabel=lambda y: y):
        super().__init__()
        self.dataset, self.part, self.relabel = dataset, part, relabel

    def setup(self, stage):
        super().setup(stage)
        if self.part is not None:
            self.sampler = None

    def train_dataloader(self):
        if self.part is None:
            return DataLoader(self.dataset, sampler=self.sampler, batch_size=20)
        return DataLoader(Subset(self.dataset, self.part), batch_size=20)

    def training_step(self, batch):
        x, y, index = batch
        logits, y = self.layer(x), self.relabel(y)
        self.tracker.update(index, logits, y)
        return F.cross_entropy(logits, y)


KEYS = [f"key {i}" for i in range(SIZE)]


def run_of(folder, model, **metadata):
    path = folder / "run.safetensors"
    fit(folder, model=model, callback=DifficultyCallback(path, architecture="linear", seed=0, **metadata))
    return dp.Run.load(path)


def test_the_run_names_the_examples_and_classes_of_the_training_set(tmp_path):
    run = run_of(tmp_path, Reads(dp.IndexedDataset(Named(X, Y), ids=KEYS)))
    assert run.ids.tolist() == KEYS
    assert run.class_names == ("no", "yes")
    assert run.labels.tolist() == Y.tolist()
    assert run.dataset_fingerprint is None, "no example is read for it after the training"


def test_a_part_of_an_indexed_dataset_has_the_names_of_the_whole(tmp_path):
    run = run_of(tmp_path, Reads(dp.IndexedDataset(Named(X, Y), ids=KEYS), part=range(10, 30)))
    assert run.ids.tolist() == KEYS
    assert run.seen.tolist() == [10 <= i < 30 for i in range(SIZE)]
    assert run.labels.tolist() == Y.tolist(), "also of examples that were not shown"


def test_what_metadata_says_goes_before_what_the_dataset_knows(tmp_path):
    own = [f"own {i}" for i in range(SIZE)]
    train = dp.IndexedDataset(Named(X, Y), ids=KEYS)
    assert run_of(tmp_path, Reads(train), ids=own).ids.tolist() == own
    run = run_of(tmp_path, Reads(train), dataset=train)
    assert run.ids.tolist() == KEYS
    assert run.dataset_fingerprint == dp.dataset_fingerprint(train)


def test_labels_made_anew_in_the_step_are_warned_of_and_no_training_is_lost(tmp_path):
    train = dp.IndexedDataset(Named(X, Y), ids=KEYS)
    with pytest.warns(UserWarning, match="keeps neither labels nor class names .* shown with other labels"):
        run = run_of(tmp_path, Reads(train, relabel=lambda y: 1 - y))
    assert (run.ids.tolist(), run.class_names) == (KEYS, None)
    assert run.labels.tolist() == (1 - Y).tolist()


def test_examples_that_occur_twice_are_warned_of_and_no_training_is_lost(tmp_path):
    class Files(Named):
        root, samples = "photos", [(f"photos/{min(i, 58)}.png", 0) for i in range(SIZE)]

    with pytest.warns(UserWarning, match="the run keeps no ids: path: '58.png' names both example 58 and example 59"):
        run = run_of(tmp_path, Reads(dp.IndexedDataset(Files(X, Y))))
    assert (run.ids, run.class_names) == (None, ("no", "yes"))


def test_a_dataset_without_an_index_of_its_own_is_not_taken_for_the_training_set(tmp_path):
    numbered = TensorDataset(X, Y, torch.arange(SIZE))
    run = run_of(tmp_path, Reads(numbered))
    assert (run.ids, run.class_names) == (None, None)


# Checkpoints


def every_step(folder):
    return pl.callbacks.ModelCheckpoint(folder, "{step}", every_n_train_steps=1, save_top_k=-1)


def each_epoch(folder, after_training):
    return pl.callbacks.ModelCheckpoint(folder, "{step}", save_top_k=-1, save_on_train_epoch_end=after_training)


def check_that_it_goes_on(whole, begun, resumed):
    assert begun.visited + resumed.visited == whole.visited
    for name, score in whole.tracker.compute().items():
        assert torch.equal(resumed.tracker.compute()[name], score), name
    assert torch.equal(resumed.layer.weight, whole.layer.weight)


@pytest.mark.parametrize(
    ("step", "workers"), [(4, 0), (4, 1), (9, 0), (9, 1), (11, 0), (14, 0)]
)  # epochs end at 9 and 14
def test_resumed_training_ends_as_the_uninterrupted_one(tmp_path, step, workers):
    whole = fit(tmp_path, model=Classifier(workers=workers))
    begun = Classifier(stop_before=step, workers=workers)
    with pytest.raises(Stop):
        fit(tmp_path, every_step(tmp_path), model=begun)
    resumed = Classifier(workers=workers)
    fit(tmp_path, every_step(tmp_path), model=resumed, ckpt_path=tmp_path / f"step={step}.ckpt")
    check_that_it_goes_on(whole, begun, resumed)


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("after_training", [True, False], ids=["after training", "after validation"])
def test_checkpoints_at_the_end_of_epochs_resume_with_the_next(tmp_path, after_training, workers):
    whole = fit(tmp_path)
    begun = Classifier(stop_before=14)
    with pytest.raises(Stop):
        fit(tmp_path, each_epoch(tmp_path, after_training), model=begun)
    resumed = Classifier(workers=workers)
    fit(tmp_path, each_epoch(tmp_path, after_training), model=resumed, ckpt_path=tmp_path / "step=14.ckpt")
    check_that_it_goes_on(whole, begun, resumed)


# The second half


class Margins(Classifier):
    """Whose tracker records margins too, and which remembers a snapshot of its own."""

    def setup(self, stage):
        super().setup(stage)
        self.tracker = dp.DifficultyTracker(SIZE, scores=("loss", "aum"))
        self.sampler = dp.PruneSampler(self.sampler.policy, self.tracker.source("loss"))

    def on_train_batch_start(self, batch, batch_idx):
        if self.current_epoch == EPOCHS // 2 and batch_idx == 0:
            self.middle = self.tracker.snapshot()


def late_callback(folder):
    return DifficultyCallback(folder / "run.safetensors", late=True, architecture="linear", seed=0)


def run_with_late(folder, *more, **options):
    fit(folder, *more, callback=late_callback(folder), **options)
    return dp.Run.load(folder / "run.safetensors")


def test_the_run_has_the_aum_of_the_second_half_where_asked(tmp_path):
    model = Margins()
    run = run_with_late(tmp_path, model=model)
    expected = model.tracker.finish(architecture="linear", seed=0, late=model.middle)
    assert list(run.scores) == ["loss", "aum", "late_aum"]
    np.testing.assert_array_equal(run.scores["late_aum"], expected.scores["late_aum"])
    assert run.metadata["options"]["late"] == expected.metadata["options"]["late"] == 2


@pytest.mark.parametrize("step", [4, 14, 16, 22])  # before the middle, at it, in the epoch after it, and later
def test_the_second_half_is_that_of_the_whole_training_where_it_was_resumed(tmp_path, step):
    whole = run_with_late(tmp_path / "whole", model=Margins())
    with pytest.raises(Stop):
        run_with_late(tmp_path, every_step(tmp_path), model=Margins(stop_before=step))
    resumed = run_with_late(tmp_path, every_step(tmp_path), model=Margins(), ckpt_path=tmp_path / f"step={step}.ckpt")
    np.testing.assert_array_equal(resumed.scores["late_aum"], whole.scores["late_aum"])


def test_of_a_second_fit_the_second_half_is_its_own(tmp_path):
    model, callback = Margins(), late_callback(tmp_path)
    fit(tmp_path, callback=callback, model=model)
    first = model.middle
    fit(tmp_path, callback=callback, model=model)
    run = dp.Run.load(tmp_path / "run.safetensors")
    expected = model.tracker.finish(architecture="linear", seed=0, late=model.middle)
    assert not torch.equal(first, model.middle)
    np.testing.assert_array_equal(run.scores["late_aum"], expected.scores["late_aum"])


def test_a_second_half_that_never_came_is_warned_of(tmp_path):
    class Stops(Margins):
        def on_train_epoch_end(self):
            self.trainer.should_stop = True

    with pytest.warns(UserWarning, match="late: the training ended before its middle"):
        run = run_with_late(tmp_path, model=Stops())
    assert list(run.scores) == ["loss", "aum"]


def test_a_checkpoint_with_the_middle_gives_no_score_that_is_not_asked_for(tmp_path):
    with pytest.raises(Stop):
        run_with_late(tmp_path, every_step(tmp_path), model=Margins(stop_before=16))
    plain = DifficultyCallback(tmp_path / "run.safetensors", architecture="linear", seed=0)
    fit(tmp_path, every_step(tmp_path), callback=plain, model=Margins(), ckpt_path=tmp_path / "step=16.ckpt")
    assert list(dp.Run.load(tmp_path / "run.safetensors").scores) == ["loss", "aum"]


def test_a_second_half_that_cannot_come_is_refused_before_training(tmp_path):
    part = DifficultyCallback("run.safetensors", late=True, architecture="linear", seed=0, since=torch.zeros(SIZE, 16))
    with pytest.raises(ValueError, match="late: got it together with since"):
        fit(tmp_path, callback=part, model=Margins())
    with pytest.raises(ValueError, match="late: this tracker records loss, el2n, expected aum"):
        run_with_late(tmp_path, model=Classifier())
    trainer = make_trainer(tmp_path, callback=late_callback(tmp_path), max_epochs=1)
    with pytest.raises(ValueError, match="max_epochs: got 1, expected at least 2"):
        trainer.fit(Margins())
    with pytest.raises(TypeError, match="got late without the path"):
        DifficultyCallback(late=True)


# Settings


def test_epochs_that_would_keep_the_first_length_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"reload_dataloaders_every_n_epochs: got 0, expected 1.*cuts longer epochs"):
        fit(tmp_path, reload_dataloaders_every_n_epochs=0)


def test_a_share_of_an_epoch_is_refused_where_there_is_one_process(tmp_path):
    with pytest.raises(ValueError, match=r"got \(rank, world_size\) \(0, 2\), expected the trainer's, \(0, 1\)"):
        fit(tmp_path, model=Classifier(share={"rank": 0, "world_size": 2}))


def test_a_loader_without_the_sampler_is_refused(tmp_path):
    model = Classifier()
    model.train_dataloader = lambda: DataLoader(TRAIN, batch_size=10, shuffle=True)
    with pytest.raises(ValueError, match=r"got RandomSampler, expected DataLoader\(..., sampler=self.sampler\)"):
        fit(tmp_path, model=model)


@pytest.mark.filterwarnings("ignore:You requested to overfit but enabled train dataloader shuffling")
def test_overfitting_is_refused_because_lightning_replaces_the_sampler(tmp_path):
    with pytest.raises(ValueError, match=r"got SequentialSampler.*overfit_batches"):
        fit(tmp_path, overfit_batches=2)


def test_a_module_without_a_tracker_is_refused(tmp_path):
    model = Classifier()
    model.setup = lambda stage: None
    with pytest.raises(TypeError, match=r"Classifier\.tracker None.*self\.tracker = dp\.DifficultyTracker"):
        fit(tmp_path, model=model)


def test_a_run_file_needs_to_say_what_was_trained():
    with pytest.raises(TypeError, match="path without architecture and seed"):
        DifficultyCallback("run.safetensors")
    with pytest.raises(TypeError, match="got seed without the path"):
        DifficultyCallback(seed=0)


# The examples, as one process and as two


def check_example(printed, runs):
    epochs = re.findall(r"^epoch \d: (\d+) examples in (\d+) steps, 0 seen twice$", printed, re.MULTILINE)
    assert epochs == [("1400", "28"), *[("700", "14")] * 3, ("1400", "28")]
    assert "scores: 2800 finite" in printed
    accuracy = re.search(r"^accuracy: (\d\.\d+)", printed, re.MULTILINE)
    assert accuracy is not None
    assert float(accuracy[1]) > 0.8
    (run,) = runs.iterdir()
    assert dp.Run.load(run).metadata["presentations"] == 1400 * 2 + 700 * 3


def test_the_example_of_one_process_prints_what_it_claims(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(EXAMPLES / "lightning_single.py"), run_name="__main__")
    check_example(capsys.readouterr().out, tmp_path / "runs")


@pytest.mark.slow  # nearly all of it is each process importing Lightning
def test_the_example_of_two_processes_prints_what_it_claims(tmp_path):
    command = [sys.executable, str(EXAMPLES / "lightning_ddp.py")]
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, timeout=240)
    # Judged by what it leaves: a thread of Gloo's may end a process with SIGABRT after its work.
    assert result.stdout, result.stderr
    check_example(result.stdout, tmp_path / "runs")


@pytest.mark.parametrize(
    ("reload", "presentations", "validated"),
    [(0, 60 + 3 * 30 + 60, 2), (1, 60 + 3 * 30 + 35, 4)],
    ids=["not", "reload"],
)
def test_without_the_callback_lightning_goes_by_other_lengths(tmp_path, reload, presentations, validated):
    """Of five epochs some are not validated; with reloading, lengths lag, and the last one ends after five batches."""
    model = fit(tmp_path, callback=pl.Callback(), reload_dataloaders_every_n_epochs=reload)
    assert sum(len(step) for step in model.visited) == presentations
    assert model.validated == validated


def test_the_example_that_compares_says_whether_it_pays(capsys):
    with warnings.catch_warnings():
        runpy.run_path(str(EXAMPLES / "lightning_compare.py"), run_name="__main__")
    first = capsys.readouterr().out.splitlines()[0]
    assert re.match(r"Keeping the hardest 50 % by el2n: 0\.\d{4}, .*, 50 % fewer steps", first)
