"""Random batches of every form that `DifficultyTracker.update` takes, and the same as rows for `row_oracle`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import row_oracle
import torch
from torch import Tensor

N, CLASSES, LABELS = 6, 4, 3
IGNORED = -100
FORMS = (
    *("classes", "positions", "targets", "targets of positions"),
    *("owned classes", "owned positions", "owned targets"),
    *("binary", "binary of positions", "binary alone", "owned binary", "owned binary of positions"),
    *("values", "owned values"),
)
OF_LOGITS = tuple(form for form in FORMS if "values" not in form)
LAYOUTS = ("contiguous", "permuted", "every second", "expanded", "inside", "negated lazily")
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
SCORES = (
    *("loss", "recent_loss", "el2n", "entropy", "confidence", "max_confidence", "variability", "accuracy"),
    *("aum", "margin", "forgetting", "learning_time", "consistently_learned"),
)
OF_VALUES = tuple(name for name in SCORES if name not in ("el2n", "max_confidence", "aum", "margin"))


def target_of(form: str) -> str:
    return "binary" if "binary" in form else "classes"


def scores_of(form: str) -> tuple[str, ...]:
    return OF_VALUES if "values" in form else SCORES


def laid_out(values: Tensor, layout: str, generator: torch.Generator) -> Tensor:
    """Values in another layout in memory; "expanded" ones are equal along a dimension."""

    def dimension() -> int:
        return int(torch.randint(values.dim(), (), generator=generator))

    junk = torch.full_like(values, True if values.dtype == torch.bool else 99)
    if layout == "permuted":
        order = torch.randperm(values.dim(), generator=generator).tolist()
        return values.permute(order).contiguous().permute([order.index(d) for d in range(values.dim())])
    if layout == "every second":
        d = dimension()
        return torch.stack([junk, values], d + 1).select(d + 1, 1)
    if layout == "expanded":
        d = dimension()
        return values.narrow(d, 0, min(1, values.shape[d])).expand(values.shape)
    if layout == "inside":
        d = dimension()
        return torch.cat([junk, values, junk], d).narrow(d, values.shape[d], values.shape[d])
    if layout == "negated lazily":
        # Of the copies that PyTorch 2.14 itself makes, those from float16 to float32 may lose the sign.
        return torch._neg_view(-values) if values.dtype in (torch.float32, torch.bfloat16) else values
    return values


@dataclass
class Batch:
    """What `update` is given, and the same as rows."""

    form: str
    index: Tensor
    given: dict[str, Any] = field(default_factory=dict)

    def __getattr__(self, name: str) -> Any:
        return self.given.get(name)

    def update(self, tracker: Any) -> None:
        tracker.update(self.index, **self.given)

    def part(self, places: Tensor, seed: int | None = None) -> Batch:
        """The examples at some places of the batch, in that order; with a seed, owned rows in another order."""
        names = [name for name, value in self.given.items() if isinstance(value, Tensor)]
        if "owned" not in self.form:
            rows, given = places, {}
        else:
            new_place = torch.full((len(self.index) + 1,), -2)
            new_place[places] = torch.arange(len(places))
            new_place[-1] = -1
            owner = new_place[self.owner]
            rows = torch.arange(len(owner))
            if seed is not None:
                rows = torch.randperm(len(owner), generator=torch.Generator().manual_seed(seed))
            given = {"owner": torch.where(owner == -2, -1, owner)[rows]}
        given = {name: self.given[name][rows] for name in names if name not in given} | given
        options = {name: value for name, value in self.given.items() if name not in names}
        return Batch(self.form, self.index[places], given | options)

    def rows(self) -> Iterator[row_oracle.Row]:
        as_array = {
            name: value.double().resolve_neg().numpy() if value.is_floating_point() else value.numpy()
            for name, value in self.given.items()
            if isinstance(value, Tensor)
        }
        columns = {"owner": as_array.get("owner"), "weight": as_array.get("row_weight")}
        if "values" in self.form:
            values = {name: as_array.get(name) for name in ("loss", "entropy", "correct")}
            return row_oracle.rows_of_values(**values, **columns)
        pair = as_array["logits"], as_array["labels"]
        if "targets" in self.form:
            return row_oracle.rows_of_targets(*pair, **columns)
        ignored = self.given.get("ignore_index", IGNORED)
        function = row_oracle.rows_of_labels if "binary" in self.form else row_oracle.rows_of_classes
        return function(*pair, **columns, ignore_index=ignored)

    def record(self, oracle: row_oracle.Oracle) -> None:
        oracle.step(self.index.tolist(), self.rows(), shows_classes="values" not in self.form)


def make_batch(
    form: str,
    seed: int,
    examples: int = 4,
    *,
    dtype: torch.dtype = torch.float32,
    layout: str = "contiguous",
    weighted: bool = False,
    odd: bool = False,
    repeated: bool = True,
    faults: bool = True,
) -> Batch:
    """A batch of the form.

    Args:
        examples: B; may be 0.
        odd: masked classes, values that are not finite, whole examples without a row.
        repeated: whether the index may hold an example more than once.
        faults: whether an example may come with another label than before.
    """
    return _Maker(form, seed, examples, dtype, layout, weighted, odd, repeated, faults).batch()


@dataclass
class _Maker:
    form: str
    seed: int
    examples: int
    dtype: torch.dtype
    layout: str
    weighted: bool
    odd: bool
    repeated: bool
    faults: bool

    def __post_init__(self) -> None:
        self.generator = torch.Generator().manual_seed(self.seed)
        self.classes = CLASSES
        self.index = self.integers(N, self.examples) if self.repeated else self.permutation(N)[: self.examples]

    def integers(self, limit: int, *shape: int) -> Tensor:
        return torch.randint(limit, shape, generator=self.generator)

    def permutation(self, size: int) -> Tensor:
        return torch.randperm(size, generator=self.generator)

    def happens(self, share: float, *shape: int) -> Tensor:
        return torch.rand(shape, generator=self.generator) < share

    def laid(self, values: Tensor) -> Tensor:
        return laid_out(values, self.layout, self.generator)

    def logits_of(self, *shape: int) -> Tensor:
        z = 3 * torch.randn(shape, generator=self.generator)
        z = torch.where(self.happens(0.3, *shape), z.round(), z)  # ties
        if self.odd:
            z = torch.where(self.happens(0.01, *shape), torch.tensor([torch.nan, torch.inf])[self.seed % 2], z)
            if "binary" not in self.form:
                z = torch.where(self.happens(0.1, *shape), -torch.inf, z)
        return self.laid(z.to(self.dtype))

    def rows(self) -> tuple[int, ...]:
        """Shape of the rows, of which the first dimension is that of the batch or of owners."""
        sizes = tuple(int(size) for size in 1 + self.integers(3, 1 + self.seed % 3))
        if "owned" in self.form:
            first = int(self.integers(3 * self.examples + 1, 1)) if self.examples else int(self.integers(3, 1))
            return (first, *sizes) if "positions" in self.form or self.form == "owned values" else (first,)
        if self.form in ("binary alone", "classes", "targets", "values"):
            return (self.examples,)
        return (self.examples, LABELS) if self.form == "binary" else (self.examples, *sizes)

    def batch(self) -> Batch:
        given = self.values() if "values" in self.form else self.logits()
        return Batch(self.form, self.index, given)

    def values(self) -> dict[str, Any]:
        shape = self.rows()
        loss = torch.rand(shape, generator=self.generator) * 3
        if self.odd:
            loss = torch.where(self.happens(0.05, *shape), torch.tensor([torch.nan, torch.inf])[self.seed % 2], loss)
        entropy = torch.rand(shape, generator=self.generator).to(self.dtype)
        correct: Tensor = self.happens(0.5, *shape)
        correct = correct if self.seed % 2 else correct.to(self.dtype)
        given = {"loss": self.laid(loss.to(self.dtype)), "entropy": self.laid(entropy), "correct": self.laid(correct)}
        return given | self.columns(shape)

    def logits(self) -> dict[str, Any]:
        shape = self.rows()
        given: dict[str, Any] = {}
        if "binary" in self.form:
            given["logits"] = self.logits_of(*shape)
            given["labels"] = self.laid(self.binary_labels(shape))
        else:
            whole = (shape[0], self.classes, *shape[1:])
            given["logits"] = self.logits_of(*whole)
            given["labels"] = self.targets(whole) if "targets" in self.form else self.class_labels(shape)
        if given["labels"].dtype == torch.uint8:
            given["ignore_index"] = 255
        elif self.seed % 3 == 0 and given["labels"].dtype == torch.int64:
            given["ignore_index"] = -7
            given["labels"] = self.laid(torch.where(given["labels"] == IGNORED, -7, given["labels"]))
        given |= self.columns(shape)
        return given if self.faults else given | {"labels": self.own_label(shape, **given)}

    def own_label(self, shape: tuple[int, ...], labels: Tensor, **given: Any) -> Tensor:
        """The labels, but every row of an example has the same one in every batch."""
        if "targets" in self.form:
            return labels
        first = torch.arange(shape[0]).view(-1, *(1 for _ in shape[1:])).expand(shape)
        owner = given.get("owner", first)
        owner = owner.reshape(*owner.shape, *(1 for _ in shape[owner.dim() :])).expand(shape)
        own = torch.cat([self.index, self.index.new_zeros(1)])[owner] % (2 if "binary" in self.form else self.classes)
        unknown = labels.isnan() | (labels == given.get("ignore_index", IGNORED))
        return torch.where(unknown, labels, own.to(labels.dtype))

    def class_labels(self, shape: tuple[int, ...]) -> Tensor:
        labels = self.integers(self.classes, *shape)
        ignored = self.happens(0.25, *shape)
        if self.odd and shape and shape[0]:
            ignored[0] = True
        return self.laid(torch.where(ignored, IGNORED, labels))

    def binary_labels(self, shape: tuple[int, ...]) -> Tensor:
        labels = self.integers(2, *shape)
        unknown = self.happens(0.25, *shape)
        kind = self.seed % 5
        if kind == 0:
            return labels.bool()
        if kind == 1:
            return torch.where(unknown, 255, labels).to(torch.uint8)
        if kind == 2:
            return torch.where(unknown, torch.nan, labels.to(self.dtype)).to(self.dtype)
        if kind == 3:
            return torch.where(unknown, IGNORED, labels)
        return torch.where(unknown, IGNORED, labels).int()

    def targets(self, shape: tuple[int, ...]) -> Tensor:
        q = torch.rand(shape, generator=self.generator)
        q = torch.where(self.happens(0.3, *shape), 0.0, q)
        q = q.where(q.sum(1, keepdim=True) > 0, torch.ones(()))
        q = q / q.sum(1, keepdim=True)
        # Along the classes an expansion would make other distributions, so that targets have a layout of their own.
        order = self.permutation(q.dim()).tolist()
        return q.to(self.dtype).permute(order).contiguous().permute([order.index(d) for d in range(q.dim())])

    def columns(self, shape: tuple[int, ...]) -> dict[str, Tensor]:
        given = {}
        owned = shape[:1] if self.form == "owned binary of positions" and self.seed % 2 else shape
        if "owned" in self.form:
            nobody = self.happens(0.2, *owned) if self.examples else torch.ones(owned, dtype=torch.bool)
            given["owner"] = self.laid(torch.where(nobody, -1, self.integers(max(self.examples, 1), *owned)))
        if self.weighted:
            weight = self.integers(4, *owned) / 4  # of which sums are exact
            given["row_weight"] = self.laid(weight.to(torch.float64 if self.seed % 4 == 1 else torch.float32))
        return given


def as_numbers(scores: dict[str, Tensor]) -> dict[str, np.ndarray]:
    return {name: score.double().numpy() for name, score in scores.items()}
