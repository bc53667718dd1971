"""Which examples are a process's own, where each process records only what it reads; and plans of all of them."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any, Final, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..policies.base import check_difficulty, check_plan_labels, equal_weights
from ..policies.everyone import Everyone
from ..policies.plan import Plan, count_classes
from ..support.checks import whole_number
from ..support.hashing import hash_ids
from ..support.ids import id_array
from .group import Group

_SAMPLED: Final = 1 << 16  # examples that are looked at for one that two processes have
_ADVICE: Final = "In every process, make the partition, the tracker and the sampler, and call set_epoch for every epoch"
_FAR: Final = 0.9  # of the mean share: a smaller one is worth a word

T = TypeVar("T")


class Partition:
    """The examples that are this process's own, of a training over many processes.

    Each process reads its own examples, in every epoch the same, and its tracker records them by their place in that
    share: nothing is exchanged in a step, and a process has records of N / W examples. A plan is made of all of them:
    the processes agree on exact thresholds by adding up counts. It is the same plan, bit for bit, however many
    processes there are.

    Making one, making a tracker or a sampler with it, and `plan`, `set_epoch` and `load_parts` of these are done in
    every process, since they exchange. Where a process is lost or late, the others raise after the time-out of the
    group: `torch.distributed.new_group(timeout=...)`.

    Args:
        ids: [n] what names each example of this process for good, texts or whole numbers, in the order of its dataset.
            No example has two processes.
        process_group: of `torch.distributed`; with model parallelism that of data parallelism, such as
            `mesh.get_group("dp")`. None for one process that has all.

    Attributes:
        ids: [n] texts (dtype object) or int64. Of `split`, positions in the whole dataset.
        size: N, the examples of all processes.
        rank, world_size: the place of this process in the group, and how many there are.
        is_split: whether the ids are positions in one dataset, as `split` gives them.

    Raises:
        TypeError: no process group, or ids that are neither.
        ValueError: an id occurs twice, also in two processes (all are looked at up to 65,536 examples, that many of
            more); or a process has none; or the processes give different kinds.
        RuntimeError: another process refused its own.

    >>> partition = Partition([70, 71, 85, 12])
    >>> from difficulty_prune.policies import Hardest
    >>> partition.plan(Hardest(keep=0.5), [0.1, 0.9, 0.5, 0.2]).index
    tensor([1, 2])
    """

    is_split = False

    def __init__(self, ids: Any, process_group: Any = None) -> None:
        self._begin(process_group)
        self.ids: NDArray[Any] = self.together(lambda: _own_ids(ids))
        words = self.together(lambda: _words(self.ids))
        kind = "text" if self.ids.dtype == object else "number"
        self._own(words, {"ids": kind, "split": None})
        self._refuse_shared()

    @classmethod
    def split(cls, num_examples: int, process_group: Any = None) -> Partition:
        """Every W-th position of a dataset of N examples, from this process's rank on.

        The dataset of the process is `dp.IndexedDataset(Subset(dataset, partition.ids))`.

        Raises:
            TypeError, ValueError: as for `Partition`; or fewer examples than processes.

        >>> Partition.split(4).ids
        array([0, 1, 2, 3])
        """
        partition = cls.__new__(cls)
        partition._begin(process_group)
        number = partition.together(lambda: whole_number(num_examples, "num_examples", least=partition.world_size))
        partition.ids = np.arange(partition.rank, number, partition.world_size, dtype=np.int64)
        partition._own(torch.from_numpy(partition.ids), {"ids": "number", "split": number})
        partition.is_split = True
        return partition

    def _begin(self, process_group: Any) -> None:
        self._group = None if process_group is None else Group(process_group)
        if self._group is not None:
            self._group.advice = _ADVICE
        self.rank = 0 if self._group is None else self._group.rank
        self.world_size = 1 if self._group is None else self._group.world_size

    def _own(self, words: Tensor, definition: dict[str, Any]) -> None:
        self.words = words
        self.compare(definition, "partitions", "Give ids of one kind in every process, or the same number to split")
        self.size = sum(self.counts(len(words)))

    def _refuse_shared(self) -> None:
        """ValueError where a sample of all examples holds one twice."""
        looked_at = min(self.size, _SAMPLED)
        everyone = self._everyone(torch.zeros(len(self), dtype=torch.float64, device="cpu"), None, (0,))
        own = self.words[everyone.drawn([looked_at], purpose=0)]
        start = sum(self.counts(len(own))[: self.rank])
        sample = torch.zeros(looked_at, dtype=torch.int64, device="cpu")
        sample[start : start + len(own)] = own
        twice = looked_at - len(self.sum(sample).unique())
        if twice:
            raise ValueError(
                f"ids: {twice} of {looked_at} examples that were looked at are in two processes; each is to be read by "
                "one process alone: give every process its own shard, or take Partition.split(len(dataset), group)"
            )

    @property
    def process_group(self) -> Any:
        """The group of processes; None for one that has all."""
        return None if self._group is None else self._group.process_group

    def __len__(self) -> int:
        return len(self.words)

    def __repr__(self) -> str:
        return f"Partition({len(self):,} of {self.size:,} examples, process {self.rank} of {self.world_size})"

    # What processes say to each other

    def sum(self, values: Tensor) -> Tensor:
        """The sum over the processes."""
        return values.clone() if self._group is None else self._group.sum(values)

    def largest(self, values: Tensor) -> Tensor:
        """Of the values of all processes, element by element, the largest."""
        return values.clone() if self._group is None else self._group.largest(values)

    def counts(self, number: int) -> list[int]:
        """The number that each process gives, by rank."""
        numbers = torch.zeros(self.world_size, dtype=torch.int64, device="cpu")
        numbers[self.rank] = number
        found: list[int] = self.sum(numbers).tolist()
        return found

    def compare(self, definition: dict[str, Any], of: str, what_to_do: str) -> None:
        """ValueError, in all processes, unless what each of them gives is the same."""
        if self._group is not None:
            self._group.compare(definition, of, what_to_do)

    def check_policy(self, policy: Any) -> None:
        """TypeError for a policy that the processes cannot plan together, here or elsewhere."""
        self.together(lambda: _check_policy(policy))

    def check_size(self, saved: Any) -> None:
        """ValueError for a state of another number of examples, where positions name them, and may have moved."""
        if self.is_split and (type(saved) is not int or saved != self.size):
            raise ValueError(
                f"load_parts: the state is of a dataset of {saved} examples, this one has {self.size}, so that their "
                "positions may be those of others now; load it with the dataset that it is of. Partition(ids) names "
                "examples so that some may be left out"
            )

    def together(self, work: Callable[[], T]) -> T:
        """What the work of this process gives; where that of any process fails, an error in all of them.

        Raises:
            RuntimeError: it failed in another process, but not here.
        """
        try:
            result = work()
        except Exception:  # whatever it is, the others are not to wait for this process
            self.counts(1)
            raise
        refused = self.counts(0)
        if any(refused):
            first = next(rank for rank, number in enumerate(refused) if number)
            if set(refused) <= {0, 1}:
                raise RuntimeError(f"process {first} of the group refused what it was given; its own error says why")
            raise RuntimeError(f"process {first} of the group made another call than this one. {_ADVICE}")
        return result

    # Plans

    def plan(self, policy: Any, difficulty: Any, labels: Any = None, *, seed: int | tuple[int, ...] = 0) -> Plan:
        """This process's share of a plan for the examples of all processes.

        Args:
            policy: one of `dp.policies`.
            difficulty: [n] of the examples of this process, high = hard.
            labels: [n] their true classes; with them, a plan that drops a whole class is refused.
            seed: of ties and draws, which also depend on the ids, and on nothing else.

        Returns:
            Positions 0..n-1 of this process, and their weights. The summary counts the examples of all processes.

        Raises:
            TypeError, ValueError: as the policy raises them; or the processes differ in policy or seed; or a policy
                of your own; or a process would keep none.
            RuntimeError: another process refused its difficulty or labels, or is lost.
        """
        inner = policy
        while hasattr(inner, "policy"):
            inner = inner.policy
        self.check_policy(policy)
        words = (seed,) if isinstance(seed, int) else tuple(seed)
        settings = {"policy": repr(policy), "unseen": policy.unseen, "seed": words, "labels": labels is not None}
        self.compare(settings, "plans", "Give every process the same policy, seed and epoch, and labels to all or none")
        values, classes = self.together(lambda: self._checked(difficulty, labels))
        known = ~values.isnan()
        unknown = self.size - sum(self.counts(int(known.sum())))
        if unknown and policy.unseen == "refuse":
            raise ValueError(
                f"difficulty: {unknown} of {self.size} examples of all processes are NaN, {int((~known).sum())} of "
                f"{len(self)} here: they were never presented, or too rarely for this score. Score them first, or give "
                "the policy unseen='keep' to keep them all"
            )
        index, weight = equal_weights((~known).nonzero()[:, 0])
        if unknown < self.size:
            everyone = self._everyone(values, classes, words)
            everyone = everyone.only(known) if unknown else everyone
            self._warn_if_nothing_is_ranked(everyone, policy, inner)
            places, weights = policy.together(everyone)
            index = torch.cat([index, known.nonzero()[places, 0]]) if unknown else places
            weight = torch.cat([weight, weights]) if unknown else weights
        return self._share(index, weight, classes, repr(policy), inner.drops_classes)

    def _checked(self, difficulty: Any, labels: Any) -> tuple[Tensor, Tensor | None]:
        values = check_difficulty(difficulty, "keep")
        if len(values) != len(self):
            raise ValueError(
                f"difficulty: got {len(values)} examples, expected {len(self)}, those of this process alone"
            )
        return values, check_plan_labels(labels, len(values))

    def _everyone(self, values: Tensor, classes: Tensor | None, seed: tuple[int, ...]) -> Everyone:
        return Everyone.of(values, self.words, seed, self.sum, self.largest, classes)

    @staticmethod
    def _warn_if_nothing_is_ranked(everyone: Everyone, policy: Any, inner: Any) -> None:
        lowest, highest = (float(end) for end in everyone.range())
        if lowest == highest and everyone.sizes[0] > 1 and policy.keep < 1 and inner.ranks:
            warnings.warn(
                f"difficulty: all {everyone.sizes[0]} examples of all processes have the same value, {lowest:g}, which "
                f"ranks nothing: what {policy!r} keeps is random",
                stacklevel=3,
            )

    def _share(self, index: Tensor, weight: Tensor, classes: Tensor | None, policy: str, may_drop: bool) -> Plan:
        """The plan of this process, and a summary of all."""
        shares = self.counts(len(index))
        kept = sum(shares)
        summary: dict[str, Any] = {
            "policy": policy,
            "examples": self.size,
            "kept": kept,
            "dropped": self.size - kept,
            "kept_share": kept / self.size,
        }
        heaviest = float(self.largest(weight.max()[None] if len(weight) else torch.zeros(1, dtype=torch.float64)))
        if self.sum((weight != 1).sum()):
            summary["largest_weight"] = heaviest
        if classes is not None:
            number = int(self.largest(classes.max()[None])) + 1
            counts = torch.stack([torch.bincount(c, minlength=number) for c in (classes, classes[index])])
            total, left = self.sum(counts).numpy()
            summary["classes"] = count_classes(total, left, policy, may_drop)
        if min(shares) == 0:
            raise ValueError(
                f"{policy} keeps {kept} of {self.size} examples, but none of process {shares.index(0)}, which would "
                "have nothing to train on: distribute the examples at random over the processes, as Partition.split "
                "does, or keep more"
            )
        return Plan(index, weight, summary)

    def visits(self, kept: int) -> tuple[int, float]:
        """How many examples each process visits in an epoch, and what all weights of this one are multiplied by.

        All visit as many as the one that keeps fewest; which of the others are left over differs from epoch to epoch.
        An example of a process that keeps more is then visited less often, and weighs more in return.

        Args:
            kept: examples of this process in the plan.
        """
        shares = self.counts(kept)
        visited, total = min(shares) * self.world_size, sum(shares)
        mean = total / self.world_size
        by_chance = 4.5 * math.sqrt(mean * (1 - total / self.size)) + 4  # hardly ever more, of a thousand processes
        if min(shares) < min(_FAR * mean, mean - by_chance):
            warnings.warn(
                f"of {total} examples that are kept, only {visited} are visited in each epoch: process "
                f"{shares.index(min(shares))} keeps {min(shares)}, process {shares.index(max(shares))} {max(shares)}, "
                "and all make equally many steps. Distribute the examples at random over the processes, as "
                "Partition.split does",
                stacklevel=3,
            )
        return min(shares), kept / mean


def _check_policy(policy: Any) -> None:
    if not hasattr(policy, "together"):
        raise TypeError(
            f"policy: got {policy!r}, which cannot be planned by the processes of a partition; take one of "
            "dp.policies, such as Hardest(keep=0.7)"
        )


def _own_ids(ids: Any) -> NDArray[Any]:
    found = id_array(ids)
    if len(found) == 0:
        raise ValueError("ids: got none, expected at least one example for each process")
    return found


def _words(ids: NDArray[Any]) -> Tensor:
    """64 bits that name each example: a number itself, and the hash of a text."""
    words = torch.from_numpy(ids if ids.dtype != object else hash_ids(ids).view(np.int64))
    ordered = words.sort().values
    twice = int((ordered[1:] == ordered[:-1]).sum())
    if twice:
        raise ValueError(
            f"ids: {twice} of {len(ids)} examples have an id that another one of this process has, expected each once"
        )
    return words
