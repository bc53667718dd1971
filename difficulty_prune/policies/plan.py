"""Plans: which examples to visit, and the weight of each one's loss."""

from __future__ import annotations

import copy
import hashlib
import os
from collections.abc import Mapping
from functools import cached_property
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..support.files import MALFORMED, load_vectors, save_vectors
from ..support.ids import check_ids, digest_of_ids, encode_ids

_FORMAT: Final = 1


class PlanSummary(dict[str, Any]):
    """What a plan keeps and drops: a plain dict that prints as text."""

    def __str__(self) -> str:
        head = f"{self['policy']}: keeps {self['kept']:,}"
        if "examples" in self:
            head += f" of {self['examples']:,} examples ({self['kept'] / self['examples']:.1%})"
        if "largest_weight" in self:
            head += f", with weights up to {self['largest_weight']:.3g}"
        classes = self.get("classes", {})
        lines = [
            f"  class {name}: keeps {c['kept']:,} of {c['examples']:,}, drops {c['dropped']:,}"
            for name, c in classes.items()
        ]
        return "\n".join([head, *lines])


class Plan:
    """Plain data: the kept examples in ascending order, and their weights.

    A plan is also a policy, which keeps exactly its examples: `PruneSampler(Plan.load(path), np.zeros(len(dataset)))`.

    Args:
        index: [K] int64, positions in the dataset, without repeats.
        weight: [K] float32, finite and not negative.
        summary: what `summary()` gives besides the number kept. Policies add "policy", "examples", "dropped",
            "kept_share" and, per class, "classes".
        ids_digest: what `with_ids` notes of the data that the plan is for.

    Raises:
        TypeError: the index is not int64.
        ValueError: the lengths differ, there is no example, a position is repeated or negative, or a weight is
            negative or not finite.

    >>> plan = Plan(torch.tensor([0, 2]), torch.ones(2), dict(policy="mine", kept=2, examples=4, kept_share=0.5))
    >>> print(plan.summary())
    mine: keeps 2 of 4 examples (50.0%)
    """

    def __init__(
        self,
        index: Tensor,
        weight: Tensor,
        summary: Mapping[str, Any] | None = None,
        *,
        ids_digest: str | None = None,
    ) -> None:
        index = torch.as_tensor(index, device="cpu")
        weight = torch.as_tensor(weight, dtype=torch.float32, device="cpu")
        if index.dim() != 1 or index.shape != weight.shape or len(index) == 0:
            got = f"index {tuple(index.shape)}, weight {tuple(weight.shape)}"
            raise ValueError(f"plan: got {got}; expected [K] for both, K >= 1")
        if index.dtype != torch.int64:
            raise TypeError(f"plan: got index of {index.dtype}, expected int64 positions")
        index, order = index.sort()
        repeated = index[1:][index[1:] == index[:-1]]
        if int(index[0]) < 0 or len(repeated):
            bad = int(index[0]) if int(index[0]) < 0 else int(repeated[0])
            raise ValueError(f"plan: got position {bad}, expected each position once, 0 or more")
        bad_weights = weight[~(weight.isfinite() & (weight >= 0))]
        if len(bad_weights):
            raise ValueError(f"plan: got weight {float(bad_weights[0])}, expected a finite number, 0 or more")
        self.index = index
        self.weight = weight[order]
        self.ids_digest = ids_digest
        self._summary = PlanSummary({"policy": "a plan", "kept": len(index), **copy.deepcopy(dict(summary or {}))})

    def __call__(self, difficulty: Any, labels: Any = None, generator: torch.Generator | None = None) -> Plan:
        """Returns the plan itself, whatever the difficulty."""
        return self

    def inclusion(self, difficulty: Any, labels: Any = None) -> Tensor:
        """1 for the examples of the plan and 0 for others, [N] float64, whatever the difficulty [N].

        Raises:
            ValueError: the plan has a position outside 0..N-1.

        >>> Plan(torch.tensor([0, 2]), torch.ones(2)).inclusion(torch.zeros(4))
        tensor([1., 0., 1., 0.], dtype=torch.float64)
        """
        size = len(difficulty)
        if int(self.index[-1]) >= size:
            raise ValueError(
                f"plan: got position {int(self.index[-1])}, expected 0..{size - 1}, the positions of the difficulty"
            )
        included = torch.zeros(size, dtype=torch.float64, device="cpu")
        included[self.index] = 1
        return included

    def __len__(self) -> int:
        return len(self.index)

    def __repr__(self) -> str:
        return f"Plan({len(self)} examples)"

    @cached_property
    def digest(self) -> str:
        """A hash of positions and weights, 32 hexadecimal digits."""
        digest = hashlib.blake2b(self.index.numpy().data, digest_size=16)
        digest.update(self.weight.numpy().data)
        return digest.hexdigest()

    def with_ids(self, ids: Any) -> Plan:
        """The same plan, which knows the data that it is for by its ids, and so notices other data.

        The plan keeps a hash of them. With it, `PruneSampler(plan, ..., dataset=train)` refuses a folder to which files
        were added since, or one in another order.

        Args:
            ids: [N] of all examples of the data, in order, such as `dp.IndexedDataset(dataset).ids`.

        Raises:
            TypeError, ValueError: they are no ids, or fewer than the plan has positions for.

        >>> plan = Plan(torch.tensor([0, 2]), torch.ones(2)).with_ids(["a", "b", "c"])
        >>> plan.check_data(3, ["a", "b", "d"])
        Traceback (most recent call last):
            ...
        ValueError: plan: it is of other data: its 3 ids are others, or in another order; make it anew for this data
        """
        known = check_ids(ids)
        if int(self.index[-1]) >= len(known):
            raise ValueError(f"ids: got {len(known)}, but the plan keeps position {int(self.index[-1])}")
        summary = {**self._summary, "examples": len(known)}
        return Plan(self.index, self.weight, summary, ids_digest=digest_of_ids(encode_ids(known)))

    def check_data(self, size: int, ids: Any = None) -> None:
        """ValueError if the plan is of other data than this, as far as it knows.

        Args:
            size: N.
            ids: [N], if known.
        """
        examples = self._summary.get("examples")
        if int(self.index[-1]) >= size or (isinstance(examples, int) and examples != size):
            of = f"keeps position {int(self.index[-1])}" if examples is None else f"is of {examples} examples"
            raise ValueError(
                f"plan: it {of}, but the data has {size}; make it anew for this data, or "
                "give the part of the data that it is of"
            )
        if (
            self.ids_digest is not None
            and ids is not None
            and digest_of_ids(encode_ids(check_ids(ids))) != self.ids_digest
        ):
            raise ValueError(
                f"plan: it is of other data: its {size} ids are others, or in another order; make it anew for this data"
            )

    def summary(self) -> PlanSummary:
        """What is kept and dropped, per class if labels were given: a dict that prints as text."""
        return copy.deepcopy(self._summary)  # a change of it must not change the plan

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes one `.safetensors` file, whole or not at all.

        Raises:
            OSError: it cannot be written; the message names the file and says what to do.
        """
        vectors = {"index": self.index.numpy(), "weight": self.weight.numpy()}
        header: dict[str, Any] = {"summary": dict(self._summary)}
        if self.ids_digest is not None:  # older versions pass it over
            header["ids_digest"] = self.ids_digest
        save_vectors(path, "plan", _FORMAT, vectors, header)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Plan:
        """Reads a plan file.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the file is cut short, damaged, not a plan, or newer than this library; the message names it.
            OSError: it cannot be read; the message names the file and says what to do.
        """
        vectors, header = load_vectors(path, "plan", _FORMAT)
        try:
            index, weight = vectors["index"], vectors["weight"]
            if index.dtype != np.int64 or weight.dtype.kind != "f":
                raise TypeError(f"got index of {index.dtype} and weight of {weight.dtype}, expected int64 and float32")
            noted = header.get("ids_digest")
            if not isinstance(noted, str | None):
                raise TypeError(f"got the ids_digest {noted!r}, expected text")
            plan = cls(torch.from_numpy(index), torch.from_numpy(weight), header["summary"], ids_digest=noted)
            str(plan.summary())  # what cannot be printed is no summary
        except MALFORMED as error:
            raise ValueError(f"{path}: not a valid plan file ({error})") from error
        return plan


def make_plan(
    kept: Tensor, weight: Tensor, num_examples: int, policy: str, labels: Tensor | None, may_drop_classes: bool = False
) -> Plan:
    """A plan that keeps the examples `kept` [K] with `weight` [K], and its summary.

    Raises:
        ValueError: a whole class would be dropped, and `may_drop_classes` is False.
    """
    summary: dict[str, Any] = {
        "policy": policy,
        "examples": num_examples,
        "kept": len(kept),
        "dropped": num_examples - len(kept),
        "kept_share": len(kept) / num_examples,
    }
    if bool((weight != 1).any()):
        summary["largest_weight"] = float(weight.max())
    if labels is not None:
        summary["classes"] = _per_class(kept, labels, policy, may_drop_classes)
    return Plan(kept, weight, summary)


def _per_class(kept: Tensor, labels: Tensor, policy: str, may_drop_classes: bool) -> dict[str, dict[str, int]]:
    total = np.bincount(labels.numpy())
    return count_classes(total, np.bincount(labels[kept].numpy(), minlength=len(total)), policy, may_drop_classes)


def count_classes(
    total: NDArray[Any], left: NDArray[Any], policy: str, may_drop_classes: bool
) -> dict[str, dict[str, int]]:
    """What a summary says of each class, from the numbers of all examples and of those kept, both [C].

    Raises:
        ValueError: a class would be dropped, and `may_drop_classes` is False.
    """
    if not may_drop_classes:
        _refuse_lost(total, left, policy)
    return {
        str(c): {"examples": int(total[c]), "kept": int(left[c]), "dropped": int(total[c] - left[c])}
        for c in np.flatnonzero(total)
    }


def refuse_lost_class(inclusion: Tensor, labels: Tensor, policy: str) -> None:
    """ValueError if all examples of a class have the inclusion probability 0; both are [N]."""
    _refuse_lost(np.bincount(labels.numpy()), np.bincount(labels.numpy(), inclusion.numpy()), policy)


def _refuse_lost(total: NDArray[Any], left: NDArray[Any], policy: str) -> None:
    lost = np.flatnonzero((total > 0) & (left == 0))
    if len(lost):
        raise ValueError(
            f"{policy} would drop class {lost[0]} entirely ({total[lost[0]]} examples): keep more, use "
            "PerClass(policy) to prune within classes, or pass no labels if you want to drop it"
        )
