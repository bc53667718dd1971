"""PyTorch Lightning: checkpoints with scores and plan, epochs that really shrink, a run file at the end."""

from __future__ import annotations

import os
from typing import Any

import lightning.pytorch as pl
from lightning.fabric.utilities import move_data_to_device
from lightning.pytorch.utilities import CombinedLoader

from ..sampler import PruneSampler
from ..tracker.tracker import DifficultyTracker


class DifficultyCallback(pl.Callback):
    """Looks after the tracker and the sampler of a LightningModule.

    The module makes `self.tracker` and, where epochs are to be pruned, `self.sampler` in its `setup`, because that is
    where the processes of DDP know each other; its training step calls `self.tracker.update` and multiplies its losses
    by `self.sampler.weight(index)`. The callback

    - plans each epoch before Lightning reads its length;
    - puts scores, plan and position into the trainer's checkpoints, so that `trainer.fit(..., ckpt_path=...)` goes on
      with what was left of the epoch;
    - refuses a trainer that would cut epochs short, or show an example to two processes;
    - writes the run file when training ends.

    With a sampler, the trainer needs `reload_dataloaders_every_n_epochs=1`; with several processes, besides,
    `use_distributed_sampler=False`, a sampler with their `rank` and `world_size`, and a tracker with their process
    group.

    Args:
        path: of the run file; none is written without it. Process 0 writes it.
        metadata: of the run, see `DifficultyTracker.finish`: `architecture` and `seed` at least.

    Raises:
        TypeError: a path without architecture and seed, or metadata without a path; in `fit`, a module without a
            tracker.
        ValueError: in `fit`, settings of the trainer, the sampler or the tracker that do not fit together.

    >>> trainer = pl.Trainer(
    ...     callbacks=[DifficultyCallback("runs/mlp-0.safetensors", architecture="mlp", seed=0)],
    ...     reload_dataloaders_every_n_epochs=1,
    ...     use_distributed_sampler=False,
    ...     logger=False,
    ...     accelerator="cpu",
    ... )
    """

    def __init__(self, path: str | os.PathLike[str] | None = None, **metadata: Any) -> None:
        missing = [name for name in ("architecture", "seed") if name not in metadata]
        if path is not None and missing:
            raise TypeError(f"got a path without {' and '.join(missing)}, expected what a run file has to say")
        if path is None and metadata:
            raise TypeError(f"got {', '.join(metadata)} without the path of a run file to say it in")
        self.path = path
        self.metadata = metadata
        self._module: pl.LightningModule
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

    # Checks

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self._module = pl_module

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        tracker = self.tracker
        if trainer.world_size > 1 and tracker.process_group is None:
            raise ValueError(
                f"the tracker knows what its own process saw alone, and there are {trainer.world_size}; make it in the "
                "module's setup as DifficultyTracker(..., process_group=torch.distributed.group.WORLD)"
            )
        if self.sampler is not None:
            _check_settings(trainer, self.sampler)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.sampler is not None:
            self._batch_size = _batch_size(trainer, self.sampler)
            self._plan(trainer.current_epoch)  # after a checkpoint of an epoch's last step, which planned no other

    # Epochs

    def _plan(self, epoch: int) -> None:
        """Before Lightning reads the length of the epoch, and then calls set_epoch itself, which is too late."""
        if self.sampler is not None and self.sampler.epoch != epoch:
            self.sampler.set_epoch(epoch)
            self._consumed = 0

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # Lightning makes two iterators and drops the first, for which workers may have fetched the whole epoch; begun
        # anew, the epoch is not visited twice.
        if self.sampler is not None:
            self.sampler.load_state_dict(self.sampler.state_dict(consumed=0))

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        if self.sampler is not None:
            self._consumed = min(self._consumed + self._batch_size, len(self.sampler))

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._plan(trainer.current_epoch + 1)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.path is not None:
            run = self.tracker.finish(**self.metadata)
            if trainer.is_global_zero:
                run.save(self.path)

    # Checkpoints

    def state_dict(self) -> dict[str, Any]:
        state: dict[str, Any] = {"tracker": self.tracker.state_dict()}
        if self.sampler is not None:
            state["sampler"] = self.sampler.state_dict(consumed=self._consumed)
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        device = self._module.trainer.strategy.root_device  # Lightning loads checkpoints on the CPU
        self.tracker.load_state_dict(move_data_to_device(state["tracker"], device))
        if self.sampler is not None:
            self.sampler.load_state_dict(state["sampler"])
            self._consumed = state["sampler"]["yielded"] // self.sampler.world_size


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


def _batch_size(trainer: pl.Trainer, sampler: PruneSampler) -> int:
    """The batch size of the training loader that has the sampler; ValueError if none has."""
    loaders = CombinedLoader(trainer.train_dataloader).flattened
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
