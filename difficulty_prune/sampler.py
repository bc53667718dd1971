"""A DataLoader sampler that visits what a policy keeps."""

from __future__ import annotations

import operator
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from operator import length_hint
from typing import Any, Final, Literal, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Sampler

from .data import IndexedDataset
from .decisions.decisions import Decisions, expect_decisions
from .matched_ids import match_ids
from .ops.checks import check_index
from .policies.base import Policy, at_epoch, check_difficulty, of_part, warn_if_nothing_is_ranked
from .policies.compose import within
from .policies.plan import Plan
from .support.arrays import as_tensor, real_numbers
from .support.checks import whole_number
from .support.counted import counted
from .support.deal import deal
from .support.randomness import generator_from
from .tracker.partition import Partition
from .tracker.parts import Places
from .tracker.source import ScoreSource

T = TypeVar("T")
_CHUNK: Final = 65_536  # positions that are Python numbers at a time


@dataclass(frozen=True)
class Epoch:
    """The order of an epoch is a function of these alone.

    Attributes:
        number: the epoch.
        plan: what is visited.
        length: positions in the epoch, over all processes. More than the plan has: passes over it, one after another;
            fewer: some are left out, others in every epoch.
        shuffle: a random order; otherwise ascending.
        words: the seed, and what else its generator depends on.
    """

    number: int
    plan: Plan
    length: int
    shuffle: bool
    words: tuple[int, ...]

    def order(self) -> Tensor:
        """Places in the plan's index in the order of the visit, [length]."""
        generator, size = generator_from(*self.words, self.number), len(self.plan)
        passes = [self._one_pass(min(size, self.length - start), generator) for start in range(0, self.length, size)]
        return passes[0] if len(passes) == 1 else torch.cat(passes)

    def _one_pass(self, length: int, generator: torch.Generator) -> Tensor:
        size = len(self.plan)
        places = torch.int32 if size < 2**31 else torch.int64
        if self.shuffle:
            return torch.randperm(size, generator=generator, dtype=places, device="cpu")[:length]
        if length == size:
            return torch.arange(size, dtype=places, device="cpu")
        left_out = torch.randperm(size, generator=generator, device="cpu")[length:]
        kept = torch.ones(size, dtype=torch.bool, device="cpu").index_fill_(0, left_out, False)
        return kept.nonzero()[:, 0].to(places)


