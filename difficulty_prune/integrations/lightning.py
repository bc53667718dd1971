"""PyTorch Lightning: checkpoints with scores and plan, epochs that really shrink, a run file at the end."""

from __future__ import annotations

import os
import warnings
from typing import Any

import lightning.pytorch as pl
from lightning.fabric.utilities import move_data_to_device
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import CombinedLoader
from torch import Tensor

from ..sampler import PruneSampler
from ..tracker.since import check_late
from ..tracker.tracker import DifficultyTracker
from .training_set import check_processes, finish_with, indexed_in, late_option


class DifficultyCallback(pl.Callback):
    """Looks after the tracker and the sampler of a LightningModule.

    The module makes `self.tracker` and, where epochs are to be pruned, `self.sampler` in its `setup`, because that is
    where the processes of DDP know each other; its training step calls `self.tracker.update` and multiplies its losses
    by `self.sampler.weight(index)`. The callback

    - plans each epoch before Lightning reads its length;
    - puts scores, plan and position into the trainer's checkpoints, so that `trainer.fit(..., ckpt_path=...)` goes on
      with what was left of the epoch;
    - keeps what was recorded, though Lightning calls `setup` for every stage: after `validate`, `test` and `predict`
      the module has the tracker and the sampler that it had before, and a second `fit` of the module goes on with the
      scores of the first;
    - refuses a trainer that would cut epochs short, or show an example to two processes;
    - writes the run file when training ends, but not for `fast_dev_run`. Where the training set is an `IndexedDataset`,
      the run has its ids, labels and class names, as far as they are known.

    A module is one run: the run file of a second fit holds the presentations of both. For a new run, make a new module.

    With a sampler, the trainer needs `reload_dataloaders_every_n_epochs=1`; with several processes, besides,
    `use_distributed_sampler=False`, a sampler with their `rank` and `world_size`, and a tracker with their process
    group.

    Args:
        path: of the run file; none is written without it. Process 0 writes it.
        late: whether the run has `late_aum` too, the `aum` of the second half of the training; of a second fit, what
            came after the middle of that one.
        metadata: of the run, see `DifficultyTracker.finish`: `architecture` and `seed` at least; `dataset=` where the
            run is to have its fingerprint too.

    Raises:
        TypeError: a path without architecture and seed, or metadata without a path; in `fit`, a module without a
            tracker.
        ValueError: in `fit`, settings of the trainer, the sampler or the tracker that do not fit together; or a
            tracker that cannot go on with the scores of the fit before; or `late`, and the tracker does not record
            `aum`, or the trainer's `max_epochs` have no middle.

    >>> trainer = pl.Trainer(
    ...     callbacks=[DifficultyCallback("runs/mlp-0.safetensors", architecture="mlp", seed=0)],
    ...     reload_dataloaders_every_n_epochs=1,
    ...     use_distributed_sampler=False,
    ...     logger=False,
    ...     accelerator="cpu",
    ... )
    """

    def __init__(self, path: str | os.PathLike[str] | None = None, *, late: bool = False, **metadata: Any) -> None:
        missing = [name for name in ("architecture", "seed") if name not in metadata]
        if path is not None and missing:
            raise TypeError(f"got a path without {' and '.join(missing)}, expected what a run file has to say")
        if path is None and (metadata or late):
            said = ", ".join([*metadata, *["late"] * late])
            raise TypeError(f"got {said} without the path of a run file to say it in")
        self.path = path
        self.late = late
        self.metadata = metadata
        self._early: Tensor | None = None  # the snapshot at the middle of this fit
        self._module: pl.LightningModule
        self._earlier: dict[str, Any] | None = None  # what the module had before its setup, until that is dealt with
        self._consumed = 0  # examples of this epoch that this process has trained on

    @property
    def tracker(self) -> DifficultyTracker:
        """The module's."""
        tracker = getattr(self._module, "tracker", None)
        if not isinstance(tracker, DifficultyTracker):
            raise TypeError(
                f"got {type(self._module).__name__}.tracker {tracker!r}, expected the LightningModule to make "
                "self.tracker = dp.DifficultyTracker(...) in its setup"
            )
        return tracker

    @property
    def sampler(self) -> PruneSampler | None:
        """The module's, if it has one."""
        return getattr(self._module, "sampler", None)

    # Stages

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Lightning calls it before the module's own, which may make tracker and sampler anew."""
        if getattr(self, "_module", None) is not pl_module:
            self._early = None
        self._module = pl_module
        self._earlier = {name: getattr(pl_module, name, None) for name in ("tracker", "sampler")}

    def _after_setup(self) -> None:
        """What the module's setup has done, so that nothing recorded is lost.

        Every hook that may be the first to come after it calls this.
        """
        if self._earlier is None:
            return
        if self._fits:
            self._go_on(self._earlier["tracker"])
        else:
            self._put_back(self._earlier)
        self._earlier = None

    @property
    def _fits(self) -> bool:
        """Whether this stage trains."""
        return self._module.trainer.state.fn == TrainerFn.FITTING

    def _put_back(self, earlier: dict[str, Any]) -> None:
        """Gives the module what it had before its setup."""
        for name, value in earlier.items():
            if value is not None and getattr(self._module, name, None) is not value:
                setattr(self._module, name, value)

    def _go_on(self, earlier: Any) -> None:
        """Gives what an earlier fit recorded to the tracker and the sampler that this one has.

        New ones are filled and not thrown away, because they fit this trainer's devices and processes, and because the
        module may have given them to others.
        """
        tracker = self.tracker
        if not isinstance(earlier, DifficultyTracker) or not earlier.presentations:
            return
        if earlier.num_examples != tracker.num_examples and not tracker.grows:
            return  # other data are another run
        if earlier is not tracker:
            try:
                self._load_scores(earlier.state_dict())
            except ValueError as error:
                raise ValueError(
                    "a second fit of a module goes on with the scores of the first, which this tracker cannot "
                    f"({error}); for a new run, make a new module, or delete module.tracker before fit"
                ) from error
        if self.sampler is not None:
            trainer = self._module.trainer
            # The plan was made before the scores came. Only another epoch is planned anew, so go by way of one.
            self.sampler.set_epoch(0 if trainer.current_epoch else 1)
            self.sampler.set_epoch(trainer.current_epoch)
            # The optimizers may have asked for `estimated_stepping_batches`; the loader made for it has the old length.
            trainer.fit_loop._combined_loader = None

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._after_setup()

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._after_setup()

    def on_predict_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._after_setup()

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self._after_setup()  # where there was nothing to evaluate

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        if self._earlier is not None:  # it came before the fit or the evaluation began
            self._put_back(self._earlier)
            self._earlier = None

    # Checks

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        check_processes(self.tracker, trainer.world_size, "in the module's setup")
        if self.sampler is not None:
            _check_settings(trainer, self.sampler)
        self._after_setup()
        if self.late:
            check_late(self.tracker.scores, self.metadata.get("since"))
            _check_has_a_middle(trainer)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.sampler is not None:
            self._batch_size = _batch_size(trainer, self.sampler)
            self._plan(trainer.current_epoch)  # after a checkpoint of an epoch's last step, which planned no other
        if trainer.current_epoch < _middle(trainer):
            self._early = None  # of an earlier fit

    # Epochs

    def _plan(self, epoch: int) -> None:
        """Before Lightning reads the length of the epoch, and then calls set_epoch itself, which is too late."""
        if self.sampler is not None and self.sampler.epoch != epoch:
            self.sampler.set_epoch(epoch)
            self._consumed = 0

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # Not called for an epoch that goes on in the middle; one that was broken off begins anew.
        self._consumed = 0
        makes_another_iterator = trainer.current_epoch > 0 and not getattr(trainer.fit_loop, "is_resuming", False)
        if self.sampler is not None and makes_another_iterator:
            # For the first, which Lightning drops, workers may have fetched the whole epoch; begun anew, the epoch is
            # not visited twice.
            self.sampler.load_state_dict(self.sampler.state_dict(consumed=0))

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        # After a checkpoint of an epoch's last step, the next epoch has no on_train_epoch_start.
        if self.late and batch_idx == 0 and trainer.current_epoch == _middle(trainer):
            self._early = self.tracker.snapshot()

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        if self.sampler is not None:
            self._consumed = min(self._consumed + self._batch_size, len(self.sampler))

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._plan(trainer.current_epoch + 1)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.path is not None and not getattr(trainer, "fast_dev_run", False):
            late = late_option(self._early) if self.late else {}
            run = finish_with(self.tracker, self._training_set(trainer), {**self.metadata, **late})
            if trainer.is_global_zero:
                run.save(self.path)

    def _training_set(self, trainer: pl.Trainer) -> Any:
        """The one that the tracker was made for; None where the loaders have none, or several."""
        found = (indexed_in(getattr(loader, "dataset", None)) for loader in _loaders(trainer))
        whole = {id(each): each for each in found if each is not None and len(each) == self.tracker.num_examples}
        return next(iter(whole.values())) if len(whole) == 1 else None

    # Checkpoints

    def state_dict(self) -> dict[str, Any]:
        if getattr(getattr(self, "_module", None), "tracker", None) is None:
            return {}  # such as when an exception comes before the module's setup
        self._after_setup()
        state: dict[str, Any] = {"tracker": self.tracker.state_dict()}
        if self.sampler is not None:
            state["sampler"] = self.sampler.state_dict(consumed=self._consumed)
        if self._early is not None:
            state["early"] = self._early
        return state

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        if self._fits and self.state_key not in checkpoint.get("callbacks", {}):
            self._after_setup()
            warnings.warn(
                "the checkpoint was saved without a DifficultyCallback, so that no scores come with its weights; the "
                f"tracker goes on with the {self.tracker.presentations} presentations that it has",
                stacklevel=2,
            )

    def load_state_dict(self, state: dict[str, Any]) -> None:
        had_scores = self._earlier is not None and self._earlier["tracker"] is not None
        self._after_setup()
        if not self._fits and (had_scores or getattr(self._module, "tracker", None) is None):
            return  # to evaluate the weights of a checkpoint undoes no training
        self._load_scores(state["tracker"])
        self._early = state.get("early")
        if self.sampler is not None:
            self.sampler.load_state_dict(state["sampler"])
            self._consumed = state["sampler"]["yielded"] // self.sampler.world_size

    def _load_scores(self, state: dict[str, Any]) -> None:
        device = self._module.trainer.strategy.root_device  # Lightning loads checkpoints on the CPU
        self.tracker.load_state_dict(move_data_to_device(state, device))