class EpochIterator(Iterator[int]):
    """Yields this process's positions of one epoch, a chunk of memory at a time.

    It is `Stateful` as torchdata means it: `state_dict` tells the epoch and the position in it, and
    `load_state_dict` goes on there.
    """

    def __init__(self, sampler: PruneSampler, epoch: Epoch, start: int) -> None:
        self._sampler = sampler
        self._begin(epoch, start)

    def _begin(self, epoch: Epoch, start: int) -> None:
        """From position `start` of the epoch, counted over all processes."""
        rank, world_size = self._sampler.rank, self._sampler.world_size
        length = (epoch.length - start) // world_size
        self.epoch = epoch
        self._start, self._fetched = start, 0
        self._drawn_from = self._outdated = False
        # As arrays: to index a chunk of a tensor, its threads would wait for each other on a busy machine.
        self._index = epoch.plan.index.numpy()
        self._places = self._sampler._dealt(epoch, start)[start + rank :: world_size][:length]
        self._chunk: Iterator[int] = iter(())

    def __next__(self) -> int:
        position = next(self._chunk, None)
        return self._next_chunk() if position is None else position

    def outdate(self) -> None:
        """Warns at the next position, because a state was loaded after this iterator was made."""
        self._outdated = True
        self._fetched -= length_hint(self._chunk)
        self._chunk = iter(())  # so that the next position asks for a chunk

    def _next_chunk(self) -> int:
        if self._outdated and not self.finished:
            self._outdated = False
            warnings.warn(
                "an iterator that was made before a state was loaded goes on with the epoch as it was then; load the "
                "state first, then make the iterator: for ... in loader",
                stacklevel=3,
            )
        if not self._drawn_from:
            self._drawn_from = True
            self._sampler._drawn_from(self, self._start)
        places = self._places[self._fetched : self._fetched + _CHUNK]
        self._fetched += len(places)
        self._chunk = iter(self._index[places].tolist())
        return next(self._chunk)

    @property
    def finished(self) -> bool:
        """Whether nothing is left."""
        return self._fetched == len(self._places) and length_hint(self._chunk) == 0

    @property
    def untouched(self) -> bool:
        """Whether nobody asked for a position."""
        return not self._drawn_from

    @property
    def yielded(self) -> int:
        """Positions yielded since the beginning of the epoch, over all processes."""
        return self._start + (self._fetched - length_hint(self._chunk)) * self._sampler.world_size

    def state_dict(self) -> dict[str, Any]:
        """See `PruneSampler.state_dict`."""
        return self._sampler._state_at(self.epoch, self.yielded)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See `PruneSampler.load_state_dict`; this iterator goes on there."""
        self._begin(*self._sampler._restore(state))


_PLAN, _ORDER = range(2)  # what a generator is for
_FORMAT: Final = 1


class PruneSampler(Sampler[int]):
    """Yields the positions that a policy keeps, in an order that depends on the seed and the epoch alone.

    Call `set_epoch` at the start of each epoch. Of difficulty that is still being measured, or with a policy that draws
    anew (`SoftPrune`, `Importance`), it makes the plan of that epoch at once, so that `len` is right from then on.

    Args:
        policy: from `dp.policies`, or any function of that form.
        difficulty: [N], high = hard, for all examples of the dataset; or a function without arguments that returns it,
            such as `tracker.source("loss")`, which is called once for every epoch. NaN is refused, unless the policy
            has unseen="keep".
        labels: [N] true classes; with them, a plan that drops a whole class is refused.
        shuffle: a new order in every epoch; otherwise ascending.
        seed: of the plan's ties and draws and of the orders. No global generator is used.
        rank, world_size: this process's share of every epoch. Shares have the same length and do not overlap; the few
            examples left over differ from epoch to epoch. Every process has to plan with the same difficulty, policy
            and seed.
        dataset: today's, which the loader has. Its length is compared with the difficulty, and its ids with those that
            a plan knows (`Plan.with_ids`). With `ids`, difficulty and labels are put into its order: new examples
            become NaN, and a warning counts those that vanished, are new or moved to another class.
            `runs.difficulty(score, dataset=train)` does the same.
        ids: [N] what names the examples of `difficulty` and `labels`, and of what the policy was given of each example
            beside; such as `runs.ids`.
        decisions: of people, on examples of `dataset` (without it: of those of the difficulty, by index). What is to be
            dropped, or wrong without its right label, is left out of every plan; the policy plans the others, of which
            its `keep` is a fraction, and weights are multiplied. `plan.summary()["decisions"]` counts. Corrected labels
            are for the dataset to serve: `dp.IndexedDataset(..., decisions=)`.
        fixed_length: positions per epoch, over all processes, whatever the plan: for trainers that freeze the number of
            steps. A longer plan is cut, at random; a shorter one is passed over again.
        cost: [N], what each example of today's data costs, such as its tokens: 0 or more. With several processes,
            examples are then exchanged between their shares, so that these cost about the same at any time, and so do
            the batches that they make at the same time; shares stay of the same length. A million examples take about a
            second.
        partition: a `Partition`, in place of rank and world_size, where each process has examples of its own:
            difficulty and labels are those of this process, and so are all positions, in its own dataset. Default:
            that of the tracker. Plans are made of the examples of all processes, which make equally many steps, without
            copies; `weight` makes up for those of a process that keeps more than others, of which it visits a part.
            Make the sampler and call `set_epoch` in every process.
        outside: what `weight` does, once examples have been drawn, with one that the epoch's plan does not keep:
            "raise" an error (of an index on an accelerator: count it, and raise at the next `set_epoch`), or "zero",
            which gives it weight 0.

    Raises:
        TypeError, ValueError: see the policy; or rank, world_size or fixed_length do not fit; or difficulty of another
            number of examples than the dataset has; or ids of which none matches; or decisions that are all of other
            data, or contradict each other, or leave nothing.

    >>> from difficulty_prune.policies import Hardest
    >>> sampler = PruneSampler(Hardest(keep=0.5), [0.1, 0.9, 0.5, 0.2], seed=0)
    >>> len(sampler), sorted(sampler)
    (2, [1, 2])
    """

    def __init__(
        self,
        policy: Policy,
        difficulty: Any,
        *,
        labels: Any = None,
        dataset: Any = None,
        ids: Any = None,
        decisions: Decisions | None = None,
        shuffle: bool = True,
        seed: int = 0,
        rank: int | None = None,
        world_size: int | None = None,
        fixed_length: int | None = None,
        cost: Any = None,
        partition: Partition | None = None,
        outside: Literal["raise", "zero"] = "raise",
    ) -> None:
        if not callable(policy) or isinstance(policy, type):
            raise TypeError(f"policy: got {policy!r}, expected one of dp.policies, such as Hardest(keep=0.7)")
        if (rank is None) != (world_size is None):
            raise ValueError(f"got rank {rank} and world_size {world_size}, expected both or neither")
        self.rank, self.world_size = operator.index(rank or 0), operator.index(1 if world_size is None else world_size)
        if self.world_size < 1:
            raise ValueError(f"world_size: got {world_size}, expected at least 1 process")
        if not 0 <= self.rank < self.world_size:
            raise ValueError(f"rank: got {rank}, expected 0..{self.world_size - 1} for world_size {world_size}")
        if outside not in ("raise", "zero"):
            raise ValueError(
                f"outside: got {outside!r}, expected 'raise' or 'zero': what to do with an example off plan"
            )
        if isinstance(difficulty, ScoreSource):
            partition = difficulty.tracker.partition if partition is None else partition
        if partition is not None:
            _check_partition(partition, difficulty, rank=rank, decisions=decisions, ids=ids, cost=cost)
        elif isinstance(difficulty, ScoreSource):
            _check_shared(difficulty)
        self.partition = partition
        processes = self.world_size if partition is None else partition.world_size
        if fixed_length is not None and whole_number(fixed_length, "fixed_length") < processes:
            raise ValueError(f"fixed_length: got {fixed_length}, expected at least 1 for each of {processes} processes")
        if ids is not None:
            policy, difficulty, labels = _of_today(policy, difficulty, labels, ids, dataset)
        self.policy = policy
        self.shuffle = bool(shuffle)
        self.seed = whole_number(seed, "seed")
        self.fixed_length = None if fixed_length is None else operator.index(fixed_length)
        self.outside = outside
        self._labels = labels
        self._decided = _decided(decisions, difficulty, dataset)
        self._partial = False  # whether the plan may be what was left of an epoch, so that the next needs another
        if partition is not None:
            partition.check_policy(policy)
            partition.compare(self._settings(difficulty), "samplers", "Give every process the same arguments")
        own = difficulty if callable(difficulty) else self._together(lambda: self._checked(difficulty).clone())
        self._difficulty: Callable[[], Any] | Tensor = own
        self._replans = callable(difficulty) or bool(getattr(policy, "redrawn", False))
        self._visited = False  # whether any example has been drawn yet
        self._drawn, self._asked = False, 0  # in this epoch: whether examples were drawn, how often weights asked for
        self._latest: EpochIterator | None = None
        self._asked_for: Epoch | None = None  # begun by set_epoch, before an earlier one was restored
        values = self._values()
        self._cost = None if cost is None else _costs(cost, len(values))
        self._together(lambda: _check_dataset(policy, values, dataset))
        fixed = partition is None and not callable(difficulty)
        if fixed and getattr(policy, "redrawn", False):  # which itself says nothing
            warn_if_nothing_is_ranked(values, policy, getattr(policy, "keep", 0.0))
        self._weights = _no_weights(len(values))
        self._weights_on: dict[torch.device, Tensor] = {}
        self._off_plan_on: dict[torch.device, Tensor] = {}  # how many were, where nobody may look before the next epoch
        self._begin(self._plan_of(values, 0), 0)

    # Epochs

    @property
    def plan(self) -> Plan:
        """What this epoch visits, with weights."""
        return self._epoch.plan

    @property
    def epoch(self) -> int:
        """The epoch of the plan."""
        return self._epoch.number

    @property
    def start(self) -> int:
        """Where the next pass begins, in examples of this process: 0, or where a state that was loaded left off.

        Of a state of another number of processes it may be a fraction of an example further, which `state_dict` knows.
        """
        return self._start // self.world_size

    def set_epoch(self, epoch: int) -> None:
        """Plans the epoch; call it at the start of each, on every rank. The plan stays if it is the present one.

        Raises:
            TypeError, ValueError: no whole number, or negative; or see the policy.
            ValueError: an accelerator was asked for weights of examples that the epoch before did not keep; or the
                processes of a partition begin different epochs.
        """
        number = whole_number(epoch, "epoch")
        if self.partition is None:
            self._raise_if_off_plan()
        else:
            self.partition.compare({"epoch": number}, "samplers", "Call set_epoch with the same epoch in every process")
            self.partition.together(self._raise_if_off_plan)
        if number > self.epoch and self._asked > 1:  # once is a look at the plan
            self._warn_if_undrawn()
        if number != self.epoch:
            self._begin(self._plan_for(number), number)
        self._asked_for = None

    def _warn_if_undrawn(self) -> None:
        """Warns if nothing was drawn in this epoch, though weights were asked for."""
        if not self._drawn:
            warnings.warn(
                f"weights were asked for in epoch {self.epoch}, but no example was drawn from this sampler: give it to "
                "the loader, as in DataLoader(..., sampler=sampler), and not a copy, or shuffle=True in its place",
                stacklevel=3,
            )

    def _plan_for(self, epoch: int) -> Plan:
        """The present plan, where neither draws nor difficulty nor the policy change."""
        if self._replans or self._partial or at_epoch(self.policy, epoch) != at_epoch(self.policy, self.epoch):
            return self._plan_of(self._values(), epoch)
        return self.plan

    def _values(self) -> Tensor:
        difficulty = self._difficulty
        return self._together(lambda: self._checked(difficulty())) if callable(difficulty) else difficulty

    def _together(self, work: Callable[[], T]) -> T:
        """What the work gives; where it fails in one process of a partition, it fails in all."""
        return work() if self.partition is None else self.partition.together(work)

    def _checked(self, difficulty: Any) -> Tensor:
        if self._decided is not None or self.partition is not None:  # the policy looks at those that stay, or at all
            return check_difficulty(difficulty, "keep")
        return check_difficulty(difficulty, getattr(self.policy, "unseen", "refuse"))

    def _plan_of(self, difficulty: Tensor, epoch: int) -> Plan:
        size = len(self._weights)
        words = (_PLAN, epoch) if self._replans else (_PLAN,)
        if self.partition is not None:
            policy = at_epoch(self.policy, epoch)
            return self.partition.plan(policy, difficulty, self._labels, seed=(self.seed, *words))
        if len(difficulty) != size:
            raise ValueError(f"difficulty: got {len(difficulty)} examples, expected {size}, as in the first epoch")
        plan = self._plan_by(at_epoch(self.policy, epoch), difficulty, generator_from(self.seed, *words))
        if int(plan.index[-1]) >= size:
            raise ValueError(f"policy: {self.policy!r} keeps position {int(plan.index[-1])}, expected 0..{size - 1}")
        return plan

    def _plan_by(self, policy: Policy, difficulty: Tensor, generator: torch.Generator) -> Plan:
        if self._decided is not None:
            plan = within(self._decided, policy, difficulty, self._labels, generator)
            return Plan(plan.index, plan.weight, {**plan.summary(), "decisions": self._decided.summary()["decisions"]})
        plan = policy(difficulty, self._labels, generator=generator)
        if not isinstance(plan, Plan):
            raise TypeError(f"policy: {policy!r} returned {type(plan).__name__}, expected a dp.Plan")
        return plan

    def _begin(self, plan: Plan, epoch: int, length: int | None = None) -> None:
        visited, self._factor = (len(plan), 1.0) if self.partition is None else self.partition.visits(len(plan))
        if length is None:
            length = self._length_for(visited)
        if length < self.world_size:
            raise ValueError(
                f"world_size: got {self.world_size}, but the epoch has only {length or len(plan)} examples"
            )
        self._epoch = Epoch(epoch, plan, length, self.shuffle, (self.seed, _ORDER))
        self._drawn, self._asked = False, 0
        self._trained: Tensor | None = None  # [N] bool: whose weight was asked for since, as far as it is on the CPU
        # Positions in the epoch, over all processes, at which the next iterator begins and the present pass began.
        self._start = self._pass_start = 0
        self._partial = False
        self._weights = _no_weights(len(self._weights)).index_put_((plan.index,), plan.weight * self._factor)
        # To where batches have been, so that no step of the epoch has to copy it.
        self._weights_on = {device: self._weights.to(device, non_blocking=True) for device in self._weights_on}

    def _length_for(self, visited: int) -> int:
        """Positions of an epoch of a plan of so many; those of this process alone where it has a partition."""
        if self.partition is not None:
            return visited if self.fixed_length is None else self.fixed_length // self.partition.world_size
        wanted = visited if self.fixed_length is None else self.fixed_length
        return wanted // self.world_size * self.world_size

    # Visits

    def __len__(self) -> int:
        return self._epoch.length // self.world_size

    def __iter__(self) -> EpochIterator:
        previous = self._latest if self._latest is not None and self._latest.epoch is self._epoch else None
        if previous is not None and previous.finished:
            if self._asked_for is not None:
                self._begin(self._asked_for.plan, self._asked_for.number, self._asked_for.length)
                self._asked_for = None
            elif self._replans and not previous.untouched:
                warnings.warn(
                    f"epoch {self.epoch} is visited once more, with the plan that it has; call "
                    "sampler.set_epoch(epoch) at the start of each epoch",
                    stacklevel=2,
                )
        self._latest = EpochIterator(self, self._epoch, self._start)
        return self._latest

    def _dealt(self, epoch: Epoch, start: int) -> NDArray[Any]:
        """Places in the plan's index in the order of the visit; number r of every world_size is for process r."""
        places: NDArray[Any] = epoch.order().numpy()
        if self._cost is None or self.world_size == 1:
            return places
        first = start % self.world_size  # before it, other processes have been served
        order = deal(self._cost[epoch.plan.index.numpy()[places[first:]]], self.world_size)
        return np.concatenate([places[:first], places[first:][order]])

    def _drawn_from(self, iterator: EpochIterator, start: int) -> None:
        """Clears the resume offset once an iterator has yielded; not when it is made, since loaders make more of them
        than they use."""
        self._visited = self._drawn = True
        if iterator.epoch is self._epoch:
            self._start, self._pass_start, self._trained = 0, start, None

    def total_steps(self, batch_size: int, epochs: int, *, drop_last: bool = False) -> int:
        """Optimiser steps of a whole training of this process, for a schedule that is made before it.

        Batches of `batch_size` in `epochs` epochs, of which the policies of this package keep as many in each epoch as
        they will. An example that has not been presented when an epoch is planned may make it longer: with difficulty
        that is still being measured, the first epoch is taken as it is, and in the others every example as presented.

        Args:
            batch_size: of this process.
            epochs: of the training, from epoch 0.
            drop_last: as for the DataLoader.

        Raises:
            TypeError, ValueError: no whole numbers, or less than 1; or see the policy; or it is a `Budget` of
                difficulty that is still being measured, on which its number of examples depends.

        >>> from difficulty_prune.policies import SoftPrune
        >>> policy = SoftPrune(keep=0.5, anneal=0.25, epochs=4)
        >>> PruneSampler(policy, torch.arange(100.0)).total_steps(batch_size=10, epochs=4)
        25
        """
        size, count = whole_number(batch_size, "batch_size", least=1), whole_number(epochs, "epochs", least=1)
        lengths: dict[Any, int] = {}
        total = 0
        for epoch in range(count):
            policy = at_epoch(self.policy, epoch)
            varies = bool(getattr(policy, "varies", False)) and self._replans and self.fixed_length is None
            if varies and callable(self._difficulty):
                raise ValueError(
                    f"policy: how many examples {policy!r} keeps depends on difficulty that is yet to be measured; say "
                    "how many positions an epoch has: PruneSampler(..., fixed_length=...)"
                )
            # A policy is known by how it writes itself, since one's own need not be hashable.
            key = "now" if epoch == self.epoch else f"{policy!r} {epoch if varies else ''}"
            if key not in lengths:
                lengths[key] = len(self) if key == "now" else self._foreseen_length(epoch)
            total += lengths[key] // size if drop_last else -(-lengths[key] // size)
        return total

    def _foreseen_length(self, epoch: int) -> int:
        changes = self._replans or self._partial
        fixed = not changes and at_epoch(self.policy, epoch) == at_epoch(self.policy, self.epoch)
        if self.fixed_length is not None:
            return self._length_for(self.fixed_length) // self.world_size
        if fixed:
            return len(self)
        presented = torch.arange(len(self._weights), dtype=torch.float64, device="cpu")
        values = presented if callable(self._difficulty) else self._difficulty
        kept = len(self._plan_of(values, epoch))
        return kept // self.world_size if self.partition is None else self.partition.visits(kept)[0]

    def weight(self, index: Tensor, *, device: torch.device | str | None = None) -> Tensor:
        """The factor of each example's loss, [B] float32 on `device` (default: that of the index).

        Does not wait for the device. Before the first example has been drawn this is a look at the plan, in which
        examples that are not kept have weight 0. From then on it is asked of examples that are trained on, and one that
        is not kept is a fault.

        Raises:
            TypeError: an index that is not int64.
            IndexError: a position outside the dataset (looked at on the CPU only).
            ValueError: an example that the plan of this epoch does not keep, unless `outside` is "zero" (looked at on
                the CPU only; of others the next `set_epoch` tells).
        """
        check_index(index, None, len(self._weights))
        self._asked += 1
        target = index.device if device is None else torch.device(device)
        strict = self._visited and self.outside == "raise"
        if index.device.type == "cpu":
            weights = self._weights[index]
            if self._drawn:
                self._note_trained(index)
            elif self._asked == 3 and bool(weights.isnan().any()):
                self._warn_if_undrawn()  # at once, since an epoch that is the only one ends without another word
            if strict and bool(weights.isnan().any()):
                off_plan = index[weights.isnan()]
                raise ValueError(_off_plan(len(off_plan), len(index), self.epoch, int(off_plan[0])))
        else:
            weights = self._on(index.device)[index]
            if strict:
                self._off_plan_on[index.device] += weights.isnan().sum()
        return weights.nan_to_num(0.0).to(target, non_blocking=True)

    def _note_trained(self, index: Tensor) -> None:
        if self._trained is None:
            self._trained = torch.zeros(len(self._weights), dtype=torch.bool, device="cpu")
        self._trained[index] = True

    def _on(self, device: torch.device) -> Tensor:
        """The weights of the plan on a device, and a counter beside them."""
        if device not in self._weights_on:
            self._weights_on[device] = self._weights.to(device, non_blocking=True)
        if device not in self._off_plan_on:
            self._off_plan_on[device] = torch.zeros((), dtype=torch.int64, device=device)
        return self._weights_on[device]

    def _raise_if_off_plan(self) -> None:
        counts, self._off_plan_on = self._off_plan_on, {}
        number = sum(int(count) for count in counts.values())
        if number:
            raise ValueError(_off_plan(number, None, self.epoch, None))

    # State

    def state_dict(self, *, consumed: int | None = None) -> dict[str, Any]:
        """The epoch, its plan if it cannot be made again, and the position in it. No scores: the tracker saves these.

        Args:
            consumed: examples of this epoch that this process has trained on: `sampler.start` as it was before the
                pass, and all since, in the order in which the sampler gave them, so not from a loader with
                in_order=False. Default: what the latest iterator has yielded, which is more where the workers of a
                DataLoader fetch ahead.

        Raises:
            TypeError, ValueError: no whole number, more than the epoch has, or fewer than 0.
        """
        if consumed is not None:
            done = whole_number(consumed, "consumed")
            if done > len(self):
                raise ValueError(
                    f"consumed: got {consumed}, expected at most {len(self)}, the examples of this epoch; the last "
                    "batch may be short, so count examples: consumed += len(index)"
                )
            # The pass may have begun between two examples of this process, under another number of processes.
            before = self._pass_start // self.world_size
            since = done * self.world_size if done < before else self._pass_start + (done - before) * self.world_size
            self._warn_if_out_of_order(since)
            return self._state_at(self._epoch, since)
        latest = self._latest
        return self._state_at(self._epoch, latest.yielded if latest and latest.epoch is self._epoch else self._start)

    def _warn_if_out_of_order(self, yielded: int) -> None:
        """Warns of examples whose weight was asked for, although they come after this position of the epoch."""
        if self._trained is None or yielded == 0:  # whoever saves position 0 may mean to begin again
            return
        late = self._trained.clone()
        late[self.plan.index[self._epoch.order()[:yielded].long()]] = False
        if bool(late.any()):
            warnings.warn(
                f"state_dict: {int(late.sum())} of the examples trained on in epoch {self.epoch} come later in the "
                "sampler's order than `consumed` says. A training that resumes there shows them twice, and others not "
                "at all: give the DataLoader in_order=True, and count all examples",
                stacklevel=3,
            )

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from a state: the next iterator yields just what was left of the epoch.

        The number of workers and of processes may differ.

        Raises:
            ValueError: no such state, or a damaged one; the state of a sampler with other data, seed, order or length;
                or, where the difficulty is fixed, with another plan. The sampler stays as it was then.
        """
        _, start = self._restore(state)
        self._go_on_at(start)

    def load_parts(self, states: Iterable[Mapping[str, Any]]) -> None:
        """Goes on from the states of all processes of an earlier training, however many they were.

        Every process calls it, and gives the states that all of them saved at one time; it visits what is left of the
        epoch of the examples that are its own now, in an order of its own. All processes make equally many steps. From
        the next epoch on nothing is different.

        Raises:
            ValueError: a sampler without `partition`, or see `load_state_dict`.
            RuntimeError: another process refused them.
        """
        partition = self.partition
        if partition is None:
            raise ValueError("load_parts: this sampler has no partition; load the one state with load_state_dict")
        number, index, weight, share = partition.together(lambda: self._left_in(list(states), partition))
        shares = partition.counts(len(index))
        if min(shares) > 0:
            summary = {"policy": f"the rest of epoch {number} of {self.policy!r}", "kept": sum(shares), **share}
            self._begin(Plan(index, weight, summary), number, min(shares))
            self._partial = True
            self._go_on_at(0)
        else:  # that epoch is over
            self._begin(self._plan_of(self._values(), number), number)
            self._go_on_at(self._epoch.length)

    def _left_in(
        self, states: list[Mapping[str, Any]], partition: Partition
    ) -> tuple[int, Tensor, Tensor, dict[str, Any]]:
        """The epoch of states of all processes; what is left of it here, positions and weights [k]; the share kept."""
        places, epochs = Places(partition.words), set()
        index, weight, processes = [], [], []
        for state in states:
            number, length, yielded, plan = self._check_state(state, of_others=True)
            epochs.add(number)
            processes.append(tuple(_saved_number(state["partition"], key) for key in ("process", "processes")))
            words, factor = state["plan"]["words"], float(state["plan"]["factor"])
            left = Epoch(number, plan, length, self.shuffle, (self.seed, _ORDER)).order()[yielded:].long()
            here, there = places(words[left])
            index.append(here)
            weight.append(plan.weight[left[there]] * factor)
        if len(epochs) != 1:
            raise ValueError(
                f"load_parts: got states of the epochs {sorted(epochs)}, expected all of one, and one at least"
            )
        if sorted(processes) != [(process, len(processes)) for process in range(len(processes))]:
            given = ", ".join(f"process {process} of {of}" for process, of in sorted(processes))
            raise ValueError(
                f"load_parts: got the states of {given}, counted from 0; expected those that all processes of one "
                "training saved at one time, each once"
            )
        if places.twice and self.fixed_length is None:
            raise ValueError(f"load_parts: {places.twice} examples are in more than one state; give each state once")
        found, first = torch.cat(index).unique(return_inverse=True)  # passes over a plan may have an example left twice
        weights = torch.zeros(len(found), dtype=torch.float32, device="cpu")
        share = {name: value for name, value in plan.summary().items() if name == "kept_share"}
        return epochs.pop(), found, weights.index_put_((first,), torch.cat(weight), accumulate=True), share

    def _go_on_at(self, start: int) -> None:
        self._start = self._pass_start = start
        if self._latest is not None:
            self._latest.outdate()

    def _state_at(self, epoch: Epoch, yielded: int) -> dict[str, Any]:
        """The state at a position of an epoch."""
        plan = epoch.plan
        parts = {"index": plan.index, "weight": plan.weight, "summary": dict(plan.summary())}
        if self.partition is not None:
            parts |= {"words": self.partition.words[plan.index], "factor": self._factor}
        return {
            **self._identity(),
            "epoch": epoch.number,
            "length": epoch.length,
            "yielded": yielded,
            "plan": parts if self._replans or self.partition is not None else plan.digest,
        }

    def _restore(self, state: Any) -> tuple[Epoch, int]:
        """Takes over the epoch of a state; returns it and the position in it."""
        number, length, yielded, plan = self._together(lambda: self._check_state(state))
        if self.partition is not None:
            place = {"epoch": number, "length": length, "position": yielded}
            self.partition.compare(place, "states", "Load in every process what all of them saved at one time")
        if self.epoch > number:  # torchdata restores late: when its iterator is made, after set_epoch
            self._asked_for = self._epoch
        self._begin(plan, number, length)
        self._partial = self.partition is not None  # the plan in the state may be what was left of the epoch
        return self._epoch, yielded

    def _check_state(self, state: Any, of_others: bool = False) -> tuple[int, int, int, Plan]:
        """Epoch, length, position and plan of a state; ValueError if it is none, or not one of this sampler.

        One `of_others` may be of any process of a partition, in a training of any number of them.
        """
        missing = {"epoch", "length", "yielded", "plan", *self._identity()}
        if not isinstance(state, Mapping) or not missing <= set(state):
            got = sorted(map(str, state)) if isinstance(state, Mapping) else type(state).__name__
            raise ValueError(f"load_state_dict: got {got}, expected what PruneSampler.state_dict gives")
        for key, own in self._identity().items():
            if state[key] != own and not (of_others and key in ("examples", "partition")):
                more = "; give the states of all processes to load_parts" if key == "partition" else ""
                raise ValueError(f"load_state_dict: the state has {key} {state[key]!r}, this sampler {own!r}{more}")
        if of_others and self.partition is not None:
            saved = state["partition"]
            if not isinstance(saved, Mapping) or not {"process", "processes", "examples"} <= set(saved):
                raise ValueError("load_parts: the state does not say which process of a partition it is of")
            self.partition.check_size(saved["examples"])
        if self.partition is None and state.get("partition") is not None:
            raise ValueError("load_state_dict: the state is of one process of a partition, and this sampler has none")
        number, length, yielded = (_saved_number(state, key) for key in ("epoch", "length", "yielded"))
        if not self.world_size <= length or yielded > length:
            raise ValueError(
                f"load_state_dict: position {yielded} of an epoch of {length} examples, for {self.world_size} "
                "processes; expected at most as many as there are, and at least one for each process"
            )
        return number, length, yielded, self._plan_in(state["plan"], number, of_others)

    def _plan_in(self, saved: Any, epoch: int, of_others: bool) -> Plan:
        """The plan of a state: in it, or made again."""
        if not self._replans and self.partition is None:
            plan = self._plan_for(epoch)
            if saved != plan.digest:
                raise ValueError(
                    "load_state_dict: the state is of another plan; give the sampler the same policy, difficulty and "
                    "labels"
                )
            return plan
        if not isinstance(saved, Mapping) or not {"index", "weight", "summary"} <= set(saved):
            raise ValueError(f"load_state_dict: plan: got {type(saved).__name__}, expected index, weight and summary")
        try:
            plan = Plan(saved["index"], saved["weight"], saved["summary"])
        except (TypeError, ValueError) as error:
            raise ValueError(f"load_state_dict: the plan in the state is damaged ({error})") from error
        if self.partition is not None:
            _check_words(saved, plan, None if of_others else self.partition.words)
        elif int(plan.index[-1]) >= len(self._weights):
            raise ValueError(f"load_state_dict: the plan keeps position {int(plan.index[-1])} of {len(self._weights)}")
        return plan

    def _settings(self, difficulty: Any) -> dict[str, Any]:
        """What all processes of a partition must have in common."""
        names = ("policy", "seed", "shuffle", "fixed_length")
        kind = repr(difficulty) if isinstance(difficulty, ScoreSource) else callable(difficulty)
        return {**{name: repr(getattr(self, name)) for name in names}, "difficulty": kind}

    def _identity(self) -> dict[str, Any]:
        own = {name: getattr(self, name) for name in ("seed", "shuffle", "fixed_length")}
        if (part := self.partition) is not None:
            own["partition"] = {"process": part.rank, "processes": part.world_size, "examples": part.size}
        return {"format": _FORMAT, "examples": len(self._weights), "replans": self._replans, **own}

    def __getstate__(self) -> dict[str, Any]:
        return {
            **self.__dict__,
            "_latest": None,
            "_weights_on": {},
            "_off_plan_on": {},
            "_asked": 0,
            "_trained": None,
        }


def _no_weights(size: int) -> Tensor:
    """NaN for every example, which marks those that a plan does not keep."""
    return torch.full((size,), torch.nan, dtype=torch.float32, device="cpu")


def _costs(cost: Any, size: int) -> NDArray[np.float64]:
    """[N] float64; TypeError or ValueError unless they are finite and 0 or more, one for each example."""
    values = real_numbers(cost, "cost")
    if values.shape != (size,):
        raise ValueError(f"cost: got shape {values.shape}, expected [{size}], one number for each example")
    bad = np.flatnonzero(~(np.isfinite(values) & (values >= 0)))
    if len(bad):
        raise ValueError(f"cost: got {values[bad[0]]} at {bad[0]}, expected finite numbers, 0 or more")
    return values


def _ids_of(dataset: Any) -> Any:
    """What names the examples of a dataset, or None."""
    return (dataset if hasattr(dataset, "ids") else IndexedDataset(dataset)).ids


def _check_dataset(policy: Any, values: Tensor, dataset: Any) -> None:
    """ValueError where today's dataset is known, and the plan or the difficulty is of another."""
    if dataset is not None and isinstance(policy, Plan):
        _check_plan(policy, dataset)
    if dataset is not None and len(values) != len(dataset):
        raise ValueError(
            f"difficulty: got {len(values)} examples, but the dataset has {len(dataset)}; to match them by id, "
            "give ids=runs.ids, or take runs.difficulty(score, dataset=dataset)"
        )