def _check_settings(trainer: Any, sampler: PruneSampler) -> None:
    """ValueError where epochs would keep the first one's length, or processes would not share them."""
    reload = trainer.reload_dataloaders_every_n_epochs
    if reload != 1:
        raise ValueError(
            f"reload_dataloaders_every_n_epochs: got {reload}, expected 1, because "
            "otherwise Lightning goes by the first epoch's number of steps: it cuts longer epochs, and leaves out the "
            "validation of shorter ones; pass it to the Trainer"
        )
    own, theirs = (sampler.rank, sampler.world_size), (trainer.global_rank, trainer.world_size)
    if own != theirs:
        raise ValueError(
            f"sampler: got (rank, world_size) {own}, expected the trainer's, {theirs}; make it in the module's setup "
            "as PruneSampler(..., rank=self.global_rank, world_size=self.trainer.world_size)"
        )


def _middle(trainer: pl.Trainer) -> int:
    """The epochs of the first half, rounded down."""
    return (trainer.max_epochs or 0) // 2


def _check_has_a_middle(trainer: pl.Trainer) -> None:
    if _middle(trainer) < 1 and not getattr(trainer, "fast_dev_run", False):
        raise ValueError(
            f"max_epochs: got {trainer.max_epochs}, expected at least 2, because late asks for the score of the second "
            "half of them; pass it to the Trainer, or leave late out"
        )


def _loaders(trainer: pl.Trainer) -> list[Any]:
    return CombinedLoader(trainer.train_dataloader).flattened


def _batch_size(trainer: pl.Trainer, sampler: PruneSampler) -> int:
    """The batch size of the training loader that has the sampler; ValueError if none has."""
    loaders = _loaders(trainer)
    for loader in loaders:
        batches: Any = getattr(loader, "batch_sampler", None)
        if getattr(batches, "sampler", None) is sampler:
            return int(batches.batch_size)
    found = ", ".join(type(getattr(loader, "sampler", loader)).__name__ for loader in loaders)
    raise ValueError(
        f"train_dataloader: got {found}, expected DataLoader(..., sampler=self.sampler). A DistributedSamplerWrapper "
        "comes from Lightning and would share out each process's share once more: Trainer(use_distributed_sampler="
        "False). A SequentialSampler may come from overfit_batches, which does not go with a sampler"
    )