def _check_plan(plan: Plan, dataset: Any) -> None:
    """ValueError for a plan of other data; a warning where it knows ids, and nothing else does."""
    ids = None if plan.ids_digest is None else _ids_of(dataset)
    plan.check_data(len(dataset), ids)
    if plan.ids_digest is not None and ids is None:
        warnings.warn(
            "plan: it knows the ids of its data, but the dataset does not, so that only their number was compared; "
            "give dp.IndexedDataset(dataset, key=...), and call its collect_ids() where only samples know their ids",
            stacklevel=6,
        )


def _of_today(policy: Any, difficulty: Any, labels: Any, ids: Any, dataset: Any) -> tuple[Any, Any, Any]:
    """Policy, difficulty and labels [M] in the order of today's dataset; its own labels where it knows them."""
    if dataset is None:
        raise TypeError("ids: got ids without dataset=, expected both: they are looked up in today's dataset")
    if callable(difficulty):
        raise TypeError("ids: got them beside difficulty that is still being measured, which is of today's dataset")
    values = as_tensor(difficulty, "difficulty").cpu()
    match = match_ids(ids, dataset, labels=None if labels is None else as_tensor(labels, "labels").cpu().numpy())
    if len(values) != len(ids):
        raise ValueError(f"ids: got {len(ids)}, expected {len(values)}, one for each difficulty")
    match.warn_of_others(stacklevel=3)
    if labels is not None and match.labels is None and (match.positions >= 0).all():
        labels = as_tensor(labels, "labels").cpu()[torch.from_numpy(match.positions)]
    elif labels is not None:
        labels = match.labels
    return of_part(policy, torch.from_numpy(match.positions), len(values)), match.align(values), labels


def _decided(decisions: Decisions | None, difficulty: Any, dataset: Any) -> Plan | None:
    """All examples but those that leave, as decided; the same for every epoch."""
    if decisions is None:
        return None
    expect_decisions(decisions)
    if dataset is None:
        values = difficulty() if callable(difficulty) else difficulty
        return decisions.plan(len(check_difficulty(values, "keep")))
    today = dataset if hasattr(dataset, "ids") else IndexedDataset(dataset)
    plan = decisions.plan(today)
    said = plan.summary()["decisions"]
    if said["missing"]:
        warnings.warn(f"decisions: {decisions.check(today)}", stacklevel=3)
    if said["relabelled"] and getattr(today, "decisions", None) != decisions:
        labels = counted(
            said["relabelled"],
            "label is corrected, but the dataset serves it as it was",
            "labels are corrected, but the dataset serves them as they were",
        )
        warnings.warn(
            f"decisions: {labels}; give it the same decisions: dp.IndexedDataset(dataset, decisions=decisions)",
            stacklevel=3,
        )
    return plan


def _off_plan(number: int, of: int | None, epoch: int, first: int | None) -> str:
    """What to say of examples that were visited, but are not in the plan."""
    seen = counted(number, "example") if of is None else f"{number} of {counted(of, 'example')}"
    are = "is" if number == 1 else "are"
    which = "" if first is None else f", the first of them {first},"
    return (
        f"weight: {seen}{which} {are} not in the plan of epoch {epoch}, and would train with weight 0. Call "
        "sampler.set_epoch(epoch) before the loader makes its iterator: loaders that recycle their workers fetch the "
        "next epoch before that. The index must be the position in the data that the loader has: to prune within a "
        "part, give the loader IndexedDataset(Subset(data, part)), not a Subset of an IndexedDataset of the whole. If "
        "such visits are meant, or the dataset returns another example where a file cannot be read: "
        "PruneSampler(..., outside='zero')"
    )


def _saved_number(state: Mapping[str, Any], key: str) -> int:
    try:
        return whole_number(state[key], key)
    except (TypeError, ValueError) as error:
        raise ValueError(f"load_state_dict: {error}; the state is damaged") from error


def _check_words(saved: Mapping[str, Any], plan: Plan, words: Tensor | None) -> None:
    """ValueError unless a saved plan of a partition names its examples, and as `words` [n] does where given."""
    named, factor = saved.get("words"), saved.get("factor")
    whole = isinstance(named, Tensor) and named.dtype == torch.int64 and named.shape == plan.index.shape
    if not isinstance(named, Tensor) or not whole or not isinstance(factor, float):
        raise ValueError("load_state_dict: the plan in the state does not name its examples; it is damaged")
    if words is not None and (int(plan.index[-1]) >= len(words) or not torch.equal(words[plan.index], named)):
        raise ValueError(
            "load_state_dict: the state is of other examples than those of this process, or in another order; give the "
            "states of all processes to load_parts"
        )


def _check_partition(partition: Any, difficulty: Any, **others: Any) -> None:
    """Whatever goes beside it has to know that positions are this process's own."""
    if not isinstance(partition, Partition):
        raise TypeError(f"partition: got {type(partition).__name__}, expected dp.Partition(ids, group) or its split")
    beside = [name for name, value in others.items() if value is not None]
    if beside:
        raise ValueError(
            f"partition: got {', '.join(beside)} beside it; every process visits its own examples, given in the order "
            "of its own dataset. What decisions leave out is to be left out of that dataset"
        )
    if isinstance(difficulty, ScoreSource) and difficulty.tracker.partition is not partition:
        raise ValueError("difficulty: its tracker has another partition; make tracker and sampler with the same one")


def _check_shared(source: ScoreSource) -> None:
    """Processes that plan with what each of them saw alone would visit shares that overlap."""
    distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
    processes = torch.distributed.get_world_size() if distributed else 1
    if processes > 1 and source.tracker is not None and source.tracker.process_group is None:
        raise ValueError(
            f"difficulty: {processes} processes train, but the tracker of {source.score!r} knows only what its own "
            "saw, so that each would plan another epoch; make it with DifficultyTracker(..., process_group=...)"
        )
